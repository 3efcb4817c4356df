//! What a hub and its sidecars say to each other, `layerd.v1`, and how it reads
//! as values of this crate.
//!
//! `proto/layerd/v1/cache.proto` is the contract. The hub's door and the engine
//! of a sidecar translate here, so that each fact of the wire stands once. All
//! that comes in is checked: an error says what is wrong with it.

mod export;
mod import;
mod status;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use jiff::civil::Date;

pub use self::export::{
    PublicationReader, PublishedReader, missing_parts, publication_parts, published_parts,
    steps_parts,
};
pub use self::import::{ImportReader, import_parts, nothing};
pub use self::status::{busy, busy_for, error_of, status_of};
pub use self::v1::cache_client::CacheClient;
pub use self::v1::cache_server::{Cache as CacheService, CacheServer};
use super::{Flush, Form, Limits, MAX_STEPS, Saving, Want};
use crate::digest::{Digest, RecordDigest};
use crate::graph::Compression;
use crate::place::{GitRef, Place, ProjectId, Scope};
use crate::step::{Origin, Step, StepName};

/// The messages, generated from the proto file.
#[allow(
    dead_code,
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]
pub mod v1 {
    tonic::include_proto!("layerd.v1");
}

/// Bytes of a blob in one message: large enough that a message costs nothing,
/// small enough that many streams take little memory.
pub const PIECE: usize = 256 << 10;
/// Bytes that a message may have. Pieces and lists are much smaller.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Digests that may be asked for at once.
pub const MAX_DIGESTS: usize = 10_000;
/// Wants of one look-up.
pub const MAX_WANTS: usize = 64;
/// Fallbacks of one want.
const MAX_FALLBACKS: usize = 256;
/// Bytes of a builder's or a daemon's name.
const MAX_NAME: usize = 256;
/// Builds that one report may be about; a sidecar tells of each.
const MAX_BUILDS: u64 = 1000;
/// Steps of those.
const MAX_BUILT: u64 = 1_000_000;
/// How long a step may have run, and steps together that one build was saved.
const MAX_RUN: [Duration; 2] = [
    Duration::from_secs(30 * 24 * 3600),
    Duration::from_secs(366 * 24 * 3600),
];

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// In these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Reads a text as one of this crate's names.
fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> Result<T, Malformed> {
    text.parse()
        .map_err(|why| Malformed(format!("{what}: {why}")))
}

/// Reads a project.
pub fn project(text: &str) -> Result<ProjectId, Malformed> {
    name("project", text)
}

/// Reads projects: one at least.
pub fn projects(texts: &[String]) -> Result<Vec<ProjectId>, Malformed> {
    if texts.is_empty() || texts.len() > MAX_WANTS {
        return Err(Malformed(format!("between 1 and {MAX_WANTS} projects")));
    }
    texts.iter().map(|text| project(text)).collect()
}

/// Reads a ref.
pub fn git_ref(text: &str) -> Result<GitRef, Malformed> {
    name("ref", text)
}

/// Reads a scope.
pub fn scope(text: &str) -> Result<Scope, Malformed> {
    name("scope", text)
}

/// Reads one digest.
pub fn digest(bytes: &[u8]) -> Result<Digest, Malformed> {
    Digest::try_from(bytes).map_err(|_| Malformed("a digest has 32 bytes".to_owned()))
}

/// Reads digests that stand one after the other.
pub fn digests(bytes: &[u8]) -> Result<Vec<Digest>, Malformed> {
    bytes.chunks(32).map(digest).collect()
}

/// Writes digests one after the other.
pub fn joined<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Bytes {
    let bytes = digests.into_iter().flat_map(|digest| *digest.as_bytes());
    bytes.collect::<Vec<u8>>().into()
}

/// Whether a blob that begins so is compressed (RFC 1952, RFC 8878), and would
/// only cost time if it was once more.
pub fn is_compressed(beginning: &[u8]) -> bool {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    [GZIP, ZSTD]
        .iter()
        .any(|magic| beginning.starts_with(magic))
}

/// What is longer than a message may be, in pieces.
fn pieces(whole: Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..whole.len()).step_by(PIECE);
    starts.map(move |at| whole.slice(at..whole.len().min(at + PIECE)))
}

