//! What every [`BlobStore`] promises, as functions that each implementation
//! runs on a store of its own.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;

use super::{BlobError, BlobStore, Ingest, StoreId, Taken};
use crate::digest::Digest;

/// Runs the suite as one test each; `$open` makes an empty store and what must
/// live as long as it.
macro_rules! blob_store_conformance {
    ($open:path: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let (_keep, store) = $open().await;
                $crate::blobs::conformance::$promise(&store).await;
            }
        )*
    };
    ($open:path) => {
        blob_store_conformance! {
            $open:
            a_committed_blob_is_read_back,
            a_range_ends_where_the_blob_ends,
            an_absent_blob_is_not_found,
            nothing_is_visible_before_the_commit,
            a_dropped_ingest_resumes_where_it_was,
            an_aborted_ingest_starts_anew,
            a_restarted_ingest_forgets_its_bytes,
            wrong_bytes_are_refused_and_dropped,
            a_second_writer_of_a_name_starts_at_nothing,
            two_writers_of_one_blob_both_succeed,
            writers_who_tell_the_digest_beforehand_succeed_together,
            a_digest_that_was_told_beforehand_is_verified,
            an_ingest_tells_digest_and_offset_at_every_step,
            a_blob_of_the_store_is_appended_whole_or_not_at_all,
            names_never_become_paths,
            a_removed_blob_is_gone_until_it_is_written_again,
            an_empty_blob_is_a_blob,
            a_blob_that_is_stored_anew_is_told_from_what_was_there,
            every_blob_is_listed_once,
            a_store_that_works_says_so_and_a_trial_leaves_nothing,
            a_store_is_told_once_which_it_is_unless_it_is_told_anew,
        }
    };
}
pub(super) use blob_store_conformance;

