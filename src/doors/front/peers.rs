//! How many connections each address has, so that one alone can't take all.
//!
//! Of IPv6, a client has a whole network of addresses, which count as one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::seats::{Seat, Seats};
use crate::telemetry::Seldom;

/// How often it is logged that connections were refused.
const LOGGED: Duration = Duration::from_secs(1);

/// The addresses that are connected; clones are the same.
#[derive(Clone)]
pub struct Peers {
    connections: Seats<IpAddr>,
    refused: Arc<Seldom>,
}

/// A connection that is counted until it is dropped.
pub struct Guest {
    _seat: Seat<IpAddr>,
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
            connections: Seats::new(most),
            refused: Arc::new(Seldom::new(LOGGED)),
        }
    }

    /// Counts a connection, unless its address has too many.
    pub fn admit(&self, stream: &TcpStream) -> Option<Guest> {
        let address = stream.peer_addr().ok()?;
        let client = shared(address.ip());
        let Some(seat) = self.connections.take(client) else {
            self.refuse(client);
            return None;
        };
        Some(Guest {
            _seat: seat,
            address,
        })
    }

    fn refuse(&self, client: IpAddr) {
        if let Some(refused) = self.refused.count() {
            tracing::warn!(%client, refused, "a client has too many connections");
        }
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
        let peers = Peers::new(2);
        let asked = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        let admitted = asked.map(|address| peers.connections.take(of(address)));
        assert_eq!(admitted.map(|seat| seat.is_some()), [true, true, false]);
    }
}
