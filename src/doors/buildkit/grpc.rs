//! gRPC framing, for the few calls that this door looks into.
//!
//! Everything else passes as HTTP/2 and is never parsed. What is looked into
//! is read message by message with a limit, edited as bytes, and sent on; see
//! the gRPC-over-HTTP/2 specification for the five bytes before a message, the
//! trailers, and the code for an encoding that a peer does not offer.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Status};

/// A body on its way through; its errors reset the stream.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// What feeds a body; see [`channel`].
pub type Sender = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;
/// Whatever broke a body.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The largest message that is looked into. BuildKit's own limit is 16 MiB;
/// beyond it buildkitd itself refuses.
pub const MAX_MESSAGE: usize = 64 << 20;

/// What a message may hold without a share of the budget, so that clients with
/// large ones cannot hold up the small ones of others.
const SMALL: usize = 1 << 20;
/// How long a message may take once it is announced, its wait for the budget
/// included.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(20);

/// The five bytes before each message.
const PREFIX: usize = 5;

/// One gRPC message as it goes over the wire, prefix included.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// A whole unary body: one message and nothing after it.
pub fn unary(message: &[u8]) -> Body {
    Full::new(frame(message))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A unary answer: one message, then the trailers.
pub fn unary_with_trailers(message: &[u8], trailers: Option<HeaderMap>) -> Body {
    let frames = [Ok(Frame::data(frame(message)))]
        .into_iter()
        .chain(trailers.map(|t| Ok(Frame::trailers(t))));
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

/// An answer without a message: its trailers say why.
pub fn only_trailers(trailers: Option<HeaderMap>) -> Body {
    let frames = trailers.map(|trailers| Ok(Frame::trailers(trailers)));
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

/// The trailers that say how a call ended.
pub fn status_trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}

/// A body fed through a bounded channel: back-pressure goes to the sender, an
/// `Err` resets the stream, and dropping the sender ends it.
pub fn channel(capacity: usize) -> (Sender, Body) {
    let (sender, mut receiver) = mpsc::channel(capacity);
    let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// An answer that is an error alone (in gRPC's terms: trailers only).
pub fn refuse(status: &Status) -> Response<Body> {
    status
        .clone()
        .into_http::<tonic::body::Body>()
        .map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Whether an answer carries its status in the headers and no message.
pub fn is_trailers_only(headers: &HeaderMap) -> bool {
    headers.contains_key("grpc-status")
}

/// The bytes that all large looked-into messages together may hold at a time,
/// so that memory is bounded whatever clients send.
#[derive(Clone, Debug)]
pub struct MessageBudget(Arc<Semaphore>);

impl MessageBudget {
    /// A budget in bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Adds `bytes` to what `share` holds.
    async fn add(
        &self,
        share: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Status> {
        let bytes = u32::try_from(bytes).map_err(|_| too_large(bytes))?;
        let more = self.0.clone().acquire_many_owned(bytes).await;
        let more = more.map_err(|_| Status::unavailable("layerd is shutting down"))?;
        match share {
            Some(share) => share.merge(more),
            None => *share = Some(more),
        }
        Ok(())
    }
}

/// A message and its share of the budget, given back on drop.
#[derive(Debug)]
pub struct Message {
    /// The message, without its prefix.
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a body message by message.
pub struct Messages<B> {
    body: B,
    budget: MessageBudget,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Reads `body` within `budget`.
    pub fn new(body: B, budget: MessageBudget) -> Self {
        Self {
            body,
            budget,
            buffer: BytesMut::new(),
            trailers: None,
            ended: false,
        }
    }

    /// The next message, or `None` at the end of the body. Nothing is lost
    /// where this is dropped before it is done.
    pub async fn next(&mut self) -> Result<Option<Message>, Status> {
        while self.buffer.len() < PREFIX {
            if !self.more().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(truncated())
                };
            }
        }
        let compressed = self.buffer[0] != 0;
        let length = u32::from_be_bytes([
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
            self.buffer[4],
        ]) as usize;
        if compressed {
            let mut status =
                Status::unimplemented("layerd reads this call and takes no compressed messages");
            status.metadata_mut().insert(
                "grpc-accept-encoding",
                tonic::metadata::MetadataValue::from_static("identity"),
            );
            return Err(status);
        }
        if length > MAX_MESSAGE {
            return Err(too_large(length));
        }
        let filled = tokio::time::timeout(MESSAGE_PATIENCE, self.fill(PREFIX + length)).await;
        let share =
            filled.map_err(|_| Status::deadline_exceeded("a message took too long to come"))??;
        self.buffer.advance(PREFIX);
        Ok(Some(Message {
            bytes: self.buffer.split_to(length).freeze(),
            _share: share,
        }))
    }

    /// The only message of a unary body.
    pub async fn only(&mut self) -> Result<Message, Status> {
        let message = self
            .next()
            .await?
            .ok_or_else(|| Status::internal("a message is missing"))?;
        if self.next().await?.is_some() {
            return Err(Status::internal("more than one message in a unary call"));
        }
        Ok(message)
    }

    /// The trailers, once the body has ended.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads until `length` bytes are there. What goes beyond a small message
    /// takes its share of the budget as it comes, and not when it is announced.
    async fn fill(&mut self, length: usize) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let mut share = None;
        let mut paid = SMALL;
        while self.buffer.len() < length {
            if self.buffer.len() > paid {
                self.budget
                    .add(&mut share, self.buffer.len() - paid)
                    .await?;
                paid = self.buffer.len();
            }
            if !self.more().await? {
                return Err(truncated());
            }
        }
        Ok(share)
    }

    async fn more(&mut self) -> Result<bool, Status> {
        if self.ended {
            return Ok(false);
        }
        match self.body.frame().await {
            None => {
                self.ended = true;
                Ok(false)
            }
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(other) => self.trailers = other.into_trailers().ok(),
                }
                Ok(true)
            }
            Some(Err(error)) => Err(broken(error)),
        }
    }
}

/// The status for a stream that broke on the way.
pub fn broken(error: impl Into<BoxError>) -> Status {
    Status::new(
        Code::Unavailable,
        format!("error reading from peer: {}", error.into()),
    )
}

fn truncated() -> Status {
    Status::internal("the stream ended in the middle of a message")
}

fn too_large(bytes: usize) -> Status {
    Status::resource_exhausted(format!(
        "a message of {bytes} bytes is larger than the limit of {MAX_MESSAGE}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunked(wire: &[u8], size: usize) -> Body {
        let frames: Vec<Result<Frame<Bytes>, BoxError>> = wire
            .chunks(size.max(1))
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in proptest::collection::vec(any::<Vec<u8>>(), 0..5), size in 1usize..40) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m).to_vec()).collect();
            let read = block_on(async {
                let mut reader = Messages::new(chunked(&wire, size), MessageBudget::new(MAX_MESSAGE));
                let mut read = Vec::new();
                while let Some(message) = reader.next().await.unwrap() {
                    read.push(message.bytes.to_vec());
                }
                read
            });
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_read_or_refused(wire in any::<Vec<u8>>(), size in 1usize..40) {
            block_on(async {
                let mut reader = Messages::new(chunked(&wire, size), MessageBudget::new(MAX_MESSAGE));
                while let Ok(Some(_)) = reader.next().await {}
            });
        }
    }

    #[test]
    fn an_announced_size_beyond_the_limit_is_refused_before_it_is_read() {
        let mut wire = vec![0];
        wire.extend_from_slice(&u32::MAX.to_be_bytes());
        let status =
            block_on(Messages::new(chunked(&wire, 99), MessageBudget::new(MAX_MESSAGE)).next())
                .unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_compressed_message_is_refused_with_what_is_accepted() {
        let status = block_on(
            Messages::new(
                chunked(&[1, 0, 0, 0, 0], 99),
                MessageBudget::new(MAX_MESSAGE),
            )
            .next(),
        )
        .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(
            status.metadata().get("grpc-accept-encoding").unwrap(),
            "identity"
        );
    }

    #[test]
    fn large_messages_that_stall_do_not_hold_up_small_ones() {
        block_on(async {
            let budget = MessageBudget::new(SMALL);
            // One has used the budget up; others are announced and never come.
            let mut wire = frame(&vec![7; 2 * SMALL]).to_vec();
            let large = Messages::new(chunked(&wire, SMALL), budget.clone())
                .next()
                .await;
            let large = large.unwrap().unwrap();
            assert_eq!(budget.0.available_permits(), 0);
            wire.truncate(9);
            let (_open, body) = channel(1);
            let mut stalled = Messages::new(body, budget.clone());
            let waiting = stalled.next();
            futures::pin_mut!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            let small = frame(&vec![7; SMALL / 2]);
            let mut small = Messages::new(chunked(&small, SMALL), budget.clone());
            assert_eq!(small.next().await.unwrap().unwrap().bytes.len(), SMALL / 2);
            drop(large);
            assert_eq!(budget.0.available_permits(), SMALL);
        });
    }
}
