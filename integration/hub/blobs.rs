//! Blobs go to a hub and come from it.

use bytes::{Bytes, BytesMut};
use layerd::cache::wire::v1::write_blob_request::{Commit, Open, Part, Piece};
use layerd::cache::wire::v1::write_blob_response::{Part as Answer, Stored};
use layerd::cache::wire::{PIECE, checksum, v1};
use layerd::digest::Digest;
use tonic::{Code, Status};

use super::place;
use crate::harness::{HubClient, Lab};

fn message(part: Part) -> v1::WriteBlobRequest {
    v1::WriteBlobRequest { part: Some(part) }
}

/// An upload that has begun.
pub struct Begun {
    /// Where its pieces go.
    pub pieces: tokio::sync::mpsc::Sender<v1::WriteBlobRequest>,
    /// What the hub says.
    pub answers: tonic::Streaming<v1::WriteBlobResponse>,
}

/// The first message of an upload.
pub fn open(place: &v1::Place, digest: &Digest) -> v1::WriteBlobRequest {
    message(Part::Open(Open {
        project: place.project.clone(),
        git_ref: place.git_ref.clone(),
        name: digest.to_string(),
        digest: digest.as_bytes().to_vec().into(),
    }))
}

/// A piece, as it should be.
pub fn piece(bytes: Bytes) -> v1::WriteBlobRequest {
    let crc32c = checksum(&bytes);
    message(Part::Piece(Piece { bytes, crc32c }))
}

/// The last message of an upload.
pub fn commit(digest: &Digest, size: u64) -> v1::WriteBlobRequest {
    message(Part::Commit(Commit {
        digest: digest.as_bytes().to_vec().into(),
        size,
    }))
}

/// Begins an upload with that message.
pub async fn begin(client: &mut HubClient, first: v1::WriteBlobRequest) -> Result<Begun, Status> {
    let (pieces, receiver) = tokio::sync::mpsc::channel(4);
    pieces.send(first).await.expect("room");
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answers = client.write_blob(messages).await?.into_inner();
    Ok(Begun { pieces, answers })
}

impl Begun {
    /// Where pieces go on from; none where the blob is there.
    pub async fn offset(&mut self) -> Result<Option<u64>, Status> {
        match self.answer().await? {
            Some(Answer::Offset(offset)) => Ok(Some(offset)),
            Some(Answer::Stored(_)) => Ok(None),
            other => Err(Status::unknown(format!("{other:?} at the beginning"))),
        }
    }

    /// The size of the blob, once it is stored.
    pub async fn stored(&mut self) -> Result<u64, Status> {
        match self.answer().await? {
            Some(Answer::Stored(Stored { size })) => Ok(size),
            other => Err(Status::unknown(format!("{other:?} at the end"))),
        }
    }

    /// What the hub says next, but that it has no place yet.
    async fn answer(&mut self) -> Result<Option<Answer>, Status> {
        loop {
            match self.answers.message().await?.and_then(|answer| answer.part) {
                Some(Answer::Waiting(_)) => {}
                other => return Ok(other),
            }
        }
    }
}

/// Uploads a blob; how many bytes were sent.
pub async fn upload(
    client: &mut HubClient,
    place: &v1::Place,
    content: &Bytes,
) -> Result<u64, Status> {
    let digest = Digest::of(content);
    let mut upload = begin(client, open(place, &digest)).await?;
    let Some(offset) = upload.offset().await? else {
        return Ok(0);
    };
    let rest = content.slice(offset as usize..);
    let size = content.len() as u64;
    let pieces = upload.pieces.clone();
    let sending = tokio::spawn(async move {
        for at in (0..rest.len()).step_by(PIECE) {
            let next = piece(rest.slice(at..rest.len().min(at + PIECE)));
            if pieces.send(next).await.is_err() {
                return;
            }
        }
        let _ = pieces.send(commit(&digest, size)).await;
    });
    assert_eq!(upload.stored().await?, size);
    sending.await.expect("it is sent");
    Ok(size - offset)
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
