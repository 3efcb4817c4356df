//! Exports that wait.

use super::super::metrics::Ended;
use super::*;
use crate::cache::Flush;
use crate::catalog::ledger::Actor;
use crate::moment::Moment;
use crate::place::GitRef;

/// A host whose exports wait.
async fn host(lab: &Lab, dir: TempDir) -> (Host, Outbox) {
    let mut host = Host::at(dir, [lab.address()], PATIENCE).await;
    let destinations = to(&[lab], &host.metrics);
    let outbox = Outbox::open(host.dir.path(), host.near.clone(), destinations).await;
    let outbox = outbox.unwrap();
    host.cache = host.cache.exporting_by(outbox.clone());
    (host, outbox)
}

/// The first is the own hub; the others may be named by builds.
fn to(labs: &[&Lab], metrics: &Metrics) -> Destinations {
    let addresses: Vec<HubAddress> = labs.iter().map(|lab| lab.address()).collect();
    let hub = Hub::new([addresses[0].clone()], None, metrics.clone());
    let allowed = addresses[1..].iter().cloned().map(Allowed::Origin);
    Destinations::new(None, metrics.clone())
        .own(Arc::new(hub), TokenSource::given(Secret::new("own")))
        .allowing(allowed.collect())
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
    assert_eq!((published.id, published.queued), (None, true));
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
async fn what_is_flushed_while_an_export_waits_does_not_come_back_by_it() {
    let lab = Lab::new().await;
    let (first, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    let layer = content(1, 1000);
    first.upload(&layer).await;
    let began = |ago| Publication {
        began: Some(Moment::ago(Duration::from_secs(ago))),
        ..export(std::slice::from_ref(&layer))
    };
    first.cache.publish(began(60)).await.unwrap();
    let flush = Flush {
        project: ProjectId::default(),
        git_ref: None,
        scope: None,
    };
    let origin = Origin::here(Actor::Anybody);
    lab.double.cache.flush(&flush, &origin).await.unwrap();
    let Host {
        dir, cache, near, ..
    } = first;
    drop((outbox, cache, near));
    lab.proxy.set(Toxic::Pass);
    let (second, outbox) = host(&lab, dir).await;
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(second.metrics.ended(Ended::Flushed), 1);
    assert!(lab.host().await.look_up().await.is_none());
    assert_eq!(folders(&second.dir, "outbox-refused").len(), 0);
    second.upload(&layer).await;
    second.cache.publish(began(0)).await.unwrap();
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(layers_at(&lab).await, 1);
}

#[tokio::test]
async fn two_processes_do_not_bring_the_same_export() {
    let lab = Lab::new().await;
    let (first, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    let layer = content(1, 1000);
    first.upload(&layer).await;
    first.cache.publish(export(&[layer])).await.unwrap();
    let destinations = to(&[&lab], &Metrics::default());
    let near = first.near.clone();
    let other = Outbox::open(first.dir.path(), near, destinations)
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

/// A layer that is written and exported to a ref.
async fn queue(host: &Host, git_ref: &str, seed: u64) -> Bytes {
    let layer = content(seed, 50_000);
    host.upload(&layer).await;
    let export = at(git_ref, export(std::slice::from_ref(&layer)));
    host.cache.publish(export).await.unwrap();
    layer
}

async fn layers_at(lab: &Lab) -> usize {
    let import = lab.host().await.look_up().await;
    import.map_or(0, |import| import.layers.len())
}

fn folders(dir: &TempDir, name: &str) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(dir.path().join(name));
    let folders = folders.into_iter().flatten().flatten();
    folders.map(|folder| folder.path()).collect()
}

#[tokio::test]
async fn what_the_hub_refuses_for_good_is_put_aside_with_its_reason() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    queue(&host, "main", 1).await;
    let denied = Status::permission_denied("the token may not write there");
    lab.double.seen().denies = Some(denied);
    lab.proxy.set(Toxic::Pass);
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(host.metrics.ended(Ended::Refused), 1);
    let aside = folders(&host.dir, "outbox-refused");
    let why = std::fs::read_to_string(aside[0].join("why.txt")).unwrap();
    assert!(why.contains("the token may not write there"), "{why}");

    // Others pass, and moved back it is tried again.
    lab.double.seen().denies = None;
    let name = aside[0].file_name().unwrap();
    std::fs::rename(&aside[0], host.dir.path().join("outbox").join(name)).unwrap();
    let Host {
        dir, cache, near, ..
    } = host;
    drop((outbox, cache, near));
    let (_host, outbox) = self::host(&lab, dir).await;
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(layers_at(&lab).await, 1);
}

#[tokio::test]
async fn what_the_hub_refuses_for_a_time_waits_until_it_does_not() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    for passing in [
        Status::unauthenticated("the token has expired"),
        Status::resource_exhausted("project default is at its quota"),
    ] {
        lab.proxy.set(Toxic::Refuse);
        queue(&host, "main", 1).await;
        let failures = host.metrics.failures();
        lab.double.seen().denies = Some(passing);
        lab.proxy.set(Toxic::Pass);
        let deadline = Instant::now() + Duration::from_secs(60);
        while host.metrics.failures() < failures + 4 {
            assert!(Instant::now() < deadline, "it is not tried again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(folders(&host.dir, "outbox").len(), 1);
        lab.double.seen().denies = None;
        assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    }
    assert_eq!(host.metrics.ended(Ended::Refused), 0);
    assert_eq!(host.metrics.ended(Ended::Delivered), 2);
    assert_eq!(layers_at(&lab).await, 1);
}

#[tokio::test]
async fn what_is_delivered_and_stays_on_the_disk_is_not_delivered_again() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    lab.proxy.set(Toxic::Refuse);
    queue(&host, "main", 1).await;
    let folder = folders(&host.dir, "outbox").remove(0);
    let name = folder.file_name().unwrap().to_str().unwrap();
    let in_the_way = folder.with_file_name(format!(".old-{name}"));
    std::fs::write(&in_the_way, "").unwrap();
    lab.proxy.set(Toxic::Pass);
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert!(folder.exists());
    outbox.look().await;
    assert_eq!(outbox.drain(Duration::ZERO).await, 0);
    std::fs::remove_file(&in_the_way).unwrap();
    outbox.look().await;
    assert!(!folder.exists());
    assert_eq!(host.metrics.ended(Ended::Delivered), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_put_aside_and_what_a_kill_left_is_removed() {
    let dir = TempDir::new().unwrap();
    let outbox = dir.path().join("outbox");
    for (name, text) in [
        ("1-torn", "{\"project\":"),
        ("2-later", "{\"version\":99}"),
        (".old-3", ""),
        ("4-half-removed", ""),
    ] {
        std::fs::create_dir_all(outbox.join(name)).unwrap();
        if !text.is_empty() {
            std::fs::write(outbox.join(name).join("export.json"), text).unwrap();
        }
    }
    let lab = Lab::new().await;
    let (host, _outbox) = host(&lab, dir).await;
    assert!(folders(&host.dir, "outbox").is_empty());
    assert_eq!(folders(&host.dir, "outbox-refused").len(), 2);
    assert_eq!(host.metrics.ended(Ended::Refused), 2);
}

#[tokio::test]
async fn an_export_goes_to_the_hub_that_it_is_for_and_to_no_other() {
    let [meant, other] = [Lab::new().await, Lab::new().await];
    let (first, outbox) = host(&meant, TempDir::new().unwrap()).await;
    meant.proxy.set(Toxic::Refuse);
    queue(&first, "main", 1).await;
    let Host {
        dir, cache, near, ..
    } = first;
    drop((outbox, cache, near));
    meant.proxy.set(Toxic::Pass);

    let (second, outbox) = host(&other, dir).await;
    assert_eq!(outbox.drain(Duration::ZERO).await, 0);
    assert_eq!(second.metrics.stranded(), 1);
    assert_eq!(layers_at(&other).await, 0);
    drop(outbox);
    // Where builds may name it, it gets no token of ours.
    let destinations = to(&[&other, &meant], &second.metrics);
    let outbox = Outbox::open(second.dir.path(), second.near.clone(), destinations);
    let outbox = outbox.await.unwrap();
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(meant.double.seen().tokens, BTreeSet::from([None]));
    assert_eq!(layers_at(&meant).await, 1);
}

/// Changes what stands in `export.json` of all that wait.
fn rewrite(dir: &TempDir, change: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    for folder in folders(dir, "outbox") {
        let path = folder.join("export.json");
        let mut text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(text.as_object_mut().unwrap());
        std::fs::write(&path, text.to_string()).unwrap();
    }
}

#[tokio::test]
async fn what_an_earlier_version_wrote_is_brought_and_what_is_too_old_is_dropped() {
    for old in [false, true] {
        let lab = Lab::new().await;
        let (first, outbox) = host(&lab, TempDir::new().unwrap()).await;
        lab.proxy.set(Toxic::Refuse);
        queue(&first, "main", 1).await;
        let Host {
            dir, cache, near, ..
        } = first;
        drop((outbox, cache, near));
        lab.proxy.set(Toxic::Pass);
        rewrite(&dir, |written| {
            for later in ["version", "hub", "held"] {
                written.remove(later);
            }
            if old {
                written.insert("written_at".to_owned(), json!("2001-01-01T00:00:00Z"));
            }
        });
        let (second, outbox) = host(&lab, dir).await;
        assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
        assert!(folders(&second.dir, "outbox").is_empty());
        assert_eq!(layers_at(&lab).await, usize::from(!old));
        assert_eq!(second.metrics.ended(Ended::Expired), u64::from(old));
    }
}

#[tokio::test]
async fn a_blob_that_the_hub_has_lost_is_sent_again_from_this_disk() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    let layer = queue(&host, "main", 1).await;
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    let digest = Digest::of(&layer);
    let held = host.cache.holds(&Place::default(), &digest).await;
    assert_eq!(held.unwrap(), Some(50_000));
    lab.proxy.set(Toxic::Refuse);
    let mut next = export(&[layer, content(2, 10)]);
    host.upload(&content(2, 10)).await;
    next.uploaded.remove(&digest);
    host.cache.publish(next).await.unwrap();
    lab.double.lose(&digest).await;
    lab.proxy.set(Toxic::Pass);
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(host.metrics.ended(Ended::Refused), 0);
    assert_eq!(layers_at(&lab).await, 2);
}

#[tokio::test]
async fn a_blob_of_another_project_is_never_sent() {
    let lab = Lab::new().await;
    let (host, outbox) = host(&lab, TempDir::new().unwrap()).await;
    let secret = queue(&host, "main", 1).await;
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    let mut stolen = export(std::slice::from_ref(&secret));
    stolen.place.project = "thief".parse().unwrap();
    stolen.uploaded.clear();
    host.cache.publish(stolen).await.unwrap();
    assert_eq!(outbox.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(host.metrics.ended(Ended::Refused), 1);
    let thief = "thief".parse().unwrap();
    assert!(!lab.double.seen().uploaded.contains_key::<ProjectId>(&thief));
}

#[tokio::test]
async fn what_waits_survives_being_killed_again_and_again() {
    use rand::{RngExt as _, SeedableRng as _};
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let lab = Lab::new().await;
    let mut dir = TempDir::new().unwrap();
    let refs = ["main", "a", "b", "c", "d", "e"];
    for round in 0..12 {
        let (host, outbox) = host(&lab, dir).await;
        queue(&host, refs[round % refs.len()], round as u64 + 1).await;
        // Not to wait for anything: any moment may be the one.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        let Host {
            dir: kept, cache, ..
        } = host;
        drop((outbox, cache));
        dir = kept;
    }
    let (host, _outbox) = host(&lab, dir).await;
    until("all to have arrived", || {
        folders(&host.dir, "outbox").is_empty()
    })
    .await;
    assert_eq!(layers_at(&lab).await, 12);
    assert_eq!(host.metrics.ended(Ended::Refused), 0);
}
