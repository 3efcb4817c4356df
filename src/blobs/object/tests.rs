//! Stores of objects on real servers, and what they promise beyond the suite.

#[path = "../../../integration/harness/objects.rs"]
mod servers;
#[path = "../../../integration/harness/tools.rs"]
#[allow(dead_code, reason = "only where a tool is, is asked here")]
mod tools;

mod cut;
mod memory;

use bytes::Bytes;
use object_store::path::Path;
use object_store::signer::SignedUrlOptions;

use self::servers::Server;
use super::*;
use crate::blobs::conformance::{blob_store_conformance, content, get, put};

/// More than two parts of the smallest size that S3 takes.
const LARGE: usize = 12_000_000;

fn s3_options() -> ObjectOptions {
    ObjectOptions {
        part_size: 5 << 20,
        ..ObjectOptions::default()
    }
}

fn prefix() -> String {
    format!("tests/{:016x}", rand::random::<u64>())
}

async fn open_s3() -> (&'static Server, ObjectBlobs) {
    let server = servers::s3().await;
    let store = ObjectBlobs::open(&server.s3_store(&prefix()), s3_options());
    (server, store.unwrap())
}

async fn open_azure() -> (&'static Server, ObjectBlobs) {
    let server = servers::azure().await;
    // Azure takes parts of any size: here most blobs have some.
    let options = ObjectOptions {
        part_size: 300_000,
        upload_buffers: 8_000_000,
        ..ObjectOptions::default()
    };
    let store = ObjectBlobs::open(&server.azure_store(&prefix()), options);
    (server, store.unwrap())
}

mod s3 {
    use super::*;
    blob_store_conformance!(open_s3);
}

mod azure {
    use super::*;
    blob_store_conformance!(open_azure);
}

async fn write(store: &ObjectBlobs, name: &str, expected: Option<Digest>, bytes: &Bytes) {
    let mut ingest = store.ingest(name, expected).await.unwrap();
    for at in (0..bytes.len()).step_by(1_000_000) {
        let end = bytes.len().min(at + 1_000_000);
        ingest.write(bytes.slice(at..end)).await.unwrap();
    }
    let digest = Digest::of(bytes);
    let size = bytes.len() as u64;
    let committed = ingest.commit(Some(size), Some(digest)).await.unwrap();
    assert_eq!(committed, (digest, size));
}

/// What is under `ingest/`.
async fn left(store: &ObjectBlobs) -> usize {
    let bucket = &store.shared.bucket;
    let left = bucket.backend().list(Some(&bucket.ingests()));
    left.try_collect::<Vec<_>>().await.unwrap().len()
}

async fn large_blobs(store: &ObjectBlobs) {
    let free = store.free_buffers();
    for (length, known) in [(LARGE, true), (LARGE + 1, false), (15 << 20, true)] {
        let bytes = content(length);
        let digest = Digest::of(&bytes);
        write(store, "layer", known.then_some(digest), &bytes).await;
        assert_eq!(get(store, &digest, 0, u64::MAX).await, bytes);
        let range = get(store, &digest, 5_000_000, 3_000_000).await;
        assert_eq!(range, bytes[5_000_000..8_000_000]);
        assert_eq!(left(store).await, 0);
        assert_eq!(store.free_buffers(), free);
    }
}

#[tokio::test]
async fn blobs_of_many_parts_are_whole_on_s3() {
    large_blobs(&open_s3().await.1).await;
}

#[tokio::test]
async fn blobs_of_many_parts_are_whole_on_azure() {
    large_blobs(&open_azure().await.1).await;
}

#[tokio::test]
async fn a_large_blob_that_is_wrong_is_never_seen() {
    for (_, store) in [open_s3().await, open_azure().await] {
        let (bytes, other) = (content(LARGE), Digest::of(b"other"));
        for known in [Some(other), None] {
            let mut ingest = store.ingest("layer", known).await.unwrap();
            ingest.write(bytes.clone()).await.unwrap();
            let error = ingest.commit(None, Some(other)).await.unwrap_err();
            assert!(matches!(error, BlobError::WrongDigest { .. }), "{error}");
        }
        let mut ingest = store.ingest("layer", None).await.unwrap();
        assert_eq!(ingest.offset(), 0);
        ingest.write(bytes).await.unwrap();
        let error = ingest.commit(Some(LARGE as u64 + 1), None).await;
        assert!(matches!(error, Err(BlobError::WrongSize { .. })));
        let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
        assert_eq!(listed, []);
        assert_eq!(left(&store).await, 0);
    }
}

