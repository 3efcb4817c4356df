//! How many connections each address has, so that one alone can't take all.
//!
//! Of IPv6, a client has a whole network of addresses, which count as one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

/// How often it is logged that connections were refused.
const LOGGED: Duration = Duration::from_secs(1);

/// The addresses that are connected; clones are the same.
#[derive(Clone)]
pub struct Peers {
    counted: Arc<Mutex<Counted>>,
    /// What one of them has at most.
    most: usize,
}

#[derive(Default)]
struct Counted {
    connections: HashMap<IpAddr, usize>,
    logged: Option<Instant>,
    /// Refused since then.
    refused: u64,
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
            counted: Arc::default(),
            most,
        }
    }

    /// Counts a connection, unless its address has too many.
    pub fn admit(&self, stream: &TcpStream) -> Option<Guest> {
        let address = stream.peer_addr().ok()?;
        if !self.lock().admit(shared(address.ip()), self.most) {
            return None;
        }
        Some(Guest {
            peers: self.clone(),
            address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn admit(&mut self, client: IpAddr, most: usize) -> bool {
        let connections = self.connections.entry(client).or_default();
        if *connections < most {
            *connections += 1;
            return true;
        }
        self.refused += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOGGED) {
            let refused = std::mem::take(&mut self.refused);
            tracing::warn!(%client, refused, "a client has too many connections");
            self.logged = Some(Instant::now());
        }
        false
    }
}

/// What a client's address counts as.
fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let client = shared(self.address.ip());
        let mut peers = self.peers.lock();
        if let Some(connections) = peers.connections.get_mut(&client) {
            *connections -= 1;
            if *connections == 0 {
                peers.connections.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_once_however_many_addresses_of_a_network_it_has() {
        let of = |text: &str| shared(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        let mut counted = Counted::default();
        let asked = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        let admitted = asked.map(|address| counted.admit(of(address), 2));
        assert_eq!(admitted, [true, true, false]);
    }
}
