//! The body of a request for a page: whoever stops sending it is not waited for.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// A body that ends with an error when nothing comes for too long while it is
/// read.
pub struct Patient<B> {
    body: B,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    /// That body.
    pub fn new(body: B) -> Self {
        Self {
            body,
            limit: SILENCE,
            waiting: None,
        }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        let late = waiting.as_mut().poll(context);
        late.map(|()| Some(Err("nothing came for too long".into())))
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

    use futures::stream::{self, StreamExt as _};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_that_stops_is_an_error_and_one_that_ends_is_whole() {
        let piece = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece")));
        let pieces = || stream::iter([piece(), piece()]);
        let whole = Patient::new(StreamBody::new(pieces()));
        assert_eq!(
            &whole.collect().await.unwrap().to_bytes()[..],
            b"piecepiece"
        );
        let mut cut = Patient::new(StreamBody::new(pieces().chain(stream::pending())));
        cut.limit = Duration::from_millis(1);
        let error = cut.collect().await.unwrap_err();
        assert_eq!(error.to_string(), "nothing came for too long");
    }
}
