//! A client's connection, which can be ended by a reset, and the crowd of them,
//! which is bounded.
//!
//! A body that ends early but cleanly fails a user's build; a reset makes
//! BuildKit ask again for the rest. So a connection whose body broke is closed
//! with nothing lingering.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Connections beyond this many make idle ones go, the oldest first. BuildKit
/// itself keeps a handful.
const MAX_CONNECTIONS: usize = 256;

/// A TCP stream that is reset instead of closed where its body broke.
pub struct Connection {
    stream: TcpStream,
    broken: Arc<AtomicBool>,
}

impl Connection {
    /// Takes over `stream`; it is reset in the end if `broken` is set by then.
    pub fn new(stream: TcpStream, broken: Arc<AtomicBool>) -> Self {
        // Without it only small answers come a little later.
        let _ = stream.set_nodelay(true);
        Self { stream, broken }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.broken.load(Ordering::Relaxed) {
            // A socket that is gone already needs no reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.broken.load(Ordering::Relaxed) {
            // A clean end is what must not be sent.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Who is connected.
#[derive(Clone, Default)]
pub struct Crowd(Arc<Mutex<Vec<Arc<Member>>>>);

/// One of the crowd, until it is dropped.
pub struct Member {
    /// It has asked for something.
    pub busy: Arc<AtomicBool>,
    /// It has to go.
    pub evicted: CancellationToken,
}

impl Crowd {
    /// Lets one more in, and where that is too many, sends one that has never
    /// asked for anything away; if all have, the oldest.
    pub fn enter(&self) -> Arc<Member> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The others hold their own; who is only here has left.
        crowd.retain(|member| Arc::strong_count(member) > 1 && !member.evicted.is_cancelled());
        if crowd.len() >= MAX_CONNECTIONS {
            let idle = crowd
                .iter()
                .position(|member| !member.busy.load(Ordering::Relaxed));
            crowd.remove(idle.unwrap_or(0)).evicted.cancel();
        }
        let member = Arc::new(Member {
            busy: Arc::default(),
            evicted: CancellationToken::new(),
        });
        crowd.push(member.clone());
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_bounded_and_the_silent_go_first() {
        let crowd = Crowd::default();
        let asking = crowd.enter();
        asking.busy.store(true, Ordering::Relaxed);
        let others: Vec<_> = (0..10 * MAX_CONNECTIONS).map(|_| crowd.enter()).collect();
        assert!(!asking.evicted.is_cancelled());
        let staying = others
            .iter()
            .filter(|member| !member.evicted.is_cancelled())
            .count();
        assert_eq!(staying + 1, MAX_CONNECTIONS);
        drop(others);
        let late = crowd.enter();
        assert_eq!(crowd.0.lock().unwrap().len(), 2);
        assert!(!late.evicted.is_cancelled());
    }
}
