//! The hub's door for sidecars: `layerd.v1` over gRPC.
//!
//! `proto/layerd/v1/cache.proto` says what is spoken. A call comes in with a
//! token, or none; `access` says what that grants, and a
//! [`Guard`](crate::cache::guard::Guard) of the engine does the rest. Nothing
//! that another hub would have to see is kept here: any number of them serve
//! one catalog and one store.
//!
//! | file | what |
//! |---|---|
//! | `screen` | what a call passes before its message is read |
//! | `call` | one call: who, how long, how it ended |
//! | `service` | the methods |
//! | `reading`, `writing` | the streams of blobs |
//! | `publishing` | the parts of an export |
//! | `pieces` | the bytes of a blob on the wire, uncopied |

mod call;
mod metrics;
mod pieces;
mod publishing;
mod reading;
mod screen;
mod service;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

pub use self::metrics::Metrics;
use self::pieces::Uncopied;
pub use self::screen::Screen;
use self::service::Service;
use crate::access::{Access, Refusals, Shares};
use crate::cache::guard::Guarded;
use crate::cache::wire::{CacheServer, MAX_MESSAGE};
use crate::telemetry::Seldom;

/// Calls that are open, and how many of them one client has: more than hundreds
/// of sidecars with one token need, and each takes some 20 KiB while it says
/// nothing. One more is refused.
const CALLS: [usize; 2] = [8192, 2048];
/// Calls of which is not known yet who makes them; one address has half.
const ARRIVALS: usize = 2048;
/// How often it is logged that calls were refused.
const TOLD: Duration = Duration::from_secs(10);
/// Calls whose message, of up to 4 MiB, is on its way; others wait.
const MESSAGES: usize = 20;
/// Memory for exports that come in, in KiB, and how much of it one client has:
/// the largest export has to fit. Others wait.
const EXPORTS: [usize; 2] = [96 << 10, 72 << 10];
/// Blobs that are read at a time: one that its client does not read takes about
/// a MiB.
const READS: usize = 128;
/// Look-ups that are worked on at a time.
const LOOK_UPS: usize = 32;
/// Memory for answers that are not on the wire yet, in KiB, and how much of it
/// one client has: the largest import has to fit.
const ANSWERS: [usize; 2] = [64 << 10, 48 << 10];
/// Blobs that are looked at because somebody found them wrong.
const SUSPECTS: usize = 2;

/// What one door needs.
pub struct Config {
    /// Who may what.
    pub access: Arc<Access>,
    /// The engine.
    pub cache: Guarded,
    /// Uploads at a time; others wait until one ends.
    pub uploads: Shares,
    /// Where uploads run: they go on until their client ends them.
    pub tasks: TaskTracker,
    /// What is counted.
    pub metrics: Metrics,
    /// The same of tokens that do not count.
    pub refusals: Refusals,
}

/// A door for requests of gRPC; clones are the same.
pub fn open(config: Config) -> Screen {
    let door = Arc::new(Door {
        access: config.access,
        cache: config.cache,
        uploads: config.uploads,
        arrivals: Shares::halved(ARRIVALS),
        calls: Shares::new(CALLS[0], CALLS[1]),
        crowded: Seldom::new(TOLD),
        messages: Shares::halved(MESSAGES),
        exports: Shares::new(EXPORTS[0], EXPORTS[1]),
        reads: Shares::halved(READS),
        look_ups: Shares::halved(LOOK_UPS),
        answers: Shares::new(ANSWERS[0], ANSWERS[1]),
        suspects: Shares::halved(SUSPECTS),
        metrics: config.metrics,
        refusals: config.refusals,
        tasks: config.tasks,
    });
    let service = CacheServer::new(Service(Arc::clone(&door)))
        .max_decoding_message_size(MAX_MESSAGE)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd);
    Screen::new(door, Routes::new(Uncopied(service)).prepare())
}

/// What all calls share.
struct Door {
    access: Arc<Access>,
    cache: Guarded,
    uploads: Shares,
    /// Calls of which is not known yet who makes them.
    arrivals: Shares,
    /// Those that are open, until the last byte of their answer is written.
    calls: Shares,
    /// Calls that found no room among those.
    crowded: Seldom,
    /// Calls whose message is on its way.
    messages: Shares,
    /// Memory for exports that come in, in KiB.
    exports: Shares,
    reads: Shares,
    look_ups: Shares,
    /// Memory for answers, in KiB.
    answers: Shares,
    suspects: Shares,
    metrics: Metrics,
    refusals: Refusals,
    tasks: TaskTracker,
}