#[tokio::test]
async fn an_upload_that_was_dropped_is_gone_on_with_and_at_last_aborted() {
    let (server, store) = open_s3().await;
    let bytes = content(LARGE);
    let digest = Digest::of(&bytes);
    let mut ingest = store.ingest("layer", Some(digest)).await.unwrap();
    ingest.write(bytes.slice(..LARGE / 2)).await.unwrap();
    drop(ingest);
    let mut ingest = store.ingest("layer", Some(digest)).await.unwrap();
    assert_eq!(ingest.offset(), LARGE as u64 / 2);
    ingest.write(bytes.slice(LARGE / 2..)).await.unwrap();
    ingest.commit(None, Some(digest)).await.unwrap();
    assert_eq!(get(&store, &digest, 0, u64::MAX).await, bytes);

    let mut ingest = store.ingest("left", None).await.unwrap();
    ingest.write(bytes).await.unwrap();
    drop(ingest);
    assert_eq!(unfinished(server, &store).await, 1);
    store.close().await;
    assert_eq!(unfinished(server, &store).await, 0);
    assert_eq!(store.ingest("left", None).await.unwrap().offset(), 0);
    assert_eq!(store.free_buffers(), Buffers::new(&s3_options()).free());
}

/// Multipart uploads of a store that the S3 server knows of.
async fn unfinished(server: &Server, store: &ObjectBlobs) -> usize {
    let bucket = &store.shared.bucket;
    let prefix = bucket.ingests().as_ref().replace("/ingest", "");
    let options =
        SignedUrlOptions::new().with_query([("uploads", String::new()), ("prefix", prefix)]);
    let (all, ttl) = (Path::default(), Duration::from_secs(60));
    let url = bucket
        .backend()
        .signed_url_opts(http::Method::GET, &all, ttl, &options);
    let url = url.await.unwrap();
    let path = url.as_str().split_once(&server.host).unwrap().1;
    let (status, body) = servers::http(&server.host, &format!("GET {path} HTTP/1.1")).await;
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{body}");
    body.matches("<UploadId>").count()
}

#[tokio::test]
async fn what_waits_to_be_resumed_gives_its_memory_to_those_who_write() {
    let server = servers::s3().await;
    let options = ObjectOptions {
        // Room for one small buffer, and for one part.
        upload_buffers: 5 << 20,
        part_size: 5 << 20,
        ..ObjectOptions::default()
    };
    let store = ObjectBlobs::open(&server.s3_store(&prefix()), options).unwrap();
    let mut ingest = store.ingest("waits", None).await.unwrap();
    ingest.write(content(6_000_000)).await.unwrap();
    drop(ingest);
    put(&store, "large", &content(7_000_000)).await;
    put(&store, "small", &content(7)).await;
    let left = store.ingest("waits", None).await.unwrap();
    assert_eq!(left.offset(), 5 << 20, "what was sent can be gone on with");
    assert_eq!(left.digest(), Digest::of(&content(6_000_000)[..5 << 20]));
}

#[tokio::test]
async fn a_presigned_url_is_read_by_plain_http() {
    let (server, store) = open_s3().await;
    let bytes = content(100_000);
    let digest = put(&store, "layer", &bytes).await;
    let ttl = Duration::from_secs(60);
    let location = store.locate(&digest, ttl).await.unwrap().unwrap();
    let path = location.as_str().split_once(&server.host).unwrap().1;
    let head = format!("GET {path} HTTP/1.1\r\nRange: bytes=1000-1999");
    let (status, body) = servers::http(&server.host, &head).await;
    assert_eq!((status, &body[..]), (206, &bytes[1000..2000]));
    let unsigned = format!("GET {} HTTP/1.1", path.split('?').next().unwrap());
    assert_eq!(servers::http(&server.host, &unsigned).await.0, 403);
}

