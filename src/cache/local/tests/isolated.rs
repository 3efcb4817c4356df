//! What others have, and what nobody has, comes to the same questions to the
//! catalog and the store, and so to the same time.

use std::time::Duration;

use super::*;
use crate::access::{Access, Algorithm, KeyPair, Keys, NewToken, Pass, Revoked};
use crate::blobs::{Journal, Recorded};
use crate::cache::entries::{BUILDKIT_VERSION, EntryKey, EntryName, Reserved};
use crate::cache::guard::{Guard, Guarded};
use crate::catalog;

/// A hub whose every question is written down. Project `p` has `seen` on `dev`
/// and `hidden` on `secret`, project `q` has `foreign`.
struct Hub {
    dir: TempDir,
    guarded: Guarded,
    cache: Arc<LocalCache>,
    catalog: Arc<dyn Catalog>,
    journal: Journal,
}

/// All that a client can ask about a digest.
#[derive(Clone, Copy, Debug)]
enum Asked {
    FindMissing,
    Read,
    ReadRange,
    Locate,
    Suspect,
    BeginUpload,
    Publish,
    FindEntry,
    Reserve,
}

const ALL_ASKED: [Asked; 9] = [
    Asked::FindMissing,
    Asked::Read,
    Asked::ReadRange,
    Asked::Locate,
    Asked::Suspect,
    Asked::BeginUpload,
    Asked::Publish,
    Asked::FindEntry,
    Asked::Reserve,
];

impl Hub {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let journal = Journal::default();
        let plain: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
        let disk = DiskStore::open(dir.path().join("data")).await.unwrap();
        let noting = catalog::Metered::noting(Arc::clone(&plain), journal.clone());
        let recorded = Recorded {
            store: Arc::new(disk),
            journal: journal.clone(),
        };
        let cache = LocalCache::over(Arc::new(noting), Arc::new(recorded));
        publish(&cache, place("p", "dev"), &["seen of p"]).await;
        publish(&cache, place("p", "secret"), &["hidden of p"]).await;
        publish(&cache, place("q", "dev"), &["foreign: of q"]).await;
        collect::settled(&cache).await;
        let cache = Arc::new(cache);
        Self {
            dir,
            guarded: Guarded::new(cache.clone(), cache.clone()),
            cache,
            catalog: plain,
            journal,
        }
    }

    /// For who reads that of `p`, and writes `dev`.
    async fn to(&self, read: &str) -> Guard {
        let path = self.dir.path().join("key.pem");
        let pair = KeyPair::generate(Algorithm::Ed25519).unwrap();
        fs::write(&path, pair.private.as_bytes()).unwrap();
        let revoked = Revoked::new(Arc::clone(&self.catalog));
        let access = Access::Token(Keys::open(&path).unwrap(), revoked);
        let new = NewToken {
            subject: "ci".to_owned(),
            project: "p".parse().unwrap(),
            read: vec![read.parse().unwrap()],
            write: vec!["dev".parse().unwrap()],
            lifetime: Duration::from_secs(3600),
        };
        let minted = access.mint(&new, Timestamp::now()).unwrap();
        let pass = Pass::new(&Arc::new(access), Some(minted.token.expose())).await;
        self.guarded.to(pass.unwrap(), None, "request")
    }

    /// Asks, and gives whether there was anything and what was asked below.
    async fn ask(&self, guard: &Guard, asked: Asked, content: &str) -> (bool, Vec<String>) {
        let digest = Digest::of(content.as_bytes());
        let (project, own) = ("p".parse().unwrap(), place("p", "dev"));
        let projects = std::slice::from_ref(&project);
        let entry = EntryName {
            key: format!("buildkit-blob-1-{digest}").parse().unwrap(),
            version: BUILDKIT_VERSION.parse().unwrap(),
        };
        self.journal.take();
        let is_there = match asked {
            Asked::FindMissing => guard.held(&own, &[digest]).await.unwrap()[0].is_some(),
            Asked::Read => guard.read(projects, &digest, 0, u64::MAX).await.is_ok(),
            Asked::ReadRange => guard.read(projects, &digest, 3, 4).await.is_ok(),
            Asked::Locate => guard.locate(projects, &digest).await.is_ok(),
            Asked::Suspect => guard.suspect(projects, &digest).await.is_ok(),
            Asked::BeginUpload => {
                let ingest = guard.ingest(&own, "layer", Some(digest)).await.unwrap();
                ingest.abort().await.unwrap();
                false
            }
            Asked::Publish => match guard.publish(export(own, &[content])).await {
                Ok(_) => true,
                Err(CacheError::Missing(missing)) => {
                    assert_eq!(missing, [digest]);
                    false
                }
                Err(error) => panic!("{error}"),
            },
            Asked::FindEntry => {
                let keys: &[EntryKey] = &[entry.key];
                let refs = [own.git_ref.clone()];
                let found = guard.find(&project, &refs, None, keys, &entry.version);
                found.await.unwrap().is_some()
            }
            Asked::Reserve => {
                let reserved = guard.reserve(&project, &own.git_ref, &entry).await;
                matches!(reserved.unwrap(), Reserved::Exists)
            }
        };
        // What is done beside an answer.
        collect::settled(&self.cache).await;
        (is_there, self.journal.take())
    }
}

