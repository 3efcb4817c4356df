//! A hub: one address or several, each with its connection and its breaker.
//!
//! A call goes to the address that answered last, and to the next one when that
//! fails before it has answered. What a hub refuses, every address would
//! refuse. Trouble is logged when it begins and when it ends, not in between.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::address::HubAddress;
use super::breaker::{Admitted, Breaker, Change};
use super::connection::{Connection, Wire};
use super::failure::{Ending, Failure};
use super::metrics::{Method, Metrics, Outcome};
use super::token::TokenSource;
use crate::access::Secret;
use crate::cache::wire::{CacheClient, MAX_MESSAGE};
use crate::telemetry;
use crate::tls::Connector;

/// How long all addresses may be silent before an export that has begun is given
/// up.
const GONE: Duration = Duration::from_secs(10);

/// The client that calls are made with.
pub(super) type Client = CacheClient<Wire>;

/// A hub, by its addresses. Connections are made when they are needed.
pub struct Hub {
    peers: Vec<Peer>,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// That none has answered; none while one does.
    silence: Mutex<Option<Silence>>,
    /// When it took bytes of any upload last.
    moved: Mutex<Instant>,
    metrics: Metrics,
}

struct Silence {
    since: Instant,
    /// What it looked like last, address by address.
    why: String,
}

struct Peer {
    connection: Connection,
    breaker: Mutex<Breaker>,
}

