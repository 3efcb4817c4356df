//! Exports that wait.

use super::*;
use crate::place::GitRef;

/// A host whose exports wait.
async fn host(lab: &Lab, dir: TempDir) -> (Host, Outbox) {
    let mut host = Host::at(dir, [lab.address()], PATIENCE).await;
    let hub = Arc::new(Hub::new([lab.address()], None, host.metrics.clone()));
    let token = TokenSource::given(Secret::new("own"));
    let outbox = Outbox::open(host.dir.path(), host.near.clone(), hub, token).await;
    let outbox = outbox.unwrap();
    host.cache = host.cache.exporting_by(outbox.clone());
    (host, outbox)
}

fn at(git_ref: &str, export: Publication) -> Publication {
    let git_ref: GitRef = git_ref.parse().unwrap();
    Publication {
        place: Place {
            git_ref,
            ..export.place
        },
        ..export
    }
}

#[tokio::test]
async fn an_export_does_not_wait_for_the_hub_and_reaches_it() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    let layers = [content(1, 2_000_000), content(2, 10)];
    lab.proxy.set(Toxic::Refuse);
    host.cache.writable(&Place::default()).await.unwrap();
    for layer in &layers {
        host.upload(layer).await;
    }
    let published = host.cache.publish(export(&layers)).await.unwrap();
    assert_eq!(published.id, None);
    assert_eq!((published.records, published.layers), (2, 2));
    assert_eq!(published.bytes, 2_000_010);
    // What waits is held.
    let held = host
        .cache
        .holds(&Place::default(), &Digest::of(&layers[1]))
        .await;
    assert_eq!(held.unwrap(), Some(10));
    lab.proxy.set(Toxic::Pass);
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(lab.host().await.look_up().await.unwrap().layers.len(), 2);
}

#[tokio::test]
async fn what_waits_survives_a_kill_in_its_order() {
    let lab = Lab::new().await;
    let (first, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    let layers: Vec<Bytes> = (1..5).map(|seed| content(seed, 100_000)).collect();
    for (at_most, layer) in layers.iter().enumerate() {
        first.upload(layer).await;
        let export = export(&layers[..=at_most]);
        first.cache.publish(export.clone()).await.unwrap();
        first.cache.publish(at("other", export)).await.unwrap();
    }
    // A process that is killed says nothing and unlocks all.
    let Host {
        dir, cache, near, ..
    } = first;
    drop((outbox, cache, near));

    lab.proxy.set(Toxic::Pass);
    let (_second, outbox) = host(&lab, dir).await;
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    let import = lab.host().await.look_up().await.unwrap();
    assert_eq!(import.layers.len(), 4);
}

#[tokio::test]
async fn two_processes_do_not_bring_the_same_export() {
    let lab = Lab::new().await;
    let (first, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    let layer = content(1, 1000);
    first.upload(&layer).await;
    first.cache.publish(export(&[layer])).await.unwrap();
    let hub = Arc::new(Hub::new([lab.address()], None, Metrics::default()));
    let near = first.near.clone();
    let other = Outbox::open(first.dir.path(), near, hub, TokenSource::none())
        .await
        .unwrap();
    assert_eq!(other.drain(Duration::ZERO).await, 0, "it is another's");
    assert_eq!(outbox.drain(Duration::ZERO).await, 1);
}

#[tokio::test]
async fn a_blob_that_was_not_written_is_missing() {
    let lab = Lab::new().await;
    let (host, _outbox) = host(&lab, TempDir::new().unwrap()).await;
    let error = host
        .cache
        .publish(export(&[content(1, 10)]))
        .await
        .unwrap_err();
    assert!(matches!(error, CacheError::Missing(_)), "{error}");
}
