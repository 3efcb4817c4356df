//! `layerd cache fsck`: check every blob and every export.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde::Serialize;

use super::backing::{Backed, Backing};
use super::display::{print, print_json};
use crate::cache::check::{Leased, Problem, Report, check};
use crate::cache::repair::{Repairs, repair};
use crate::cache::{CacheError, LocalCache};
use crate::catalog::ledger::{Action, Details, NewAudit};
use crate::catalog::{Catalog, ExportId, Filter};
use crate::cli::stored::{noted, typist};
use crate::place::ProjectId;
use crate::units::{ByteSize, counted};

/// Bytes between two lines of progress.
const PROGRESS_STEP: u64 = 256 * 1024 * 1024;

/// Re-hash every blob and hold the export log against what is there.
///
/// Changes nothing without --repair, and may run beside live daemons. A blob
/// that is missing or has another size is never served: builds lose the hits
/// that need it. A corrupt blob of the right size is served: with --repair it
/// goes, and the next export that has it uploads it anew.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 when all is well or mended, 1 when there are problems. Blobs that no export
names, uploads that were left behind, and what left the log while a lease keeps it (for the
minutes in which a build may still read it) are told, but are no problem.")]
pub(super) struct FsckArgs {
    #[command(flatten)]
    backing: Backing,

    /// Mend what was found: exports that name what is missing or damaged leave
    /// the log, damaged blobs, blobs that nothing names and uploads that were
    /// left behind are removed.
    #[arg(long)]
    repair: bool,

    /// First take the layers over for this catalog, as after its predecessor was
    /// lost for good. A catalog that had them before is refused from then on.
    #[arg(long)]
    adopt: bool,

