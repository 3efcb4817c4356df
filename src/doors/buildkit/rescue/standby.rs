//! What is needed of a build should it fail: its definitions, as they pass, and
//! who waits for whom at its end.
//!
//! A Status stream that buildkitd has ended tells the client no more, so it
//! stays open until it is settled whether there is anything to tell.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::build::Build;
use super::super::grpc::Body;
use super::super::proto::control;
use super::super::splice::Malformed;
use super::cut::{Cut, cut};
use super::definitions::{Definitions, Room, Share};
use super::guard::nanoseconds;
use crate::digest::Digest;

/// One build's; nothing happens here until it is armed.
#[derive(Default)]
pub struct Standby {
    room: OnceLock<Room>,
    definitions: Mutex<Definitions>,
    /// How many Status streams buildkitd has not ended.
    reading: watch::Sender<usize>,
    /// When the last of what it saw was completed, by the daemon's clock.
    latest: AtomicI64,
    settled: CancellationToken,
}

/// A Status stream that may still say what succeeded.
pub struct Reading(watch::Sender<usize>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.send_modify(|reading| *reading -= 1);
    }
}

impl Standby {
    /// From now on definitions are kept, and whoever waits until it is settled
    /// waits until what this gives is dropped.
    pub fn arm(&self, room: &Room) -> DropGuard {
        self.room.get_or_init(|| room.clone());
        self.settled.clone().drop_guard()
    }

    /// Whether definitions are kept.
    pub fn is_armed(&self) -> bool {
        self.room.get().is_some()
    }

    /// Resolves when nothing more will be done for the build, at once where
    /// nothing ever was to be.
    pub async fn settled(&self) {
        if self.is_armed() {
            self.settled.cancelled().await;
        }
    }

    /// Takes in an event of the progress.
    pub fn see(&self, vertex: &control::Vertex) {
        if let Some(completed) = &vertex.completed {
            let completed = nanoseconds(completed);
            self.latest.fetch_max(completed, Ordering::Relaxed);
        }
    }

    /// When the last vertex was completed, by the daemon's clock, in nanoseconds
    /// since 1970.
    pub fn latest(&self) -> i64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// Says that a Status stream is read, until what this gives is dropped.
    pub fn reading(&self) -> Reading {
        self.reading.send_modify(|reading| *reading += 1);
        Reading(self.reading.clone())
    }

    /// Resolves when all has been read that buildkitd said.
    pub async fn read(&self) {
        // An error would mean that the sender is gone, and that is ours.
        let _ = self
            .reading
            .subscribe()
            .wait_for(|reading| *reading == 0)
            .await;
    }

    /// Keeps a `pb.Definition`.
    pub fn remember(&self, definition: &[u8]) {
        if let Some(room) = self.room.get()
            && self.definitions().add(definition, room).is_err()
        {
            tracing::debug!("a definition could not be read");
        }
    }

    /// Whether there is any definition, and whether one was too large to keep.
    pub fn has_definitions(&self) -> (bool, bool) {
        let definitions = self.definitions();
        (!definitions.operations.is_empty(), definitions.too_large)
    }

    /// What is left of all definitions where only these succeeded; no file of a
    /// client matches `pattern`.
    pub fn cut(&self, succeeded: &HashSet<Digest>, pattern: &str) -> Option<Cut> {
        cut(&self.definitions(), succeeded, pattern)
    }

    fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands the answer to a gateway `Solve` on as it comes, and keeps the
/// definitions in it.
pub fn overhear(build: Arc<Build>, answer: Incoming) -> Body {
    let mut copy = Some((BytesMut::new(), Share::default()));
    let overheard = answer.map_frame(move |frame| {
        let standby = &build.standby;
        let Some(data) = frame.data_ref() else {
            // The trailers; the client acts on the answer only after them.
            if let Some((answer, _share)) = copy.take() {
                let definitions = definitions(&answer).unwrap_or_default();
                definitions.iter().for_each(|d| standby.remember(d));
            }
            return frame;
        };
        if let (Some((answer, share)), Some(room)) = (&mut copy, standby.room.get()) {
            if share.grow(data.len(), room) {
                answer.extend_from_slice(data);
            } else {
                copy = None;
                standby.definitions().give_up();
            }
        }
        frame
    });
    overheard.map_err(Into::into).boxed_unsync()
}

/// The definitions in a framed `SolveResponse` (BuildKit:
/// `frontend/gateway/pb/gateway.proto`), as bytes.
fn definitions(framed: &[u8]) -> Result<Vec<Bytes>, Malformed> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct SolveResponse {
        #[prost(message, optional, tag = "3")]
        result: Option<Answer>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Answer {
        #[prost(message, optional, tag = "3")]
        one: Option<Ref>,
        #[prost(message, optional, tag = "4")]
        many: Option<RefMap>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Ref {
        #[prost(bytes = "bytes", tag = "2")]
        def: Bytes,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RefMap {
        #[prost(map = "string, message", tag = "1")]
        refs: std::collections::HashMap<String, Ref>,
    }
    const PREFIX: usize = 5;
    // A compressed one is not asked for by any client of BuildKit.
    let (Some(0), Some(message)) = (framed.first(), framed.get(PREFIX..)) else {
        return Err(Malformed);
    };
    let response = SolveResponse::decode(message).map_err(|_| Malformed)?;
    let answer = response.result.unwrap_or_default();
    let many = answer.many.unwrap_or_default().refs.into_values();
    let refs = answer.one.into_iter().chain(many);
    Ok(refs
        .map(|reference| reference.def)
        .filter(|def| !def.is_empty())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::buildkit::grpc::frame;
    use crate::doors::buildkit::splice::put_field;

    #[test]
    fn the_definitions_of_one_reference_and_of_several_are_found() {
        let reference = |definition: &[u8]| {
            let mut out = Vec::new();
            put_field(&mut out, 1, b"id");
            put_field(&mut out, 2, definition);
            out
        };
        let answer = |number, content: &[u8]| {
            let (mut result, mut out) = (Vec::new(), Vec::new());
            put_field(&mut result, number, content);
            put_field(&mut out, 3, &result);
            frame(&out)
        };
        let one = answer(3, &reference(b"one"));
        assert_eq!(definitions(&one), Ok(vec![Bytes::from_static(b"one")]));
        let mut map = Vec::new();
        for (platform, definition) in [("a", b"one"), ("b", b"two")] {
            let mut entry = Vec::new();
            put_field(&mut entry, 1, platform.as_bytes());
            put_field(&mut entry, 2, &reference(definition));
            put_field(&mut map, 1, &entry);
        }
        let mut many = definitions(&answer(4, &map)).unwrap();
        many.sort();
        assert_eq!(many, ["one", "two"]);
        assert_eq!(definitions(b"\0\0\0\0\0"), Ok(Vec::new()));
        assert!(definitions(b"\x01\0\0\0\0").is_err());
        assert!(definitions(b"").is_err());
    }
}
