//! buildkitd as our child: on a private socket, since we stand in its place.
//!
//! It takes our standard streams as they are, and signals from us alone: it has
//! a process group of its own, so that Ctrl-C in a terminal reaches us, and the
//! child when its turn has come. It ends with us, whatever ends us, through its
//! [`tether`]; and it is waited for by the [`reaper`], which also collects the
//! orphans of a container whose first process we are.

pub mod pair;
mod reaper;
pub mod tether;

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use self::reaper::{Listening, Reaper};
use crate::config::Endpoint;

/// The longest path that a unix socket can have (`sun_path`, less its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// A running child.
pub struct Child {
    /// What it is called in messages: the program, without its folder.
    pub name: String,
    /// Where it listens, for us alone.
    pub endpoint: Endpoint,
    /// Names the process itself: a pid could be another's by the time that a
    /// signal is sent.
    process: OwnedFd,
    reaper: Reaper,
    /// Holds the socket; goes when we have ended.
    _folder: TempDir,
}

impl Child {
    /// Starts `command` with an address added. To be called on the process's
    /// main thread: the kernel unties the tether when the thread ends that
    /// started the child.
    pub fn start(command: &[String]) -> anyhow::Result<Self> {
        let Some(program) = command.first() else {
            bail!("no command to start");
        };
        let name = Path::new(program).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        // tempfile makes it for this user alone.
        let folder = tempfile::Builder::new().prefix("layerd-").tempdir();
        let folder = folder.context("no folder for the private socket")?;
        let socket = folder.path().join("buildkitd.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            bail!(
                "{} is too long a path for a socket: set TMPDIR to a shorter one",
                socket.display()
            );
        }
        let endpoint = Endpoint::Unix(socket);
        let listening = Listening::new()?;
        let mut tethered = Command::new("/proc/self/exe");
        tethered
            .arg0("layerd")
            .args(tether::arguments(command))
            .args(["--addr", &endpoint.to_string()])
            .process_group(0);
        let started = tethered.spawn();
        let started = started.with_context(|| format!("can't start {name}"))?;
        let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process without a pid")?;
        // Nobody has waited for it yet, so that the pid is still its own.
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            name,
            endpoint,
            process,
            reaper: listening.reap(pid),
            _folder: folder,
        })
    }

    /// Sends a signal; one to a child that has ended is lost.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.process, signal) {
            tracing::debug!(child = %self.name, ?signal, %error, "a signal was not sent");
        }
    }

    /// Waits for its end.
    pub async fn ended(&self) -> ExitStatus {
        self.reaper.ended().await
    }
}

/// One word of the child's command, which must leave the address to us.
pub fn word(text: &str) -> Result<String, &'static str> {
    // Go's flags take one dash or two.
    let flag = text.split('=').next().unwrap_or_default();
    if ["--addr", "-addr"].contains(&flag) {
        return Err(
            "buildkitd listens on a private socket here; say --listen to layerd instead, before the --",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_its_own_is_refused_and_anything_else_is_not() {
        for refused in ["--addr", "-addr", "--addr=tcp://127.0.0.1:1", "-addr=x"] {
            assert!(word(refused).unwrap_err().contains("--listen"), "{refused}");
        }
        for taken in ["buildkitd", "--address", "--debugaddr=:1", "addr", "--", ""] {
            assert_eq!(word(taken).unwrap(), taken);
        }
    }
}
