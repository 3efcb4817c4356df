//! What runs on one connection of HTTP/2: how much, and since when nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

use super::flow::Flow;

/// The requests of a connection; clones are the same.
#[derive(Clone)]
pub struct Traffic {
    running: Arc<Mutex<Running>>,
    /// Nobody takes what was answered, and only closing lets go of it.
    stuck: CancellationToken,
}

struct Running {
    requests: usize,
    /// When the last one ended.
    ended: Instant,
}

/// One that runs, until it is dropped.
struct Request(Traffic);

impl Traffic {
    /// None yet.
    pub fn new() -> Self {
        Self {
            running: Arc::new(Mutex::new(Running {
                requests: 0,
                ended: Instant::now(),
            })),
            stuck: CancellationToken::new(),
        }
    }

    /// Resolves when nothing has run for so long.
    pub async fn quiet(&self, limit: Duration) {
        loop {
            let left = match *self.lock() {
                Running { requests: 0, ended } => limit.saturating_sub(ended.elapsed()),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Resolves when the connection has to be closed.
    pub async fn stuck(&self) {
        self.stuck.cancelled().await;
    }

    fn begin(&self) -> Request {
        self.lock().requests += 1;
        Request(self.clone())
    }

    async fn attend(self, request: impl Future) {
        let _running = self.begin();
        let flow = Flow::new();
        tokio::select! {
            _ = flow.writing(request) => {}
            () = flow.stalled() => {
                // Dropping what writes it resets the stream, and lets go of all
                // that it holds.
                tracing::debug!("a client does not read its answer: it is given up");
                return;
            }
        }
        // It is answered, as far as the connection could take it.
        tokio::select! {
            () = flow.written() => {}
            () = flow.stalled() => {
                tracing::info!("a client does not read its answers: it is hung up on");
                self.stuck.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut running = self.0.lock();
        running.requests -= 1;
        running.ended = Instant::now();
    }
}

impl<F> Executor<F> for Traffic
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, request: F) {
        tokio::spawn(self.clone().attend(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_quiet_once_its_last_request_has_ended() {
        const SOON: Duration = Duration::from_millis(5);
        let traffic = Traffic::new();
        traffic.quiet(SOON).await;
        let (first, second) = (traffic.begin(), traffic.begin());
        for request in [first, second] {
            let quiet = tokio::time::timeout(4 * SOON, traffic.quiet(SOON)).await;
            assert!(quiet.is_err(), "something runs");
            drop(request);
        }
        traffic.quiet(SOON).await;
    }
}