/// Puts pieces together again.
fn append(to: &mut BytesMut, bytes: &[u8], announced: u64) -> Result<(), Malformed> {
    if (to.len() + bytes.len()) as u64 > announced {
        return Err(Malformed::new("a document longer than announced"));
    }
    to.extend_from_slice(bytes);
    Ok(())
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The checksum of a piece.
pub fn checksum(piece: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(piece)
}

/// Nanoseconds since 1970; what lies beyond the years 1678 to 2262 is cut.
pub fn nanoseconds(time: Timestamp) -> i64 {
    let whole = time.as_nanosecond();
    i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
}

/// Reads those.
pub fn timestamp(nanoseconds: i64) -> Result<Timestamp, Malformed> {
    Timestamp::from_nanosecond(nanoseconds.into())
        .map_err(|_| Malformed("a time beyond all calendars".to_owned()))
}

/// Checks a host's name or the like.
pub fn short(what: &str, text: String) -> Result<String, Malformed> {
    if text.len() > MAX_NAME {
        return Err(Malformed(format!("{what} is longer than {MAX_NAME} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Malformed(format!("{what} holds control characters")));
    }
    Ok(text)
}

impl From<&Place> for v1::Place {
    fn from(place: &Place) -> Self {
        Self {
            project: place.project.to_string(),
            git_ref: place.git_ref.to_string(),
            scope: place.scope.to_string(),
        }
    }
}

impl TryFrom<Option<v1::Place>> for Place {
    type Error = Malformed;

    fn try_from(place: Option<v1::Place>) -> Result<Self, Malformed> {
        let place = place.ok_or_else(|| Malformed("no place".to_owned()))?;
        Ok(Self {
            project: project(&place.project)?,
            git_ref: git_ref(&place.git_ref)?,
            scope: scope(&place.scope)?,
        })
    }
}

impl From<&Want> for v1::Want {
    fn from(want: &Want) -> Self {
        let compression = match want.compression {
            None => v1::Compression::Unspecified,
            Some(Compression::Uncompressed) => v1::Compression::Uncompressed,
            Some(Compression::Gzip) => v1::Compression::Gzip,
            Some(Compression::Zstd) => v1::Compression::Zstd,
        };
        Self {
            place: Some((&want.place).into()),
            fallbacks: want.fallbacks.iter().map(GitRef::to_string).collect(),
            narrowed: want.narrowed,
            not_before_ns: want.not_before.map(nanoseconds),
            compression: compression.into(),
        }
    }
}

impl TryFrom<v1::Want> for Want {
    type Error = Malformed;

    fn try_from(want: v1::Want) -> Result<Self, Malformed> {
        if want.fallbacks.len() > MAX_FALLBACKS {
            return Err(Malformed(format!("more than {MAX_FALLBACKS} fallbacks")));
        }
        let fallbacks = want.fallbacks.iter().map(|text| git_ref(text));
        Ok(Self {
            compression: match want.compression() {
                v1::Compression::Unspecified => None,
                v1::Compression::Uncompressed => Some(Compression::Uncompressed),
                v1::Compression::Gzip => Some(Compression::Gzip),
                v1::Compression::Zstd => Some(Compression::Zstd),
            },
            fallbacks: fallbacks.collect::<Result<_, _>>()?,
            narrowed: want.narrowed,
            not_before: want.not_before_ns.map(timestamp).transpose()?,
            place: want.place.try_into()?,
            readable: None,
        })
    }
}

/// A question, as it is asked.
pub fn look_up_request(wants: &[Want], limits: &Limits) -> v1::LookUpRequest {
    v1::LookUpRequest {
        wants: wants.iter().map(v1::Want::from).collect(),
        max_records: limits.records,
        max_bytes: match limits.form {
            Form::Whole => 0,
            Form::Parts { max_bytes } => max_bytes as u64,
        },
    }
}

/// A question, as it is understood.
pub fn question(request: v1::LookUpRequest) -> Result<(Vec<Want>, Limits), Malformed> {
    if request.wants.len() > MAX_WANTS {
        return Err(Malformed(format!("more than {MAX_WANTS} wants")));
    }
    let wants = request.wants.into_iter().map(Want::try_from);
    let limits = Limits {
        records: request.max_records,
        form: match request.max_bytes {
            0 => Form::Whole,
            max_bytes => Form::Parts {
                max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            },
        },
    };
    Ok((wants.collect::<Result<_, _>>()?, limits))
}

impl From<&Step> for v1::Step {
    fn from(step: &Step) -> Self {
        Self {
            record: step.record.as_str().to_owned(),
            created_at_ns: nanoseconds(step.created_at),
            name: step.name.as_str().to_owned(),
            duration_ms: u64::try_from(step.duration.as_millis()).unwrap_or(u64::MAX),
            origin: step.origin.as_ref().map(|origin| v1::Origin {
                builder: origin.builder.clone(),
                daemon: origin.daemon.clone(),
            }),
        }
    }
}

impl TryFrom<v1::Step> for Step {
    type Error = Malformed;

    fn try_from(step: v1::Step) -> Result<Self, Malformed> {
        let origin = step.origin.map(|origin| {
            let daemon = origin.daemon.map(|daemon| short("daemon", daemon));
            Ok::<_, Malformed>(Origin {
                builder: short("builder", origin.builder)?,
                daemon: daemon.transpose()?,
            })
        });
        Ok(Self {
            record: name::<RecordDigest>("record", &step.record)?,
            created_at: timestamp(step.created_at_ns)?,
            name: StepName::of(&step.name),
            duration: Duration::from_millis(step.duration_ms).min(MAX_RUN[0]),
            origin: origin.transpose()?,
        })
    }
}

/// Reads steps.
pub fn steps(steps: Vec<v1::Step>) -> Result<Vec<Step>, Malformed> {
    steps.into_iter().map(Step::try_from).collect()
}

/// Results whose steps are asked for: at most [`MAX_STEPS`].
pub fn steps_request(
    project: &ProjectId,
    results: &[(RecordDigest, Timestamp)],
) -> v1::StepsRequest {
    let results = results
        .iter()
        .map(|(record, created_at)| v1::steps_request::Result {
            record: record.as_str().to_owned(),
            created_at_ns: nanoseconds(*created_at),
        });
    v1::StepsRequest {
        project: project.to_string(),
        results: results.collect(),
    }
}

/// Reads those.
pub fn results(
    results: Vec<v1::steps_request::Result>,
) -> Result<Vec<(RecordDigest, Timestamp)>, Malformed> {
    if results.len() > MAX_STEPS {
        return Err(Malformed(format!("more than {MAX_STEPS} results")));
    }
    let results = results.into_iter().map(|result| {
        let record = name("record", &result.record)?;
        Ok((record, timestamp(result.created_at_ns)?))
    });
    results.collect()
}

const EPOCH: Date = Date::constant(1970, 1, 1);

impl From<&Saving> for v1::ReportRequest {
    fn from(saving: &Saving) -> Self {
        let days = (saving.day - EPOCH).get_days();
        Self {
            project: saving.project.to_string(),
            git_ref: saving.git_ref.to_string(),
            day: days,
            builds: saving.builds,
            steps: saving.steps,
            cached: saving.cached,
            saved_ms: saving.saved_ms,
            estimated_ms: saving.estimated_ms,
        }
    }
}

impl TryFrom<v1::ReportRequest> for Saving {
    type Error = Malformed;

    fn try_from(report: v1::ReportRequest) -> Result<Self, Malformed> {
        let too_much = |what: &str| Malformed(format!("a report of {what}"));
        if report.builds > MAX_BUILDS {
            return Err(too_much(&format!("more than {MAX_BUILDS} builds")));
        }
        if report.steps > MAX_BUILT {
            return Err(too_much(&format!("more than {MAX_BUILT} steps")));
        }
        if report.cached > report.steps {
            return Err(too_much("more cached steps than steps"));
        }
        if u128::from(report.saved_ms) > MAX_RUN[1].as_millis() * u128::from(report.builds) {
            return Err(too_much("more than a year for each build"));
        }
        if report.estimated_ms > report.saved_ms {
            return Err(too_much("more time estimated than saved"));
        }
        let day = EPOCH.checked_add(jiff::Span::new().try_days(report.day).map_err(beyond)?);
        Ok(Self {
            project: project(&report.project)?,
            git_ref: git_ref(&report.git_ref)?,
            day: day.map_err(beyond)?,
            builds: report.builds,
            steps: report.steps,
            cached: report.cached,
            saved_ms: report.saved_ms,
            estimated_ms: report.estimated_ms,
        })
    }
}

fn beyond(_: jiff::Error) -> Malformed {
    Malformed("a day beyond all calendars".to_owned())
}

impl From<&Flush> for v1::FlushRequest {
    fn from(flush: &Flush) -> Self {
        Self {
            project: flush.project.to_string(),
            git_ref: flush.git_ref.as_ref().map(GitRef::to_string),
            scope: flush.scope.as_ref().map(Scope::to_string),
        }
    }
}

impl TryFrom<v1::FlushRequest> for Flush {
    type Error = Malformed;

    fn try_from(flush: v1::FlushRequest) -> Result<Self, Malformed> {
        Ok(Self {
            project: project(&flush.project)?,
            git_ref: flush.git_ref.as_deref().map(git_ref).transpose()?,
            scope: flush.scope.as_deref().map(scope).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests;
