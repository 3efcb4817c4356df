//! Every fault, on every call: an error that says which hub and why, within
//! bounds, and all is well once the fault is over.

use futures::future::BoxFuture;

use super::*;
use crate::cache::wire::MAX_DIGESTS;

type Asked<'a> = BoxFuture<'a, Result<(), CacheError>>;

/// Every call of the engine that needs the hub.
fn calls(cache: &RemoteCache) -> Vec<(&'static str, Asked<'_>)> {
    let place = Place::default;
    let saving = Saving {
        project: place().project,
        git_ref: place().git_ref,
        day: "2026-11-22".parse().unwrap(),
        builds: 1,
        steps: 1,
        cached: 1,
        saved_ms: 1,
        estimated_ms: 0,
    };
    let origin = Origin::here(crate::catalog::ledger::Actor::Anybody);
    let flush = Flush {
        project: place().project,
        git_ref: None,
        scope: None,
    };
    let result = ("sha256:a".parse().unwrap(), Timestamp::UNIX_EPOCH);
    let digest = Digest::of(b"absent");
    let wants = [Want::all_of(place())];
    vec![
        (
            "look_up",
            Box::pin(async move { cache.look_up(&wants, &ALL).await.map(drop) }),
        ),
        (
            "writable",
            Box::pin(async move { cache.writable(&place()).await }),
        ),
        (
            "holds",
            Box::pin(async move {
                // Where nobody can be asked, a blob is not known to be held: it
                // is uploaded, with more patience.
                match cache.holds(&place(), &digest).await? {
                    None => cache.writable(&place()).await,
                    Some(_) => Ok(()),
                }
            }),
        ),
        (
            "steps",
            Box::pin(async move { cache.steps(&place().project, &[result]).await.map(drop) }),
        ),
        (
            "report",
            Box::pin(async move { cache.report(&saving).await }),
        ),
        (
            "flush",
            Box::pin(async move { cache.flush(&flush, &origin).await.map(drop) }),
        ),
        (
            "publish",
            Box::pin(async move { cache.publish(export(&[])).await.map(drop) }),
        ),
        (
            "withdraw",
            Box::pin(async move {
                cache
                    .withdraw(&digest, &CacheError::Blob(BlobError::NotFound(digest)))
                    .await
            }),
        ),
        (
            "upload",
            Box::pin(async move { upload(cache, &content(9, 100)).await.map(drop) }),
        ),
    ]
}

