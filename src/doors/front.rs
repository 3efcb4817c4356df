//! The front of a hub: one port, and everything that is asked there.
//!
//! Connections are accepted here, with TLS or without. Their first bytes say
//! whether they speak HTTP/1.1 or HTTP/2. A request goes to the calls, where its
//! content type is gRPC's, and else to the pages. Neither of them is known here,
//! nor do they know this: a request says where it comes from by the
//! [`SocketAddr`](std::net::SocketAddr) in its extensions, and an `Arc<dyn Any +
//! Send + Sync>` in those of a response is kept until its last byte is written.
//!
//! | file | what |
//! |---|---|
//! | `connections` | accepting, TLS, limits, draining |
//! | `peers` | the share of each address |
//! | `first_word` | which HTTP a client speaks |
//! | `reception` | whom a request is for |
//! | `pages` | what all pages have in common |
//! | `patient` | bodies that stop coming |
//! | `traffic` | what runs on a connection |
//! | `flow` | whether a client takes what it is sent |

mod connections;
mod first_word;
mod flow;
mod metrics;
mod pages;
mod patient;
mod peers;
mod reception;
mod traffic;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::connections::serve;
pub use self::metrics::Metrics;
#[cfg(test)]
pub(super) use self::pages::furnished;
use crate::tls::Acceptor;

/// What a front needs.
pub struct Config<G> {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Whether they speak TLS.
    pub tls: Option<Acceptor>,
    /// Takes the requests of gRPC.
    pub calls: G,
    /// Takes all others. A body of more than 1 MiB is refused where it is read
    /// by an extractor; a route that needs more layers another
    /// [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit) over itself.
    pub pages: axum::Router,
    /// Connections at a time; one more waits to be accepted.
    pub max_connections: usize,
    /// Connections that one address may have; one more is closed.
    pub max_of_address: usize,
    /// What goes on beside requests, and is waited for at the end.
    pub tasks: TaskTracker,
    /// What is counted.
    pub metrics: Metrics,
}

/// How a front is told to end.
#[derive(Clone, Default)]
pub struct Closing {
    /// Take no more clients and calls; let what runs end, for a while.
    pub drain: CancellationToken,
    /// End now.
    pub hang_up: CancellationToken,
}
