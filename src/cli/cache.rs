//! `layerd cache`: look at, check, clear and move a cache.

mod backend;
mod backing;
mod diff;
mod dot;
mod export;
mod flush;
mod fsck;
mod gc;
mod graph;
mod import;
mod ls;
mod progress;
mod savings;
mod seen;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::display;
use super::stored::open_directory;
use crate::catalog::{Catalog as _, Export, ExportId, SqliteCatalog};

/// Look at, check, clear and move a cache.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Graph(graph::GraphArgs),
    Diff(diff::DiffArgs),
    Savings(savings::SavingsArgs),
    Flush(flush::FlushArgs),
    Fsck(fsck::FsckArgs),
    Export(Box<export::ExportArgs>),
    Import(Box<import::ImportArgs>),
    Gc(Box<gc::GcArgs>),
}

/// Which data directory.
#[derive(Debug, Args)]
struct Store {
    /// The data directory of `layerd sidecar` or `layerd serve`. It may be in
    /// use, or read-only; it is never created here.
    #[arg(
        long,
        env = "LAYERD_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/layerd"
    )]
    data_dir: PathBuf,
}

impl Store {
    async fn catalog(&self) -> anyhow::Result<SqliteCatalog> {
        open_directory(&self.data_dir).await
    }

    /// The export with that number.
    async fn export(&self, catalog: &SqliteCatalog, id: ExportId) -> anyhow::Result<Export> {
        let Some(export) = catalog.get(id).await? else {
            bail!(
                "there is no export {id} in {}; see layerd cache ls",
                self.data_dir.display()
            );
        };
        Ok(export)
    }
}

/// Runs `layerd cache`.
pub async fn run(args: CacheArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ls(args) => ls::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Graph(args) => graph::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Savings(args) => savings::run(args).await,
        Command::Flush(args) => flush::run(args).await,
        Command::Fsck(args) => fsck::run(args).await,
        Command::Export(args) => export::run(*args).await,
        Command::Import(args) => import::run(*args).await,
        Command::Gc(args) => gc::run(*args).await,
    }
}

#[cfg(test)]
mod tests;
