//! A waiting export on disk: `export.json`, and `manifest.json` and
//! `config.json` as the client wrote them.
//!
//! The first says where it goes and what it may send; the others are read when
//! it is its turn, so that a long queue costs no memory. It is locked by the
//! process that brings it to the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::lanes::Lane;
use crate::cache::wire::{self, Malformed, v1};
use crate::cache::{Document, Publication};
use crate::digest::Digest;
use crate::moment::Moment;
use crate::place::Place;
use crate::step::Step;

pub(super) const EXPORT: &str = "export.json";
const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.json";

/// Of what is written now. The first knew neither its hub nor what was held.
const VERSION: u32 = 2;

/// One that waits, locked by this process.
pub(super) struct Entry {
    /// Of its folder; in the order of time.
    pub(super) name: String,
    pub(super) written_at: Timestamp,
    pub(super) lane: Lane,
    /// The size of each layer that it names, in bytes.
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// Those that its build wrote, or that the hub said its project holds: what
    /// may be sent.
    pub(super) sendable: BTreeSet<Digest>,
    _lock: File,
}

/// An export that is to wait.
pub(super) struct Draft {
    pub(super) export: Publication,
    pub(super) lane: Lane,
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// What the project holds besides what was uploaded.
    pub(super) held: BTreeSet<Digest>,
}

/// What `export.json` says.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default = "first")]
    version: u32,
    /// The addresses of the hub that it is for.
    #[serde(default)]
    hub: BTreeSet<String>,
    project: String,
    git_ref: String,
    scope: String,
    builder: String,
    written_at: Timestamp,
    /// When its build began, where that is known.
    #[serde(default)]
    began_at: Option<Timestamp>,
    uploaded: BTreeSet<Digest>,
    #[serde(default)]
    held: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, u64>,
    steps: Vec<WrittenStep>,
}

#[derive(Serialize, Deserialize)]
struct WrittenStep {
    record: String,
    created_at_ns: i64,
    name: String,
    duration_ms: u64,
    builder: Option<String>,
    daemon: Option<String>,
}

/// What every version says.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default = "first")]
    version: u32,
}

fn first() -> u32 {
    1
}

/// Writes an export into `folder`, durably, locked before anybody can see it.
pub(super) fn write(folder: &Path, draft: Draft, written_at: Timestamp) -> io::Result<Entry> {
    let Draft {
        export,
        lane,
        blobs,
        held,
    } = draft;
    let written = Written {
        version: VERSION,
        hub: lane.hub.iter().map(ToString::to_string).collect(),
        project: export.place.project.to_string(),
        git_ref: export.place.git_ref.to_string(),
        scope: export.place.scope.to_string(),
        builder: export.builder,
        written_at,
        began_at: export.began.map(Moment::time),
        uploaded: export.uploaded.clone(),
        held: held.clone(),
        blobs: blobs.clone(),
        steps: export.steps.iter().map(WrittenStep::from).collect(),
    };
    put(&folder.join(MANIFEST), &export.manifest.bytes)?;
    put(&folder.join(CONFIG), &export.config.bytes)?;
    let lock = put(&folder.join(EXPORT), &serde_json::to_vec(&written)?)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    File::open(folder)?.sync_all()?;
    Ok(Entry {
        name: String::new(),
        written_at,
        lane,
        blobs,
        sendable: export.uploaded.into_iter().chain(held).collect(),
        _lock: lock,
    })
}

/// Writes a file durably.
pub(super) fn put(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// `None` where another process owns it, or has just finished it;
/// [`io::ErrorKind::InvalidData`] where it never can be read.
pub(super) fn read(folder: &Path, name: &str) -> io::Result<Option<Entry>> {
    let path = folder.join(EXPORT);
    let mut lock = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    if !path.exists() {
        return Ok(None);
    }
    let mut text = Vec::new();
    lock.read_to_end(&mut text)?;
    let written = parse(&text)?;
    let lane = written.lane().map_err(invalid)?;
    let sendable = written.uploaded.into_iter().chain(written.held);
    Ok(Some(Entry {
        name: name.to_owned(),
        written_at: written.written_at,
        lane,
        sendable: sendable.collect(),
        blobs: written.blobs,
        _lock: lock,
    }))
}

/// All of it, to be published; errors as in [`read`].
pub(super) fn read_whole(folder: &Path) -> io::Result<Publication> {
    let written = parse(&fs::read(folder.join(EXPORT))?)?;
    let document = |name| fs::read(folder.join(name)).map(|bytes| Document::new(bytes.into()));
    let (manifest, config) = (document(MANIFEST)?, document(CONFIG)?);
    written.publication(manifest, config).map_err(invalid)
}

fn parse(text: &[u8]) -> io::Result<Written> {
    let Versioned { version } = serde_json::from_slice(text).map_err(invalid)?;
    if version > VERSION {
        return Err(invalid(format!(
            "version {version} of its form is a later layerd's"
        )));
    }
    serde_json::from_slice(text).map_err(invalid)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Written {
    fn lane(&self) -> Result<Lane, Box<dyn std::error::Error + Send + Sync>> {
        let hub: Result<_, _> = self.hub.iter().map(|address| address.parse()).collect();
        Ok(Lane {
            hub: hub?,
            place: self.place()?,
        })
    }

    fn place(&self) -> Result<Place, Malformed> {
        Ok(Place {
            project: wire::project(&self.project)?,
            git_ref: wire::git_ref(&self.git_ref)?,
            scope: wire::scope(&self.scope)?,
        })
    }

    fn publication(self, manifest: Document, config: Document) -> Result<Publication, Malformed> {
        let place = self.place()?;
        let steps = self.steps.into_iter().map(v1::Step::from);
        Ok(Publication {
            place,
            builder: wire::short("builder", self.builder)?,
            manifest,
            config,
            uploaded: self.uploaded,
            steps: wire::steps(steps.collect())?,
            readable: None,
            began: self.began_at.map(Moment::at),
        })
    }
}

impl From<&Step> for WrittenStep {
    fn from(step: &Step) -> Self {
        let step = v1::Step::from(step);
        let (builder, daemon) = match step.origin {
            Some(origin) => (Some(origin.builder), origin.daemon),
            None => (None, None),
        };
        Self {
            record: step.record,
            created_at_ns: step.created_at_ns,
            name: step.name,
            duration_ms: step.duration_ms,
            builder,
            daemon,
        }
    }
}

impl From<WrittenStep> for v1::Step {
    fn from(step: WrittenStep) -> Self {
        let daemon = step.daemon;
        Self {
            record: step.record,
            created_at_ns: step.created_at_ns,
            name: step.name,
            duration_ms: step.duration_ms,
            origin: step.builder.map(|builder| v1::Origin { builder, daemon }),
        }
    }
}
