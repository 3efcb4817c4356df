//! The engine, as far as a client of a hub may use it.
//!
//! Whatever a client asks goes through a [`Guard`], which holds what the client
//! was granted and checks it before the engine does anything. Nothing crosses
//! projects: of another project, and of refs that it may not read, a client
//! learns nothing, not even that they exist. A blob is there for it if an
//! export that it may read names it, or if it was uploaded for its own ref.
//!
//! Nor does the time that an answer takes tell more. Every question about a
//! digest goes to the catalog first, within the client's project, and there it
//! is one look at an index that others' rows are not near to: those of blobs
//! begin with digest and project, those of refs with the project. Only what is the client's own by
//! then is asked of the store, whose answers do take longer for what is there.
//! So what others have, and what nobody has, comes to the same statements, and
//! to none of the store. An upload is taken in and hashed to its end in either
//! case.

mod entries;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::flushes::{Flushes, Source};
use super::{
    Cache, CacheError, Flush, Limits, LocalCache, LookedUp, Publication, Published, Saving, Want,
};
use crate::access::{Denied, Grant, Pass, Reason, RefPattern, Refusal, Refusals};
use crate::blobs::{BlobError, BlobStream, Ingest, Location};
use crate::catalog::LeaseId;
use crate::catalog::ledger::{Action, Details, NewAudit, Origin};
use crate::digest::{Digest, RecordDigest};
use crate::graph::Manifest;
use crate::place::{GitRef, Place, ProjectId};
use crate::step::Step;

/// How long an upload may be named before an export does.
const POSSESSED: Duration = Duration::from_secs(24 * 3600);
/// How long a blob can be read by the address that a reader is given.
const LOCATED: Duration = Duration::from_secs(600);

/// An engine that is shared by clients who may do different things.
#[derive(Clone)]
pub struct Guarded {
    cache: Arc<dyn Cache>,
    local: Arc<LocalCache>,
    refusals: Refusals,
    flushes: Flushes,
}

impl Guarded {
    /// `cache` is `local`, or a decorator of it.
    pub fn new(cache: Arc<dyn Cache>, local: Arc<LocalCache>) -> Self {
        local.is_told_of_reads();
        Self {
            cache,
            local,
            refusals: Refusals::default(),
            flushes: Flushes::default(),
        }
    }

    /// Counts into these.
    #[must_use]
    pub fn counting(self, refusals: Refusals, flushes: Flushes) -> Self {
        Self {
            refusals,
            flushes,
            ..self
        }
    }

    /// For a client with this pass, which calls from `peer`, with a request that
    /// the logs know by that number.
    pub fn to(&self, pass: Pass, peer: Option<SocketAddr>, request: &str) -> Guard {
        let origin = Origin {
            actor: pass.grant().actor(),
            peer,
            request: Some(request.to_owned()),
        };
        Guard {
            cache: Arc::clone(&self.cache),
            local: Arc::clone(&self.local),
            refusals: self.refusals.clone(),
            flushes: self.flushes.clone(),
            pass,
            origin: Arc::new(origin),
        }
    }
}

/// What one client can do.
#[derive(Clone)]
pub struct Guard {
    cache: Arc<dyn Cache>,
    local: Arc<LocalCache>,
    refusals: Refusals,
    flushes: Flushes,
    pass: Pass,
    origin: Arc<Origin>,
}

impl From<Refusal> for CacheError {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.to_string())
    }
}

impl Guard {
    /// Who it is for.
    pub fn grant(&self) -> &Grant {
        self.pass.grant()
    }

    /// Refuses to go on where what was granted has ended meanwhile; to be asked
    /// by whatever lasts longer than a question and its answer.
    pub async fn still_granted(&mut self) -> Result<(), Denied> {
        self.refusals.counted(self.pass.check().await)
    }

    fn check_project(&self, project: &ProjectId) -> Result<(), Refusal> {
        self.refusals.counted(self.grant().check_project(project))
    }

    fn check_read(&self, project: &ProjectId, asked: &GitRef) -> Result<(), Refusal> {
        let checked = self.grant().check_read(project, asked);
        self.refusals.counted(checked)
    }

    fn check_write(&self, project: &ProjectId, asked: &GitRef) -> Result<(), Refusal> {
        let checked = self.grant().check_write(project, asked);
        self.refusals.counted(checked)
    }

