//! `layerd cache gc`: what is kept no longer goes.

mod hub;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::backing::Backing;
use super::display::{age, print, print_json, table};
use crate::cache::retention::{Plan, Reason, Victim};
use crate::cache::{Collected, LocalCache, Swept, collecting};
use crate::catalog::ledger::{Action, Details, NewAudit};
use crate::cli::hub_args::HubArgs;
use crate::cli::retention::RetentionArgs;
use crate::cli::stored::{noted, typist};
use crate::units::{ByteSize, counted};

/// How long it is waited for another process that collects.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Remove exports that are kept no longer, and layers that nothing names.
///
/// With --hub and an admin token, a hub does it, with its own limits. May run beside live daemons, which do the same by themselves with the limits
/// that they are told; without limits, what goes is what nothing names already. What goes, in this order: exports
/// that add nothing to a newer one of their place, those of refs that nothing is
/// written to (--ref-idle), those that nobody uses (--max-age), the oldest of a
/// project beyond its quota (--quota), and the oldest of the largest project
/// while all have too much (--max-bytes). What a running build was promised
/// stays until it has ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd cache gc --dry-run --max-age 30d
  layerd cache gc --data-dir /var/lib/layerd --max-bytes 20GiB
  layerd cache gc --catalog postgres://layerd@db/layerd --blobs s3://my-cache/layers --ref-idle 14d")]
pub(super) struct GcArgs {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    backing: Backing,

    #[command(flatten)]
    retention: RetentionArgs,

    /// Only say what would go, and why.
    #[arg(long)]
    dry_run: bool,

    /// Print a JSON object: `plan` has the exports that go and what there is
    /// before and after, `layers` what of the store goes.
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    dry_run: bool,
    plan: &'a Plan,
    /// Removed, or with `dry_run` named by nothing already.
    layers: Swept,
}

pub(super) async fn run(args: GcArgs) -> anyhow::Result<ExitCode> {
    if let Some(hub) = args.hub.api()? {
        return hub::run(&hub, args.dry_run, args.json).await;
    }
    let quotas = args.retention.quotas()?;
    let backed = args.backing.open().await?;
    let cache = LocalCache::over(Arc::clone(&backed.catalog), Arc::clone(&backed.blobs));
    let cache = cache.keeping(
        quotas,
        args.retention.keep(),
        collecting::Metrics::default(),
    );
    let limits = args.retention.limits(None);
    let done = async {
        if args.dry_run {
            let outlook = cache.outlook(&limits).await?;
            return Ok((outlook.plan, outlook.unnamed));
        }
        let since = Instant::now();
        // Of a store that is not there everything seems to be gone.
        cache.ready().await?;
        loop {
            if let Some(Collected { plan, swept }) = cache.collect(&limits).await? {
                return Ok((plan, swept));
            }
            if since.elapsed() > PATIENCE {
                bail!("another process collects now: try again later");
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = done.await;
    if let (Ok((plan, swept)), false) = (&done, args.dry_run) {
        let details = Details::default()
            .with("exports", plan.victims.len())
            .with("layers", swept.blobs)
            .with("bytes", swept.bytes);
        let entry = NewAudit {
            details,
            ..NewAudit::new(&typist(), Action::Evict)
        };
        noted(&*backed.catalog, &entry).await;
    }
    backed.close().await;
    let (plan, layers) = done?;
    if args.json {
        print_json(&Told {
            dry_run: args.dry_run,
            plan: &plan,
            layers,
        })?;
    } else {
        tell(&plan, layers, args.dry_run)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(plan: &Plan, layers: Swept, dry_run: bool) -> anyhow::Result<()> {
    let now = Timestamp::now();
    if !plan.victims.is_empty() {
        let header = ["ID", "LAST USE", "PROJECT", "REF", "SCOPE", "WHY", "FREES"];
        let mut rows = table(header, &[0, 6]);
        for victim in &plan.victims {
            rows.add_row(row(victim, now));
        }
        print(rows.trim_fmt())?;
    }
    let exports = plan.victims.len();
    let freed: u64 = plan.victims.iter().map(|victim| victim.frees).sum();
    let blobs = counted(layers.blobs, "layer");
    let layers = format!("{blobs} ({})", ByteSize(layers.bytes));
    let summary = match dry_run {
        true => format!(
            "would take {exports} of {} out of the log, which frees {}; nothing names {layers} already",
            counted(plan.before.exports, "export"),
            ByteSize(freed)
        ),
        false => format!(
            "took {exports} of {} out of the log and removed {layers}; left: {} with {}",
            counted(plan.before.exports, "export"),
            counted(plan.after.exports, "export"),
            ByteSize(plan.after.bytes)
        ),
    };
    Ok(print(summary)?)
}

fn row(victim: &Victim, now: Timestamp) -> [String; 7] {
    [
        victim.id.to_string(),
        age(victim.last_use, now).to_string(),
        victim.place.project.to_string(),
        victim.place.git_ref.to_string(),
        victim.place.scope.to_string(),
        why(victim.reason).to_owned(),
        ByteSize(victim.frees).to_string(),
    ]
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Subsumed => "a newer one has all of it",
        Reason::IdleRef => "nothing is written to its ref",
        Reason::Expired => "nobody uses it",
        Reason::Quota => "its project is over its quota",
        Reason::Size => "all is too large",
    }
}