async fn all_fail(cache: &RemoteCache, toxic: Toxic) {
    let asked = calls(cache).into_iter().map(async |(call, asked)| {
        let answer = tokio::time::timeout(Duration::from_secs(100), asked).await;
        let error = answer.unwrap_or_else(|_| panic!("{toxic:?}: {call} hangs"));
        let error = error.expect_err(call).to_string();
        assert!(
            error.contains("the hub") || error.contains("the disk"),
            "{toxic:?}: {call}: {error}"
        );
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn every_call_ends_whatever_the_network_does_and_recovers() {
    for toxic in [Toxic::Refuse, Toxic::Reset, Toxic::Hang] {
        let lab = Lab::new().await;
        let host = Host::of([lab.address()], Duration::ZERO).await;
        lab.proxy.set(toxic);
        all_fail(&host.cache, toxic).await;
        lab.proxy.set(Toxic::Pass);
        let deadline = Instant::now() + Duration::from_secs(60);
        while host.cache.writable(&Place::default()).await.is_err() {
            assert!(Instant::now() < deadline, "{toxic:?}: it never recovers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (call, asked) in calls(&host.cache) {
            if let Err(error) = asked.await {
                assert_eq!(call, "publish", "{toxic:?}: {error}");
            }
        }
        assert_eq!(host.metrics.breakers_open(), 0);
    }
}

#[tokio::test]
async fn every_call_ends_on_a_connection_that_falls_silent() {
    let lab = Lab::new().await;
    let host = Host::of([lab.address()], Duration::ZERO).await;
    host.cache.writable(&Place::default()).await.unwrap();
    lab.proxy.set(Toxic::Hang);
    let small = calls(&host.cache).into_iter();
    let small = small.filter(|(call, _)| !matches!(*call, "publish" | "upload"));
    let asked = small.map(async |(call, asked)| {
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
        let error = answer.unwrap_or_else(|_| panic!("{call} hangs"));
        assert!(error.expect_err(call).to_string().contains("the hub"));
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn the_next_address_is_asked_where_one_fails() {
    for toxic in [Toxic::Refuse, Toxic::Reset, Toxic::Hang] {
        let lab = Lab::new().await;
        let layer = content(1, 1_000_000);
        let writer = lab.host().await;
        writer.upload(&layer).await;
        writer
            .cache
            .publish(export(std::slice::from_ref(&layer)))
            .await
            .unwrap();

        let broken = ToxicProxy::start(lab.proxy.address()).await;
        broken.set(toxic);
        let first = format!("http://{}", broken.address()).parse().unwrap();
        let host = Host::of([first, lab.address()], PATIENCE).await;
        let _import = host.look_up().await.unwrap();
        assert_eq!(host.whole(&Digest::of(&layer)).await.unwrap(), layer);
        host.upload(&content(2, 100_000)).await;
        host.cache
            .publish(export(&[content(2, 100_000)]))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_hub_that_is_down_is_left_alone_until_a_probe_finds_it() {
    let lab = Lab::new().await;
    let host = Host::of([lab.address()], Duration::ZERO).await;
    lab.proxy.set(Toxic::Refuse);
    let place = Place::default();
    until_open(&host).await;
    let tried = lab.proxy.accepted();
    let error = host.cache.writable(&place).await.unwrap_err().to_string();
    assert!(error.contains("not asked again for"), "{error}");
    assert_eq!(lab.proxy.accepted(), tried);
    lab.proxy.set(Toxic::Pass);
    let deadline = Instant::now() + Duration::from_secs(60);
    while host.cache.writable(&place).await.is_err() {
        assert!(Instant::now() < deadline, "no probe");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.metrics.breakers_open(), 0);
}

#[tokio::test]
async fn a_hub_that_restarts_takes_the_export_that_was_begun_meanwhile() {
    for toxic in [Toxic::Refuse, Toxic::Reset] {
        let lab = Lab::new().await;
        let host = lab.host().await;
        lab.proxy.set(toxic);
        let place = Place::default();
        let asking = host.cache.writable(&place);
        let back = async {
            until_open(&Host::of([lab.address()], Duration::ZERO).await).await;
            lab.proxy.set(Toxic::Pass);
        };
        let (asked, ()) = tokio::join!(asking, back);
        asked.unwrap();
    }
}

#[tokio::test]
async fn a_hub_that_says_no_is_not_asked_again() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    lab.double.seen().denies = Some(Status::permission_denied("not for you"));
    let error = host.cache.writable(&Place::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "not for you");
    assert_eq!(host.metrics.count(Method::Writable), 1);
}

#[tokio::test]
async fn a_hub_that_is_busy_is_asked_again_and_is_not_taken_for_a_sick_one() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    lab.double.seen().waits = 20;
    for (call, asked) in calls(&host.cache) {
        lab.double.seen().busy = 2;
        if let Err(error) = asked.await {
            // Of an export with nothing in it.
            assert_eq!(call, "publish", "{error}");
            assert!(!matches!(error, CacheError::Unavailable(_)), "{error}");
        }
        assert_eq!(lab.double.seen().busy, 0, "{call}");
    }
    host.upload(&content(3, 5_000_000)).await;
    assert_eq!(host.metrics.breakers_open(), 0);
    assert!(host.cache.trouble().is_none());
}

#[tokio::test]
async fn a_hub_that_stays_busy_is_given_up_in_its_own_words() {
    let lab = Lab::new().await;
    let host = Host::of([lab.address()], Duration::ZERO).await;
    lab.double.seen().busy = u64::MAX;
    let error = host.cache.writable(&Place::default()).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("too many calls at once"), "{error}");
    assert_eq!(host.metrics.breakers_open(), 0);
}

async fn until_open(host: &Host) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while host.metrics.breakers_open() == 0 {
        host.cache.writable(&Place::default()).await.unwrap_err();
        assert!(Instant::now() < deadline, "it never opens");
    }
}

#[tokio::test]
async fn more_blobs_than_one_question_takes_are_asked_for_in_several() {
    let lab = Lab::new().await;
    let host = lab.host().await;
    let blobs = (0..MAX_DIGESTS as u64 + 5).map(|n| (Digest::of(&n.to_le_bytes()), n));
    let blobs = blobs.collect();
    let caller = Caller::new(
        Arc::new(Hub::new([lab.address()], None, host.metrics.clone())),
        TokenSource::none(),
    );
    let place = Place::default();
    let missing = super::super::holding::missing(&caller, &place, &blobs).await;
    assert_eq!(missing.unwrap().len(), MAX_DIGESTS + 5);
    assert_eq!(host.metrics.count(Method::FindMissing), 2);
}
