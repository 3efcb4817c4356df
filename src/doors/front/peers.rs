//! How many connections each address has, so that one alone can't take all.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;

/// The addresses that are connected; clones are the same.
#[derive(Clone)]
pub struct Peers {
    connections: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// What one of them has at most.
    most: usize,
}

/// A connection that is counted until it is dropped.
pub struct Guest {
    peers: Peers,
    address: SocketAddr,
}

impl Guest {
    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Peers {
    /// Nobody yet; an address has `most` connections at most.
    pub fn new(most: usize) -> Self {
        Self {
            connections: Arc::default(),
            most,
        }
    }

    /// Counts a connection, unless its address has too many.
    pub fn admit(&self, stream: &TcpStream) -> Option<Guest> {
        let address = stream.peer_addr().ok()?;
        let mut peers = self.lock();
        let connections = peers.entry(address.ip()).or_default();
        if *connections >= self.most {
            tracing::warn!(%address, "a client has too many connections");
            return None;
        }
        *connections += 1;
        Some(Guest {
            peers: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        if let Some(connections) = peers.get_mut(&self.address.ip()) {
            *connections -= 1;
            if *connections == 0 {
                peers.remove(&self.address.ip());
            }
        }
    }
}
