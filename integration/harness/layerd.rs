//! The layerd binary under test, for commands that end by themselves.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Outcome;
use super::wait::DEADLINE;

/// Runs `layerd ARGUMENTS...` to its end.
pub async fn layerd<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    layerd_with(arguments, &[], "").await
}

/// The same with more of an environment, and with a text on standard input.
pub async fn layerd_with<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
    input: &str,
) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layerd"));
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let line = format!("{:?}", command.as_std());
    let mut child = command.spawn().expect("layerd runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads nothing may have ended by now.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    match tokio::time::timeout(DEADLINE, child.wait_with_output()).await {
        Ok(output) => Outcome::new(line, &output.expect("layerd runs")),
        Err(_) => panic!("still running after {DEADLINE:?}: {line}"),
    }
}
