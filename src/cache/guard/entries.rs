//! What a client may do with entries of GitHub's cache.

use std::sync::Arc;
use std::time::Duration;

use super::{Guard, Guarded, POSSESSED};
use crate::cache::entries::{
    BUILDKIT_VERSION, Became, Entries, EntryError, EntryKey, EntryName, EntryVersion, Finalized,
    Found, FoundBlob, FoundEntry, FoundIndex, LIMITS, Meaning, Reader, Reserved, SCOPE, UploadId,
    Which, is_of,
};
use crate::cache::{CacheError, Document, Documents, LookedUp, Publication, Want};
use crate::catalog::ExportId;
use crate::catalog::entries::Upload;
use crate::catalog::ledger::{Action, Details, NewAudit};
use crate::digest::Digest;
use crate::moment::Moment;
use crate::place::{GitRef, Place, ProjectId};

/// How long a blob may be named that was found, for an index that is to follow.
const FOUND: Duration = Duration::from_secs(2 * 3600);
/// The number of an index that is served: its writer goes on from there, and
/// every number is as good as another.
const NUMBER: &str = "1";
/// What is said to have written what comes from nobody who is known.
const BUILDER: &str = "gha";

impl Guarded {
    /// Entries, for whoever bears an address.
    pub fn entries(&self) -> Entries {
        Entries::new(Arc::clone(&self.local))
    }
}

impl Guard {
    /// Reserves a name for an upload to a ref of a project. What BuildKit
    /// uploads is never in another's way.
    pub async fn reserve(
        &self,
        project: &ProjectId,
        git_ref: &GitRef,
        name: &EntryName,
    ) -> Result<Reserved, CacheError> {
        self.check_write(project, git_ref)?;
        let place = entries_of(project, git_ref);
        let alone = match Meaning::of(name) {
            Meaning::Blob(digest) => {
                if self.find_blob(&place, digest, true).await?.is_some() {
                    return Ok(Reserved::Exists);
                }
                false
            }
            Meaning::Index { .. } => false,
            Meaning::Entry => true,
        };
        self.local.reserve_entry(&place, name, alone).await
    }

    /// What the first of the keys means, or else the next, to whoever may read
    /// `refs`, in that order. What is found may be named by an index that is
    /// exported to `own`.
    ///
    /// Refs come before keys: a key that only the last ref has beats none that an
    /// earlier one has. In a ref, each key in turn is looked for as it is, and
    /// then as the beginning of another, of which the newest counts (GitHub's
    /// documentation on dependency caching, "Cache key matching").
    pub async fn find(
        &self,
        project: &ProjectId,
        refs: &[GitRef],
        own: Option<&GitRef>,
        keys: &[EntryKey],
        version: &EntryVersion,
    ) -> Result<Option<Found>, CacheError> {
        self.check_project(project)?;
        let mut refs = refs.to_vec();
        refs.retain(|git_ref| self.grant().may_read(git_ref));
        let Some(key) = keys.first() else {
            return Ok(None);
        };
        let name = EntryName {
            key: key.clone(),
            version: version.clone(),
        };
        match Meaning::of(&name) {
            Meaning::Blob(digest) => {
                let own = own.filter(|own| self.grant().may_write(own));
                let Some(first) = own.or(refs.first()) else {
                    return Ok(None);
                };
                let place = entries_of(project, first);
                let size = self.find_blob(&place, digest, own.is_some()).await?;
                let key = name.key;
                let blob = |size| Found::Blob(FoundBlob { key, digest, size });
                Ok(size.map(blob))
            }
            Meaning::Index {
                scope,
                hash,
                number,
            } => {
                // With nothing behind the `#`, an exporter asks which number is
                // free: any is.
                let asked = number.is_none_or(|number| !number.is_empty());
                let Some((first, others)) = refs.split_first().filter(|_| asked) else {
                    return Ok(None);
                };
                if !is_of(first, &hash) {
                    // BuildKit loses hits where two of its refs have anything.
                    return Ok(None);
                }
                let place = Place {
                    project: project.clone(),
                    git_ref: first.clone(),
                    scope,
                };
                let want = Want {
                    fallbacks: others.to_vec(),
                    ..Want::all_of(place)
                };
                self.find_index(want, &name.key).await
            }
            Meaning::Entry => {
                self.local.keep_for_readers().await;
                let found = self.local.find_entry(project, &refs, keys, version);
                let found = found.await?.map(|entry| FoundEntry {
                    id: entry.id,
                    name: entry.name,
                    git_ref: entry.git_ref,
                    size: entry.size,
                    created: entry.time,
                });
                Ok(found.map(Found::Entry))
            }
        }
    }

    /// The size of a blob, if this client may know of it and it is there; it may
    /// then be named by an export of the place, where that is to follow.
    async fn find_blob(
        &self,
        place: &Place,
        digest: Digest,
        named: bool,
    ) -> Result<Option<u64>, CacheError> {
        let blob = [digest];
        let own = named.then_some(&place.git_ref);
        let readable = self.readable(own);
        let seen = self
            .local
            .visible(&place.project, readable.as_deref(), &blob);
        if seen.await?.is_empty() {
            return Ok(None);
        }
        self.local.keep_for_readers().await;
        match named {
            true => self.local.possess_there(place, digest, FOUND).await,
            false => {
                let mut sizes = self.local.held(&place.project, &blob).await?;
                Ok(sizes.pop().flatten())
            }
        }
    }

