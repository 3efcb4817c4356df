//! Pieces of a blob on the wire, as they came from the store.
//!
//! A codec copies each message into a buffer of its own, which for a blob costs
//! about as much as sending it does. What has to stand around the bytes of a
//! piece is a few bytes before them, so that they can follow uncopied.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Response, Status};
use tower_service::Service;

use super::service::Answers;
use crate::cache::wire::v1::ReadBlobResponse;

/// A body that takes the place of the codec's, carried to [`Uncopied`] by the
/// extensions of a response.
#[derive(Clone)]
struct Instead(Arc<Mutex<Option<Body>>>);

/// Answers with these pieces, past the codec: uncompressed.
pub fn uncopied(pieces: Answers<ReadBlobResponse>) -> Response<Answers<ReadBlobResponse>> {
    let body = Body::new(StreamBody::new(frames(pieces)));
    let mut response = Response::new(stream::empty().boxed() as Answers<_>);
    response.disable_compression();
    let instead = Instead(Arc::new(Mutex::new(Some(body))));
    response.extensions_mut().insert(instead);
    response
}

/// What is to be sent next.
enum Next {
    /// A piece, once it is there.
    Piece(Answers<ReadBlobResponse>),
    /// The bytes of the piece whose head is sent.
    Bytes(Bytes, Answers<ReadBlobResponse>),
    Nothing,
}

fn frames(
    pieces: Answers<ReadBlobResponse>,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(Next::Piece(pieces), |next| async {
        let (frame, next) = match next {
            Next::Piece(mut pieces) => match pieces.next().await {
                Some(Ok(piece)) => {
                    let head = Frame::data(head(&piece));
                    (head, Next::Bytes(piece.bytes, pieces))
                }
                Some(Err(status)) => (end(&status), Next::Nothing),
                None => (end(&Status::ok("")), Next::Nothing),
            },
            Next::Bytes(bytes, pieces) => (Frame::data(bytes), Next::Piece(pieces)),
            Next::Nothing => return None,
        };
        Some((Ok(frame), next))
    })
}

/// The message up to its last field, which is the bytes; before it what gRPC
/// has before every message: that it is not compressed, and its length.
fn head(piece: &ReadBlobResponse) -> Bytes {
    let mut fields = BytesMut::with_capacity(16);
    encode_key(2, WireType::ThirtyTwoBit, &mut fields);
    fields.put_u32_le(piece.crc32c);
    encode_key(1, WireType::LengthDelimited, &mut fields);
    encode_varint(piece.bytes.len() as u64, &mut fields);
    let mut head = BytesMut::with_capacity(32);
    head.put_u8(0);
    // A piece has far less than 4 GiB.
    head.put_u32((fields.len() + piece.bytes.len()) as u32);
    head.put(fields);
    head.freeze()
}

fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A text that no header can hold.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}

/// A service, of whose answers some go past its codec.
#[derive(Clone)]
pub struct Uncopied<S>(pub S);

impl<S: NamedService> NamedService for Uncopied<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Uncopied<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if let Some(Instead(body)) = answer.extensions_mut().remove() {
                let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
                body.map(|body| std::mem::replace(answer.body_mut(), body));
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prost::Message as _;
    use tonic::Code;

    use super::*;

    fn piece(length: usize) -> ReadBlobResponse {
        ReadBlobResponse {
            bytes: vec![7; length].into(),
            crc32c: 0x0102_0304,
            url: String::new(),
        }
    }

    async fn sent(pieces: Vec<Result<ReadBlobResponse, Status>>) -> (Bytes, Status) {
        let body = Body::new(StreamBody::new(frames(stream::iter(pieces).boxed())));
        let whole = body.collect().await.unwrap();
        let status = Status::from_header_map(whole.trailers().unwrap()).unwrap();
        (whole.to_bytes(), status)
    }

    #[tokio::test]
    async fn pieces_are_messages_as_a_codec_writes_them() {
        let (mut bytes, status) = sent(vec![Ok(piece(1)), Ok(piece(300_000))]).await;
        assert_eq!(status.code(), Code::Ok);
        for length in [1, 300_000] {
            let head = bytes.split_to(5);
            let size = u32::from_be_bytes(head[1..].try_into().unwrap());
            assert_eq!(head[0], 0);
            let message = ReadBlobResponse::decode(bytes.split_to(size as usize));
            assert_eq!(message.unwrap(), piece(length));
        }
        assert!(bytes.is_empty());
    }

    #[tokio::test]
    async fn an_error_ends_the_answer_with_its_text() {
        let lost = Status::data_loss("gone: 100 %");
        let (bytes, status) = sent(vec![Ok(piece(1)), Err(lost)]).await;
        assert!(!bytes.is_empty());
        assert_eq!(
            (status.code(), status.message()),
            (Code::DataLoss, "gone: 100 %")
        );
    }
}
