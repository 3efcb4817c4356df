//! Blobs go to a hub and come from it.

use bytes::{Bytes, BytesMut};
use layerd::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use layerd::cache::wire::{PIECE, checksum, v1};
use layerd::digest::Digest;
use tonic::{Code, Status};

use super::place;
use crate::harness::{HubClient, Lab};

fn message(part: Part) -> v1::WriteBlobRequest {
    v1::WriteBlobRequest { part: Some(part) }
}

/// Uploads a blob; how many bytes were sent.
pub async fn upload(
    client: &mut HubClient,
    place: &v1::Place,
    content: &Bytes,
) -> Result<u64, Status> {
    let digest = Digest::of(content);
    let open = message(Part::Open(Open {
        project: place.project.clone(),
        git_ref: place.git_ref.clone(),
        name: digest.to_string(),
        digest: digest.as_bytes().to_vec().into(),
    }));
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(open).await.expect("room");
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.write_blob(messages).await?.into_inner();
    let first = answers.message().await?.and_then(|answer| answer.part);
    let offset = match first.expect("a first answer") {
        v1::write_blob_response::Part::Stored(_) => return Ok(0),
        v1::write_blob_response::Part::Offset(offset) => offset as usize,
    };
    let rest = content.slice(offset..);
    let size = content.len() as u64;
    let sending = tokio::spawn(async move {
        for at in (0..rest.len()).step_by(PIECE) {
            let bytes = rest.slice(at..rest.len().min(at + PIECE));
            let crc32c = checksum(&bytes);
            let piece = message(Part::Piece(Piece { bytes, crc32c }));
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        let commit = Commit {
            digest: digest.as_bytes().to_vec().into(),
            size,
        };
        let _ = sender.send(message(Part::Commit(commit))).await;
    });
    let last = answers.message().await?.and_then(|answer| answer.part);
    sending.await.expect("it is sent");
    assert_eq!(
        last,
        Some(v1::write_blob_response::Part::Stored(
            v1::write_blob_response::Stored { size }
        ))
    );
    Ok(size - offset as u64)
}

/// Reads a blob from `offset` on.
pub async fn read(
    client: &mut HubClient,
    project: &str,
    digest: &Digest,
    offset: u64,
) -> Result<Bytes, Status> {
    let request = v1::ReadBlobRequest {
        projects: vec![project.to_owned()],
        digest: digest.as_bytes().to_vec().into(),
        offset,
        length: 0,
        takes_url: false,
    };
    let mut answers = client.read_blob(request).await?.into_inner();
    let mut bytes = BytesMut::new();
    while let Some(piece) = answers.message().await? {
        assert_eq!(checksum(&piece.bytes), piece.crc32c);
        bytes.extend_from_slice(&piece.bytes);
    }
    Ok(bytes.freeze())
}

#[tokio::test]
async fn a_blob_is_stored_once_and_read_back_by_its_project_alone() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let mut client = hub.client(None).await;
    let content = Bytes::from(vec![7; 3 * PIECE + 5]);
    let digest = Digest::of(&content);
    let main = place("p", "main");
    let sent = upload(&mut client, &main, &content).await.unwrap();
    assert_eq!(sent, content.len() as u64);
    assert_eq!(upload(&mut client, &main, &content).await.unwrap(), 0);
    assert_eq!(read(&mut client, "p", &digest, 0).await.unwrap(), content);
    let rest = read(&mut client, "p", &digest, 10).await.unwrap();
    assert_eq!(rest, content.slice(10..));
    let foreign = read(&mut client, "q", &digest, 0).await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
    // Its existence buys nothing: it has to be sent.
    let sent = upload(&mut client, &place("q", "main"), &content).await;
    assert_eq!(sent.unwrap(), content.len() as u64);
}