    async fn find_index(&self, want: Want, asked: &EntryKey) -> Result<Option<Found>, CacheError> {
        self.local.keep_for_readers().await;
        let LookedUp::Import(import) = self.look_up(vec![want], &LIMITS).await? else {
            return Ok(None);
        };
        let Documents::Whole(document) = import.documents.clone() else {
            return Ok(None);
        };
        let begin = asked.as_str().split('#').next().unwrap_or_default();
        let Ok(key) = format!("{begin}#{NUMBER}").parse() else {
            return Ok(None);
        };
        Ok(Some(Found::Index(Box::new(FoundIndex {
            key,
            document,
            import: *import,
        }))))
    }

    /// An upload of this project, for a ref that may be written.
    pub async fn upload(&self, project: &ProjectId, id: UploadId) -> Result<Upload, EntryError> {
        self.check_project(project).map_err(CacheError::from)?;
        let upload = self.local.upload(id).await?;
        let upload = upload.filter(|upload| upload.project == *project);
        // What others upload is not told of, nor for which ref.
        let upload = upload.filter(|upload| self.grant().may_write(&upload.git_ref));
        upload.ok_or(EntryError::NoUpload)
    }

    /// Has an upload become what its key says; `size` bytes are what its sender
    /// has sent. Once more of the same changes nothing; of another size, it is
    /// refused.
    ///
    /// Nothing becomes of what was reserved before its place was flushed. That
    /// is refused, but for what BuildKit sends: a build would fail by it, and
    /// has done all that it was to do.
    pub async fn finalize(
        &self,
        project: &ProjectId,
        which: &Which,
        size: Option<u64>,
    ) -> Result<Finalized, EntryError> {
        let upload = match which {
            Which::Upload(id) => self.upload(project, *id).await?,
            Which::Named(name) => {
                self.check_project(project).map_err(CacheError::from)?;
                let named = self.local.upload_named(project, name, size, self.grant());
                named.await?.ok_or(EntryError::NoUpload)?
            }
        };
        if let Some((became, stored)) = upload.became {
            return match size {
                Some(expected) if expected != stored => Err(EntryError::WrongSize {
                    expected,
                    actual: stored,
                }),
                _ => Ok(Finalized {
                    upload: upload.id,
                    became,
                    size: stored,
                }),
            };
        }
        // Clients of the first version send no chunk of an empty file, and say
        // its size; those of the second leave that out where they know none.
        let empty = matches!(which, Which::Upload(_)) && size == Some(0);
        let whole = self.local.whole(&upload, size, empty).await?;
        let became = match self.become_what(&upload, &whole).await {
            Err(EntryError::Cache(CacheError::Flushed(why))) => {
                let builds = upload.name.version.as_str() == BUILDKIT_VERSION;
                let became = self.local.flushed(&upload, &whole, builds).await?;
                if !builds {
                    return Err(CacheError::Flushed(why).into());
                }
                tracing::info!(upload = %upload.id, why, "what a build has uploaded is dropped");
                became
            }
            became => became?,
        };
        Ok(Finalized {
            upload: upload.id,
            became,
            size: whole.size(),
        })
    }

    async fn become_what(&self, upload: &Upload, whole: &Reader) -> Result<Became, EntryError> {
        let place = entries_of(&upload.project, &upload.git_ref);
        match Meaning::of(&upload.name) {
            Meaning::Blob(digest) => {
                let became = self
                    .local
                    .become_blob(&place, upload, whole, digest, POSSESSED);
                became.await.map(|()| Became::Blob)
            }
            Meaning::Index { scope, hash, .. } => {
                let place = Place {
                    scope,
                    git_ref: self.ref_of(&hash).unwrap_or(place.git_ref),
                    ..place
                };
                let documents = self.local.read_index(upload, whole).await?;
                let id = self.publish_index(place, documents, upload.began).await?;
                self.local.close_index(upload.id, whole, id).await
            }
            Meaning::Entry => {
                let builder = self.builder();
                let became = self
                    .local
                    .become_entry(&place, upload, whole, builder.clone())
                    .await?;
                if let Became::Entry(id) = became {
                    let audit = NewAudit {
                        project: Some(place.project),
                        git_ref: Some(place.git_ref),
                        scope: Some(place.scope),
                        details: Details::default()
                            .with("export", id.0)
                            .with("key", upload.name.key.as_str())
                            .with("version", upload.name.version.as_str())
                            .with("builder", builder)
                            .with("bytes", whole.size()),
                        ..NewAudit::new(&self.origin, Action::Export)
                    };
                    self.local.note(&audit).await;
                }
                Ok(became)
            }
        }
    }

    async fn publish_index(
        &self,
        place: Place,
        (manifest, config): (Document, Document),
        began: Moment,
    ) -> Result<ExportId, EntryError> {
        let published = self
            .append(Publication {
                place,
                builder: self.builder(),
                manifest,
                config,
                uploaded: Default::default(),
                steps: Vec::new(),
                readable: None,
                began: Some(began),
            })
            .await?;
        let id = published
            .id
            .ok_or_else(|| CacheError::Unavailable("the export is not in the log yet".to_owned()));
        Ok(id?)
    }

    /// The ref that may be written and has that hash, where a token names it.
    fn ref_of(&self, hash: &str) -> Option<GitRef> {
        let exact = self
            .grant()
            .write()
            .iter()
            .filter_map(|pattern| pattern.exact());
        let mut exact = exact.filter(|git_ref| is_of(git_ref, hash));
        exact.next()
    }

    fn builder(&self) -> String {
        let peer = self.origin.peer.map(|peer| peer.ip().to_string());
        peer.unwrap_or_else(|| BUILDER.to_owned())
    }
}

fn entries_of(project: &ProjectId, git_ref: &GitRef) -> Place {
    Place {
        project: project.clone(),
        git_ref: git_ref.clone(),
        scope: SCOPE.parse().unwrap_or_default(),
    }
}