/// Bytes that repeat nowhere soon, more than a few chunks of them.
pub(super) fn content(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

pub(super) async fn put(store: &dyn BlobStore, name: &str, bytes: &Bytes) -> Digest {
    let mut ingest = store.ingest(name, None).await.unwrap();
    ingest.write(bytes.clone()).await.unwrap();
    ingest
        .commit(Some(bytes.len() as u64), Some(Digest::of(bytes)))
        .await
        .unwrap()
        .0
}

pub(super) async fn get(store: &dyn BlobStore, digest: &Digest, offset: u64, length: u64) -> Bytes {
    let stream = store.read(digest, offset, length).await.unwrap();
    stream.try_collect::<BytesMut>().await.unwrap().freeze()
}

async fn listed(store: &dyn BlobStore) -> Vec<(Digest, u64)> {
    let mut all: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    all.sort_unstable();
    all
}

pub(super) async fn a_committed_blob_is_read_back(store: &dyn BlobStore) {
    let bytes = content(3_000_001);
    let digest = put(store, "layer", &bytes).await;
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(store.size(&digest).await.unwrap(), Some(3_000_001));
    assert_eq!(get(store, &digest, 0, u64::MAX).await, bytes);
    store.persist().await.unwrap();
}

pub(super) async fn a_range_ends_where_the_blob_ends(store: &dyn BlobStore) {
    let bytes = content(1_200_000);
    let digest = put(store, "layer", &bytes).await;
    for (offset, length) in [
        (0, 0),
        (0, 1),
        (7, 600_000),
        (1_199_999, 5),
        (1_200_000, 5),
        (u64::MAX, u64::MAX),
    ] {
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = usize::try_from(offset.saturating_add(length))
            .unwrap()
            .min(bytes.len());
        assert_eq!(
            get(store, &digest, offset, length).await,
            bytes[start..end],
            "{offset} {length}"
        );
    }
}

pub(super) async fn an_absent_blob_is_not_found(store: &dyn BlobStore) {
    let (here, absent) = (
        put(store, "layer", &content(9)).await,
        Digest::of(b"absent"),
    );
    assert_eq!(store.size(&absent).await.unwrap(), None);
    assert_eq!(
        store.sizes(&[absent, here, absent]).await.unwrap(),
        [None, Some(9), None]
    );
    let read = store.read(&absent, 0, 1).await.map(|_| ());
    assert!(matches!(read, Err(BlobError::NotFound(digest)) if digest == absent));
}

pub(super) async fn nothing_is_visible_before_the_commit(store: &dyn BlobStore) {
    let bytes = content(1_000_000);
    let mut ingest = store.ingest("layer", None).await.unwrap();
    ingest.write(bytes.clone()).await.unwrap();
    assert_eq!(store.size(&Digest::of(&bytes)).await.unwrap(), None);
    assert_eq!(listed(store).await, []);
    ingest.commit(None, None).await.unwrap();
    assert_eq!(listed(store).await, [(Digest::of(&bytes), 1_000_000)]);
}

pub(super) async fn a_dropped_ingest_resumes_where_it_was(store: &dyn BlobStore) {
    let bytes = content(700_000);
    // Drops after a few bytes as well as after many.
    for (from, to) in [(0, 10), (10, 400_000), (400_000, 699_999)] {
        let mut ingest = store.ingest("layer", None).await.unwrap();
        assert_eq!(ingest.offset(), from as u64);
        assert_eq!(ingest.digest(), Digest::of(&bytes[..from]));
        ingest.write(bytes.slice(from..to)).await.unwrap();
    }
    let mut ingest = store.ingest("layer", None).await.unwrap();
    assert!(ingest.started_at() <= ingest.updated_at());
    ingest.write(bytes.slice(699_999..)).await.unwrap();
    ingest
        .commit(Some(700_000), Some(Digest::of(&bytes)))
        .await
        .unwrap();
    assert_eq!(get(store, &Digest::of(&bytes), 0, u64::MAX).await, bytes);
    assert_eq!(
        store.ingest("layer", None).await.unwrap().offset(),
        0,
        "a commit ends the ingest"
    );
}

pub(super) async fn an_aborted_ingest_starts_anew(store: &dyn BlobStore) {
    let mut ingest = store.ingest("layer", None).await.unwrap();
    ingest.write(content(500_000)).await.unwrap();
    ingest.abort().await.unwrap();
    assert_eq!(store.ingest("layer", None).await.unwrap().offset(), 0);
}

pub(super) async fn a_restarted_ingest_forgets_its_bytes(store: &dyn BlobStore) {
    let mut ingest = store.ingest("layer", None).await.unwrap();
    ingest.write(content(500_000)).await.unwrap();
    ingest.write(content(5)).await.unwrap();
    ingest.restart().await.unwrap();
    assert_eq!((ingest.offset(), ingest.digest()), (0, Digest::of(b"")));
    ingest.write(Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(
        ingest.commit(None, None).await.unwrap(),
        (Digest::of(b"other"), 5)
    );
}

pub(super) async fn wrong_bytes_are_refused_and_dropped(store: &dyn BlobStore) {
    let (bytes, other) = (content(100), Digest::of(b"other"));
    let mut ingest = store.ingest("layer", None).await.unwrap();
    ingest.write(bytes.clone()).await.unwrap();
    let committed = ingest.commit(Some(100), Some(other)).await;
    assert!(matches!(committed, Err(BlobError::WrongDigest { expected, .. }) if expected == other));

    let mut ingest = store.ingest("layer", None).await.unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.write(bytes.clone()).await.unwrap();
    let committed = ingest.commit(Some(101), Some(Digest::of(&bytes))).await;
    assert!(matches!(
        committed,
        Err(BlobError::WrongSize {
            expected: 101,
            actual: 100
        })
    ));
    assert_eq!(store.ingest("layer", None).await.unwrap().offset(), 0);
    assert_eq!(listed(store).await, []);
}

pub(super) async fn a_second_writer_of_a_name_starts_at_nothing(store: &dyn BlobStore) {
    let mut first = store.ingest("layer", None).await.unwrap();
    first.write(content(300_000)).await.unwrap();
    let mut second = store.ingest("layer", None).await.unwrap();
    assert_eq!(second.offset(), 0);
    second.write(content(10)).await.unwrap();
    drop(second);
    drop(first);
    // What the second wrote is forgotten, what the first wrote is not.
    assert_eq!(store.ingest("layer", None).await.unwrap().offset(), 300_000);
}

pub(super) async fn two_writers_of_one_blob_both_succeed(store: &dyn BlobStore) {
    let bytes = content(900_000);
    let write = async |name: &str| {
        let mut ingest: Box<dyn Ingest> = store.ingest(name, None).await.unwrap();
        for at in (0..bytes.len()).step_by(100_000) {
            ingest.write(bytes.slice(at..at + 100_000)).await.unwrap();
        }
        ingest
            .commit(Some(900_000), Some(Digest::of(&bytes)))
            .await
            .unwrap()
    };
    let written = futures::future::join_all(["same", "same", "other", "same"].map(write)).await;
    assert_eq!(written, [(Digest::of(&bytes), 900_000); 4]);
    assert_eq!(listed(store).await, [(Digest::of(&bytes), 900_000)]);
    assert_eq!(get(store, &Digest::of(&bytes), 0, u64::MAX).await, bytes);
}

pub(super) async fn writers_who_tell_the_digest_beforehand_succeed_together(store: &dyn BlobStore) {
    let bytes = content(1_900_000);
    let (digest, listing) = (Digest::of(&bytes), [(Digest::of(&bytes), 1_900_000)]);
    let mut writers = Vec::new();
    for name in ["one", "two", "three"] {
        let mut ingest = store.ingest(name, Some(digest)).await.unwrap();
        ingest.write(bytes.slice(..1_000_000)).await.unwrap();
        writers.push(ingest);
    }
    assert_eq!(store.size(&digest).await.unwrap(), None);
    assert_eq!(listed(store).await, []);
    // Each has parts on their way when the one before commits.
    for mut ingest in writers {
        ingest.write(bytes.slice(1_000_000..)).await.unwrap();
        let committed = ingest.commit(Some(1_900_000), Some(digest)).await.unwrap();
        assert_eq!(committed, (digest, 1_900_000));
        assert_eq!(listed(store).await, listing);
    }
    assert_eq!(get(store, &digest, 0, u64::MAX).await, bytes);
}

pub(super) async fn a_digest_that_was_told_beforehand_is_verified(store: &dyn BlobStore) {
    let (bytes, told) = (content(1_000_000), Digest::of(b"other"));
    let mut ingest = store.ingest("layer", Some(told)).await.unwrap();
    ingest.write(bytes).await.unwrap();
    let committed = ingest.commit(None, Some(told)).await;
    assert!(matches!(committed, Err(BlobError::WrongDigest { expected, .. }) if expected == told));
    assert_eq!(store.size(&told).await.unwrap(), None);
    assert_eq!(listed(store).await, []);
}

pub(super) async fn an_ingest_tells_digest_and_offset_at_every_step(store: &dyn BlobStore) {
    let bytes = content(600_000);
    let mut ingest = store.ingest("layer", None).await.unwrap();
    let mut at = 0;
    for length in [0, 1, 99_999, 400_000, 100_000] {
        ingest.write(bytes.slice(at..at + length)).await.unwrap();
        at += length;
        assert_eq!(
            (ingest.offset(), ingest.digest()),
            (at as u64, Digest::of(&bytes[..at]))
        );
    }
}

pub(super) async fn names_never_become_paths(store: &dyn BlobStore) {
    let long = "x".repeat(100_000);
    for name in [
        "",
        ".",
        "..",
        "../../escape",
        "/etc/passwd",
        "a\0b",
        "layer-sha256:…\n",
        &long,
    ] {
        let mut ingest = store.ingest(name, None).await.unwrap();
        ingest
            .write(Bytes::copy_from_slice(name.as_bytes()))
            .await
            .unwrap();
        ingest
            .commit(None, Some(Digest::of(name.as_bytes())))
            .await
            .unwrap();
    }
    assert_eq!(listed(store).await.len(), 8);
}

pub(super) async fn an_empty_blob_is_a_blob(store: &dyn BlobStore) {
    let digest = put(store, "layer", &Bytes::new()).await;
    assert_eq!(store.size(&digest).await.unwrap(), Some(0));
    assert_eq!(get(store, &digest, 0, 10).await, Bytes::new());
}

pub(super) async fn a_blob_that_is_stored_anew_is_told_from_what_was_there(store: &dyn BlobStore) {
    let bytes = content(1000);
    let digest = Digest::of(&bytes);
    assert_eq!(store.version(&digest).await.unwrap(), None);
    put(store, "layer", &bytes).await;
    let first = store.version(&digest).await.unwrap();
    assert!(first.is_some());
    get(store, &digest, 0, 1000).await;
    assert_eq!(store.version(&digest).await.unwrap(), first);
    // Some tell times by the second.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        put(store, "again", &bytes).await;
        if store.version(&digest).await.unwrap() != first {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    store.remove(&digest).await.unwrap();
    assert_eq!(store.version(&digest).await.unwrap(), None);
}

pub(super) async fn every_blob_is_listed_once(store: &dyn BlobStore) {
    let mut expected = Vec::new();
    for length in 0..40 {
        expected.push((put(store, "layer", &content(length)).await, length as u64));
    }
    expected.sort_unstable();
    assert_eq!(listed(store).await, expected);
}

pub(super) async fn a_store_that_works_says_so_and_a_trial_leaves_nothing(store: &dyn BlobStore) {
    store.ready().await.unwrap();
    store.probe().await.unwrap();
    assert_eq!(listed(store).await, []);
}

pub(super) async fn a_removed_blob_is_gone_until_it_is_written_again(store: &dyn BlobStore) {
    let digest = put(store, "layer", &content(10)).await;
    store.remove(&digest).await.unwrap();
    store.remove(&digest).await.unwrap();
    assert_eq!(store.size(&digest).await.unwrap(), None);
    assert_eq!(put(store, "layer", &content(10)).await, digest);
    assert_eq!(get(store, &digest, 0, 10).await, content(10));
}

pub(super) async fn a_store_is_told_once_which_it_is_unless_it_is_told_anew(store: &dyn BlobStore) {
    assert_eq!(store.id().await.unwrap(), None);
    let ids: Vec<StoreId> = (0..8).map(|_| StoreId::random()).collect();
    let taking = ids.iter().map(|id| store.take_id(*id, Taken::First));
    let taken = futures::future::try_join_all(taking).await.unwrap();
    let one = store.id().await.unwrap().unwrap();
    assert!(ids.contains(&one));
    assert_eq!(taken, [one; 8], "all are told the same");
    let other = StoreId::random();
    let still = store.take_id(other, Taken::First).await.unwrap();
    assert_eq!(still, one);
    let anew = store.take_id(other, Taken::Anew).await.unwrap();
    assert_eq!((anew, store.id().await.unwrap()), (other, Some(other)));
    assert_eq!(listed(store).await, [], "it is no blob");
}

pub(super) async fn a_blob_of_the_store_is_appended_whole_or_not_at_all(store: &dyn BlobStore) {
    let (part, size) = (content(1_500_000), 1_500_000);
    let blob = put(store, "part", &part).await;
    let mut ingest = store.ingest("whole", None).await.unwrap();
    ingest.write(Bytes::from_static(b"before ")).await.unwrap();
    // Neither one that is absent nor one of another size.
    let absent = Digest::of(b"absent");
    for (blob, size) in [(&absent, 1), (&blob, size - 1), (&blob, size + 1)] {
        let appended = ingest.append(blob, size).await;
        assert!(matches!(appended, Err(_) | Ok(false)), "{appended:?}");
        assert_eq!(ingest.offset(), 7);
    }
    let mut whole = BytesMut::from(&b"before "[..]);
    for _ in 0..3 {
        if !ingest.append(&blob, size).await.unwrap() {
            ingest.write(part.clone()).await.unwrap();
        }
        ingest
            .write(Bytes::from_static(b" between "))
            .await
            .unwrap();
        whole.extend_from_slice(&part);
        whole.extend_from_slice(b" between ");
        assert_eq!(ingest.offset(), whole.len() as u64);
        assert_eq!(ingest.digest(), Digest::of(&whole));
    }
    let expected = Digest::of(&whole);
    let committed = ingest
        .commit(Some(whole.len() as u64), Some(expected))
        .await;
    assert_eq!(committed.unwrap(), (expected, whole.len() as u64));
    assert_eq!(get(store, &expected, 0, u64::MAX).await, whole.freeze());
    assert_eq!(get(store, &blob, 0, u64::MAX).await, part);
}
