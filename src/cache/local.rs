//! The engine over a catalog and a blob store: what a sidecar embeds, and what
//! a hub serves.
//!
//! Of a data directory nothing is opened before it is needed, and what could
//! not be opened is tried again at the next call, so that a broken disk costs
//! hits and never a start. Several processes share a directory, or a database
//! and a bucket; nothing that is kept here must be seen by another.

mod bound;
mod collect;
mod directory;
mod entries;
mod export;
mod lease;
mod ledger;
mod open;
mod pinning;
mod present;
mod quota;
mod served;
mod shared;
mod subsume;
mod unions;
mod uploads;
mod uses;
mod verify;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::bound::would_bind;
pub use self::collect::{Collected, Orphans, Outlook, Swept};
pub(super) use self::collect::{REMOVAL, in_time};
use self::entries::Served;
use self::ledger::flushed;
use self::open::{Opened, Opener};
use self::pinning::{Pinned, Whose};
use self::quota::Watch;
use self::served::{Answer, Question, answer};
use self::shared::HandedOut;
pub use self::subsume::Subsumed;
use self::subsume::Subsuming;
use self::unions::{News, United};
use self::uses::Used;
pub(super) use self::verify::Verified;
use super::collecting;
use super::quotas::Quotas;
use super::usage::Usage;
use super::{
    Cache, CacheError, Document, Flush, Import, Lease, Limits, LookedUp, Publication, Published,
    Saving, Want, policy,
};
use crate::access::RefPattern;
use crate::blobs::{BlobError, BlobStore, BlobStream, DiskStore, Ingest};
use crate::catalog::ledger::{NewFlush, Origin};
use crate::catalog::{Catalog, ExportHead, ExportId, Filter, Kind};
use crate::digest::{Digest, Hasher, RecordDigest};
use crate::graph::{Config, GraphError, Manifest};
use crate::place::{Place, ProjectId};
use crate::step::Step;

/// A cache over a catalog and a blob store.
pub struct LocalCache {
    opener: Opener,
    verified: Verified,
    subsuming: Subsuming,
    handed: HandedOut,
    used: Used,
    watch: Watch,
    entries: Served,
    /// Told when something was published.
    grown: Arc<Notify>,
    /// For reading alone: what a look-up promised is read whatever becomes of
    /// the catalog.
    blobs: Arc<dyn BlobStore>,
}