    /// Blobs hashed at a time; as many as there are cores unless given.
    #[arg(long, value_name = "N")]
    parallel: Option<std::num::NonZeroUsize>,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: FsckArgs) -> anyhow::Result<ExitCode> {
    let backed = args.backing.open().await?;
    let (catalog, blobs, disk) = (&backed.catalog, &backed.blobs, backed.disk.as_ref());
    if args.adopt {
        let cache = LocalCache::over(Arc::clone(catalog), Arc::clone(blobs));
        let adopted = async {
            blobs.ready().await?;
            cache.adopt().await
        };
        if let Err(error) = adopted.await {
            backed.close().await;
            return Err(error.into());
        }
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let parallel = args
        .parallel
        .map_or_else(cores, std::num::NonZeroUsize::get);
    let progress = Progress::default();
    let hashed = |hashed| progress.add(hashed);
    let report = check(&**blobs, disk, &**catalog, parallel, &hashed).await;
    progress.end();
    let mended = match (&report, args.repair) {
        (Ok(report), true) => Some(mend(&backed, report).await),
        _ => None,
    };
    backed.close().await;
    let (report, mended) = (report?, mended.transpose()?);
    match (args.json, &mended) {
        (true, None) => print_json(&report)?,
        (true, Some(repairs)) => print_json(&Mended {
            report: &report,
            repairs,
        })?,
        (false, _) => print_report(&report)?,
    }
    if let Some(repairs) = mended.as_ref().filter(|_| !args.json) {
        print_repairs(repairs)?;
    }
    let left = mended.map_or(report.problems.len(), |repairs| repairs.left.len());
    Ok(match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// A check, and what came of it.
#[derive(Serialize)]
struct Mended<'a> {
    #[serde(flatten)]
    report: &'a Report,
    repairs: &'a Repairs,
}

async fn mend(backed: &Backed, report: &Report) -> Result<Repairs, CacheError> {
    if let Some(bucket) = &backed.bucket {
        bucket.sweep().await?;
    }
    let projects = projects(&*backed.catalog, report).await?;
    let (catalog, blobs) = (&backed.catalog, &backed.blobs);
    let repairs = repair(catalog, blobs, backed.disk.as_ref(), report).await?;
    note(&**catalog, &repairs, &projects).await;
    Ok(repairs)
}

/// The projects of those exports that problems are about.
async fn projects(
    catalog: &dyn Catalog,
    report: &Report,
) -> Result<BTreeMap<ExportId, ProjectId>, CacheError> {
    let named = report.problems.iter().flat_map(|problem| match problem {
        Problem::Corrupt { exports, .. }
        | Problem::WrongSize { exports, .. }
        | Problem::Missing { exports, .. } => exports.clone(),
        Problem::BadExport { export, .. } => vec![*export],
        Problem::Unreadable { .. } => Vec::new(),
    });
    let named: BTreeSet<ExportId> = named.collect();
    let mut projects = BTreeMap::new();
    for id in named {
        let filter = Filter {
            after: Some(ExportId(id.0.saturating_sub(1))),
            before: Some(ExportId(id.0.saturating_add(1))),
            limit: Some(1),
            ..Filter::default()
        };
        let heads = catalog.list(&filter).await?.into_iter();
        projects.extend(heads.map(|head| (head.id, head.place.project)));
    }
    Ok(projects)
}

/// Has the audit log tell what was removed: exports with an entry for each
/// project, and what nobody's export names with one of its own.
async fn note(catalog: &dyn Catalog, repairs: &Repairs, projects: &BTreeMap<ExportId, ProjectId>) {
    let origin = typist();
    let mut gone = BTreeMap::<Option<&ProjectId>, Vec<i64>>::new();
    for id in &repairs.retired {
        gone.entry(projects.get(id)).or_default().push(id.0);
    }
    for (project, exports) in gone {
        let entry = NewAudit {
            project: project.cloned(),
            details: Details::default()
                .with("exports", exports)
                .with("why", "what it names is damaged or missing"),
            ..NewAudit::new(&origin, Action::Delete)
        };
        noted(catalog, &entry).await;
    }
    let details = Details::default()
        .with("damaged", repairs.removed.len())
        .with("unnamed", repairs.orphans.blobs)
        .with("bytes", repairs.orphans.bytes)
        .with("uploads", repairs.uploads);
    let entry = NewAudit {
        details,
        ..NewAudit::new(&origin, Action::Repair)
    };
    noted(catalog, &entry).await;
}

fn print_repairs(repairs: &Repairs) -> anyhow::Result<()> {
    let exports: Vec<ExportId> = repairs.retired.iter().copied().collect();
    if !exports.is_empty() {
        let ids: Vec<String> = exports.iter().map(ExportId::to_string).collect();
        print(format_args!(
            "repaired: out of the log: {} {}",
            if ids.len() == 1 { "export" } else { "exports" },
            ids.join(", ")
        ))?;
    }
    for digest in &repairs.removed {
        print(format_args!("repaired: removed {digest}"))?;
    }
    print(format_args!(
        "repaired: removed {} that nothing named ({}) and {} left behind; {} left",
        counted(repairs.orphans.blobs, "blob"),
        ByteSize(repairs.orphans.bytes),
        counted(repairs.uploads, "upload"),
        counted(repairs.left.len(), "problem")
    ))?;
    Ok(())
}

/// Progress on stderr: one line that is written over on a terminal, a line now
/// and then elsewhere; nothing for short work.
#[derive(Default)]
struct Progress {
    hashed: AtomicU64,
}

impl Progress {
    fn add(&self, hashed: u64) {
        let before = self.hashed.fetch_add(hashed, Ordering::Relaxed);
        let after = before + hashed;
        if before / PROGRESS_STEP == after / PROGRESS_STEP {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        let line_end = if stderr.is_terminal() { "\r" } else { "\n" };
        // Progress that can't be shown is no reason to stop.
        write!(stderr, "checked {}{line_end}", ByteSize(after)).ok();
        stderr.flush().ok();
    }

    fn end(&self) {
        let mut stderr = std::io::stderr().lock();
        if stderr.is_terminal() && self.hashed.load(Ordering::Relaxed) >= PROGRESS_STEP {
            writeln!(stderr).ok();
        }
    }
}

fn print_report(report: &Report) -> anyhow::Result<()> {
    for problem in &report.problems {
        print(describe(problem))?;
    }
    for ingest in &report.stale_ingests {
        print(format_args!(
            "note: an upload was left behind: {} ({})",
            ingest.file,
            ByteSize(ingest.size)
        ))?;
    }
    for blob in &report.unreferenced {
        print(format_args!(
            "note: no export names {} ({})",
            blob.digest,
            ByteSize(blob.size)
        ))?;
    }
    if report.leased.exports > 0 {
        print(leased(&report.leased))?;
    }
    let verdict = match report.problems.len() {
        0 => "all is well".to_owned(),
        problems => counted(problems, "problem"),
    };
    print(format_args!(
        "{}, {}, {}: {verdict}",
        counted(report.exports, "export"),
        counted(report.blobs, "blob"),
        ByteSize(report.bytes)
    ))?;
    Ok(())
}

fn leased(leased: &Leased) -> String {
    let missing = match leased.missing {
        0 => String::new(),
        missing => format!(", and {} that is not there", counted(missing, "blob")),
    };
    format!(
        "note: {} out of the log, kept for minutes for builds that may still read it: {} that \
         nothing else names ({}){missing}",
        counted(leased.exports, "export"),
        counted(leased.blobs, "blob"),
        ByteSize(leased.bytes)
    )
}

fn describe(problem: &Problem) -> String {
    match problem {
        Problem::Corrupt {
            digest,
            actual,
            exports,
        } => format!("corrupt: {digest} hashes to {actual}{}", named_by(exports)),
        Problem::WrongSize {
            digest,
            expected,
            actual,
            exports,
        } => {
            format!(
                "wrong size: {digest} has {actual} bytes, {expected} were stored{}",
                named_by(exports)
            )
        }
        Problem::Missing {
            digest,
            size,
            exports,
        } => format!(
            "missing: {digest} ({}){}",
            ByteSize(*size),
            named_by(exports)
        ),
        Problem::Unreadable { digest, error } => format!("unreadable: {digest}: {error}"),
        Problem::BadExport { export, error } => format!("bad export: {export}: {error}"),
    }
}

fn named_by(exports: &[ExportId]) -> String {
    const SHOWN: usize = 5;
    let shown = exports
        .iter()
        .take(SHOWN)
        .map(ExportId::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    match exports.len() {
        0 => String::new(),
        1 => format!("; named by export {shown}"),
        2..=SHOWN => format!("; named by exports {shown}"),
        all => format!("; named by exports {shown} and {} more", all - SHOWN),
    }
}
