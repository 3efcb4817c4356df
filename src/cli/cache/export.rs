//! `layerd cache export`: a cache as one file.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};

use super::backend::Backend;
use super::display::{print, print_json};
use super::progress::{Shown, watched};
use crate::cache::archive::{self, Exported, Exports, Progress, Source, United};
use crate::cache::{Cache, Want};
use crate::catalog::Filter;
use crate::place::{GitRef, Place, ProjectId, Scope};
use crate::units::{ByteSize, counted};

/// Write a cache to a file, or to standard output.
///
/// The file holds exports with their records, steps and layers: an OCI image
/// layout in a tar, compressed with zstd. `layerd cache import` brings it into
/// another store or hub, of whatever kind. Of a data directory (or --catalog
/// and --blobs) every export comes along that is asked for, each at its place,
/// and builds may go on meanwhile. Of a hub, what the token may read comes as
/// one export, at the place that is named; layers pass by the folder for
/// temporary files (TMPDIR). What clients of the GitHub Actions cache saved
/// under keys of their own stays where it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache export -o cache.tar.zst
  layerd cache export -o main.tar.zst --project acme/shop --ref main
  layerd cache export -o - --hub http://cache:8700 | layerd cache import - --data-dir ./seed
  layerd cache export -o - --catalog postgres://layerd@db/layerd --blobs s3://my-cache/layers \\
      | ssh other layerd cache import -

BuildKit reads it, too: unpack the file into a folder, and say
--cache-from type=local,src=FOLDER; that is the newest of the exports.

Exit status: 0 when the file is whole; 1 when it is not, and then it is not there.")]
pub(super) struct ExportArgs {
    /// The file; `-` for standard output. It is written beside its name, and
    /// gets that when it is whole.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Only exports of this project; of a hub, the project that is asked for
    /// (`default` unless given).
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,

    /// Only exports of this git ref; `main` is short for `refs/heads/main`.
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<GitRef>,

    /// Only exports of this scope.
    #[arg(long, value_name = "SCOPE")]
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

#[derive(Serialize)]
struct Summary<'a> {
    file: &'a Path,
    /// Bytes of the file.
    size: Option<u64>,
    #[serde(flatten)]
    exported: &'a Exported,
}

pub(super) async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let to = To::open(&args.output)?;
    if let Some(hub) = args.backend.hub().await? {
        let cache = Arc::clone(&hub.cache) as Arc<dyn Cache>;
        let mut united = args.united(cache, &hub.at).await?;
        let exported = args.write(&mut united, &to).await?;
        if united.cut() > 0 {
            note(&format!(
                "{} did not fit into one export",
                counted(united.cut(), "record")
            ));
        }
        return args.end(to, &exported);
    }
    let store = args.backend.store().await?;
    let filter = Filter {
        project: args.project.clone(),
        git_ref: args.git_ref.clone(),
        scope: args.scope.clone(),
        ..Filter::default()
    };
    let (catalog, blobs) = (
        Arc::clone(&store.backed.catalog),
        Arc::clone(&store.backed.blobs),
    );
    let written = async {
        let mut exports = Exports::open(catalog, blobs, filter).await?;
        args.write(&mut exports, &to).await
    };
    let written = written.await;
    store.backed.close().await;
    args.end(
        to,
        &written.with_context(|| format!("exporting {}", store.at))?,
    )
}

impl ExportArgs {
    /// What the hub's reader gets.
    async fn united(&self, cache: Arc<dyn Cache>, at: &str) -> anyhow::Result<United> {
        let place = Place {
            project: self.project.clone().unwrap_or_default(),
            git_ref: self.git_ref.clone().unwrap_or_default(),
            scope: self.scope.clone().unwrap_or_default(),
        };
        let mut seen = place.clone();
        if self.scope.is_none() {
            seen.scope = "*".parse()?;
        }
        let want = Want {
            narrowed: self.git_ref.is_some(),
            ..Want::all_of(seen)
        };
        let united = United::look(cache, want, place.clone()).await?;
        let Some(united) = united else {
            bail!(
                "there is nothing to export: {at} has nothing of project {} that may be read",
                place.project
            );
        };
        Ok(united)
    }

    async fn write(&self, source: &mut dyn Source, to: &To) -> anyhow::Result<Exported> {
        let progress = Progress::default();
        let written = archive::export(source, to.file()?, &progress);
        let shown = Shown::unless(self.quiet || self.json);
        let (_, exported) = watched(written, &progress, "exporting", shown).await??;
        Ok(exported)
    }

    fn end(&self, to: To, exported: &Exported) -> anyhow::Result<ExitCode> {
        let is_stdout = matches!(to, To::Stdout(_));
        let size = to.keep()?;
        for omitted in &exported.omitted {
            note(&format!(
                "export {} is left out: {}",
                omitted.export, omitted.why
            ));
        }
        let summary = Summary {
            file: &self.output,
            size,
            exported,
        };
        let text = format!(
            "{}: {}, {}, {}",
            match size {
                Some(size) => format!("{} ({})", self.output.display(), ByteSize(size)),
                None => "written".to_owned(),
            },
            counted(exported.exports, "export"),
            counted(exported.layers, "layer"),
            ByteSize(exported.bytes)
        );
        match (self.json, self.quiet, is_stdout) {
            (true, _, false) => print_json(&summary)?,
            (true, _, true) => note(&serde_json::to_string(&summary)?),
            (false, false, false) => print(text)?,
            (false, false, true) => note(&text),
            (false, true, _) => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What is not the command's output.
fn note(text: &str) {
    // Nobody may be there to be told, which is no reason to fail.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Where the archive goes.
enum To {
    Stdout(File),
    /// Beside its name; dropped, it goes.
    File(File, TempPath, PathBuf),
}

impl To {
    fn open(output: &Path) -> anyhow::Result<Self> {
        if output == Path::new("-") {
            let stdout = std::io::stdout();
            if stdout.is_terminal() {
                bail!("an archive is nothing for a terminal: name a file with -o, or pipe it on");
            }
            let stdout = stdout.as_fd().try_clone_to_owned();
            return Ok(Self::Stdout(stdout.context("standard output")?.into()));
        }
        let shown = output.display();
        if std::fs::metadata(output).is_ok_and(|there| !there.is_file()) {
            bail!("{shown} is there, and is no plain file: -o - writes to standard output");
        }
        let folder = match output.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            bail!(
                "-o {shown}: there is no folder {}; make it first",
                folder.display()
            );
        }
        let file: NamedTempFile = tempfile::Builder::new()
            .prefix(".layerd-")
            .suffix(".partial")
            .tempfile_in(folder)
            .with_context(|| format!("-o {shown}"))?;
        let (file, path) = file.into_parts();
        Ok(Self::File(file, path, output.to_owned()))
    }

    fn file(&self) -> anyhow::Result<File> {
        let (Self::Stdout(file) | Self::File(file, ..)) = self;
        Ok(file.try_clone()?)
    }

    /// Gives it its name, durably; its size in bytes, where it has a name.
    fn keep(self) -> anyhow::Result<Option<u64>> {
        let Self::File(file, path, output) = self else {
            return Ok(None);
        };
        let shown = output.display();
        file.sync_all()
            .with_context(|| format!("writing {shown}"))?;
        let size = file.metadata()?.len();
        let folder = path.parent().map(Path::to_owned);
        path.persist(&output)
            .with_context(|| format!("naming {shown}"))?;
        if let Some(folder) = folder {
            File::open(folder)?
                .sync_all()
                .with_context(|| format!("naming {shown}"))?;
        }
        Ok(Some(size))
    }
}
