//! An archive on its way in: each layer into the cache as it comes, each export
//! when it is whole.
//!
//! Exports are published in their order, so that what was the newest is so
//! again. What is wrong with one costs that one; what is wrong with the tar, or
//! with the cache, ends the reading, and what was published until then stands.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;

use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

use super::documents::Documents;
use super::format::{
    INDEX, Index, LAYOUT, Labels, MAX_DOCUMENT_BYTES, MAX_INDEX_BYTES, MAX_LAYOUT_BYTES, blob_of,
    check_layout,
};
use super::plan::{Coming, Number, Plan, Standing};
use super::target::{Rehome, Target};
use super::unpack::{Entry, Unpacker};
use super::{ArchiveError, Progress, known, steps};
use crate::blobs::BlobError;
use crate::cache::{CacheError, Publication};
use crate::digest::Digest;
use crate::graph::Manifest;
use crate::moment::Moment;
use crate::place::{Place, ProjectId};

/// Layers whose last bytes are in, and that the cache makes durable meanwhile.
const COMMITS: usize = 8;

/// What became of an archive.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    /// Exports that are in the log now.
    pub exports: usize,
    /// Exports that would have added nothing.
    pub known: usize,
    /// Exports that could not be taken.
    pub refused: Vec<RefusedExport>,
    /// Exports that were not reached, since the reading ended too early.
    pub unfinished: usize,
    /// Layers that were brought.
    pub layers: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// Layers that were there already.
    pub held: usize,
    /// Layers of which a part was there already.
    pub resumed: usize,
    /// Of those exports that are in the log now, so many of each project.
    #[serde(skip)]
    pub projects: BTreeMap<ProjectId, u64>,
}

/// An export that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedExport {
    /// What the archive calls it.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// Reads the archive that `input` has from where it stands. What became of it
/// is told also where the reading ended too early.
pub async fn import(
    target: &Target,
    input: impl Read + Send + 'static,
    rehome: &Rehome,
    progress: &Progress,
) -> (Imported, Result<(), ArchiveError>) {
    let begun = async {
        let mut unpacker = Unpacker::begin(input)?;
        let layout = expected(&mut unpacker, LAYOUT, MAX_LAYOUT_BYTES).await?;
        check_layout(&layout)?;
        let index = expected(&mut unpacker, INDEX, MAX_INDEX_BYTES).await?;
        let plan = Plan::new(Index::parse(&index)?)?;
        Ok::<_, ArchiveError>((unpacker, plan, Documents::new()?))
    };
    let (mut unpacker, plan, documents) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return (Imported::default(), Err(error)),
    };
    let mut reading = Reading {
        target,
        rehome,
        progress,
        plan,
        documents,
        commits: JoinSet::new(),
        next: 0,
        writable: HashMap::new(),
        was_empty: HashMap::new(),
        published: HashSet::new(),
        imported: Imported::default(),
        began: Moment::now(),
    };
    let read = reading.all(&mut unpacker).await;
    let ended = reading.finish(read).await;
    (reading.imported, ended)
}

/// The content of the next entry, which must be called so.
async fn expected(unpacker: &mut Unpacker, name: &str, limit: u64) -> Result<Bytes, ArchiveError> {
    match unpacker.next().await? {
        Some(entry) if entry.name == name => unpacker.whole(&entry, limit).await,
        other => Err(ArchiveError::Malformed(format!(
            "it has {} where {name} should be: it is no archive of layerd cache export",
            other.map_or("nothing".to_owned(), |entry| entry.name)
        ))),
    }
}

/// A layer, its size, whether a part of it was there, and how storing it ended.
type Committed = (Digest, u64, bool, Result<(), CacheError>);

struct Reading<'a> {
    target: &'a Target,
    rehome: &'a Rehome,
    progress: &'a Progress,
    plan: Plan,
    documents: Documents,
    commits: JoinSet<Committed>,
    /// The export that is to be published next.
    next: Number,
    /// Whether exports to a place are taken, or why not.
    writable: HashMap<Place, Option<String>>,
    /// Whether anything stood at a place before.
    was_empty: HashMap<Place, bool>,
    /// Configs that this archive has brought, by place.
    published: HashSet<(Place, Digest)>,
    imported: Imported,
    /// What is flushed from now on stays so; what was flushed before, somebody
    /// wants back.
    began: Moment,
}