    /// As [`Cache::look_up`], of what may be read.
    pub async fn look_up(
        &self,
        mut wants: Vec<Want>,
        limits: &Limits,
    ) -> Result<LookedUp, CacheError> {
        for want in &mut wants {
            self.check_project(&want.place.project)?;
            if self.grant().read().is_empty() {
                self.check_read(&want.place.project, &want.place.git_ref)?;
            }
            want.readable = Some(self.grant().read().to_vec());
        }
        let mut found = self.cache.look_up(&wants, limits).await;
        if !self.tells_numbers() {
            match &mut found {
                Ok(LookedUp::Import(import)) => import.export = None,
                Err(CacheError::Lost(exports)) => exports.clear(),
                Ok(LookedUp::Nothing(_)) | Err(_) => {}
            }
        }
        found
    }

    /// The sizes in bytes of those of the blobs that an export to `place` need
    /// not upload.
    pub async fn held(
        &self,
        place: &Place,
        digests: &[Digest],
    ) -> Result<Vec<Option<u64>>, CacheError> {
        self.check_write(&place.project, &place.git_ref)?;
        if self.grant().reads_all() {
            return self.local.held(&place.project, digests).await;
        }
        let own = self.readable(Some(&place.git_ref));
        let visible = self.local.visible(&place.project, own.as_deref(), digests);
        // The store is asked about no others.
        let visible: Vec<Digest> = visible.await?.into_iter().collect();
        let sizes = self.local.held(&place.project, &visible).await?;
        let sizes: HashMap<Digest, Option<u64>> = visible.into_iter().zip(sizes).collect();
        let size = |digest| sizes.get(digest).copied().flatten();
        Ok(digests.iter().map(size).collect())
    }

