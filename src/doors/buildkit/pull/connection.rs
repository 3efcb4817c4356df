//! A client's connection, which ends by a reset unless it ends well, and the
//! crowd of them, which is bounded.
//!
//! A body that ends early but cleanly fails a user's build; a reset makes
//! BuildKit ask again for the rest. So a connection is reset whenever it is
//! dropped, by whatever (an error, an eviction, the end of this process), and
//! is closed only when its server has written all that it had to.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Connections beyond this many make idle ones go, the oldest first. BuildKit
/// itself keeps a handful.
const MAX_CONNECTIONS: usize = 256;

/// A TCP stream that is reset unless it is shut down.
pub struct Connection {
    stream: TcpStream,
    broken: Arc<AtomicBool>,
}

impl Connection {
    /// Takes over `stream`; it is reset in the end if `broken` is set by then.
    pub fn new(stream: TcpStream, broken: Arc<AtomicBool>) -> Self {
        // Without it only small answers come a little later.
        let _ = stream.set_nodelay(true);
        // A socket that is gone already needs no reset.
        let _ = stream.set_zero_linger();
        Self { stream, broken }
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
        set_socket_linger(&this.stream, None)?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Who is connected.
#[derive(Clone, Default)]
pub struct Crowd(Arc<Mutex<Vec<Arc<Member>>>>);

/// One of the crowd, until it is dropped.
#[derive(Default)]
pub struct Member {
    /// How many bodies are on their way to it.
    reading: AtomicUsize,
    /// It has to go.
    pub evicted: CancellationToken,
}

/// A body on its way, until it is dropped.
pub struct UnderWay(Arc<Member>);

impl Member {
    /// Says that a body is on its way; only somebody who knows a name gets one.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.reading.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.reading.load(Ordering::Relaxed) == 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowd {
    /// Lets one more in, and where that is too many, sends the oldest away to
    /// whom no body is on its way. Those who read are as many as builds need.
    pub fn enter(&self) -> Arc<Member> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The others hold their own; who is only here has left.
        crowd.retain(|member| Arc::strong_count(member) > 1 && !member.evicted.is_cancelled());
        if crowd.len() >= MAX_CONNECTIONS {
            let idle = crowd.iter().position(|member| member.is_idle());
            if let Some(idle) = idle {
                crowd.remove(idle).evicted.cancel();
            }
        }
        let member = Arc::new(Member::default());
        crowd.push(member.clone());
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_bounded_and_who_reads_stays() {
        let crowd = Crowd::default();
        let member = crowd.enter();
        let reading = member.begin();
        let mut others: Vec<_> = (0..10 * MAX_CONNECTIONS).map(|_| crowd.enter()).collect();
        assert!(!member.evicted.is_cancelled());
        let staying = others
            .iter()
            .filter(|member| !member.evicted.is_cancelled());
        assert_eq!(staying.count() + 1, MAX_CONNECTIONS);
        drop(reading);
        others.extend((0..MAX_CONNECTIONS).map(|_| crowd.enter()));
        assert!(member.evicted.is_cancelled(), "it has read all");
        drop((others, member));
        let late = crowd.enter();
        assert_eq!(crowd.0.lock().unwrap().len(), 1);
        assert!(!late.evicted.is_cancelled());
    }
}
