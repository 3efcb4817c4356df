//! What the signals of a sidecar mean.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::doors::buildkit::Closing;

/// What a signal asks of a sidecar with a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: to end.
    End,
    /// Any other: what the child makes of it.
    PassOn(Signal),
}

/// The signals of a sidecar with a child; none is lost from its making on.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    quit: unix::Signal,
    user_one: unix::Signal,
    user_two: unix::Signal,
}

impl Signals {
    /// Takes the signals away from their default, which is to die of them.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user_one: signal(SignalKind::user_defined1())?,
            user_two: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
            _ = self.hang_up.recv() => Request::PassOn(Signal::HUP),
            _ = self.quit.recv() => Request::PassOn(Signal::QUIT),
            _ = self.user_one.recv() => Request::PassOn(Signal::USR1),
            _ = self.user_two.recv() => Request::PassOn(Signal::USR2),
        }
    }
}

/// For a sidecar alone: the first SIGTERM or SIGINT lets it drain, a second one
/// has it stop at once.
pub fn closed_by_signal() -> anyhow::Result<Closing> {
    let closing = Closing::default();
    let Closing { drain, hang_up } = closing.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("finishing what runs; once more to stop at once");
        drain.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        hang_up.cancel();
    });
    Ok(closing)
}
