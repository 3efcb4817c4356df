//! What the files promise beyond the suite: to other processes, to other stores
//! on the directory, and over crashes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::blobs::conformance::{blob_store_conformance, content, get, put};

/// Names the data directory to the process that is to be killed.
const VICTIM_DIR: &str = "LAYERD_TEST_VICTIM_DIR";

async fn open() -> (TempDir, DiskStore) {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::open(dir.path()).await.unwrap();
    (dir, store)
}

blob_store_conformance!(open);

fn ingest_files(dir: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(dir.path().join("ingest"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[tokio::test]
async fn nothing_is_left_in_ingest_after_commits_aborts_and_private_drops() {
    let (dir, store) = open().await;
    put(&store, "a", &content(10)).await;
    store
        .ingest("b", None)
        .await
        .unwrap()
        .abort()
        .await
        .unwrap();
    let named = store.ingest("c", None).await.unwrap();
    drop(store.ingest("c", None).await.unwrap());
    named.abort().await.unwrap();
    store.probe().await.unwrap();
    assert_eq!(ingest_files(&dir), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_blob_is_a_file_named_by_its_digest() {
    let (dir, store) = open().await;
    let digest = put(&store, "a", &content(10)).await;
    assert_eq!(
        fs::read(dir.path().join("blobs/sha256").join(digest.hex())).unwrap(),
        content(10)
    );
}

#[tokio::test]
async fn several_stores_on_one_directory_share_blobs_and_ingests() {
    let (dir, first) = open().await;
    let second = DiskStore::open(dir.path()).await.unwrap();
    let mut held = first.ingest("layer", None).await.unwrap();
    held.write(content(300_000)).await.unwrap();
    assert_eq!(
        second.ingest("layer", None).await.unwrap().offset(),
        0,
        "the other one's is in use"
    );
    drop(held);
    let resumed = second.ingest("layer", None).await.unwrap();
    assert_eq!(resumed.offset(), 300_000);
    let (digest, _) = resumed.commit(None, None).await.unwrap();
    assert_eq!(get(&first, &digest, 0, u64::MAX).await, content(300_000));
}

#[tokio::test]
async fn a_store_that_opens_leaves_the_ingests_of_the_living_alone() {
    let (dir, store) = open().await;
    let mut named = store.ingest("layer", None).await.unwrap();
    let mut private = store.ingest("layer", None).await.unwrap();
    named.write(content(300_000)).await.unwrap();
    private.write(content(300_000)).await.unwrap();
    DiskStore::open(dir.path()).await.unwrap();
    assert_eq!(ingest_files(&dir).len(), 2);
    private
        .commit(None, Some(Digest::of(&content(300_000))))
        .await
        .unwrap();
    named
        .commit(None, Some(Digest::of(&content(300_000))))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_store_that_opens_sweeps_what_nobody_will_resume() {
    let (dir, store) = open().await;
    let mut named = store.ingest("layer", None).await.unwrap();
    named.write(content(300_000)).await.unwrap();
    drop(named);
    let name = Digest::of(b"forgotten").hex();
    let abandoned = dir
        .path()
        .join("ingest")
        .join(format!("{name}.0123456789abcdef"));
    fs::write(&abandoned, b"of a dead writer").unwrap();
    let forgotten = fs::File::create(dir.path().join("ingest").join(name)).unwrap();
    forgotten
        .set_modified(std::time::SystemTime::now() - Duration::from_secs(25 * 60 * 60))
        .unwrap();
    drop(forgotten);

    let store = DiskStore::open(dir.path()).await.unwrap();
    assert_eq!(ingest_files(&dir).len(), 1);
    assert_eq!(store.ingest("layer", None).await.unwrap().offset(), 300_000);
}

#[tokio::test]
async fn a_damaged_blob_is_replaced_by_the_next_upload() {
    let (dir, store) = open().await;
    let digest = put(&store, "a", &content(10)).await;
    fs::write(
        dir.path().join("blobs/sha256").join(digest.hex()),
        b"rotten",
    )
    .unwrap();
    put(&store, "a", &content(10)).await;
    assert_eq!(get(&store, &digest, 0, u64::MAX).await, content(10));
}

#[tokio::test]
async fn a_blob_that_became_shorter_is_an_error_and_no_short_blob() {
    let (dir, store) = open().await;
    let digest = put(&store, "a", &content(3_000_000)).await;
    let stream = store.read(&digest, 0, u64::MAX).await.unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("blobs/sha256").join(digest.hex()))
        .unwrap();
    file.set_len(1_000_000).unwrap();
    assert!(stream.try_collect::<bytes::BytesMut>().await.is_err());
}

#[tokio::test]
async fn a_cancelled_write_leaves_a_usable_ingest() {
    let (_dir, store) = open().await;
    let bytes = content(2_000_000);
    let mut ingest = store.ingest("layer", None).await.unwrap();
    // Polled once: the write is, mostly, still under way in its thread when its
    // future is dropped.
    let _: std::task::Poll<_> =
        futures::poll!(std::pin::pin!(ingest.write(bytes.slice(..1_000_000))));
    ingest.restart().await.unwrap();
    ingest.write(bytes.clone()).await.unwrap();
    ingest
        .commit(Some(2_000_000), Some(Digest::of(&bytes)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_read_only() {
    // Not even root makes directories in sysfs.
    let opened = DiskStore::open("/sys/kernel/layerd").await;
    assert!(matches!(opened, Err(BlobError::ReadOnly(_))));
}

#[tokio::test]
async fn directories_that_were_removed_under_us_are_made_anew() {
    let (dir, store) = open().await;
    let remove = |names: &[&str]| {
        for name in names {
            fs::remove_dir_all(dir.path().join(name)).unwrap();
        }
    };
    for gone in [&["blobs"][..], &["ingest"], &["blobs", "ingest"]] {
        remove(gone);
        store.probe().await.unwrap();
        assert!(store.layout.exists(), "{gone:?}");
        remove(gone);
        let digest = put(&store, "layer", &content(10)).await;
        assert_eq!(get(&store, &digest, 0, 10).await, content(10), "{gone:?}");
    }
    let mut ingest = store.ingest("layer", None).await.unwrap();
    ingest.write(content(20)).await.unwrap();
    remove(&["blobs"]);
    let (digest, _) = ingest.commit(None, None).await.unwrap();
    assert_eq!(store.size(&digest).await.unwrap(), Some(20));
}

#[tokio::test]
async fn a_directory_is_made_for_its_user_alone_and_an_existing_one_is_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let new = dir.path().join("parent/new");
    DiskStore::open(&new).await.unwrap();
    assert_eq!(mode(&new), 0o700);
    let given = dir.path().join("given");
    fs::create_dir(&given).unwrap();
    fs::set_permissions(&given, fs::Permissions::from_mode(0o755)).unwrap();
    DiskStore::open(&given).await.unwrap();
    DiskStore::open(&given).await.unwrap();
    assert_eq!(mode(&given), 0o755);
}

#[tokio::test]
async fn naming_a_store_touches_nothing() {
    let dir = TempDir::new().unwrap();
    let store = DiskStore::at(dir.path().join("absent"));
    assert_eq!(store.size(&Digest::of(b"")).await.unwrap(), None);
    assert_eq!(
        store
            .list()
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap(),
        []
    );
    assert!(store.unfinished().await.unwrap().is_empty());
    assert!(!dir.path().join("absent").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A writer that crashes at any byte, whatever the system kept of its file.
    #[test]
    fn a_crash_at_any_point_leaves_a_prefix_that_resumes(
        writes in prop::collection::vec(0usize..400_000, 1..5),
        kept in 0.0f64..=1.0,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (dir, store) = open().await;
            let total = writes.iter().sum::<usize>();
            let bytes = content(total + 1);
            let mut ingest = store.ingest("layer", None).await.unwrap();
            let mut at = 0;
            for length in &writes {
                ingest.write(bytes.slice(at..at + length)).await.unwrap();
                at += length;
            }
            drop(ingest);
            let kept = (total as f64 * kept) as usize;
            fs::OpenOptions::new().write(true).open(&ingest_files(&dir)[0]).unwrap().set_len(kept as u64).unwrap();

            let store = DiskStore::open(dir.path()).await.unwrap();
            let mut resumed = store.ingest("layer", None).await.unwrap();
            // A process that another test starts has all locks until it runs
            // its own program, and a locked name gives a private ingest.
            while resumed.offset() == 0 && kept > 0 {
                tokio::task::yield_now().await;
                resumed = store.ingest("layer", None).await.unwrap();
            }
            assert_eq!(resumed.offset(), kept as u64);
            resumed.write(bytes.slice(kept..)).await.unwrap();
            resumed.commit(Some(bytes.len() as u64), Some(Digest::of(&bytes))).await.unwrap();
            assert_eq!(get(&store, &Digest::of(&bytes), 0, u64::MAX).await, bytes);
        });
    }
}

/// The process that [`a_killed_writer_loses_nothing_that_was_acknowledged`]
/// kills; on its own it does nothing.
#[tokio::test]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else {
        return;
    };
    let store = DiskStore::open(dir).await.unwrap();
    let _named = store.ingest("shared", None).await.unwrap();
    let mut private = store.ingest("shared", None).await.unwrap();
    private.write(content(300_000)).await.unwrap();
    for round in 0u64.. {
        let mut bytes = content(200_000).to_vec();
        bytes.extend(round.to_le_bytes());
        let mut ingest = store.ingest("layer", None).await.unwrap();
        // The one before may have been killed with another blob half in.
        ingest.restart().await.unwrap();
        ingest.write(Bytes::from(bytes)).await.unwrap();
        let (digest, _) = ingest.commit(None, None).await.unwrap();
        writeln!(std::io::stderr(), "acknowledged {digest}").unwrap();
    }
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    for acknowledgements in [1, 3, 20] {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "blobs::disk::tests::victim",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(VICTIM_DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut acknowledged = lines.filter_map(|line| {
            line.strip_prefix("acknowledged ")
                .map(|digest| digest.parse::<Digest>().unwrap())
        });
        let mut promised: Vec<Digest> = acknowledged.by_ref().take(acknowledgements).collect();
        victim.kill().unwrap();
        victim.wait().unwrap();
        promised.extend(acknowledged);
        assert!(promised.len() >= acknowledgements);

        let store = DiskStore::open(dir.path()).await.unwrap();
        let sizes = store.sizes(&promised).await.unwrap();
        assert!(sizes.iter().all(|size| *size == Some(200_008)), "{sizes:?}");
        for (digest, _) in store
            .list()
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
        {
            assert_eq!(Digest::of(&get(&store, &digest, 0, u64::MAX).await), digest);
        }
        let left = store.unfinished().await.unwrap();
        assert!(
            left.iter().all(|ingest| ingest.resumable && !ingest.in_use),
            "{left:?}"
        );
    }
}
