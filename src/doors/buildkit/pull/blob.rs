//! The body of a layer: once begun it is completed, or the connection is reset.
//!
//! A read that fails is taken up again where it stopped, for as long as a build
//! can be expected to wait. A whole read is hashed as it passes, and its last
//! chunk is kept back until the digest is right: a blob that has rotted is
//! withdrawn from the next import, instead of failing every build from now on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::Instant;

use super::super::grpc::{Body, BoxError};
use super::answer;
use crate::blobs::{BlobError, BlobStream};
use crate::cache::{Cache, CacheError};
use crate::digest::{Digest, Hasher};

/// How long it takes until a read that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long what was given up is not tried again for the builds of its import.
const LEFT: Duration = Duration::from_secs(60);

/// How a layer is read.
#[derive(Clone)]
pub struct Terms {
    /// How long it may come on by no byte.
    pub patience: Duration,
    /// What of its import was given up.
    pub given_up: GivenUp,
}

/// The layers of one import whose reads were given up. BuildKit asks for such a
/// one again at once, several times over, when its build has waited for long
/// enough.
#[derive(Clone, Default)]
pub struct GivenUp(Arc<Mutex<HashMap<Digest, Instant>>>);

impl GivenUp {
    fn note(&self, digest: Digest) {
        let mut given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.retain(|_, at| at.elapsed() < LEFT);
        given_up.insert(digest, Instant::now());
    }

    fn has(&self, digest: &Digest) -> bool {
        let given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.get(digest).is_some_and(|at| at.elapsed() < LEFT)
    }
}

/// Tells the builds that read a blob what is wrong with it.
pub type Tell = Box<dyn Fn(String) + Send + Sync>;

/// Answers a request for a blob of `size` bytes.
pub async fn answer(
    cache: Arc<dyn Cache>,
    digest: Digest,
    size: u64,
    range: Option<&HeaderValue>,
    broken: Arc<AtomicBool>,
    terms: Terms,
    tell: Tell,
) -> Response<Body> {
    if terms.given_up.has(&digest) {
        return answer::given_up();
    }
    let Some(offset) = range.map_or(Some(0), |range| from(range, size)) else {
        return answer::refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    };
    let mut reading = Reading {
        cache,
        digest,
        size,
        offset,
        stream: None,
        hasher: None,
        terms,
        tell,
        since: Instant::now(),
    };
    if offset == 0 {
        reading.hasher = Some(Hasher::default());
    }
    while let Err(error) = reading.open().await {
        let gone = error.is_final();
        if reading.recover(error).await.is_err() {
            return if gone {
                answer::no_such_key()
            } else {
                answer::given_up()
            };
        }
    }
    let chunks = stream::try_unfold(reading, Reading::next)
        .map_ok(Frame::data)
        .inspect_err(move |_| {
            broken.store(true, Ordering::Relaxed);
        });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size - offset));
    if offset > 0 {
        let last = size.saturating_sub(1);
        if let Ok(range) = HeaderValue::try_from(format!("bytes {offset}-{last}/{size}")) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The offset of `bytes=N-`, the one form that BuildKit sends. One that has
/// read all and missed the end asks for what is behind it: nothing.
fn from(range: &HeaderValue, size: u64) -> Option<u64> {
    let offset = range
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?;
    offset.parse().ok().filter(|offset| *offset <= size)
}

struct Reading {
    cache: Arc<dyn Cache>,
    digest: Digest,
    size: u64,
    /// The next byte.
    offset: u64,
    stream: Option<BlobStream>,
    /// Only where the read began at 0.
    hasher: Option<Hasher>,
    terms: Terms,
    tell: Tell,
    /// When it was last asked for bytes.
    since: Instant,
}

impl Reading {
    async fn open(&mut self) -> Result<(), CacheError> {
        self.stream = Some(
            self.cache
                .read(&self.digest, self.offset, self.size - self.offset)
                .await?,
        );
        Ok(())
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        if self.offset == self.size {
            return Ok(None);
        }
        // Nobody has waited while nobody asked.
        self.since = Instant::now();
        let chunk = loop {
            match self.read().await {
                Ok(chunk) => break chunk,
                Err(error) => self.recover(error).await?,
            }
        };
        self.offset += chunk.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
            let done = (self.offset == self.size).then(|| hasher.current());
            if let Some(actual) = done.filter(|actual| *actual != self.digest) {
                let error = CacheError::from(BlobError::WrongDigest {
                    expected: self.digest,
                    actual,
                });
                self.lost(&error).await;
                return Err(error.into());
            }
        }
        Ok(Some((chunk, self)))
    }

    async fn read(&mut self) -> Result<Bytes, CacheError> {
        if self.stream.is_none() {
            self.open().await?;
        }
        let Some(stream) = &mut self.stream else {
            return Err(self.short());
        };
        match stream.next().await {
            Some(chunk) => Ok(chunk?),
            None => Err(self.short()),
        }
    }

    fn short(&self) -> CacheError {
        BlobError::WrongSize {
            expected: self.size,
            actual: self.offset,
        }
        .into()
    }

    /// Waits to try again, or gives up.
    async fn recover(&mut self, error: CacheError) -> Result<(), BoxError> {
        self.stream = None;
        if error.is_final() || self.since.elapsed() >= self.terms.patience {
            self.terms.given_up.note(self.digest);
            self.lost(&error).await;
            return Err(error.into());
        }
        tracing::warn!(blob = %self.digest, offset = self.offset, %error, "a read is tried again");
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// What was named can't be read: it is named no more, and the user knows.
    async fn lost(&mut self, error: &CacheError) {
        let digest = self.digest;
        let next = match self.cache.withdraw(&digest, error).await {
            Ok(()) => "the next one runs clean",
            Err(error) => {
                tracing::error!(blob = %digest, %error, "a blob that is lost could not be withdrawn");
                "it runs again without --cache-from, or once the cache is well"
            }
        };
        let what = if error.is_final() {
            "is lost"
        } else {
            "can't be read"
        };
        (self.tell)(format!(
            "cached layer {digest} {what} ({error}): if this build fails for it, {next}"
        ));
    }
}
