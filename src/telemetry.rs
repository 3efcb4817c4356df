//! Logs, on stderr, as text or JSON, filtered by `LAYERD_LOG`; traces, where
//! the environment asks for them; and what metrics are made of.

pub mod metrics;
mod seldom;
mod traces;

use clap::ValueEnum;
use http::HeaderMap;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::seldom::Seldom;
use self::traces::Traces;
pub use self::traces::{continued, sent_with};

/// The header with the number that a client gave its request.
pub const REQUEST_ID: &str = "x-request-id";
/// Bytes of such a number that are logged.
const MAX_REQUEST_ID: usize = 64;

/// What a request is called in the log: as its client says, or a number of our
/// own.
pub fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match id {
        Some(id) if id.len() <= MAX_REQUEST_ID => id.to_owned(),
        _ => format!("{:016x}", rand::random::<u64>()),
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `LAYERD_LOG` says otherwise: what libraries say of
/// failures, we say once, in the terms of what was to be done.
const DEFAULT: &str = "info,object_store=warn,sqlx=error";

/// What a command is told by the error that it ends with, and not by the log
/// as well.
const TOLD: &str = ",layerd::cache::remote::hub=error";

/// What is to be kept until the process ends: dropping it sends the last
/// traces.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    _traces: Option<Traces>,
}

/// Starts logging, and tracing where it is asked for; to be called in a
/// runtime. `LAYERD_LOG` takes tracing's filter syntax: `debug`,
/// `layerd::doors=debug,info`; the default is `info`, for what is no `command`
/// that ends by itself.
pub fn init(format: LogFormat, command: bool) -> Telemetry {
    let (traces, why_not) = match Traces::start() {
        Ok(traces) => (traces, None),
        Err(error) => (None, Some(error)),
    };
    let told = if command { TOLD } else { "" };
    let filter = EnvFilter::try_from_env("LAYERD_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(format!("{DEFAULT}{told}")));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match format {
        LogFormat::Text => logs
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    // Ours alone: the exporter's own connection has spans as well.
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer())
            .with_filter(Targets::new().with_target("layerd", LevelFilter::INFO))
    });
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(spans)
        .init();
    if let Some(error) = why_not {
        tracing::warn!(%error, "no traces are sent");
    }
    Telemetry { _traces: traces }
}
