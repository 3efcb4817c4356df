//! Whether a client takes what it is sent.
//!
//! What a client does not read stays in memory: in its stream, and in the
//! connection. An answer of which nothing moved for a while is given up, with
//! its stream alone where that is possible. Whatever was kept for an answer is
//! let go when its last byte is on the wire, and not before.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// How long a client may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// The answer that is written by this task.
    static FLOW: Arc<Flow>;
}

/// What is kept for an answer, in the extensions of its response.
type Kept = Arc<dyn Any + Send + Sync>;

/// How an answer moves.
#[derive(Debug)]
pub struct Flow {
    state: Mutex<State>,
    written: Notify,
}

#[derive(Debug)]
struct State {
    /// Pieces that were handed out and are not on the wire.
    waiting: usize,
    /// More is wanted, and not there yet.
    wanting: bool,
    moved: Instant,
}

impl Flow {
    /// Of an answer that has not begun.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                waiting: 0,
                wanting: false,
                moved: Instant::now(),
            }),
            written: Notify::new(),
        })
    }

    /// Does what writes the answer.
    pub async fn writing<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        FLOW.scope(Arc::clone(self), work).await
    }

    /// Resolves when the client has taken nothing for too long.
    pub async fn stalled(&self) {
        self.stalled_for(PATIENCE).await;
    }

    async fn stalled_for(&self, patience: Duration) {
        loop {
            let due = match *self.state() {
                State { waiting: 0, .. } | State { wanting: true, .. } => patience,
                State { moved, .. } => patience.saturating_sub(moved.elapsed()),
            };
            if due.is_zero() {
                return;
            }
            tokio::time::sleep(due).await;
        }
    }

    /// Resolves when nothing waits to be written.
    pub async fn written(&self) {
        loop {
            let written = self.written.notified();
            if self.state().waiting == 0 {
                return;
            }
            written.await;
        }
    }

    fn hand_out(self: &Arc<Self>, bytes: Bytes, kept: Option<Kept>) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut state = self.state();
        state.waiting += 1;
        state.wanting = false;
        state.moved = Instant::now();
        drop(state);
        Bytes::from_owner(Piece {
            bytes,
            flow: Arc::clone(self),
            _kept: kept,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are on their way out, until they are dropped.
struct Piece {
    bytes: Bytes,
    flow: Arc<Flow>,
    _kept: Option<Kept>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.flow.state();
        state.waiting -= 1;
        state.moved = Instant::now();
        if state.waiting == 0 {
            self.flow.written.notify_one();
        }
    }
}

/// A body whose pieces are followed.
pub struct Flowing<B> {
    body: B,
    flow: Arc<Flow>,
    kept: Option<Kept>,
}

impl<B> Flowing<B> {
    /// The body of an answer, which this task writes.
    pub fn of(response: http::Response<B>) -> http::Response<Self> {
        let flow = FLOW.try_with(Arc::clone).unwrap_or_else(|_| Flow::new());
        let (mut head, body) = response.into_parts();
        let kept = head.extensions.remove();
        http::Response::from_parts(head, Self { body, flow, kept })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Flowing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.flow.state().wanting = polled.is_pending();
        polled.map_ok(|frame| {
            let kept = &self.kept;
            frame.map_data(|bytes| self.flow.hand_out(bytes, kept.clone()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Weak;

    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    /// An answer of so many pieces, and what is kept for it.
    async fn answer(
        pieces: usize,
    ) -> (
        Arc<Flow>,
        Flowing<impl Body<Data = Bytes, Error = Infallible> + Unpin>,
        Weak<()>,
    ) {
        let flow = Flow::new();
        let frame = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece")));
        let pieces = futures::stream::iter((0..pieces).map(move |_| frame()));
        let mut response = http::Response::new(StreamBody::new(pieces));
        let kept = Arc::new(());
        let weak = Arc::downgrade(&kept);
        response.extensions_mut().insert(kept as Kept);
        let response = flow.writing(async { Flowing::of(response) }).await;
        (flow, response.into_body(), weak)
    }

    #[tokio::test]
    async fn what_is_kept_for_an_answer_stays_until_its_last_byte_is_written() {
        let (flow, mut body, kept) = answer(2).await;
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        drop((body, first));
        assert!(kept.upgrade().is_some());
        assert!(flow.written().now_or_never().is_none());
        assert_eq!(&last[..], b"piece");
        drop(last);
        assert!(kept.upgrade().is_none());
        flow.written().await;
    }

    #[tokio::test]
    async fn an_answer_stalls_where_its_pieces_are_not_taken() {
        let (flow, mut body, _) = answer(1).await;
        let piece = body.frame().await;
        flow.stalled_for(SOON).await;
        drop(piece);
        let stalled = flow.stalled_for(SOON);
        let moved = tokio::time::timeout(4 * SOON, stalled).await;
        assert!(moved.is_err(), "nothing waits any more");
    }

    #[tokio::test]
    async fn whoever_waits_for_more_does_not_stall() {
        let flow = Flow::new();
        let empty = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let response = http::Response::new(StreamBody::new(empty));
        let response = flow.writing(async { Flowing::of(response) }).await;
        let mut body = response.into_body();
        let held = flow.hand_out(Bytes::from_static(b"before"), None);
        assert!(body.frame().now_or_never().is_none());
        let stalled = tokio::time::timeout(4 * SOON, flow.stalled_for(SOON)).await;
        assert!(stalled.is_err(), "it is the source that is slow");
        drop(held);
    }
}
