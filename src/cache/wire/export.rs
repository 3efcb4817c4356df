//! An export in parts that stream, and the answer to it: what it is, its
//! documents, and its steps.

use std::time::Duration;

use bytes::BytesMut;

use super::v1::publish_request::{Export, Part};
use super::v1::publish_response::{Part as Answer, Published as Entered};
use super::{Malformed, append, count, digests, joined, pieces, short, steps, v1};
use crate::cache::{Document, MAX_DOCUMENTS, MAX_STEPS, Publication, Published};
use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::moment::Moment;
use crate::place::Place;
use crate::step::Step;

/// Steps in one message: a name has 300 bytes at most.
const STEPS: usize = 1024;
/// Digests in one message.
const DIGESTS: usize = 4096;
/// Blobs that may be missing.
const MAX_MISSING: usize = 1_000_000;
/// Bytes of memory that a step is counted as.
const STEP: u64 = 1 << 10;

/// What is sent of an export, in order.
pub fn publication_parts(export: &Publication) -> Vec<v1::PublishRequest> {
    let part = |part| v1::PublishRequest { part: Some(part) };
    let (manifest, config) = (&export.manifest.bytes, &export.config.bytes);
    let steps = &export.steps[..export.steps.len().min(MAX_STEPS)];
    let head = Export {
        place: Some((&export.place).into()),
        builder: export.builder.clone(),
        manifest_bytes: manifest.len() as u64,
        config_bytes: config.len() as u64,
        steps: steps.len() as u64,
        building_ns: export.began.map(elapsed_ns),
    };
    let mut parts = vec![part(Part::Export(head))];
    parts.extend(pieces(manifest.clone()).map(|piece| part(Part::Manifest(piece))));
    parts.extend(pieces(config.clone()).map(|piece| part(Part::Config(piece))));
    parts.extend(steps_parts(steps).map(|steps| part(Part::Steps(steps))));
    parts
}

fn elapsed_ns(began: Moment) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Steps, so many in a message.
pub fn steps_parts(steps: &[Step]) -> impl Iterator<Item = v1::Steps> {
    steps.chunks(STEPS).map(|steps| v1::Steps {
        steps: steps.iter().map(v1::Step::from).collect(),
    })
}

/// Puts an export together again, from its parts.
pub struct PublicationReader {
    place: Place,
    builder: String,
    announced: Export,
    manifest: BytesMut,
    config: BytesMut,
    steps: Vec<Step>,
    began: Option<Moment>,
}

impl PublicationReader {
    /// Begins with the first part, which says what will come.
    pub fn begin(first: Option<v1::PublishRequest>) -> Result<Self, Malformed> {
        let Some(Part::Export(mut announced)) = first.and_then(|first| first.part) else {
            return Err(Malformed::new("an export begins with what it is"));
        };
        let documents = announced
            .manifest_bytes
            .saturating_add(announced.config_bytes);
        if documents > MAX_DOCUMENTS {
            return Err(Malformed::new(format!(
                "a manifest and a config of {documents} bytes: at most {MAX_DOCUMENTS} together"
            )));
        }
        if announced.steps > MAX_STEPS as u64 {
            return Err(Malformed::new(format!(
                "{} steps: at most {MAX_STEPS}",
                announced.steps
            )));
        }
        let place = Place::try_from(announced.place.take())?;
        if place.scope.is_any() {
            return Err(Malformed::new("an export needs one scope"));
        }
        Ok(Self {
            place,
            began: announced
                .building_ns
                .map(Duration::from_nanos)
                .map(Moment::ago),
            builder: short("builder", std::mem::take(&mut announced.builder))?,
            announced,
            manifest: BytesMut::new(),
            config: BytesMut::new(),
            steps: Vec::new(),
        })
    }

    /// Bytes of memory that it may take, all in all.
    pub fn memory(&self) -> u64 {
        let Export {
            manifest_bytes,
            config_bytes,
            steps,
            ..
        } = self.announced;
        manifest_bytes + config_bytes + steps * STEP
    }

