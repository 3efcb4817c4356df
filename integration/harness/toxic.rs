//! A TCP proxy that does to connections what networks do: it refuses, hangs,
//! slows down, cuts, resets, and flips a byte. What it does can be changed while
//! it runs, for connections that are open, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Added to what has passed once a cut is done: it is done once.
const CUT: u64 = 1 << 40;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Nothing.
    Pass,
    /// New connections are closed at once, and open ones too.
    Refuse,
    /// Connections are accepted, and no byte passes.
    Hang,
    /// So many bytes pass in a second, each way.
    Slow(u64),
    /// Connections end once so many bytes have gone that way since this was set,
    /// in all; later ones pass.
    Cut(Way, u64),
    /// The byte that goes that way after so many, since this was set, is another
    /// one; all others pass.
    Flip(Way, u64),
    /// Connections are reset.
    Reset,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    /// From it.
    Down,
}

/// The proxy; dropped, it ends with its connections.
pub struct ToxicProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    toxic: watch::Sender<Toxic>,
    /// Bytes from the server since the toxic was set.
    down: AtomicU64,
    /// And to it.
    up: AtomicU64,
    accepted: AtomicU64,
}

impl Shared {
    /// Bytes that went that way since the toxic was set.
    fn passed(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

impl ToxicProxy {
    /// A proxy of `server`, on a free port of loopback, that passes all.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            toxic: watch::Sender::new(Toxic::Pass),
            down: AtomicU64::new(0),
            up: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting: accepting.abort_handle(),
        }
    }

    /// A proxy of the server that stands in `url` with its address and port, and
    /// that URL by way of the proxy.
    pub async fn before(url: &str) -> (Self, String) {
        let words = &mut url.split(['@', '/', '&']);
        let server = words.find_map(|word| word.parse().ok());
        let server: SocketAddr = server.expect("an address and a port");
        let proxy = Self::start(server).await;
        let by_proxy = url.replace(&server.to_string(), &proxy.address.to_string());
        (proxy, by_proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, toxic: Toxic) {
        self.shared.down.store(0, Ordering::SeqCst);
        self.shared.up.store(0, Ordering::SeqCst);
        self.shared.toxic.send_replace(toxic);
    }

    /// How many bytes came from the server since then.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// How many bytes went to it since then.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for ToxicProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(proxy(client, server, Arc::clone(&shared)));
    }
}

async fn proxy(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((client_read, client_write), (server_read, server_write)) =
        (client.into_split(), server.into_split());
    let up = pump(Way::Up, client_read, server_write, &shared);
    let down = pump(Way::Down, server_read, client_write, &shared);
    // Where one way ends by a toxic, so does the other.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Moves bytes one way until an end, or until the toxic says so.
async fn pump(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut toxic = shared.toxic.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *toxic.borrow_and_update();
        let most = match now {
            Toxic::Refuse => return,
            Toxic::Reset => {
                let zero = Some(Duration::ZERO);
                let _ = rustix::net::sockopt::set_socket_linger(from.as_ref(), zero);
                let _ = rustix::net::sockopt::set_socket_linger(to.as_ref(), zero);
                return;
            }
            Toxic::Hang => {
                if toxic.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Toxic::Slow(rate) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                usize::try_from(rate / 50).unwrap().max(1)
            }
            Toxic::Pass | Toxic::Cut(..) | Toxic::Flip(..) => buffer.len(),
        };
        let most = most.min(buffer.len());
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read,
            changed = toxic.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let mut length = match read {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let passed = shared.passed(way);
        let before = passed.fetch_add(length as u64, Ordering::SeqCst);
        let now = *toxic.borrow();
        match now {
            Toxic::Cut(cut, after) if cut != way || before >= after + CUT => {}
            Toxic::Cut(_, after) if before + length as u64 > after => {
                length = usize::try_from(after.saturating_sub(before)).unwrap();
                passed.store(after + CUT, Ordering::SeqCst);
                let _ = to.write_all(&buffer[..length]).await;
                return;
            }
            Toxic::Flip(flipped, at)
                if flipped == way && (before..before + length as u64).contains(&at) =>
            {
                buffer[usize::try_from(at - before).unwrap()] ^= 1;
            }
            _ => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
