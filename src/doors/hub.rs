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
//! | `connections` | accepting, TLS, limits, draining |
//! | `screen` | what a call passes before its message is read |
//! | `call` | one call: who, how long, how it ended |
//! | `service` | the methods |
//! | `reading`, `writing` | the streams of blobs |
//! | `publishing` | the parts of an export |
//! | `pieces` | the bytes of a blob on the wire, uncopied |

mod call;
mod connections;
mod metrics;
mod peers;
mod pieces;
mod publishing;
mod reading;
mod screen;
mod service;
mod writing;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::connections::serve;
pub use self::metrics::Metrics;
use crate::access::Access;
use crate::cache::guard::Guarded;
use crate::tls::Acceptor;

/// What one door needs.
pub struct Config {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Whether they speak TLS.
    pub tls: Option<Acceptor>,
    /// Who may what.
    pub access: Arc<Access>,
    /// The engine.
    pub cache: Guarded,
    /// Uploads at a time; others wait until one ends.
    pub uploads: usize,
    /// What is counted.
    pub metrics: Metrics,
}

/// How a door is told to end.
#[derive(Clone, Default)]
pub struct Closing {
    /// Take no more clients and calls; let what runs end, for a while.
    pub drain: CancellationToken,
    /// End now.
    pub hang_up: CancellationToken,
}

/// What all calls share.
struct Door {
    access: Arc<Access>,
    cache: Guarded,
    uploads: Arc<Semaphore>,
    /// Calls whose message is on its way.
    messages: Arc<Semaphore>,
    /// Memory for exports that come in, in KiB.
    exports: Arc<Semaphore>,
    metrics: Metrics,
    /// Uploads, which go on until their client ends them.
    tasks: TaskTracker,
}