    /// As [`Cache::ingest`]. The name is the ref's alone: what others have sent of
    /// a blob is no proof of having it.
    pub async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        self.check_write(&place.project, &place.git_ref)?;
        // No ref holds a NUL.
        let name = format!("{}\0{name}", place.git_ref);
        self.cache.ingest(place, &name, expected).await
    }

    /// This blob was uploaded for an export to `place`: that may name it.
    pub async fn uploaded(
        &self,
        place: &Place,
        digest: Digest,
        size: u64,
    ) -> Result<(), CacheError> {
        self.check_write(&place.project, &place.git_ref)?;
        self.local.possess(place, digest, size, POSSESSED).await
    }

    /// As [`Cache::read`], of a blob that an export of one of the `projects`
    /// names.
    pub async fn read(
        &self,
        projects: &[ProjectId],
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        let project = self.check_blob(projects, digest).await?;
        self.local.read_for(project, digest);
        self.cache.read(digest, offset, length).await
    }

    /// Where such a blob can be read without the hub, if anywhere.
    pub async fn locate(
        &self,
        projects: &[ProjectId],
        digest: &Digest,
    ) -> Result<Option<Location>, CacheError> {
        let project = self.check_blob(projects, digest).await?;
        let located = self.local.locate(digest, LOCATED).await?;
        if located.is_some() {
            self.local.read_for(project, digest);
        }
        Ok(located)
    }

    /// Looks whether such a blob is what it should be, and withdraws it if not;
    /// gives whether it did.
    pub async fn suspect(
        &self,
        projects: &[ProjectId],
        digest: &Digest,
    ) -> Result<bool, CacheError> {
        self.check_blob(projects, digest).await?;
        self.local.doubt(digest).await
    }

    /// As [`Cache::writable`].
    pub async fn writable(&self, place: &Place) -> Result<(), CacheError> {
        self.check_write(&place.project, &place.git_ref)?;
        self.cache.writable(place).await
    }

    /// As [`Cache::publish`]; what it names was uploaded through a hub, or is
    /// there for this client.
    pub async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        let mut published = self.append(export).await?;
        if !self.tells_numbers() {
            published.id = None;
        }
        Ok(published)
    }

    /// The same, with the number that it has.
    async fn append(&self, mut export: Publication) -> Result<Published, CacheError> {
        let place = &export.place;
        self.check_write(&place.project, &place.git_ref)?;
        if !self.grant().reads_all() {
            let manifest = Manifest::parse(&export.manifest.bytes)?;
            let sizes = manifest.sizes()?;
            let layers: Vec<Digest> = sizes.into_keys().collect();
            let held = self.held(place, &layers).await?;
            let missing = layers.iter().zip(held).filter(|(_, held)| held.is_none());
            let missing: Vec<Digest> = missing.map(|(digest, _)| *digest).collect();
            if !missing.is_empty() {
                return Err(CacheError::Missing(missing));
            }
        }
        export.readable = self.readable(Some(&export.place.git_ref));
        let mut audit = NewAudit {
            project: Some(export.place.project.clone()),
            git_ref: Some(export.place.git_ref.clone()),
            scope: Some(export.place.scope.clone()),
            ..NewAudit::new(&self.origin, Action::Export)
        };
        let builder = export.builder.clone();
        let published = self.cache.publish(export).await?;
        audit.details = Details::default()
            .with("export", published.id.map(|id| id.0))
            .with("builder", builder)
            .with("records", published.records)
            .with("bytes", published.bytes);
        self.local.note(&audit).await;
        Ok(published)
    }

    /// As [`Cache::steps`], of exports that may be read.
    pub async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        self.check_project(project)?;
        match self.readable(None) {
            None => self.cache.steps(project, results).await,
            readable => {
                let kept = self.local.steps_of(project, readable.as_deref(), results);
                kept.await
            }
        }
    }

    /// As [`Cache::report`], of a ref that may be read or written, and of a day
    /// that is this one somewhere.
    pub async fn report(&self, saving: &Saving) -> Result<(), CacheError> {
        if !self.grant().may_write(&saving.git_ref) {
            self.check_read(&saving.project, &saving.git_ref)?;
        }
        self.check_project(&saving.project)?;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let away = (saving.day - today).get_days().unsigned_abs();
        if away > 1 {
            let why = format!(
                "a report of {}, while it is {today} here: set the clocks right",
                saving.day
            );
            return Err(CacheError::Refused(why));
        }
        self.cache.report(saving).await
    }

    /// Takes a lease of what is in the log now, for clients of the same project;
    /// none where the catalog takes no writes.
    pub async fn take_lease(&self) -> Option<LeaseId> {
        self.local.hand_out_lease(self.grant().project()).await
    }

    /// Has it last; false where it has ended, or is of another project.
    pub async fn renew_lease(&self, lease: LeaseId) -> Result<bool, CacheError> {
        self.local.renew_lease(self.grant().project(), lease).await
    }

    /// As [`Cache::flush`], of refs that may all be written.
    pub async fn flush(&self, flush: &Flush) -> Result<u64, CacheError> {
        match &flush.git_ref {
            Some(git_ref) => self.check_write(&flush.project, git_ref)?,
            None => {
                self.check_project(&flush.project)?;
                if !self.grant().write().iter().any(RefPattern::is_every) {
                    self.refusals.count(Reason::Write);
                    return Err(CacheError::Denied(
                        "the token may not write every ref of the project: name one".to_owned(),
                    ));
                }
            }
        }
        // Who may do everything may mistype a name, of which others know nothing.
        if self.grant().project().is_none() && !self.local.knows(&flush.project).await? {
            let text = format!("there is no project {}", flush.project);
            return Err(CacheError::Refused(text));
        }
        let exports = self.cache.flush(flush, &self.origin).await?;
        self.flushes.count(Source::Writer, exports);
        Ok(exports)
    }

    /// The project that the blob is read for; the same error for one that is
    /// gone, and for one of others.
    async fn check_blob<'a>(
        &self,
        projects: &'a [ProjectId],
        digest: &Digest,
    ) -> Result<&'a ProjectId, CacheError> {
        for project in projects {
            self.check_project(project)?;
            let readable = self.readable(None);
            let blob = std::slice::from_ref(digest);
            let seen = self.local.visible(project, readable.as_deref(), blob);
            if !seen.await?.is_empty() {
                return Ok(project);
            }
        }
        Err(BlobError::NotFound(*digest).into())
    }

    /// Whether exports may be told by their numbers. Those are one row over all
    /// projects: who sees their own could tell how much the others do.
    fn tells_numbers(&self) -> bool {
        self.grant().project().is_none()
    }

    /// The refs that may be read, and `own`; none: every one.
    fn readable(&self, own: Option<&GitRef>) -> Option<Vec<RefPattern>> {
        if self.grant().reads_all() {
            return None;
        }
        let own = own.cloned().map(RefPattern::from);
        Some(self.grant().read().iter().cloned().chain(own).collect())
    }
}
