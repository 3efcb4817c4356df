//! Having a hub collect, with its own limits.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use http::Method;
use jiff::Timestamp;

use crate::cli::display::{age, print, print_json, table};
use crate::cli::hub_api::{HubApi, Wanted};
use crate::doors::admin::{GcRequest, GcStatus};
use crate::units::{ByteSize, counted};

/// How often it is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn run(hub: &HubApi, dry_run: bool, json: bool) -> anyhow::Result<ExitCode> {
    let request = GcRequest { dry_run };
    let begun: GcStatus = hub
        .send(Method::POST, Wanted::at(&["gc"]), &request)
        .await?;
    let report = loop {
        tokio::time::sleep(LOOK).await;
        let status: GcStatus = hub.get(Wanted::at(&["gc"])).await?;
        if status.running_since != begun.running_since {
            break status.last;
        }
    };
    let Some(report) = report else {
        bail!("the hub has forgotten the collection: was it started anew?");
    };
    if json {
        print_json(&report)?;
    }
    let Some(collected) = report.collected else {
        bail!("{}", report.error.unwrap_or_default());
    };
    if json {
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    if !collected.gone.is_empty() {
        let header = ["ID", "LAST USE", "PROJECT", "REF", "SCOPE", "WHY", "FREES"];
        let mut rows = table(header, &[0, 6]);
        for gone in &collected.gone {
            rows.add_row([
                gone.id.to_string(),
                age(gone.last_use, now).to_string(),
                gone.place.project.to_string(),
                gone.place.git_ref.to_string(),
                gone.place.scope.to_string(),
                gone.reason.clone(),
                ByteSize(gone.frees).to_string(),
            ]);
        }
        print(rows.trim_fmt())?;
    }
    let verb = if dry_run { "would take" } else { "took" };
    print(format_args!(
        "{verb} {} of {} out of the log, which frees {}; {} ({}) that nothing named",
        collected.exports_gone,
        counted(collected.exports_before, "export"),
        ByteSize(collected.frees_bytes),
        counted(collected.layers, "layer"),
        ByteSize(collected.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}
