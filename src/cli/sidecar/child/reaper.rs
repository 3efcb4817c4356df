//! Waiting for the child, and for everybody else's.
//!
//! The first process of a container inherits the orphans of all others, and
//! must wait for them, or they stay as zombies until the table of processes is
//! full. A wait for any child takes the one that matters too, so that one place
//! does all the waiting. The sidecar starts no other process.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Hears of children that end. Made before the child, so that none is missed.
pub struct Listening(Signal);

/// Waits for every child of this process, and tells of one.
pub struct Reaper {
    ended: watch::Receiver<Option<ExitStatus>>,
    _reaping: AbortOnDropHandle<()>,
}

impl Reaper {
    /// Waits for the end of the child that it was started for.
    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        loop {
            if let Some(status) = *ended.borrow_and_update() {
                return status;
            }
            if ended.changed().await.is_err() {
                // The task lives as long as this does, and ends with a status.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Listening {
    /// Listens; what ends meanwhile is collected later.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::child())?))
    }

    /// Collects children from now on; `child` is the one to tell of.
    pub fn reap(self, child: Pid) -> Reaper {
        let Self(mut signals) = self;
        let (tell, ended) = watch::channel(None);
        let reaping = tokio::spawn(async move {
            loop {
                while let Some((pid, status)) = next() {
                    if pid == child {
                        tell.send_replace(Some(status));
                    }
                }
                if signals.recv().await.is_none() {
                    return;
                }
            }
        });
        Reaper {
            ended,
            _reaping: AbortOnDropHandle::new(reaping),
        }
    }
}

/// A child that has ended and was not waited for.
fn next() -> Option<(Pid, ExitStatus)> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(waited) => {
                return waited.map(|(pid, status)| (pid, ExitStatus::from_raw(status.as_raw())));
            }
            Err(Errno::INTR) => {}
            // There are no children.
            Err(_) => return None,
        }
    }
}
