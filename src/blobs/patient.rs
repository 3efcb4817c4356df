//! A read of an origin that goes on after errors, from where it was.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tokio::time::{Instant, sleep, timeout};

use super::{BlobError, BlobStream, Origin};
use crate::digest::{Digest, Hasher};

/// The first pause after an error, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// For how long an origin may fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// In all, with no byte in between.
    pub(super) whole: Duration,
    /// By saying nothing.
    pub(super) stall: Duration,
}

/// A row of failures with no success in between.
#[derive(Debug)]
struct Trouble {
    /// When the first of the attempts began.
    since: Instant,
    times: u32,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            times: 0,
        }
    }
}

impl Trouble {
    /// Waits before another attempt; an error when there is to be none.
    async fn bear(&mut self, error: BlobError, patience: Patience) -> Result<(), BlobError> {
        let borne = self.since.elapsed();
        if is_final(&error) || borne >= patience.whole {
            return Err(error);
        }
        let [first, longest] = PAUSES;
        let most = first.saturating_mul(2u32.saturating_pow(self.times));
        self.times += 1;
        let pause = most.min(longest).mul_f64(rand::random_range(0.5..1.0));
        tracing::debug!(%error, ?pause, "the origin failed, and is asked again");
        sleep(pause.min(patience.whole - borne)).await;
        Ok(())
    }
}

/// Whether asking again can't help.
fn is_final(error: &BlobError) -> bool {
    match error {
        BlobError::NotFound(_) | BlobError::WrongDigest { .. } | BlobError::WrongSize { .. } => {
            true
        }
        BlobError::Io { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
        _ => false,
    }
}

/// The size of a blob at the origin, which must have it.
pub(super) async fn size(
    origin: &dyn Origin,
    digest: &Digest,
    patience: Patience,
) -> Result<u64, BlobError> {
    let mut trouble = Trouble::default();
    loop {
        let error = match timeout(patience.stall, origin.size(digest)).await {
            Ok(Ok(Some(size))) => return Ok(size),
            Ok(Ok(None)) => BlobError::NotFound(*digest),
            Ok(Err(error)) => error,
            Err(_) => broken(digest, std::io::ErrorKind::TimedOut),
        };
        trouble.bear(error, patience).await?;
    }
}

/// The bytes of a blob from `at` to `end`, all of them or an error at last;
/// `opened` is a stream of them that is there already.
pub(super) fn read(
    opened: Option<BlobStream>,
    origin: Arc<dyn Origin>,
    digest: Digest,
    at: u64,
    end: u64,
    patience: Patience,
) -> BlobStream {
    struct Reading {
        stream: Option<BlobStream>,
        at: u64,
        trouble: Trouble,
        over: bool,
    }
    let reading = Reading {
        stream: opened,
        at,
        trouble: Trouble::default(),
        over: false,
    };
    stream::unfold(reading, move |mut reading| {
        let origin = Arc::clone(&origin);
        async move {
            if reading.trouble.times == 0 {
                // Nobody has waited while nobody asked.
                reading.trouble = Trouble::default();
            }
            while !reading.over && reading.at < end {
                let rest = end - reading.at;
                let error = match reading.stream.take() {
                    None => {
                        let opening = origin.read(&digest, reading.at, rest);
                        match timeout(patience.stall, opening).await {
                            Ok(Ok(stream)) => {
                                reading.stream = Some(stream);
                                continue;
                            }
                            Ok(Err(error)) => error,
                            Err(_) => broken(&digest, std::io::ErrorKind::TimedOut),
                        }
                    }
                    Some(mut stream) => match timeout(patience.stall, stream.next()).await {
                        Ok(Some(Ok(mut bytes))) => {
                            bytes.truncate(usize::try_from(rest).unwrap_or(usize::MAX));
                            reading.at += bytes.len() as u64;
                            reading.stream = Some(stream);
                            if bytes.is_empty() {
                                continue;
                            }
                            reading.trouble = Trouble::default();
                            return Some((Ok(bytes), reading));
                        }
                        Ok(Some(Err(error))) => error,
                        Ok(None) => broken(&digest, std::io::ErrorKind::UnexpectedEof),
                        Err(_) => broken(&digest, std::io::ErrorKind::TimedOut),
                    },
                };
                if let Err(error) = reading.trouble.bear(error, patience).await {
                    reading.over = true;
                    return Some((Err(error), reading));
                }
            }
            None
        }
    })
    .boxed()
}

/// The bytes of a whole blob, the last ones only when the digest is right.
pub(super) fn verified(bytes: BlobStream, expected: Digest) -> BlobStream {
    let state = (bytes, Hasher::default(), None);
    stream::unfold(state, move |(mut bytes, mut hasher, mut kept)| async move {
        loop {
            match bytes.next().await {
                Some(Ok(chunk)) => {
                    hasher.update(&chunk);
                    if let Some(before) = kept.replace(chunk) {
                        return Some((Ok(before), (bytes, hasher, kept)));
                    }
                }
                Some(Err(error)) => return Some((Err(error), (bytes, hasher, None))),
                None => {
                    let last = kept.take()?;
                    let actual = hasher.current();
                    let checked = if actual == expected {
                        Ok(last)
                    } else {
                        Err(BlobError::WrongDigest { expected, actual })
                    };
                    return Some((checked, (stream::empty().boxed(), hasher, None)));
                }
            }
        }
    })
    .boxed()
}

/// A read that broke off.
fn broken(digest: &Digest, kind: std::io::ErrorKind) -> BlobError {
    BlobError::Io {
        context: format!("reading {digest} broke off"),
        source: kind.into(),
    }
}