    /// Takes the next part in.
    pub fn take(&mut self, message: v1::PublishRequest) -> Result<(), Malformed> {
        match message.part {
            Some(Part::Manifest(bytes)) => {
                append(&mut self.manifest, &bytes, self.announced.manifest_bytes)
            }
            Some(Part::Config(bytes)) => {
                append(&mut self.config, &bytes, self.announced.config_bytes)
            }
            Some(Part::Steps(more)) => {
                if (self.steps.len() + more.steps.len()) as u64 > self.announced.steps {
                    return Err(Malformed::new("more steps than announced"));
                }
                self.steps.extend(steps(more.steps)?);
                Ok(())
            }
            Some(Part::Export(_)) => Err(Malformed::new("an export that begins twice")),
            // Of a newer client.
            None => Ok(()),
        }
    }

    /// The export, once all parts are in.
    pub fn finish(self) -> Result<Publication, Malformed> {
        if self.manifest.len() as u64 != self.announced.manifest_bytes
            || self.config.len() as u64 != self.announced.config_bytes
            || self.steps.len() as u64 != self.announced.steps
        {
            return Err(Malformed::new("an export that breaks off"));
        }
        Ok(Publication {
            place: self.place,
            builder: self.builder,
            manifest: Document::new(self.manifest.freeze()),
            config: Document::new(self.config.freeze()),
            uploaded: Default::default(),
            steps: self.steps,
            readable: None,
            began: self.began,
        })
    }
}

/// What is answered to an export that is in the log.
pub fn published_parts(published: &Published) -> Vec<v1::PublishResponse> {
    let part = |part| v1::PublishResponse { part: Some(part) };
    let entered = part(Answer::Published(Entered {
        export: published.id.map_or(0, |id| id.0),
        records: published.records as u64,
        layers: published.layers as u64,
        bytes: published.bytes,
    }));
    let steps = steps_parts(&published.steps).map(|steps| part(Answer::Steps(steps)));
    std::iter::once(entered).chain(steps).collect()
}

/// What is answered to one that names these blobs, before the status.
pub fn missing_parts(missing: &[Digest]) -> impl Iterator<Item = v1::PublishResponse> {
    missing.chunks(DIGESTS).map(|missing| v1::PublishResponse {
        part: Some(Answer::Missing(joined(missing))),
    })
}

/// Puts that answer together again.
#[derive(Default)]
pub struct PublishedReader {
    published: Option<Published>,
    missing: Vec<Digest>,
}

impl PublishedReader {
    /// Takes the next part in.
    pub fn take(&mut self, answer: v1::PublishResponse) -> Result<(), Malformed> {
        match (answer.part, &mut self.published) {
            (Some(Answer::Published(entered)), None) => {
                self.published = Some(Published {
                    id: (entered.export != 0).then_some(ExportId(entered.export)),
                    queued: false,
                    records: count(entered.records),
                    layers: count(entered.layers),
                    bytes: entered.bytes,
                    steps: Vec::new(),
                });
            }
            (Some(Answer::Steps(more)), Some(published)) => {
                if published.steps.len() + more.steps.len() > MAX_STEPS {
                    return Err(Malformed::new("more steps than an export keeps"));
                }
                published.steps.extend(steps(more.steps)?);
            }
            (Some(Answer::Missing(named)), None) => {
                self.missing.extend(digests(&named)?);
                if self.missing.len() > MAX_MISSING {
                    return Err(Malformed::new("too many blobs are missing"));
                }
            }
            // Of a newer hub.
            (None, _) => {}
            _ => return Err(Malformed::new("parts of an answer in a wrong order")),
        }
        Ok(())
    }

    /// The blobs that are missing, where the hub has ended so.
    pub fn missing(self) -> Vec<Digest> {
        self.missing
    }

    /// What became of the export, once all parts are in.
    pub fn finish(self) -> Result<Published, Malformed> {
        let nothing = || Malformed::new("an answer without a beginning");
        self.published.ok_or_else(nothing)
    }
}