impl LocalCache {
    /// Names a data directory; it is created or opened at the first call that
    /// needs it.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let dir = data_dir.into();
        let blobs = Arc::new(DiskStore::at(&dir));
        Self::on(Opener::directory(dir), blobs)
    }

    /// Works on what is open already, and mends itself.
    pub fn over(catalog: Arc<dyn Catalog>, blobs: Arc<dyn BlobStore>) -> Self {
        let opened = Opened::new(catalog, Arc::clone(&blobs));
        Self::on(Opener::Given(Arc::new(opened)), blobs)
    }

    fn on(opener: Opener, blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            opener,
            verified: Verified::default(),
            subsuming: Subsuming::default(),
            handed: HandedOut::default(),
            used: Used::default(),
            watch: Watch::default(),
            entries: Served::default(),
            grown: Arc::default(),
        }
    }

    /// Counts the exports that leave the log for newer ones.
    pub fn counting(self, subsumed: Subsumed) -> Self {
        Self {
            subsuming: Subsuming::new(subsumed),
            ..self
        }
    }

    /// Holds the quotas of projects, of which the newest exports of the default
    /// branches `keep` go last, and counts what goes.
    pub fn keeping(
        self,
        quotas: Quotas,
        keep: Vec<RefPattern>,
        metrics: collecting::Metrics,
    ) -> Self {
        Self {
            watch: Watch::new(quotas, keep, metrics),
            ..self
        }
    }

    /// What the command line says of projects.
    pub fn quotas(&self) -> &Quotas {
        self.watch.quotas()
    }

    /// Signalled when something was published.
    pub fn grown(&self) -> Arc<Notify> {
        Arc::clone(&self.grown)
    }

    /// Opens the data directory, for reading at least; an error says why it
    /// can't be.
    pub async fn open(&self) -> Result<(), CacheError> {
        self.opener.opened().await.map(drop)
    }

    /// Makes ready what the next build will most likely ask for: the exports of
    /// the project that exported last, seen from where it did. Gives how many
    /// they are.
    pub async fn warm(&self, limits: &Limits) -> Result<usize, CacheError> {
        let opened = self.opener.opened().await?;
        let last = Filter {
            kind: Some(Kind::Cache),
            limit: Some(1),
            ..Filter::default()
        };
        let Some(head) = opened.catalog.list(&last).await?.pop() else {
            return Ok(0);
        };
        let wants = [Want::all_of(head.place)];
        let mut united = opened.unions.of(&opened, policy::sights(&wants)).await?;
        let question = self.question(&opened, &wants, limits, &united).await;
        let wrong = HashSet::new();
        self.answer(&opened, &mut united, question, wrong).await?;
        Ok(united.heads.len())
    }

    /// Makes sure that the blob store is the catalog's; [`CacheError::Foreign`]
    /// where it is another's.
    pub async fn bind(&self) -> Result<(), CacheError> {
        self.opener.opened().await?.bind().await
    }

    /// Takes the blob store over for the catalog, from whichever had it.
    pub async fn adopt(&self) -> Result<(), CacheError> {
        let opened = self.opener.opened().await?;
        bound::adopt(&*opened.catalog, &*opened.blobs).await
    }

    /// Whether the store is there and opens; an error says why not. Unlike
    /// [`Self::open`] it never creates a data directory: where a disk is lost,
    /// an empty directory in its place is no cache, and fills another disk.
    pub async fn ready(&self) -> Result<(), CacheError> {
        self.opener.ready().await
    }

    /// Reads a blob, whose bytes must be what its digest says.
    async fn hash(&self, digest: &Digest) -> Result<(), CacheError> {
        let mut bytes = self.blobs.read(digest, 0, u64::MAX).await?;
        let mut hasher = Hasher::default();
        while let Some(chunk) = bytes.next().await {
            hasher.update(&chunk?);
        }
        match hasher.finish() {
            actual if actual == *digest => Ok(()),
            actual => Err(CacheError::from(BlobError::WrongDigest {
                expected: *digest,
                actual,
            })),
        }
    }

    /// What is stored now: looks at every blob, and opens nothing.
    pub async fn usage(&self) -> Result<Usage, CacheError> {
        Ok(Usage::of(&*self.blobs).await?)
    }

    async fn question(
        &self,
        opened: &Opened,
        wants: &[Want],
        limits: &Limits,
        united: &United,
    ) -> Question {
        Question {
            order: policy::order(wants, united.heads.values()),
            generation: opened.blobs.generation().await,
            not_before: wants.iter().filter_map(|want| want.not_before).max(),
            compression: wants.iter().find_map(|want| want.compression),
            limits: *limits,
            avoided: self.verified.avoided(Instant::now()),
        }
    }

    /// What `question` gets of what `united` has, and what is absent of that,
    /// what was found `wrong` included.
    async fn answer(
        &self,
        opened: &Opened,
        united: &mut United,
        question: Question,
        wrong: HashSet<Digest>,
    ) -> Result<(Arc<Answer>, HashSet<Digest>), CacheError> {
        let known = united.lately.get(&question);
        let known = known.filter(|_| wrong.is_empty() && !self.verified.is_suspect());
        let mut absent = self.absent(opened, united, question.generation).await?;
        absent.extend(wrong);
        if let Some(known) = known {
            return Ok((known, absent));
        }
        let union = Arc::clone(&united.union);
        let answering = tokio::task::spawn_blocking(move || {
            let answer = answer(&union, &question, &absent);
            (question, absent, answer)
        });
        let (question, absent, answer) = answering.await.map_err(|stopped| {
            CacheError::Unavailable(format!("serving the exports was cut off: {stopped}"))
        })?;
        let answer = Arc::new(answer?);
        united.lately.keep(question, Arc::clone(&answer));
        Ok((answer, absent))
    }
}

/// What a build is told of where its import comes from.
fn import(
    place: Place,
    heads: &BTreeMap<ExportId, ExportHead>,
    answer: &Answer,
    news: News,
    lease: Lease,
) -> Option<Import> {
    let used = || answer.exports.iter().filter_map(|id| heads.get(id));
    let newest = used().max_by_key(|head| head.id)?;
    let builders: BTreeSet<&str> = used().map(|head| head.builder.as_str()).collect();
    Some(Import {
        place,
        exports: used().count(),
        builders: builders.len(),
        export: Some(newest.id),
        exported_at: newest.time,
        builder: newest.builder.clone(),
        records: answer.records,
        left_out: answer.left_out,
        refused: news.refused,
        withdrawn: news.missing,
        flushed: None,
        documents: answer.documents.clone(),
        layers: Arc::clone(&answer.layers),
        lease,
    })
}

#[async_trait]
impl Cache for LocalCache {
    async fn look_up(&self, wants: &[Want], limits: &Limits) -> Result<LookedUp, CacheError> {
        let Some(first) = wants.first() else {
            return Ok(LookedUp::Nothing(None));
        };
        let opened = self.opener.opened().await?;
        // Before anything is named that it keeps.
        let lease = Lease::of(opened.leases.hold(&opened.catalog).await);
        let mut united = opened.unions.of(&opened, policy::sights(wants)).await?;
        let mut wrong = HashSet::new();
        if self.is_to_look() {
            let named = Arc::clone(&united.blobs);
            // Others are answered meanwhile.
            drop(united);
            wrong = self.wrong(&named).await;
            united = opened.unions.of(&opened, policy::sights(wants)).await?;
        }
        if united.heads.is_empty() {
            drop(united);
            let flushed = flushed(&opened, wants, policy::tells).await;
            return Ok(LookedUp::Nothing(flushed));
        }
        let question = self.question(&opened, wants, limits, &united).await;
        let answered = self.answer(&opened, &mut united, question, wrong).await;
        let (answer, absent) = answered?;
        let news = united.news(absent);
        let heads = united.heads.clone();
        let trimmed: u64 = united.trimmed.values().sum();
        let unreadable: Vec<ExportId> = united.unreadable.iter().copied().collect();
        drop(united);
        if let Some(mut import) = import(first.place.clone(), &heads, &answer, news, lease) {
            import.left_out.cut += trimmed;
            import.flushed = flushed(&opened, wants, policy::tells_beside).await;
            return Ok(LookedUp::Import(Box::new(import)));
        }
        if answer.left_out.absent > 0 {
            return Err(CacheError::Lost(heads.into_keys().collect()));
        }
        if !unreadable.is_empty() {
            return Err(CacheError::Lost(unreadable));
        }
        let flushed = flushed(&opened, wants, policy::tells).await;
        Ok(LookedUp::Nothing(flushed))
    }

