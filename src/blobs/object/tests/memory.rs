//! Many uploads at once in a process of their own, whose memory is measured.

use std::process::Command;

use super::*;

/// Names the store to the process that writes.
const STORE: &str = "LAYERD_TEST_UPLOADS_TO";

const UPLOADS: u64 = 64;
const BUFFERS: u64 = 64 << 20;
/// More than a part.
const LENGTH: usize = 9 << 20;

/// A figure of this process in bytes, `VmRSS` or `VmHWM`.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// The process that is measured; on its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploader() {
    let Ok(url) = std::env::var(STORE) else {
        return;
    };
    let options = ObjectOptions {
        upload_buffers: BUFFERS,
        ..ObjectOptions::default()
    };
    let store = ObjectBlobs::open(&url, options).unwrap();
    let free = store.free_buffers();
    let bytes = content(LENGTH);
    let before = memory("VmRSS");
    let uploads = (0..UPLOADS).map(|number| {
        let (store, bytes) = (store.clone(), bytes.clone());
        tokio::spawn(async move {
            let name = number.to_string();
            let mut ingest = store.ingest(&name, None).await.unwrap();
            let own = Bytes::copy_from_slice(&number.to_le_bytes());
            ingest.write(own).await.unwrap();
            for at in (0..LENGTH).step_by(64 * 1024) {
                ingest.write(bytes.slice(at..at + 64 * 1024)).await.unwrap();
            }
            ingest.commit(Some(LENGTH as u64 + 8), None).await.unwrap();
        })
    });
    for upload in futures::future::join_all(uploads).await {
        upload.unwrap();
    }
    assert_eq!(store.free_buffers(), free, "all room is given back");
    println!("grew by {}", memory("VmHWM").saturating_sub(before));
}

#[tokio::test]
async fn many_uploads_at_once_stay_within_the_memory_that_is_theirs() {
    let server = servers::s3().await;
    let url = server.s3_store(&prefix());
    let store = ObjectBlobs::open(&url, s3_options()).unwrap();
    let child = tokio::task::spawn_blocking(move || {
        let name = "blobs::object::tests::memory::uploader";
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(STORE, url)
            .output()
            .unwrap()
    });
    let child = child.await.unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{printed}{errors}");
    let grew = printed.split_once("grew by ").expect("a figure").1;
    let grew: u64 = grew.lines().next().unwrap().trim().parse().unwrap();
    println!("64 uploads with {BUFFERS} bytes of buffers: grew by {grew} bytes");
    // What a connection and a request need comes on top.
    assert!(grew < BUFFERS + (64 << 20), "{grew}");
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len() as u64, UPLOADS);
}