impl Reading<'_> {
    async fn all(&mut self, unpacker: &mut Unpacker) -> Result<(), ArchiveError> {
        while let Some(entry) = unpacker.next().await? {
            let Some(digest) = blob_of(&entry.name) else {
                return Err(ArchiveError::Malformed(format!(
                    "{} has no place in an archive of a cache",
                    entry.name
                )));
            };
            match self.plan.comes(&digest)? {
                Coming::Document { size, manifest_of } => {
                    if size > MAX_DOCUMENT_BYTES {
                        let why = format!(
                            "its document {digest} has {size} bytes; more than {MAX_DOCUMENT_BYTES} are not taken"
                        );
                        self.refuse_all(&digest, why);
                        continue;
                    }
                    if size != entry.size {
                        self.refuse_all(&digest, wrong_size(&entry, size));
                        continue;
                    }
                    let bytes = unpacker.whole(&entry, size).await?;
                    self.document(digest, bytes, manifest_of).await?;
                }
                Coming::Stranger => {}
                Coming::Layer { size } => {
                    self.end_documents();
                    if size != entry.size {
                        self.refuse_all(&digest, wrong_size(&entry, size));
                        continue;
                    }
                    self.layer(unpacker, digest, size).await?;
                    self.settle(COMMITS).await?;
                    self.publish().await?;
                }
            }
        }
        self.end_documents();
        self.settle(0).await?;
        self.publish().await
    }

    /// Publishes what is whole, and says what is not.
    async fn finish(&mut self, read: Result<(), ArchiveError>) -> Result<(), ArchiveError> {
        let mut ended = read;
        // What is wrong with the tar is none of the cache's fault.
        if let Err(ArchiveError::Malformed(_)) = &ended {
            let late = self.settle(0).await;
            ended = ended.and(late);
        }
        for number in 0..self.plan.exports().len() {
            match (self.plan.standing(number), &ended) {
                (Standing::Over, _) => {}
                (Standing::Complete, Ok(()) | Err(ArchiveError::Malformed(_))) => {
                    if let Err(error) = self.publish_one(number).await {
                        ended = Err(error);
                        self.imported.unfinished += 1;
                    }
                }
                (Standing::Waiting, Ok(())) => {
                    let why = match self.plan.absent_of(number) {
                        Some(digest) => format!("its layer {digest} is not in the archive"),
                        None => "a part of it is not in the archive".to_owned(),
                    };
                    self.refuse(number, why);
                }
                _ => self.imported.unfinished += 1,
            }
        }
        ended
    }

    fn refuse(&mut self, number: Number, why: String) {
        if !self.plan.end(number) {
            return;
        }
        let export = self.plan.exports().get(number);
        let name = export.map_or_else(String::new, |export| export.name.clone());
        self.imported.refused.push(RefusedExport { name, why });
    }

    fn refuse_all(&mut self, digest: &Digest, why: String) {
        for number in self.plan.wanting(digest) {
            self.refuse(number, why.clone());
        }
    }

    /// From here on layers come.
    fn end_documents(&mut self) {
        for (digest, exports) in self.plan.end_documents() {
            for number in exports {
                self.refuse(
                    number,
                    format!("its document {digest} is not in the archive"),
                );
            }
        }
        self.progress.expect(self.plan.bytes());
    }

    async fn document(
        &mut self,
        digest: Digest,
        bytes: Bytes,
        manifest_of: Option<Number>,
    ) -> Result<(), ArchiveError> {
        let content = bytes.clone();
        let parsed = tokio::task::spawn_blocking(move || {
            let actual = Digest::of(&content);
            let manifest = manifest_of.map(|_| {
                let manifest = Manifest::parse(&content).map_err(|error| error.to_string())?;
                Ok::<_, String>((manifest, Labels::parse(&content)?))
            });
            (actual, manifest)
        });
        let (actual, manifest) = parsed
            .await
            .map_err(|stopped| ArchiveError::Malformed(stopped.to_string()))?;
        if actual != digest {
            let wrong = BlobError::WrongDigest {
                expected: digest,
                actual,
            };
            self.refuse_all(&digest, wrong.to_string());
            return Ok(());
        }
        self.documents.put(digest, bytes).await?;
        let Some((number, manifest)) = manifest_of.zip(manifest) else {
            return Ok(());
        };
        let taken = match manifest {
            Err(why) => Err(why),
            Ok((manifest, mut labels)) => {
                labels.place = self.rehome.of(labels.place);
                match self.writable(&labels.place).await? {
                    Some(why) => Err(why),
                    None => self.plan.manifest(number, &manifest, labels)?,
                }
            }
        };
        if let Err(why) = taken {
            self.refuse(number, why);
        }
        Ok(())
    }

    /// Why exports to a place are not taken, if they are not.
    async fn writable(&mut self, place: &Place) -> Result<Option<String>, ArchiveError> {
        if let Some(known) = self.writable.get(place) {
            return Ok(known.clone());
        }
        let why = match self.target.inner().writable(place).await {
            Ok(()) => None,
            Err(
                error @ (CacheError::Denied(_) | CacheError::Exhausted(_) | CacheError::Refused(_)),
            ) => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        self.writable.insert(place.clone(), why.clone());
        Ok(why)
    }

    async fn layer(
        &mut self,
        unpacker: &mut Unpacker,
        digest: Digest,
        size: u64,
    ) -> Result<(), ArchiveError> {
        let places = self.plan.places_wanting(&digest);
        if places.is_empty() {
            self.progress.add(size);
            return Ok(());
        }
        let lacking = self.target.lacking(places.iter().collect(), &digest, size);
        let lacking: Vec<Place> = lacking.await?.into_iter().cloned().collect();
        if lacking.is_empty() {
            self.imported.held += 1;
            self.plan.arrived(&digest);
            self.progress.add(size);
            return Ok(());
        }
        let mut incoming = self.target.open(lacking, digest, size).await?;
        while let Some(bytes) = unpacker.bytes().await? {
            incoming.write(&bytes).await?;
            self.progress.add(bytes.len() as u64);
        }
        self.commits.spawn(async move {
            let (digest, resumed) = (incoming.digest(), incoming.is_resumed());
            (digest, size, resumed, incoming.commit().await)
        });
        Ok(())
    }

    /// Takes in what is stored by now, and waits until at most so many layers
    /// are not.
    async fn settle(&mut self, left: usize) -> Result<(), ArchiveError> {
        loop {
            let ended = match self.commits.len() > left {
                true => self.commits.join_next().await,
                false => self.commits.try_join_next(),
            };
            let Some(ended) = ended else {
                return Ok(());
            };
            let (digest, size, resumed, committed) = ended.map_err(|stopped| {
                CacheError::Unavailable(format!("storing a layer was cut off: {stopped}"))
            })?;
            match committed {
                Ok(()) => {
                    self.imported.layers += 1;
                    self.imported.bytes += size;
                    self.imported.resumed += usize::from(resumed);
                    self.plan.arrived(&digest);
                }
                Err(CacheError::Blob(
                    error @ (BlobError::WrongDigest { .. } | BlobError::WrongSize { .. }),
                )) => {
                    let why = if resumed {
                        format!(
                            "{error}; an earlier import had left a part of it, which is dropped: import it again"
                        )
                    } else {
                        error.to_string()
                    };
                    self.refuse_all(&digest, why);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Publishes what is whole, in order.
    async fn publish(&mut self) -> Result<(), ArchiveError> {
        while self.next < self.plan.exports().len() {
            match self.plan.standing(self.next) {
                Standing::Waiting => return Ok(()),
                Standing::Complete => self.publish_one(self.next).await?,
                Standing::Over => {}
            }
            self.next += 1;
        }
        Ok(())
    }

    async fn publish_one(&mut self, number: Number) -> Result<(), ArchiveError> {
        let Some(export) = self.plan.exports().get(number) else {
            return Ok(());
        };
        let (Some(labels), Some(config)) = (export.labels.clone(), export.config) else {
            return Ok(());
        };
        let manifest = self.documents.get(&export.manifest).await?;
        let config = self.documents.get(&config).await?;
        let steps = match &labels.steps {
            None => Ok(Vec::new()),
            Some((digest, _)) => steps::parse(&self.documents.get(digest).await?.bytes),
        };
        let named = Manifest::parse(&manifest.bytes).map_err(CacheError::from)?;
        let (steps, config) = match (steps, named.parse_config(&config.bytes)) {
            (Ok(steps), Ok(_)) => (steps, config),
            (Err(why), _) => {
                self.refuse(number, why);
                return Ok(());
            }
            (_, Err(error)) => {
                self.refuse(number, error.to_string());
                return Ok(());
            }
        };
        let place = labels.place.clone();
        let project = place.project.clone();
        let is_new = self.published.insert((place.clone(), config.digest));
        if !is_new || self.is_known(&place, &manifest, &config).await {
            self.imported.known += usize::from(self.plan.end(number));
            return Ok(());
        }
        let published = self.target.inner().publish(Publication {
            place,
            builder: labels.builder,
            manifest,
            config,
            uploaded: named
                .layers
                .iter()
                .map(|layer| layer.digest)
                .collect::<BTreeSet<_>>(),
            steps,
            readable: None,
            began: Some(self.began),
        });
        match published.await {
            Ok(_) => {
                self.imported.exports += usize::from(self.plan.end(number));
                *self.imported.projects.entry(project).or_default() += 1;
            }
            Err(
                error @ (CacheError::Denied(_)
                | CacheError::Exhausted(_)
                | CacheError::Refused(_)
                | CacheError::Flushed(_)
                | CacheError::Missing(_)
                | CacheError::Graph(_)),
            ) => self.refuse(number, error.to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether the cache had all of it before.
    async fn is_known(
        &mut self,
        place: &Place,
        manifest: &crate::cache::Document,
        config: &crate::cache::Document,
    ) -> bool {
        if self.was_empty.get(place) == Some(&true) {
            return false;
        }
        let import = known::look(self.target.inner(), place).await;
        let was_empty = self.was_empty.entry(place.clone());
        was_empty.or_insert(import.is_none());
        match import {
            None => false,
            Some(import) => known::is_known(import, manifest.clone(), config.clone()).await,
        }
    }
}

fn wrong_size(entry: &Entry, expected: u64) -> String {
    format!(
        "{} has {} bytes where {expected} were announced",
        entry.name, entry.size
    )
}
