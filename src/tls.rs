//! TLS, for servers and for clients.
//!
//! Certificates, keys and authorities are PEM files, and are read again when
//! they change: a new connection gets the new ones, and those that are open go
//! on. Files that can't be used leave everything as it was. What a server has
//! is replaced as a whole, sessions that could be resumed included, so that an
//! authority which is taken away lets nobody in any more.
//!
//! TLS 1.2 and 1.3, by rustls with ring.

mod client;
mod files;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use self::client::{ClientTls, Connector, Roots, no_client, system_client, system_client_and};
pub use self::server::{Acceptor, ServerTls};

/// How long the other side may take over its handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// What is spoken over a connection, the preferred first (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 alone, as gRPC demands.
    H2,
    /// HTTP/2, and HTTP/1.1 for those who know nothing else.
    Http,
}

impl Alpn {
    fn names(self) -> Vec<Vec<u8>> {
        let all = [b"h2".to_vec(), b"http/1.1".to_vec()];
        match self {
            Self::H2 => all[..1].to_vec(),
            Self::Http => all.to_vec(),
        }
    }
}

/// What is wrong with TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read, or holds no PEM of the wanted kind.
    #[error("{path}: {source}", path = .0.display(), source = .1)]
    Pem(PathBuf, rustls_pki_types::pem::Error),
    /// Certificate, key and authorities don't make a configuration.
    #[error("TLS: {0}")]
    Config(String),
}

impl TlsError {
    fn config(error: impl std::fmt::Display) -> Self {
        Self::Config(error.to_string())
    }
}

/// Named, since what other crates make the default of this process is theirs.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
