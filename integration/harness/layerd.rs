//! The layerd binary under test, for commands that end by themselves.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::Command;

use super::Outcome;
use super::wait::DEADLINE;

/// Runs `layerd ARGUMENTS...` to its end.
pub async fn layerd<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layerd"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let line = format!("{:?}", command.as_std());
    match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(output) => Outcome::new(line, &output.expect("layerd runs")),
        Err(_) => panic!("still running after {DEADLINE:?}: {line}"),
    }
}
