//! A sidecar and its buildkitd as one process, to whoever started them.
//!
//! They come up together, a signal to one is a signal to the pair, and when
//! either ends, so does the other: the door first, so that builds are let to
//! finish, then buildkitd, whose exit status is that of the pair. buildkitd
//! itself waits without limit for its clients when it is told to end, so that
//! the door has hung up on all of them by then.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::Child;
use crate::cli::sidecar::signals::{Request, Signals};
use crate::config::Endpoint;
use crate::doors::buildkit::{Closing, Upstream};

/// How often a buildkitd that starts is asked whether it answers.
const POLL: Duration = Duration::from_millis(20);
/// How long buildkitd may take to end once it was told to and nobody is
/// connected to it any more.
const END: Duration = Duration::from_secs(10);
/// How long the calls of clients may take to fail after buildkitd has died.
const BROKEN: Duration = Duration::from_secs(2);
/// Added to the number of a signal that a process died of, as shells do.
const BY_SIGNAL: i32 = 128;

/// The two of them.
pub struct Pair {
    child: Child,
    signals: Signals,
}

impl Pair {
    /// Starts `command` as [`Child::start`] does.
    pub fn start(command: &[String]) -> anyhow::Result<Self> {
        let signals = Signals::new()?;
        let child = Child::start(command)?;
        Ok(Self { child, signals })
    }

    /// Where the child listens, for us alone.
    pub fn endpoint(&self) -> &Endpoint {
        &self.child.endpoint
    }

    /// The way to the child.
    pub fn upstream(&self) -> Upstream {
        Upstream::new(self.child.endpoint.clone(), None)
    }

    /// Waits until the child answers calls; if it ends instead, or has to, the
    /// exit code that it leaves.
    pub async fn ready(&mut self) -> Result<(), ExitCode> {
        let upstream = self.upstream();
        let answers = async {
            while upstream.reachable().await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::pin!(answers);
        loop {
            tokio::select! {
                () = &mut answers => return Ok(()),
                status = self.child.ended() => {
                    tracing::error!("{} ended before it was ready: {status}", self.child.name);
                    return Err(code(status));
                }
                request = self.signals.next() => match request {
                    Request::End => return Err(self.end().await),
                    Request::PassOn(signal) => self.child.signal(signal),
                }
            }
        }
    }

    /// Waits for the end of `door`, which is told by `closing` when that has
    /// come, and then for the child's; its exit code.
    pub async fn serve(mut self, door: impl Future<Output = ()>, closing: Closing) -> ExitCode {
        tokio::pin!(door);
        loop {
            tokio::select! {
                () = &mut door => return self.end().await,
                status = self.child.ended() => {
                    tracing::error!("{} ended: {status}", self.child.name);
                    closing.drain.cancel();
                    // Calls fail by themselves now, each with its own words.
                    if tokio::time::timeout(BROKEN, &mut door).await.is_err() {
                        closing.hang_up.cancel();
                        door.await;
                    }
                    return code(status);
                }
                request = self.signals.next() => match request {
                    Request::PassOn(signal) => self.child.signal(signal),
                    Request::End if closing.drain.is_cancelled() => closing.hang_up.cancel(),
                    Request::End => {
                        tracing::info!("finishing what runs; once more to stop at once");
                        closing.drain.cancel();
                    }
                }
            }
        }
    }

    /// Tells the child to end, and waits for it. It is killed when that takes
    /// too long, or when it is asked for once more.
    async fn end(&mut self) -> ExitCode {
        self.child.signal(Signal::TERM);
        let late = tokio::time::sleep(END);
        tokio::pin!(late);
        let status = loop {
            tokio::select! {
                status = self.child.ended() => break status,
                () = &mut late => {
                    tracing::warn!("{} does not end, and is killed", self.child.name);
                    break self.kill().await;
                }
                request = self.signals.next() => match request {
                    Request::PassOn(signal) => self.child.signal(signal),
                    Request::End => break self.kill().await,
                }
            }
        };
        tracing::info!("{} ended: {status}", self.child.name);
        code(status)
    }

    async fn kill(&self) -> ExitStatus {
        self.child.signal(Signal::KILL);
        self.child.ended().await
    }
}

/// The exit code that says how a child ended.
fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(number(status))
}

fn number(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| BY_SIGNAL + signal);
    let number = status.code().or_else(by_signal);
    number.and_then(|n| u8::try_from(n).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_childs_or_says_which_signal_ended_it() {
        // As wait(2) has them: the code in the second byte, or the signal.
        for (raw, code) in [(0, 0), (1 << 8, 1), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(number(ExitStatus::from_raw(raw)), code);
        }
    }
}
