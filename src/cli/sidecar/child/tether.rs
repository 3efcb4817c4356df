//! `layerd tether`: what the child is before it is buildkitd.
//!
//! The kernel can send a process a signal when its parent dies, however that
//! comes about; but only a process can ask that for itself
//! (`PR_SET_PDEATHSIG`, prctl(2)). So the child starts as layerd, asks, and
//! becomes the program that was meant: the wish survives that, unless the
//! program has set-user-id bits or file capabilities.
//!
//! The signal is SIGTERM: a buildkitd that is killed leaves its mounts and
//! containers behind, and one whose clients are gone ends at once.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// What shells answer where a program can't be found, and where it can't be
/// run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Become another program, which is told to end when the parent dies.
#[derive(Debug, Args)]
pub struct TetherArgs {
    /// The pid of the parent.
    #[arg(long)]
    parent: u32,

    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The command line that makes this process's child become `command`. More
/// arguments of the program may follow it.
pub fn arguments(command: &[String]) -> impl Iterator<Item = String> {
    let tether = ["tether", "--parent", &std::process::id().to_string(), "--"].map(str::to_owned);
    tether.into_iter().chain(command.iter().cloned())
}

/// Returns only where the program can't be started.
pub fn run(args: &TetherArgs) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("no tether to the parent")?;
    // A parent that died before that would never be heard of.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(args.parent) {
        return Ok(ExitCode::FAILURE);
    }
    let (program, arguments) = args.command.split_first().context("no command to start")?;
    let error = Command::new(program).args(arguments).exec();
    eprintln!("layerd: can't start {program}: {error}");
    Ok(ExitCode::from(
        if error.kind() == std::io::ErrorKind::NotFound {
            NOT_FOUND
        } else {
            NOT_EXECUTABLE
        },
    ))
}
