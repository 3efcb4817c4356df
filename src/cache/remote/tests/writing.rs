//! Uploads and exports that meet faults.

use super::*;
use crate::cache::LocalCache;

async fn hub_has(lab: &Lab, layer: &Bytes) -> bool {
    let cache: &LocalCache = &lab.double.cache;
    let read = cache.read(&Digest::of(layer), 0, u64::MAX).await;
    match read {
        Ok(bytes) => bytes.try_collect::<BytesMut>().await.unwrap() == *layer,
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_upload_that_breaks_half_way_still_publishes() {
    for toxic in [Toxic::Reset, Toxic::Refuse, Toxic::Cut(Way::Down, 0)] {
        let lab = Lab::new().await;
        let host = lab.host().await;
        let layer = content(1, 8_000_000);
        let digest = Digest::of(&layer);
        let place = Place::default();
        let ingest = host.cache.ingest(&place, "layer", Some(digest)).await;
        let mut ingest = ingest.unwrap();
        ingest.write(layer.slice(..4_000_000)).await.unwrap();
        lab.proxy.set(toxic);
        ingest.write(layer.slice(4_000_000..)).await.unwrap();
        let committing = ingest.commit(Some(8_000_000), Some(digest));
        let mend = async {
            tokio::task::yield_now().await;
            lab.proxy.set(Toxic::Pass);
        };
        let (committed, ()) = tokio::join!(committing, mend);
        assert_eq!(committed.unwrap(), (digest, 8_000_000), "{toxic:?}");
        assert!(hub_has(&lab, &layer).await, "{toxic:?}");
        let published = host.cache.publish(export(&[layer])).await.unwrap();
        assert!(published.id.is_some());
    }
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_export() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let ingests = host.dir.path().join("near/ingest");
    std::fs::remove_dir_all(&ingests).unwrap();
    std::fs::write(&ingests, b"no directory").unwrap();
    let layer = content(1, 3_000_000);
    host.upload(&layer).await;
    assert!(hub_has(&lab, &layer).await);
    host.cache.publish(export(&[layer])).await.unwrap();
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_is_stored() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let expected = Digest::of(b"something else");
    let place = Place::default();
    let ingest = host.cache.ingest(&place, "layer", Some(expected)).await;
    let mut ingest = ingest.unwrap();
    ingest.write(content(1, 1000)).await.unwrap();
    let error = ingest.commit(Some(1000), Some(expected)).await.unwrap_err();
    assert!(matches!(error, BlobError::WrongDigest { .. }), "{error}");
    assert!(lab.double.seen().uploaded.is_empty());
}

#[tokio::test]
async fn a_blob_that_the_hub_has_is_not_sent_again() {
    let lab = Lab::new().await;
    let layer = content(1, 6_000_000);
    lab.host().await.upload(&layer).await;
    let other = lab.host().await;
    let digest = Digest::of(&layer);
    let held = other.cache.holds(&Place::default(), &digest).await.unwrap();
    assert_eq!(held, Some(6_000_000));
    other.upload(&layer).await;
}

#[tokio::test]
async fn an_export_whose_blobs_the_hub_has_lost_brings_them() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let layers = [content(1, 100_000), content(2, 200_000)];
    for layer in &layers {
        host.upload(layer).await;
    }
    lab.double.seen().uploaded.clear();
    host.cache.publish(export(&layers)).await.unwrap();
    assert_eq!(lab.host().await.look_up().await.unwrap().layers.len(), 2);
}

#[tokio::test]
async fn an_export_brings_no_blob_that_its_project_may_not_name() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let layer = content(1, 100_000);
    host.upload(&layer).await;
    lab.double.seen().uploaded.clear();
    let mut foreign = export(&[layer]);
    foreign.uploaded.clear();
    let error = host.cache.publish(foreign).await.unwrap_err();
    assert!(matches!(error, CacheError::Missing(_)), "{error}");
    assert!(lab.double.seen().uploaded.is_empty());
}

#[tokio::test]
async fn a_hub_that_takes_nothing_holds_the_writer_up_and_no_memory() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let digest = Digest::of(b"whatever");
    let place = Place::default();
    let ingest = host.cache.ingest(&place, "layer", Some(digest)).await;
    let mut ingest = ingest.unwrap();
    let chunk = content(2, 1 << 20);
    // More than waits in this process: some of it has arrived.
    for _ in 0..16 {
        ingest.write(chunk.clone()).await.unwrap();
    }
    lab.proxy.set(Toxic::Hang);
    // Beyond what the system's own buffers take, it waits.
    let mut taken = 0;
    while taken < 64 {
        let write = ingest.write(chunk.clone());
        if tokio::time::timeout(Duration::from_secs(2), write)
            .await
            .is_err()
        {
            break;
        }
        taken += 1;
    }
    assert!(taken < 64, "{taken} MiB were taken");
}
