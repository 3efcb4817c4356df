//! `layerd project`: what projects have, and what is settled for them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;

use super::display::{age, print, print_json, table};
use super::hub_api::{HubApi, Wanted};
use super::hub_args::HubArgs;
use crate::catalog::ledger::ProjectHead;
use crate::doors::admin::{NewSettings, ProjectDetails, Settings};
use crate::place::ProjectId;
use crate::units::{ByteSize, Spent, parse_duration, parse_size};

/// List projects of a hub, and settle what they may take.
///
/// A hub is asked, with an admin token: `layerd token mint --admin` makes one.
#[derive(Debug, Args)]
pub struct ProjectArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(LsArgs),
    Show(ShowArgs),
    Set(SetArgs),
    Unset(UnsetArgs),
}

/// List projects, by name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd project ls --hub https://cache:8700 --hub-token-file admin-token")]
struct LsArgs {
    #[command(flatten)]
    hub: HubArgs,

    /// Print a JSON array, times in UTC.
    #[arg(long)]
    json: bool,
}

/// Show one project, and what is settled for it.
#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    hub: HubArgs,

    /// The project.
    #[arg(value_name = "PROJECT")]
    project: ProjectId,

    /// Print a JSON object, times in UTC.
    #[arg(long)]
    json: bool,
}

/// Settle what a project may take, in place of all that was settled before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd project set acme/shop --max-bytes 20GiB --note 'asked for by the shop team'")]
struct SetArgs {
    #[command(flatten)]
    hub: HubArgs,

    /// The project.
    #[arg(value_name = "PROJECT")]
    project: ProjectId,

    /// What its layers may take, such as 20GiB; what counts for the hub unless
    /// given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_bytes: Option<u64>,

    /// How long its exports are kept that nobody uses, such as 30d; what counts
    /// for the hub unless given.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,

    /// What others should know.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,

    /// Print a JSON object, times in UTC.
    #[arg(long)]
    json: bool,
}

/// Settle nothing for a project any more: what counts for the hub counts for it.
#[derive(Debug, Args)]
struct UnsetArgs {
    #[command(flatten)]
    hub: HubArgs,

    /// The project.
    #[arg(value_name = "PROJECT")]
    project: ProjectId,
}

/// Runs `layerd project`.
pub async fn run(args: ProjectArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Ls(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Set(args) => set(args).await,
        Command::Unset(args) => unset(args).await,
    }
}

fn hub(args: &HubArgs) -> anyhow::Result<HubApi> {
    match args.api()? {
        Some(hub) => Ok(hub),
        None => bail!("which hub? name one with --hub"),
    }
}

async fn list(args: LsArgs) -> anyhow::Result<ExitCode> {
    let projects: Vec<ProjectHead> = hub(&args.hub)?
        .items(Wanted::at(&["projects"]), None)
        .await?;
    if args.json {
        print_json(&projects)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut rows = table(["PROJECT", "EXPORTS", "NEWEST", "WRITTEN"], &[1, 2]);
    for head in projects {
        rows.add_row([
            head.project.to_string(),
            head.exports.to_string(),
            head.newest.map_or_else(String::new, |id| id.to_string()),
            head.written
                .map_or_else(String::new, |at| age(at, now).to_string()),
        ]);
    }
    print(rows.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let wanted = Wanted::at(&["projects", args.project.as_str()]);
    let details: ProjectDetails = hub(&args.hub)?.get(wanted).await?;
    if args.json {
        print_json(&details)?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = details.head;
    print(format_args!("project   {}", head.project))?;
    print(format_args!("exports   {}", head.exports))?;
    if let Some(written) = head.written {
        print(format_args!("written   {}", age(written, Timestamp::now())))?;
    }
    match &details.settings {
        None => print("settled   nothing")?,
        Some(settings) => tell(settings)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(settings: &Settings) -> anyhow::Result<()> {
    let when = age(settings.at, Timestamp::now());
    print(format_args!("settled   {when}, by {}", settings.by))?;
    if let Some(bytes) = settings.max_bytes {
        print(format_args!("max-bytes {}", ByteSize(bytes)))?;
    }
    if let Some(seconds) = settings.max_age_seconds {
        print(format_args!(
            "max-age   {}",
            Spent(Duration::from_secs(seconds))
        ))?;
    }
    if !settings.note.is_empty() {
        print(format_args!("note      {}", settings.note))?;
    }
    Ok(())
}

async fn set(args: SetArgs) -> anyhow::Result<ExitCode> {
    let new = NewSettings {
        max_bytes: args.max_bytes,
        max_age_seconds: args.max_age.map(|age| age.as_secs()),
        note: args.note,
    };
    let wanted = Wanted::at(&["projects", args.project.as_str(), "settings"]);
    let settings: Settings = hub(&args.hub)?.send(Method::PUT, wanted, &new).await?;
    if args.json {
        print_json(&settings)?;
    } else {
        print(format_args!("project   {}", settings.project))?;
        tell(&settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn unset(args: UnsetArgs) -> anyhow::Result<ExitCode> {
    let wanted = Wanted::at(&["projects", args.project.as_str(), "settings"]);
    hub(&args.hub)?.delete(wanted).await?;
    print(format_args!(
        "nothing is settled for {} any more",
        args.project
    ))?;
    Ok(ExitCode::SUCCESS)
}