#[tokio::test]
async fn a_bucket_is_ready_where_it_answers_and_is_there() {
    for (_, store) in [open_s3().await, open_azure().await] {
        store.ready().await.unwrap();
        store.probe().await.unwrap();
        assert_eq!(left(&store).await, 0);
    }
    let server = servers::s3().await;
    let absent = server.s3_store("p").replace("s3://layerd", "s3://absent");
    let store = ObjectBlobs::open(&absent, s3_options()).unwrap();
    let error = store.ready().await.unwrap_err().to_string();
    assert!(error.contains("s3://absent/p"), "{error}");
    store.probe().await.unwrap_err();
}

#[tokio::test]
async fn a_wrong_secret_is_told_and_not_shown() {
    let server = servers::s3().await;
    let url = server.s3_store("p");
    let url = url.replace("secret_access_key=layerd", "secret_access_key=hunter2");
    let store = ObjectBlobs::open(&url, s3_options()).unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, BlobError::ReadOnly(_)), "{error}");
    let shown = format!("{store:?} {error:?} {error}");
    assert!(!shown.contains("hunter2") && shown.contains("s3://layerd/p"));
}

#[tokio::test]
async fn an_address_that_is_wrong_says_what_would_be_right() {
    let refused = |url: &str| {
        ObjectBlobs::open(url, s3_options())
            .unwrap_err()
            .to_string()
    };
    for url in [
        "",
        "bucket",
        "ftp://b",
        "s3://",
        "s3://key:secret@bucket/p",
        "s3://b:1/p",
    ] {
        assert!(refused(url).starts_with("expected s3://"), "{url}");
    }
    let unknown = refused("s3://b/p?regoin=x&secret_access_key=hunter2");
    assert!(unknown.starts_with("s3://b/p has no option \"regoin\"; known are"));
    assert!(unknown.contains("region") && !unknown.contains("hunter2"));
    assert!(refused("gs://b?region=x").contains("application_credentials"));
    assert!(refused("az://b?region=x").contains("account_name"));
    let plain = refused("s3://b?endpoint=http://h");
    assert!(plain.contains("allow_http=true"), "{plain}");
    let store = ObjectBlobs::open("s3://b/p?region=x", s3_options()).unwrap();
    assert_eq!(format!("{store:?}"), "ObjectBlobs(s3://b/p)");
}

#[tokio::test]
async fn a_removal_is_seen_though_sizes_are_remembered() {
    let (_, store) = open_s3().await;
    let digest = put(&store, "layer", &content(10)).await;
    let generation = store.generation().await;
    assert_eq!(store.sizes(&[digest]).await.unwrap(), [Some(10)]);
    store.remove(&digest).await.unwrap();
    assert_ne!(store.generation().await, generation);
    assert_eq!(store.sizes(&[digest]).await.unwrap(), [None]);
    // Another process removes it, and it is not found where it was believed.
    let digest = put(&store, "layer", &content(11)).await;
    let bucket = &store.shared.bucket;
    bucket.delete(&bucket.blob(&digest)).await.unwrap();
    let read = store.read(&digest, 0, 1).await.map(drop);
    assert!(matches!(read, Err(BlobError::NotFound(_))));
    assert_eq!(store.sizes(&[digest]).await.unwrap(), [None]);
}

#[tokio::test]
async fn only_so_many_dropped_uploads_wait_and_only_for_so_long() {
    let server = servers::s3().await;
    let (resumable, resumable_for) = (2, Duration::from_millis(300));
    let options = ObjectOptions {
        resumable,
        resumable_for,
        ..s3_options()
    };
    let store = ObjectBlobs::open(&server.s3_store(&prefix()), options).unwrap();
    for name in ["one", "two", "three"] {
        let mut ingest = store.ingest(name, None).await.unwrap();
        ingest.write(content(6_000_000)).await.unwrap();
    }
    assert_eq!(store.ingest("one", None).await.unwrap().offset(), 0);
    // Without anybody asking, the bucket is told at last.
    let told = async {
        while unfinished(server, &store).await > 0 {
            store.shared.kept.look_now();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await;
    told.expect("within a minute");
    assert_eq!(store.ingest("three", None).await.unwrap().offset(), 0);
}
