//! A blob's bytes from a hub, or straight from its bucket where it says where.
//!
//! A piece with a wrong checksum ends the stream, and so does whatever else goes
//! wrong; whoever reads goes on from there with another call. A bucket that
//! gives trouble is left alone for a while.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{StatusCode, header};
use tonic::Streaming;

use super::failure::Failure;
use super::hub::{Call, Caller};
use super::metrics::Method;
use crate::blobs::{BlobError, BlobStream};
use crate::cache::CacheError;
use crate::cache::wire::{self, joined, v1};
use crate::digest::Digest;
use crate::place::ProjectId;

/// How long a hub may take to begin.
const LIMIT: Duration = Duration::from_secs(10);
/// How long URLs are not asked for after one gave trouble.
const SHY: Duration = Duration::from_secs(300);

/// What is to be read.
pub(super) struct Wanted<'a> {
    pub(super) projects: &'a [ProjectId],
    pub(super) digest: Digest,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Opens a stream of what is wanted.
pub(super) async fn read(
    caller: &Caller,
    wanted: Wanted<'_>,
    urls: &Urls,
) -> Result<BlobStream, CacheError> {
    let about = Some(wanted.digest);
    if wanted.length == 0 {
        return Ok(stream::empty().boxed());
    }
    let takes_url = urls.are_followed(Instant::now());
    let opened = open(caller, &wanted, takes_url).await;
    let opened = opened.map_err(|failure| failure.cache_error(about))?;
    let (first, rest) = match opened {
        (first, _) if !first.url.is_empty() => match urls.get(&first.url, &wanted).await {
            Ok(bytes) => return Ok(bytes),
            Err(why) => {
                tracing::warn!(blob = %wanted.digest, why, "the bucket can't be read, the hub is instead");
                urls.shun(Instant::now());
                let opened = open(caller, &wanted, false).await;
                opened.map_err(|failure| failure.cache_error(about))?
            }
        },
        opened => opened,
    };
    let digest = wanted.digest;
    let pieces = stream::once(std::future::ready(Ok(first))).chain(rest);
    let bytes = pieces.map(move |piece| {
        let piece = piece.map_err(|status| broken(&digest, status.message()))?;
        if wire::checksum(&piece.bytes) != piece.crc32c {
            return Err(broken(&digest, "a piece came with other bytes"));
        }
        Ok(piece.bytes)
    });
    Ok(bytes
        .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
        .boxed())
}

async fn open(
    caller: &Caller,
    wanted: &Wanted<'_>,
    takes_url: bool,
) -> Result<(v1::ReadBlobResponse, Streaming<v1::ReadBlobResponse>), Failure> {
    let request = v1::ReadBlobRequest {
        projects: wanted.projects.iter().map(ToString::to_string).collect(),
        digest: joined([&wanted.digest]),
        offset: wanted.offset,
        length: wanted.length,
        takes_url,
    };
    let call = Call::within(Method::ReadBlob, LIMIT);
    caller
        .call(call, request, |mut client, request| async move {
            let mut pieces = client.read_blob(request).await?.into_inner();
            // An error may come instead of the first piece.
            let first = pieces.message().await?;
            let first = first.ok_or_else(|| tonic::Status::unavailable("it sent no bytes"))?;
            Ok((first, pieces))
        })
        .await
}

fn broken(digest: &Digest, why: &str) -> BlobError {
    BlobError::Io {
        context: format!("reading {digest} from the hub broke off"),
        source: io::Error::new(io::ErrorKind::UnexpectedEof, why.to_owned()),
    }
}

/// Reads from buckets, by URLs that hubs give.
#[derive(Default)]
pub(super) struct Urls {
    client: OnceLock<Option<reqwest::Client>>,
    shunned: Mutex<Option<Instant>>,
}

impl Urls {
    fn are_followed(&self, now: Instant) -> bool {
        let shunned = *self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.is_none_or(|since| now.saturating_duration_since(since) >= SHY)
            && self.client().is_some()
    }

    /// Leaves buckets alone for a while.
    pub(super) fn shun(&self, now: Instant) {
        *self.shunned.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Without redirects: a hub names the bucket itself.
    fn client(&self) -> Option<&reqwest::Client> {
        let made = self.client.get_or_init(|| {
            let tls = crate::tls::system_client().ok()?;
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(2))
                .read_timeout(LIMIT)
                .build()
                .ok()
        });
        made.as_ref()
    }

    /// The URL is a secret: errors are told without it.
    async fn get(&self, url: &str, wanted: &Wanted<'_>) -> Result<BlobStream, String> {
        let client = self.client().ok_or("there is no HTTP client")?;
        let last = wanted.offset.saturating_add(wanted.length - 1);
        let range = format!("bytes={}-{last}", wanted.offset);
        let asked = client.get(url).header(header::RANGE, range).send();
        let asked = tokio::time::timeout(LIMIT, asked).await;
        let response = asked
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.without_url().to_string())?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(format!("the bucket answered {}", response.status()));
        }
        let digest = wanted.digest;
        let bytes = response.bytes_stream();
        let bytes = bytes.map_err(move |error| broken(&digest, &error.without_url().to_string()));
        Ok(bytes.map(|chunk: Result<Bytes, BlobError>| chunk).boxed())
    }
}
