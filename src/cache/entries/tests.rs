//! Entries through a guard, on a real directory.

mod builds;
mod kept;
mod saved;
mod unfinished;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{TryStreamExt as _, stream};
use tempfile::TempDir;

use super::*;
use crate::access::{Access, Algorithm, KeyPair, Keys, NewToken, Pass, Revoked};
use crate::cache::collecting;
use crate::cache::guard::{Guard, Guarded};
use crate::cache::quotas::Quotas;
use crate::cache::retention::ProjectLimits;
use crate::catalog::{Catalog, ExportHead, Filter, SqliteCatalog};
use crate::place::ProjectId;

const VERSION: &str = "v1";

/// One hub on a directory; another on the same is another process.
struct Hub {
    guarded: Guarded,
    local: Arc<LocalCache>,
    entries: Entries,
}

struct Lab {
    dir: TempDir,
    keys: std::path::PathBuf,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let keys = dir.path().join("key.pem");
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let pair = KeyPair::generate(Algorithm::Ed25519).unwrap();
        std::fs::write(&keys, pair.private.as_bytes()).unwrap();
        Self { dir, keys }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn hub(&self) -> Hub {
        Hub::over(LocalCache::new(self.data()))
    }

    /// With a quota for project `p`.
    fn hub_with_quota(&self, bytes: u64) -> Hub {
        let limits = ProjectLimits {
            max_bytes: Some(bytes),
            max_age: None,
        };
        let quotas = Quotas(BTreeMap::from([(project(), limits)]));
        let keep = vec!["main".parse().unwrap()];
        let metrics = collecting::Metrics::default();
        Hub::over(LocalCache::new(self.data()).keeping(quotas, keep, metrics))
    }

    async fn catalog(&self) -> SqliteCatalog {
        SqliteCatalog::open(&self.data()).await.unwrap()
    }

    async fn listed(&self) -> Vec<ExportHead> {
        let catalog = self.catalog().await;
        let listed = catalog.list(&Filter::default()).await.unwrap();
        catalog.close().await;
        listed
    }

    /// The names of all blobs that are stored.
    fn stored(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.data().join("blobs/sha256")) else {
            return Vec::new();
        };
        let names = files.map(|file| file.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// As if a day had passed for all uploads and pins.
    async fn a_day_passes(&self) {
        self.passes(std::time::Duration::from_secs(24 * 3600)).await;
    }

    /// As if so much time had passed for them.
    async fn passes(&self, time: std::time::Duration) {
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(SqliteCatalog::path(&self.data()));
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        for statement in [
            "UPDATE upload SET expires = expires - ?1, touched = touched - ?1,
                 created = created - ?1, renewed = renewed - ?1",
            "UPDATE pin SET expires = expires - ?1",
            "UPDATE possession SET expires = expires - ?1",
        ] {
            let ago = i64::try_from(time.as_micros()).unwrap();
            sqlx::query(statement)
                .bind(ago)
                .execute(&pool)
                .await
                .unwrap();
        }
        pool.close().await;
    }
}

impl Hub {
    fn over(local: LocalCache) -> Self {
        let local = Arc::new(local);
        let guarded = Guarded::new(local.clone(), local.clone());
        Self {
            entries: guarded.entries(),
            guarded,
            local,
        }
    }

    /// For anybody.
    async fn open(&self) -> Guard {
        let pass = Pass::new(&Arc::new(Access::Open), None).await.unwrap();
        self.guarded.to(pass, None, "request")
    }

    /// For somebody with a token for project `p`.
    async fn to(&self, lab: &Lab, read: &[&str], write: &[&str]) -> Guard {
        let catalog: Arc<dyn Catalog> = Arc::new(lab.catalog().await);
        let access = Access::Token(Keys::open(&lab.keys).unwrap(), Revoked::new(catalog));
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let new = NewToken {
            subject: "ci".to_owned(),
            project: project(),
            read: patterns(read),
            write: patterns(write),
            lifetime: std::time::Duration::from_secs(3600),
        };
        let minted = access.mint(&new, Timestamp::now()).unwrap();
        let pass = Pass::new(&Arc::new(access), Some(minted.token.expose())).await;
        self.guarded.to(pass.unwrap(), None, "request")
    }

    async fn put(
        &self,
        upload: UploadId,
        piece: Piece<'_>,
        content: &[u8],
    ) -> Result<(), EntryError> {
        let length = Some(content.len() as u64);
        self.entries.put(upload, piece, length, body(content)).await
    }

    async fn read(&self, found: &Found) -> Vec<u8> {
        let reader = match found {
            Found::Entry(entry) => self.entries.open(entry.id).await.unwrap().unwrap(),
            Found::Blob(blob) => {
                let opened = self.entries.open_blob(blob.digest, blob.size).await;
                opened.unwrap().unwrap()
            }
            Found::Index(index) => return index.document.to_vec(),
        };
        read(&reader, 0, u64::MAX).await
    }
}

async fn read(reader: &Reader, offset: u64, length: u64) -> Vec<u8> {
    let bytes = reader.read(offset, length).await.unwrap();
    let chunks: Vec<Bytes> = bytes.try_collect().await.unwrap();
    chunks.concat()
}

/// In a few chunks.
fn body(content: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let chunks: Vec<_> = content
        .chunks(64 << 10)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks)
}

fn project() -> ProjectId {
    "p".parse().unwrap()
}

fn git_ref(text: &str) -> GitRef {
    text.parse().unwrap()
}

fn name(key: &str) -> EntryName {
    EntryName {
        key: key.parse().unwrap(),
        version: VERSION.parse().unwrap(),
    }
}

async fn reserved(guard: &Guard, git_ref: &str, name: &EntryName) -> UploadId {
    let reserved = guard
        .reserve(&project(), &self::git_ref(git_ref), name)
        .await;
    match reserved.unwrap() {
        Reserved::Upload(id) => id,
        other => panic!("{other:?}: nobody else has {name:?}"),
    }
}

async fn finalized(guard: &Guard, id: UploadId, size: usize) -> Result<Finalized, EntryError> {
    let which = Which::Upload(id);
    guard.finalize(&project(), &which, Some(size as u64)).await
}

async fn save(hub: &Hub, git_ref: &str, key: &str, content: &[u8]) -> Finalized {
    let guard = hub.open().await;
    let id = reserved(&guard, git_ref, &name(key)).await;
    hub.put(id, Piece::Whole, content).await.unwrap();
    finalized(&guard, id, content.len()).await.unwrap()
}

async fn find_as(guard: &Guard, refs: &[&str], name: &EntryName) -> Option<Found> {
    let refs: Vec<GitRef> = refs.iter().map(|text| git_ref(text)).collect();
    let keys = [name.key.clone()];
    let project = project();
    let found = guard.find(&project, &refs, refs.first(), &keys, &name.version);
    found.await.unwrap()
}

async fn find(hub: &Hub, git_ref: &str, key: &str) -> Option<Found> {
    find_as(&hub.open().await, &[git_ref], &name(key)).await
}