impl Hub {
    /// A hub at `addresses`, spoken to over `tls` where an address asks for it.
    pub fn new(
        addresses: impl IntoIterator<Item = HubAddress>,
        tls: Option<Connector>,
        metrics: Metrics,
    ) -> Self {
        let peer = |address| Peer {
            connection: Connection::new(address, tls.clone()),
            breaker: Mutex::default(),
        };
        Self {
            peers: addresses.into_iter().map(peer).collect(),
            preferred: AtomicUsize::new(0),
            silence: Mutex::default(),
            moved: Mutex::new(Instant::now()),
            metrics,
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &HubAddress> {
        self.peers.iter().map(|peer| peer.connection.address())
    }

    /// Whether anything answers at one of its addresses; an error says why not.
    pub async fn reachable(&self) -> Result<(), String> {
        let looked = self.peers.iter().map(|peer| async {
            let wire = peer.connection.wire().await;
            wire.map_err(|why| format!("the hub {}: {why}", peer.connection.address()))
        });
        let looked = futures::future::join_all(looked).await;
        let mut troubles = Vec::new();
        for wire in looked {
            match wire {
                Ok(_) => return Ok(()),
                Err(trouble) => troubles.push(trouble),
            }
        }
        Err(troubles.join("; "))
    }

    /// For how long no address has answered, not even that it can't; none
    /// where one did last.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        let silence = self.silence();
        silence.as_ref().map(|silence| silence.since.elapsed())
    }

    /// Whether none has for so long that what has begun is not waited for.
    pub(super) fn is_gone(&self) -> bool {
        self.silent_for().is_some_and(|silent| silent >= GONE)
    }

    /// Why no address has answered; none where one did last.
    pub(super) fn trouble(&self) -> Option<String> {
        let silence = self.silence();
        silence.as_ref().map(|silence| silence.why.clone())
    }

    /// It took bytes of an upload, just now.
    pub(super) fn moves(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends once it has taken nothing of any upload for so long, and not before
    /// that much has passed since that time.
    pub(super) async fn until_stuck(&self, since: Instant, patience: Duration) {
        loop {
            let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            let left = patience.saturating_sub(moved.max(since).elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn silence(&self) -> MutexGuard<'_, Option<Silence>> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That address has answered.
    fn heard(&self, at: usize) {
        self.preferred.store(at, Ordering::Relaxed);
        *self.silence() = None;
    }

    async fn call<Q, A, F, Answer>(
        &self,
        call: Call,
        token: Option<&Secret>,
        request: Q,
        send: F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Fn(Client, tonic::Request<Q>) -> Answer,
        Answer: Future<Output = Result<A, Status>>,
    {
        self.ask(call, |wire| {
            let mut request = tonic::Request::new(request.clone());
            furnish(request.metadata_mut(), token);
            let client = Client::new(wire)
                .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
                .max_decoding_message_size(MAX_MESSAGE);
            let answer = send(client, request);
            async { answer.await.map_err(Ending::of) }
        })
        .await
    }

    /// Asks one address after the other, until one has answered.
    pub(super) async fn ask<A, F, Answer>(&self, call: Call, ask: F) -> Result<A, Failure>
    where
        F: Fn(Wire) -> Answer,
        Answer: Future<Output = Result<A, Ending>>,
    {
        let began = Instant::now();
        let deadline = began + call.limit;
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.peers.len();
        let mut troubles = Vec::new();
        let mut heard = false;
        let mut busy = None;
        for turn in 0..count {
            let at = (first + turn) % count;
            let Some(peer) = self.peers.get(at) else {
                break;
            };
            let rest = deadline.saturating_duration_since(Instant::now());
            let limit = if turn + 1 < count {
                rest.min(call.limit / 2)
            } else {
                rest
            };
            let address = peer.connection.address();
            let attempt = match Attempt::begin(peer, &self.metrics, call.method) {
                Ok(attempt) => attempt,
                Err(why) => {
                    troubles.push(format!("the hub {address}: {why}"));
                    continue;
                }
            };
            let answered = tokio::time::timeout(limit, async {
                let wire = peer.connection.wire().await.map_err(Ending::Failed)?;
                ask(wire).await
            });
            let ending = match answered.await {
                Ok(Ok(answer)) => {
                    attempt.answered();
                    self.heard(at);
                    return Ok(answer);
                }
                Ok(Err(ending)) => ending,
                Err(_) => Ending::Broken(format!("no answer within {:.1} s", limit.as_secs_f32())),
            };
            match ending {
                Ending::Refused(status) => {
                    attempt.refused();
                    self.heard(at);
                    return Err(Failure::Refused(status));
                }
                Ending::Busy(why, pause) => {
                    attempt.refused();
                    heard = true;
                    busy = Some(pause);
                    troubles.push(format!("the hub {address}: {why}"));
                }
                Ending::Broken(why) => {
                    peer.connection.distrust().await;
                    troubles.push(attempt.failed(&why));
                }
                Ending::Said(why) => {
                    heard = true;
                    troubles.push(attempt.failed(&why));
                }
                Ending::Failed(why) => troubles.push(attempt.failed(&why)),
            }
        }
        let why = troubles.join("; ");
        let mut silence = self.silence();
        *silence = if heard {
            None
        } else {
            Some(Silence {
                since: silence.as_ref().map_or(began, |was| was.since),
                why: why.clone(),
            })
        };
        drop(silence);
        Err(match busy {
            Some(pause) => Failure::Busy(why, pause),
            None => Failure::Unreachable(why),
        })
    }
}

/// What is called, and how long it may take over all addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) limit: Duration,
}

impl Call {
    pub(super) fn within(method: Method, limit: Duration) -> Self {
        Self { method, limit }
    }
}

/// Who calls a hub: by which token.
#[derive(Clone)]
pub(super) struct Caller {
    hub: Arc<Hub>,
    token: TokenSource,
    /// Of this caller and its clones alone.
    number: u64,
}

impl Caller {
    /// Calls `hub` with the token of `token`.
    pub(super) fn new(hub: Arc<Hub>, token: TokenSource) -> Self {
        static CALLERS: AtomicU64 = AtomicU64::new(0);
        Self {
            hub,
            token,
            number: CALLERS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether it is a clone of the other.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Asks; `send` is done anew at every address, while the hub is busy, and with
    /// another token where it refuses one that can be had anew.
    pub(super) async fn call<Q, A, F, Answer>(
        &self,
        call: Call,
        request: Q,
        send: F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Fn(Client, tonic::Request<Q>) -> Answer,
        Answer: Future<Output = Result<A, Status>>,
    {
        let began = Instant::now();
        let rest = || call.limit.saturating_sub(began.elapsed());
        let mut again = true;
        loop {
            let token = tokio::time::timeout(rest(), self.token.current());
            let late = |_| Failure::Unreachable("the hub gave no token in time".to_owned());
            let token = token.await.map_err(late)??;
            let call = Call::within(call.method, rest());
            let answer = self.hub.call(call, token.as_ref(), request.clone(), &send);
            let answer = answer.await;
            if let Err(Failure::Busy(_, pause)) = &answer
                && let pause = pause.mul_f64(rand::random_range(0.5..1.5))
                && pause < rest()
            {
                tokio::time::sleep(pause).await;
                continue;
            }
            let refused = matches!(&answer, Err(Failure::Refused(status)) if status.code() == Code::Unauthenticated);
            if !refused || !again || !token.is_some_and(|token| self.token.refused(&token)) {
                return answer;
            }
            again = false;
        }
    }
}

/// Puts the token and the trace into a request.
fn furnish(metadata: &mut MetadataMap, token: Option<&Secret>) {
    let mut headers = std::mem::take(metadata).into_headers();
    if let Some(token) = token
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose()))
    {
        value.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, value);
    }
    telemetry::sent_with(&tracing::Span::current(), &mut headers);
    *metadata = MetadataMap::from_headers(headers);
}

/// One attempt at one address; its end is told to the breaker and counted.
struct Attempt<'a> {
    admitted: Admitted,
    peer: &'a Peer,
    metrics: &'a Metrics,
    method: Method,
    began: Instant,
    settled: bool,
}

impl<'a> Attempt<'a> {
    fn begin(peer: &'a Peer, metrics: &'a Metrics, method: Method) -> Result<Self, String> {
        let began = Instant::now();
        let admitted = peer.breaker().admit(began).map_err(|(pause, why)| {
            metrics.request(method, Outcome::Spared, Duration::ZERO);
            let seconds = pause.as_secs_f32().max(1.0);
            format!("{why} (not asked again for {seconds:.0} s)")
        })?;
        Ok(Self {
            admitted,
            peer,
            metrics,
            method,
            began,
            settled: false,
        })
    }

    fn answered(mut self) {
        self.succeeded(Outcome::Answered);
    }

    fn refused(mut self) {
        self.succeeded(Outcome::Refused);
    }

    fn succeeded(&mut self, outcome: Outcome) {
        self.settled = true;
        self.count(outcome);
        let mut breaker = self.peer.breaker();
        let was_open = breaker.trouble().is_some();
        if breaker.succeeded() == Some(Change::Recovered) {
            self.metrics.opened(-i64::from(was_open));
            tracing::info!(hub = %self.peer.connection.address(), "the hub answers again");
        }
    }

    /// Gives what is wrong, for the user.
    fn failed(mut self, why: &str) -> String {
        self.settled = true;
        self.count(Outcome::Failed);
        let address = self.peer.connection.address();
        let text = format!("the hub {address}: {why}");
        let mut breaker = self.peer.breaker();
        let was_open = breaker.trouble().is_some();
        let change = breaker.failed(Instant::now(), self.admitted, why);
        if !was_open && breaker.trouble().is_some() {
            self.metrics.opened(1);
        }
        drop(breaker);
        match change {
            Some(Change::Failing) => tracing::warn!("{text}"),
            Some(Change::Opened(_)) => {
                tracing::warn!("{text}; it is asked now and then, until it answers");
            }
            Some(Change::Recovered) | None => tracing::debug!("{text}"),
        }
        text
    }

    fn count(&self, outcome: Outcome) {
        self.metrics
            .request(self.method, outcome, self.began.elapsed());
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.peer.breaker().released(self.admitted);
        }
    }
}

impl Peer {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.addresses().map(ToString::to_string);
        f.debug_list().entries(shown).finish()
    }
}
