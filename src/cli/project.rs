//! `layerd project`: what projects have, and what is settled for them.

mod of;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::of::Of;
use super::display::{age, print, print_json, table};
use super::stored;
use super::{hub_api, hub_args};
use crate::doors::admin::{NewSettings, ProjectLimitsInForce, SaidBy, Settings};
use crate::place::ProjectId;
use crate::units::{ByteSize, Spent, parse_duration, parse_size};

/// List projects, and settle what they may take.
///
/// With --hub, a hub is asked, with an admin token: `layerd token mint --admin`
/// makes one. Else it is done in the store itself, for all hubs and sidecars that
/// share it.
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
  layerd project ls --hub https://cache:8700 --hub-token-file admin-token
  layerd project ls --catalog postgres://layerd@db/layerd")]
struct LsArgs {
    #[command(flatten)]
    of: Of,

    /// Print a JSON array, times in UTC.
    #[arg(long)]
    json: bool,
}

/// Show one project, what is settled for it, and with --hub what counts for it
/// there.
#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    of: Of,

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
    of: Of,

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
    of: Of,

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

async fn list(args: LsArgs) -> anyhow::Result<ExitCode> {
    let projects = args.of.open().await?;
    let listed = projects.list().await;
    projects.close().await;
    let listed = listed?;
    if args.json {
        print_json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let mut rows = table(["PROJECT", "EXPORTS", "NEWEST", "WRITTEN"], &[1, 2]);
    for head in listed {
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
    let projects = args.of.open().await?;
    let details = projects.one(&args.project).await;
    projects.close().await;
    let details = details?;
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
    for line in said_by_hub(&details.limits) {
        print(line)?;
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

/// The limits in force that are not among what is settled.
fn said_by_hub(limits: &ProjectLimitsInForce) -> Vec<String> {
    let by_hub = |from: Option<SaidBy>| from == Some(SaidBy::Hub);
    let bytes = limits.max_bytes.filter(|_| by_hub(limits.max_bytes_from));
    let age = limits
        .max_age_seconds
        .filter(|_| by_hub(limits.max_age_from));
    let bytes = bytes.map(|bytes| format!("max-bytes {} (of the hub)", ByteSize(bytes)));
    let age = age.map(|age| {
        let age = Spent(Duration::from_secs(age));
        format!("max-age   {age} (of the hub)")
    });
    bytes.into_iter().chain(age).collect()
}

async fn set(args: SetArgs) -> anyhow::Result<ExitCode> {
    let new = NewSettings {
        max_bytes: args.max_bytes,
        max_age_seconds: args.max_age.map(|age| age.as_secs()),
        note: args.note,
    };
    let projects = args.of.open().await?;
    let settings = projects.settle(&args.project, &new).await;
    projects.close().await;
    let settings = settings?;
    if args.json {
        print_json(&settings)?;
    } else {
        print(format_args!("project   {}", settings.project))?;
        tell(&settings)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn unset(args: UnsetArgs) -> anyhow::Result<ExitCode> {
    let projects = args.of.open().await?;
    let unsettled = projects.unsettle(&args.project).await;
    projects.close().await;
    unsettled?;
    print(format_args!(
        "nothing is settled for {} any more",
        args.project
    ))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_hub_is_shown_as_one_and_a_settled_one_not_twice() {
        let limits = ProjectLimitsInForce {
            max_bytes: Some(1 << 30),
            max_bytes_from: Some(SaidBy::Hub),
            max_age_seconds: Some(60),
            max_age_from: Some(SaidBy::Settled),
        };
        let size = ByteSize(1 << 30);
        assert_eq!(
            said_by_hub(&limits),
            [format!("max-bytes {size} (of the hub)")]
        );
        assert!(said_by_hub(&ProjectLimitsInForce::default()).is_empty());
    }
}
