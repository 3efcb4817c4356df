//! `layerd cache import`: what `layerd cache export` wrote, into a cache.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::backend::Backend;
use super::display::{print, print_json};
use super::progress::{Shown, watched};
use crate::cache::archive::{self, ArchiveError, Imported, Progress, Rehome, Target};
use crate::cache::{Cache, LocalCache};
use crate::catalog::Catalog;
use crate::catalog::ledger::{Action, Details, NewAudit};
use crate::cli::stored::{noted, typist};
use crate::place::{GitRef, ProjectId, Scope};
use crate::units::{ByteSize, counted};

/// Bring a file of `layerd cache export` into a data directory or a hub.
///
/// Every layer is verified, and every export is there whole or not at all. What
/// the cache has already is passed over: an import that broke off goes on where
/// it ended when it is started again, and one that is made twice adds nothing.
/// What is wrong in the file is refused, with what needs it; the other exports
/// of it stand. Builds may go on meanwhile. On their way to a hub, layers pass by
/// the folder for temporary files (TMPDIR). Of the GitHub Actions cache, a file has
/// what builds exported and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache import cache.tar.zst
  layerd cache import cache.tar.zst --hub https://cache:8700 --hub-token-file token
  layerd cache import laptop.tar.zst --project acme/shop --ref main
  curl -fsS https://example.com/seed.tar.zst | layerd cache import -

Exit status: 0 when all of it is there now, 1 when something was refused or the
file could not be read to its end.")]
pub(super) struct ImportArgs {
    /// The file; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Have all exports stand in this project.
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Have all exports stand at this git ref; `main` is short for
    /// `refs/heads/main`.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Have all exports stand in this scope.
    #[arg(long, value_name = "SCOPE", value_parser = one_scope)]
    scope: Option<Scope>,

    #[command(flatten)]
    backend: Backend,

    /// Say nothing but what goes wrong.
    #[arg(long, short)]
    quiet: bool,

    /// Print a JSON object at the end, and no progress.
    #[arg(long)]
    json: bool,
}

fn one_scope(text: &str) -> Result<Scope, String> {
    match text.parse::<Scope>() {
        Ok(scope) if scope.is_any() => Err("an export stands in one scope".to_owned()),
        Ok(scope) => Ok(scope),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    file: &'a Path,
    #[serde(flatten)]
    imported: &'a Imported,
    /// Why it could not be read to its end.
    error: Option<String>,
}

pub(super) async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let input = args.input()?;
    if let Some(hub) = args.backend.hub().await? {
        let target = Target::cache(Arc::clone(&hub.cache) as Arc<dyn Cache>);
        let (imported, read) = args.read(&target, input).await?;
        return args.end(&imported, read, &hub.at);
    }
    let store = args.backend.store_for_writing().await?;
    let (catalog, blobs) = (
        Arc::clone(&store.backed.catalog),
        Arc::clone(&store.backed.blobs),
    );
    let target = Target::store(Arc::new(LocalCache::over(catalog, blobs)));
    let read = args.read(&target, input).await;
    drop(target);
    if let Ok((imported, _)) = &read {
        args.note(imported, &*store.backed.catalog).await;
    }
    store.backed.close().await;
    let (imported, read) = read?;
    args.end(&imported, read, &store.at)
}

impl ImportArgs {
    fn input(&self) -> anyhow::Result<File> {
        if self.file == Path::new("-") {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned();
            return Ok(stdin.context("standard input")?.into());
        }
        File::open(&self.file).with_context(|| format!("reading {}", self.file.display()))
    }

    async fn read(
        &self,
        target: &Target,
        input: File,
    ) -> anyhow::Result<(Imported, Result<(), ArchiveError>)> {
        let rehome = Rehome {
            project: self.project.clone(),
            git_ref: self.git_ref.clone(),
            scope: self.scope.clone(),
        };
        let progress = Progress::default();
        let reading = archive::import(target, input, &rehome, &progress);
        let shown = Shown::unless(self.quiet || self.json);
        let read = watched(reading, &progress, "importing", shown).await;
        read.context("start it again: it goes on where it ended")
    }

    /// Has the audit log of a store tell what came, an entry for each project. A
    /// hub notes each export by itself.
    async fn note(&self, imported: &Imported, catalog: &dyn Catalog) {
        for (project, exports) in &imported.projects {
            let entry = NewAudit {
                project: Some(project.clone()),
                details: Details::default()
                    .with("exports", *exports)
                    .with("file", self.file.display().to_string()),
                ..NewAudit::new(&typist(), Action::Import)
            };
            noted(catalog, &entry).await;
        }
    }

    fn end(
        &self,
        imported: &Imported,
        read: Result<(), ArchiveError>,
        at: &str,
    ) -> anyhow::Result<ExitCode> {
        let error = read.err().map(|error| anyhow!(error));
        if self.json {
            print_json(&Summary {
                file: &self.file,
                imported,
                error: error.as_ref().map(|error| format!("{error:#}")),
            })?;
        } else {
            for refused in &imported.refused {
                // Nobody may be there to be told, which is no reason to fail.
                let (name, why) = (&refused.name, &refused.why);
                writeln!(std::io::stderr(), "refused: {name}: {why}").ok();
            }
            if !self.quiet {
                print(told(imported, at))?;
            }
        }
        match error {
            Some(error) => Err(error.context(format!("importing {}", self.file.display()))),
            None if imported.refused.is_empty() => Ok(ExitCode::SUCCESS),
            None => Ok(ExitCode::FAILURE),
        }
    }
}

/// What became of it, in a line.
fn told(imported: &Imported, at: &str) -> String {
    let mut told = format!(
        "{at}: {} imported, {}, {}",
        counted(imported.exports, "export"),
        counted(imported.layers, "layer"),
        ByteSize(imported.bytes)
    );
    for (count, what, became) in [
        (imported.known, "export", "known already"),
        (imported.held, "layer", "there already"),
        (imported.resumed, "layer", "resumed"),
        (imported.refused.len(), "export", "refused"),
        (imported.unfinished, "export", "not reached"),
    ] {
        if count > 0 {
            told.push_str(&format!("; {} {became}", counted(count, what)));
        }
    }
    told
}