#[tokio::test]
async fn what_others_have_is_asked_for_as_what_nobody_has() {
    let hub = Hub::new().await;
    for (read, hidden) in [
        ("**", &["foreign: of q"][..]),
        ("refs/heads/dev", &["foreign: of q", "hidden of p"]),
        ("refs/heads/d*", &["foreign: of q", "hidden of p"]),
    ] {
        let guard = hub.to(read).await;
        for asked in ALL_ASKED {
            // What is kept in memory is so from the first question on.
            hub.ask(&guard, asked, "nobody's").await;
            let (is_there, nobodys) = hub.ask(&guard, asked, "nobody's either").await;
            assert!(!is_there, "{asked:?}");
            assert!(!nobodys.is_empty(), "{asked:?}");
            for content in hidden {
                let (is_there, others) = hub.ask(&guard, asked, content).await;
                assert!(!is_there, "{asked:?} of {content} by {read}");
                assert_eq!(others, nobodys, "{asked:?} of {content} by {read}");
            }
        }
        // It is not for want of asking.
        for asked in [Asked::FindMissing, Asked::Read, Asked::FindEntry] {
            let (is_there, own) = hub.ask(&guard, asked, "seen of p").await;
            assert!(is_there, "{asked:?} by {read}: {own:?}");
        }
    }
}

#[tokio::test]
async fn what_others_have_is_uploaded_as_what_nobody_has() {
    let hub = Hub::new().await;
    let guard = hub.to("refs/heads/dev").await;
    let own = place("p", "dev");
    let mut asked = Vec::new();
    for content in [
        "nobody's own",
        "nobody's too",
        "foreign: of q",
        "hidden of p",
    ] {
        hub.journal.take();
        let digest = Digest::of(content.as_bytes());
        let ingest = guard.ingest(&own, content, Some(digest)).await;
        let mut ingest = ingest.unwrap();
        ingest
            .write(Bytes::from_static(content.as_bytes()))
            .await
            .unwrap();
        let (_, size) = ingest.commit(None, Some(digest)).await.unwrap();
        guard.uploaded(&own, digest, size).await.unwrap();
        asked.push(hub.journal.take());
    }
    assert_eq!(
        asked[1..],
        [asked[1].clone(), asked[1].clone(), asked[1].clone()]
    );
}

#[tokio::test]
async fn a_ref_that_may_not_be_read_is_looked_up_as_one_that_is_not_there() {
    let hub = Hub::new().await;
    let guard = hub.to("refs/heads/dev").await;
    let look = async |git_ref: &str, narrowed: bool| {
        let wants = vec![Want {
            narrowed,
            ..want(git_ref, &[])
        }];
        hub.journal.take();
        let found = guard.look_up(wants, &ALL).await.unwrap().import();
        (found.map(|import| import.exports), hub.journal.take())
    };
    for narrowed in [true, false] {
        look("nowhere", narrowed).await;
        let nobodys = look("elsewhere", narrowed).await;
        assert_eq!(look("secret", narrowed).await, nobodys);
    }
    assert_eq!(look("dev", true).await.0, Some(1));
}
