//! What Postgres said, as what a caller can act on
//! (postgresql.org/docs/current/errcodes-appendix.html).

use crate::catalog::CatalogError;
use crate::catalog::context::Context;

/// A context whose errors are Postgres's.
pub(super) fn context(name: String) -> Context {
    Context::new(name, translate)
}

fn translate(context: &Context, error: sqlx::Error) -> CatalogError {
    use sqlx::Error;
    let code = match &error {
        // Every connection is in use.
        Error::PoolTimedOut => return CatalogError::Busy(context.name()),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Configuration(_)
        | Error::Protocol(_)
        | Error::PoolClosed
        | Error::WorkerCrashed => return context.unavailable(error),
        Error::ColumnDecode { .. } | Error::Decode(_) => return context.corrupt(error),
        Error::Database(database) => database.code().unwrap_or_default().into_owned(),
        _ => return context.other(error),
    };
    match (code.get(..2).unwrap_or_default(), code.as_str()) {
        // No disk space.
        (_, "53100") => CatalogError::Full(context.name()),
        // Read-only transaction: a standby.
        (_, "25006") => CatalogError::ReadOnly(context.name()),
        // Locks, time-outs, deadlocks, too many connections, no memory.
        (_, "55P03" | "57014" | "25P03" | "25P04" | "40001" | "40P01") | ("53", _) => {
            CatalogError::Busy(context.name())
        }
        // Connections, who may have one, shutting down, no such database.
        ("08" | "28" | "57", _) | (_, "3D000") => context.unavailable(error),
        // Damaged pages and indexes.
        (_, "XX001" | "XX002") => context.corrupt(error),
        _ => context.other(error),
    }
}
