//! How far a long command is, on stderr: a bar on a terminal, a line from time
//! to time elsewhere. And its end by a signal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::cache::archive::Progress;
use crate::units::ByteSize;

/// How often a bar is drawn.
const DRAWN: Duration = Duration::from_millis(100);
/// How often a line comes where there is no terminal.
const TOLD: Duration = Duration::from_secs(10);
const BAR: &str =
    "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";

/// Whether anything is shown, and how.
pub(super) enum Shown {
    Nothing,
    Lines,
    Bar,
}

impl Shown {
    /// As fits, unless nothing is wanted.
    pub(super) fn unless(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

/// Runs `work`, which tells `progress` how far it is; `doing` is a verb. A
/// SIGINT or SIGTERM drops it, and is an error.
pub(super) async fn watched<T>(
    work: impl Future<Output = T>,
    progress: &Progress,
    doing: &'static str,
    shown: Shown,
) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for signals")?;
    tokio::select! {
        done = work => Ok(done),
        never = show(progress, doing, shown) => never,
        _ = interrupt.recv() => bail!("{doing} was interrupted"),
        _ = terminate.recv() => bail!("{doing} was interrupted"),
    }
}

/// Never ends.
async fn show<T>(progress: &Progress, doing: &'static str, shown: Shown) -> anyhow::Result<T> {
    match shown {
        Shown::Nothing => std::future::pending().await,
        Shown::Bar => draw(progress, doing).await,
        Shown::Lines => tell(progress, doing).await,
    }
}

async fn draw<T>(progress: &Progress, doing: &'static str) -> anyhow::Result<T> {
    let bar = Cleared(ProgressBar::new(0));
    bar.0.set_style(ProgressStyle::with_template(BAR)?);
    bar.0.set_message(doing);
    let mut ticks = tokio::time::interval(DRAWN);
    loop {
        ticks.tick().await;
        bar.0.set_length(progress.total());
        bar.0.set_position(progress.done());
    }
}

/// A bar that leaves nothing behind.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn tell<T>(progress: &Progress, doing: &'static str) -> anyhow::Result<T> {
    let mut ticks = tokio::time::interval(TOLD);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (done, total) = (ByteSize(progress.done()), ByteSize(progress.total()));
        // Progress that can't be shown is no reason to stop.
        writeln!(std::io::stderr(), "{doing}: {done} of {total}").ok();
    }
}