    async fn lease(&self) -> Lease {
        match self.opener.opened().await {
            Ok(opened) => Lease::of(opened.leases.hold(&opened.catalog).await),
            Err(_) => Lease::default(),
        }
    }

    async fn writable(&self, place: &Place) -> Result<(), CacheError> {
        place.check_new()?;
        let opened = self.opener.opened_for_writing().await?;
        if let Some(allowance) = self.allowance(&opened, place).await? {
            allowance.check(1)?;
        }
        opened.blobs.probe().await?;
        Ok(opened.catalog.writable().await?)
    }

    async fn holds(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, CacheError> {
        let opened = self.opener.opened().await?;
        let Some(size) = opened.catalog.holds(&place.project, digest).await? else {
            return Ok(None);
        };
        // A blob that lost bytes is not there: the next upload mends it.
        let there = opened.blobs.size(digest).await? == Some(size);
        Ok(there.then_some(size))
    }

    async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        place.check_new()?;
        let opened = self.opener.opened_for_writing().await?;
        // No project id holds a NUL: names of two projects never meet.
        let name = format!("{}\0{name}", place.project);
        let allowance = self.allowance(&opened, place).await?;
        let ingest = opened.blobs.ingest(&name, expected).await?;
        Ok(Box::new(Pinned {
            ingest,
            opened,
            allowance,
            whose: Whose::Export(place.project.clone()),
        }))
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        self.used.read(digest);
        Ok(self.blobs.read(digest, offset, length).await?)
    }

    async fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        if self.verified.is_believed(digest, Instant::now()) {
            return Ok(());
        }
        let expected = *digest;
        let mut found = self.hash(digest).await;
        if found.as_ref().is_err_and(CacheError::is_final) {
            // It may be a copy that is wrong, or have been read wrongly.
            self.blobs.drop_copy(digest).await?;
            found = self.hash(digest).await;
        }
        if let Err(wrong) = found {
            let is_there = !matches!(wrong, CacheError::Blob(BlobError::NotFound(_)));
            if wrong.is_final() && is_there {
                tracing::error!(blob = %expected, error = %wrong, "a blob has rotted, and is withdrawn");
                self.withdraw(digest, &wrong).await?;
            }
            return Err(wrong);
        }
        self.verified.remember(expected, Instant::now());
        Ok(())
    }

    async fn withdraw(&self, digest: &Digest, why: &CacheError) -> Result<(), CacheError> {
        if !why.is_final() {
            self.verified.avoid(*digest, Instant::now());
            return Ok(());
        }
        self.verified.suspect();
        let opened = self.opener.opened_for_writing().await?;
        Ok(opened.blobs.remove(digest).await?)
    }

    async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        export.place.check_new()?;
        self.append(export).await
    }

    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        let opened = self.opener.opened().await?;
        Ok(opened.catalog.steps(project, None, results).await?)
    }

    async fn report(&self, saving: &Saving) -> Result<(), CacheError> {
        self.used.hit(saving, self.watch.keep());
        let opened = self.opener.opened().await?;
        if opened.catalog.refusal().is_some() {
            return Ok(());
        }
        Ok(opened.catalog.add_saving(saving).await?)
    }

    async fn flush(&self, flush: &Flush, origin: &Origin) -> Result<u64, CacheError> {
        let opened = self.opener.opened_for_writing().await?;
        let flush = NewFlush {
            project: flush.project.clone(),
            git_ref: flush.git_ref.clone(),
            scope: flush.scope.clone(),
            origin: origin.clone(),
        };
        Ok(opened.catalog.flush(&flush).await?)
    }
}

/// Parses both; on a thread of its own, since a config may have megabytes.
pub(super) async fn parse(
    manifest: Document,
    config: Document,
) -> Result<(Manifest, Config), CacheError> {
    let parsed = tokio::task::spawn_blocking(move || {
        let manifest = Manifest::parse(&manifest.bytes)?;
        let config = manifest.parse_config(&config.bytes)?;
        Ok::<_, GraphError>((manifest, config))
    });
    let parsed = parsed.await.map_err(|stopped| {
        CacheError::Unavailable(format!("reading the export was cut off: {stopped}"))
    })?;
    Ok(parsed?)
}

#[cfg(test)]
mod tests;
