//! What comes with a request: a small document as a whole, or bytes as a
//! stream that may not trickle.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt as _};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::failure::{Failure, Kind};
use super::metrics::{Direction, Metrics};
use crate::access::{Client, Pass, Shares};

/// The longest JSON, in bytes.
const MAX_JSON: usize = 64 << 10;
/// How long a document may be on its way.
const DOCUMENT: Duration = Duration::from_secs(30);
/// How long a request may wait for its turn to bring one.
const TURN: Duration = Duration::from_secs(10);
/// What a client has to send in a second at least, while it is waited for.
const LEAST: u64 = 16 << 10;
/// For how long it may send less.
const GRACE: Duration = Duration::from_secs(20);
/// What is taken of a body that nobody wants, in bytes and in time: whoever is
/// still sending does not read an answer, but an end of the connection.
const UNWANTED: (u64, Duration) = (128 << 20, Duration::from_secs(10));

/// A JSON object.
pub async fn json<T: DeserializeOwned>(
    room: &Shares,
    client: &Client,
    headers: &HeaderMap,
    coming: Coming,
) -> Result<T, Failure> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next();
    if !kind
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return Err(Failure::invalid("the body has to be application/json"));
    }
    let body = document(room, client, coming, MAX_JSON).await?;
    // A list would be taken for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::invalid("the body has to be a JSON object"));
    }
    let parsed = serde_json::from_slice(&body);
    parsed.map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        Failure::invalid(format!("the body is not as it should be: {at}"))
    })
}

/// A document of at most so many bytes.
pub async fn document(
    room: &Shares,
    client: &Client,
    mut coming: Coming,
    most: usize,
) -> Result<Bytes, Failure> {
    let kib = most.div_ceil(MAX_JSON);
    let _room = room.take_within(TURN, client, kib, "requests").await?;
    let reading = async {
        let mut read = BytesMut::new();
        while let Some(piece) = coming.next().await {
            let piece = piece.map_err(|_| broken())?;
            if read.len() + piece.len() > most {
                let text = format!("a body has at most {most} bytes");
                return Err(Failure::new(Kind::TooLarge, text));
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.freeze())
    };
    let read = tokio::time::timeout(DOCUMENT, reading).await;
    let read = read.map_err(|_| broken())?;
    if read.is_err() {
        coming.drain().await;
    }
    read
}

fn broken() -> Failure {
    Failure::new(Kind::Slow, "the body did not come to its end")
}

/// Bytes as they come. It ends with an error where they hardly do.
pub struct Coming {
    body: BodyDataStream,
    metrics: Metrics,
    bytes: u64,
    /// How long it was waited for the client, and since when it is.
    waited: Duration,
    waiting: Option<Instant>,
    broken: bool,
}

impl Coming {
    /// A body.
    pub fn new(body: Body, metrics: &Metrics) -> Self {
        Self {
            body: body.into_data_stream(),
            metrics: metrics.clone(),
            bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
            broken: false,
        }
    }

    /// Takes the rest, for nothing.
    pub async fn drain(mut self) {
        let (most, limit) = UNWANTED;
        let draining =
            async { while self.bytes < most && matches!(self.next().await, Some(Ok(_))) {} };
        let _ = tokio::time::timeout(limit, draining).await;
    }

    fn is_trickling(&self) -> bool {
        let late = self.waited.saturating_sub(GRACE);
        self.bytes < late.as_secs() * LEAST
    }
}

impl Stream for Coming {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.broken {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = self.body.poll_next_unpin(context) else {
            self.waiting.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        let next = match next {
            None => return Poll::Ready(None),
            Some(Ok(bytes)) if !self.is_trickling() => {
                self.bytes += bytes.len() as u64;
                self.metrics.passed(Direction::Up, bytes.len());
                Ok(bytes)
            }
            Some(Ok(_)) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it came too slowly",
            )),
            Some(Err(error)) => Err(io::Error::other(error)),
        };
        self.broken = next.is_err();
        Poll::Ready(Some(next))
    }
}

/// Bytes for as long as whoever sends or reads them may: what was revoked since
/// is looked for now and then, as they come.
pub fn lasting<E>(
    bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    pass: Pass,
) -> impl Stream<Item = io::Result<Bytes>>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    stream::unfold(Some((bytes, pass)), |state| async move {
        let (mut bytes, mut pass) = state?;
        let next = bytes.next().await?.map_err(io::Error::other);
        match pass.check().await {
            Ok(()) => Some((next, Some((bytes, pass)))),
            Err(denied) => Some((Err(io::Error::other(denied)), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Thing {
        #[allow(dead_code, reason = "it is only parsed")]
        name: String,
    }

    async fn read(kind: &str, body: impl Into<Body>) -> Result<Thing, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        let coming = Coming::new(body.into(), &Metrics::default());
        json(&Shares::halved(4), &Client::At(None), &headers, coming).await
    }

    #[tokio::test]
    async fn only_an_object_of_a_bounded_size_is_taken() {
        let json = "application/json; charset=utf-8";
        assert!(read(json, r#" {"name":"x"}"#).await.is_ok());
        let deep = format!(
            "{{\"name\":\"x\",\"y\":{}1{}}}",
            "[".repeat(500),
            "]".repeat(500)
        );
        // What is skipped costs nothing, however deep it is.
        assert!(read(json, deep).await.is_ok());
        for body in [
            "",
            "[]",
            "[\"x\"]",
            "null",
            "{",
            "{}",
            "{\"name\":1}",
            "{\"name\":[[[[]]]]}",
        ] {
            let failure = read(json, body.to_owned()).await.unwrap_err();
            assert_eq!(failure.kind, Kind::Invalid, "{body}");
        }
        let large = vec![b' '; MAX_JSON + 1];
        assert_eq!(read(json, large).await.unwrap_err().kind, Kind::TooLarge);
        let other = read("application/protobuf", "{}").await.unwrap_err();
        assert_eq!(other.kind, Kind::Invalid);
        let broken = stream::iter([Ok("{"), Err(io::Error::other("gone"))]);
        let broken = read(json, Body::from_stream(broken)).await.unwrap_err();
        assert_eq!(broken.kind, Kind::Slow);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_ends_with_that() {
        let pieces = stream::iter([Ok("piece"), Err(io::Error::other("gone")), Ok("more")]);
        let mut coming = Coming::new(Body::from_stream(pieces), &Metrics::default());
        assert_eq!(coming.next().await.unwrap().unwrap(), "piece");
        assert!(coming.next().await.unwrap().is_err());
        assert!(coming.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_hardly_sends_is_not_waited_for() {
        let pieces = stream::iter([Ok::<_, io::Error>("a"), Ok("b"), Ok("c")]);
        let mut coming = Coming::new(Body::from_stream(pieces), &Metrics::default());
        coming.waited = GRACE;
        assert!(coming.next().await.unwrap().is_ok());
        coming.waited = GRACE + Duration::from_secs(1);
        let error = coming.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
