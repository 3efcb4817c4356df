//! The calls of a sidecar, in a line each.

use bytes::{Bytes, BytesMut};
use layerd::cache::wire::v1::publish_request::{Export, Part};
use layerd::cache::wire::{self, ImportReader, PIECE, PublishedReader, v1};
use layerd::cache::{Form, Import, Limits, Published};
use layerd::digest::Digest;
use layerd::place::Place;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::{Code, Status};

use crate::harness::HubClient;
use crate::harness::chain::{config_of, manifest_of};

/// Bytes that can't be compressed, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut content = BytesMut::zeroed(bytes);
    StdRng::seed_from_u64(seed).fill_bytes(&mut content);
    content.freeze()
}

/// What a blob is known by.
pub fn described(content: &Bytes) -> (Digest, u64) {
    (Digest::of(content), content.len() as u64)
}

/// An export of a chain of steps with these layers; `mark` tells its steps from
/// those of others.
pub fn publication(
    place: &v1::Place,
    layers: &[(Digest, u64)],
    mark: &str,
) -> Vec<v1::PublishRequest> {
    publication_of(place, layers, &config_of(layers, mark))
}

/// An export with this config and these layers.
pub fn publication_of(
    place: &v1::Place,
    layers: &[(Digest, u64)],
    config: &Bytes,
) -> Vec<v1::PublishRequest> {
    let manifest = manifest_of(layers, config);
    let export = Export {
        place: Some(place.clone()),
        builder: "runner".to_owned(),
        manifest_bytes: manifest.len() as u64,
        config_bytes: config.len() as u64,
        steps: 0,
        building_ns: None,
    };
    let part = |part| v1::PublishRequest { part: Some(part) };
    let mut parts = vec![part(Part::Export(export))];
    let pieces = |whole: &Bytes| Vec::from_iter(whole.chunks(PIECE).map(|at| whole.slice_ref(at)));
    let manifest = pieces(&manifest).into_iter().map(Part::Manifest);
    parts.extend(
        manifest
            .chain(pieces(config).into_iter().map(Part::Config))
            .map(part),
    );
    parts
}

/// Sends those, and reads what comes of it; a refusal has what is missing as its
/// details.
pub async fn send(
    client: &mut HubClient,
    messages: Vec<v1::PublishRequest>,
) -> Result<Published, Status> {
    let answers = client.publish(tokio_stream::iter(messages)).await?;
    let (mut answers, mut reader) = (answers.into_inner(), PublishedReader::default());
    loop {
        match answers.message().await {
            Ok(Some(answer)) => reader.take(answer).expect("a part of an answer"),
            Ok(None) => return Ok(reader.finish().expect("a whole answer")),
            Err(status) => {
                let missing = wire::joined(&reader.missing());
                let (code, text) = (status.code(), status.message());
                return Err(Status::with_details(code, text, missing));
            }
        }
    }
}

/// Publishes such an export.
pub async fn publish(
    client: &mut HubClient,
    place: &v1::Place,
    layers: &[(Digest, u64)],
    mark: &str,
) -> Result<Published, Status> {
    send(client, publication(place, layers, mark)).await
}

/// Publishes one whose layers are these, after it has uploaded them.
pub async fn export(client: &mut HubClient, place: &v1::Place, contents: &[Bytes], mark: &str) {
    for content in contents {
        super::upload(client, place, content).await.expect("stored");
    }
    let layers: Vec<_> = contents.iter().map(described).collect();
    let published = publish(client, place, &layers, mark).await;
    published.expect("it is published");
}

/// What is seen from a place: of its ref alone, or of its project.
pub async fn look_up(
    client: &mut HubClient,
    place: &v1::Place,
    narrowed: bool,
) -> Result<Option<Import>, Status> {
    let limits = Limits {
        records: 1_000_000,
        form: Form::Whole,
    };
    let mut request = wire::look_up_request(&[], &limits);
    request.wants.push(v1::Want {
        place: Some(place.clone()),
        narrowed,
        ..v1::Want::default()
    });
    let mut parts = client.look_up(request).await?.into_inner();
    let mut reader = ImportReader::default();
    while let Some(part) = parts.message().await? {
        reader.take(part).expect("a part of an import");
    }
    let import = reader.finish(Place::default()).expect("a whole import");
    Ok(import.map(|(import, _)| import))
}

/// The sizes of those that need not be sent.
pub async fn held(
    client: &mut HubClient,
    place: &v1::Place,
    digests: &[Digest],
) -> Result<Vec<Option<u64>>, Status> {
    let request = v1::FindMissingRequest {
        project: place.project.clone(),
        git_ref: place.git_ref.clone(),
        digests: wire::joined(digests),
    };
    let answer = client.find_missing(request).await?.into_inner();
    let sizes = answer.sizes.into_iter();
    Ok(sizes.map(|size| size.checked_sub(1)).collect())
}

/// Whether a blob was withdrawn, by somebody who finds it wrong.
pub async fn suspect(
    client: &mut HubClient,
    project: &str,
    digest: &Digest,
) -> Result<bool, Status> {
    let request = v1::SuspectRequest {
        projects: vec![project.to_owned()],
        digest: digest.as_bytes().to_vec().into(),
    };
    Ok(client.suspect(request).await?.into_inner().withdrawn)
}

/// The blobs that an export was refused for.
#[track_caller]
pub fn missing(refused: &Status) -> Vec<Digest> {
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    wire::digests(refused.details()).expect("digests")
}
