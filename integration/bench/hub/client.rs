//! A client of `layerd.v1`, with the windows of a sidecar.

use layerd::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use layerd::cache::wire::v1::write_blob_response::Part as Answer;
use layerd::cache::wire::{CacheClient, checksum, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::shape::Blob;

const PROJECT: &str = "bench";

/// A connection of its own.
pub async fn connect(url: &str) -> CacheClient<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20);
    CacheClient::new(endpoint.connect().await.expect("a connection"))
}

/// How a blob is asked for.
pub fn question(blob: &Blob, takes_url: bool) -> v1::ReadBlobRequest {
    v1::ReadBlobRequest {
        projects: vec![PROJECT.to_owned()],
        digest: blob.digest.as_bytes().to_vec().into(),
        offset: 0,
        length: blob.content.len() as u64,
        takes_url,
    }
}

/// Reads it all, and looks at the checksums where there are any.
pub async fn read(mut client: CacheClient<Channel>, blob: Blob) {
    let answers = client.read_blob(question(&blob, false)).await;
    let mut answers = answers.expect("an answer").into_inner();
    let mut length = 0;
    while let Some(piece) = answers.message().await.expect("the next piece") {
        assert!(piece.crc32c == 0 || piece.crc32c == checksum(&piece.bytes));
        length += piece.bytes.len();
    }
    assert_eq!(length, blob.content.len());
}

/// Where it can be read without the hub.
pub async fn located(mut client: CacheClient<Channel>, blob: &Blob) -> String {
    let answers = client.read_blob(question(blob, true)).await;
    let mut answers = answers.expect("an answer").into_inner();
    let first = answers.message().await.expect("an answer");
    first.expect("a first message").url
}

/// Uploads it, and waits until it is stored.
pub async fn write(mut client: CacheClient<Channel>, blob: Blob) {
    let message = |part| v1::WriteBlobRequest { part: Some(part) };
    let digest = blob.digest.as_bytes().to_vec();
    let open = Open {
        project: PROJECT.to_owned(),
        git_ref: "refs/heads/main".to_owned(),
        name: blob.digest.to_string(),
        digest: digest.clone().into(),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(message(Part::Open(open))).await.expect("room");
    let answers = client.write_blob(ReceiverStream::new(receiver)).await;
    let mut answers = answers.expect("an answer").into_inner();
    let first = answers.message().await.expect("a first answer");
    let first = first.and_then(|answer| answer.part);
    assert_eq!(first, Some(Answer::Offset(0)));
    let size = blob.content.len() as u64;
    let sending = tokio::spawn(async move {
        for (bytes, crc32c) in blob.pieces() {
            let piece = message(Part::Piece(Piece { bytes, crc32c }));
            sender.send(piece).await.expect("it is taken");
        }
        let digest = digest.into();
        let commit = message(Part::Commit(Commit { digest, size }));
        sender.send(commit).await.expect("it is taken");
    });
    let last = answers.message().await.expect("a last answer");
    sending.await.expect("it is sent");
    let last = last.and_then(|answer| answer.part);
    assert!(matches!(last, Some(Answer::Stored(stored)) if stored.size == size));
}
