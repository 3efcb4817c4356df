//! A way to the server on which connections are cut.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// Leads to `upstream`; the first connections are cut after so many bytes of
/// answers.
async fn cutting(upstream: &'static str, cuts: &[u64]) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let mut cuts = VecDeque::from_iter(cuts.to_vec());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let allowed = cuts.pop_front().unwrap_or(u64::MAX);
            connections.spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (from_server, mut to_server) = server.split();
                let mut answers = from_server.take(allowed);
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_server) => {}
                    _ = copy(&mut answers, &mut to_client) => {}
                }
            });
        }
    });
    (tasks, host)
}

#[tokio::test]
async fn a_read_that_breaks_off_goes_on_where_it_was() {
    let (server, store) = open_s3().await;
    let bytes = content(4_000_000);
    let digest = put(&store, "layer", &bytes).await;
    let (_tasks, host) = cutting(&server.host, &[1_000_000, 0, 700_000, 500_000]).await;
    let prefix = store.shared.bucket.place().replace("s3://layerd/", "");
    let store = ObjectBlobs::open(&Server::s3_store_at(&host, &prefix), s3_options()).unwrap();
    assert_eq!(get(&store, &digest, 0, u64::MAX).await, bytes);
}

#[tokio::test]
async fn an_upload_that_lost_a_part_is_never_completed() {
    let (server, store) = open_s3().await;
    let prefix = store.shared.bucket.place().replace("s3://layerd/", "");
    // Open until the upload has begun.
    let (tasks, host) = cutting(&server.host, &[]).await;
    let through = ObjectBlobs::open(&Server::s3_store_at(&host, &prefix), s3_options()).unwrap();
    let bytes = content(LARGE);
    let mut ingest = through.ingest("layer", None).await.unwrap();
    ingest.write(bytes.slice(..5_500_000)).await.unwrap();
    drop(tasks);
    let mut failed = false;
    // Parts are on their way while more is written: the error comes later.
    for _ in 0..6 {
        failed |= ingest.write(bytes.clone()).await.is_err();
    }
    assert!(failed);
    ingest.write(bytes).await.unwrap_err();
    ingest.commit(None, None).await.unwrap_err();
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed, []);
}

#[tokio::test]
async fn an_upload_whose_connections_break_is_whole() {
    let (server, store) = open_s3().await;
    let (_tasks, host) = cutting(&server.host, &[0, 100, 300]).await;
    let prefix = store.shared.bucket.place().replace("s3://layerd/", "");
    let through = ObjectBlobs::open(&Server::s3_store_at(&host, &prefix), s3_options()).unwrap();
    let bytes = content(LARGE);
    write(&through, "layer", Some(Digest::of(&bytes)), &bytes).await;
    assert_eq!(get(&store, &Digest::of(&bytes), 0, u64::MAX).await, bytes);
}
