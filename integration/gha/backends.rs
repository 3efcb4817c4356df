//! Two hubs that share Postgres and a bucket.

use serde_json::Value;

use super::ask::{Ask, VERSION};
use super::buildkit::{MAIN, build, gha, out};
use crate::harness::actions::Job;
use crate::harness::{Hub, Lab, MULTISTAGE_STEPS, Metrics, Postgres, objects, runtime_token};
use crate::hub::noise;

struct Pair {
    lab: Lab,
    hubs: [Hub; 2],
    _postgres: Postgres,
}

impl Pair {
    async fn new(name: &str) -> Self {
        let lab = Lab::new();
        let postgres = Postgres::start();
        let catalog = postgres.database(&name.replace('-', "_"));
        let store = objects::s3().await.s3_store(name);
        let start = async |hub: &str| {
            let backends = ["--catalog", &catalog, "--blobs", &store];
            lab.hub(hub).arguments(backends).start().await
        };
        let hubs = [start("one").await, start("two").await];
        Self {
            lab,
            hubs,
            _postgres: postgres,
        }
    }
}

async fn redirected(hub: &Hub) -> f64 {
    let metrics = Metrics::at(hub.metrics_address()).await;
    metrics.value("layerd_gha_requests_total{operation=\"download\",outcome=\"redirected\"}")
}

#[tokio::test]
async fn an_upload_goes_on_at_any_hub_and_is_read_at_any() {
    let pair = Pair::new("gha-any").await;
    let [one, two] = &pair.hubs;
    let asks = [one, two].map(|hub| Ask::new(hub.url(), None));
    let url = asks[0].reserved("key", VERSION).await;
    let elsewhere = url.replace(one.address(), two.address());
    assert_ne!(url, elsewhere);
    let parts: Vec<_> = (0..4).map(|part| noise(part, 700_000)).collect();
    for (part, bytes) in parts.iter().enumerate() {
        let (ask, url) = [(&asks[0], &url), (&asks[1], &elsewhere)][part % 2];
        ask.put_block(url, &part.to_string(), bytes.clone())
            .await
            .is(201);
    }
    asks[1]
        .put_list(&elsewhere, &["0", "1", "2", "3"])
        .await
        .is(201);
    asks[0].finalize("key", VERSION, 2_800_000).await.is(200);
    let (_, down) = asks[1].find(&["key"], VERSION).await.unwrap();
    let down = down.replace(two.address(), one.address());
    // In several blobs: there is no one place where it could be read.
    let whole = asks[0].get(&down, &[]).await.is(200);
    assert!(whole.body == parts.concat());
    let part = [("x-ms-range", "bytes=699990-700009")];
    let part = asks[0].get(&down, &part).await.is(206);
    assert_eq!(part.header("content-range"), "bytes 699990-700009/2800000");
    assert!(part.body[..] == whole.body[699_990..700_010]);

    // In one: whoever wants all of it is sent to the bucket.
    asks[0].save("single", VERSION, parts[0].clone()).await;
    let (_, down) = asks[0].find(&["single"], VERSION).await.unwrap();
    let away = asks[0].get(&down, &[]).await.is(302);
    let location = away.header("location");
    assert!(location.contains("X-Amz-Signature="), "{location}");
    for header in ["range", "x-ms-range"] {
        let part = asks[0].get(&down, &[(header, "bytes=5-9")]).await.is(206);
        assert!(part.body[..] == parts[0][5..10]);
    }
    let head = asks[0]
        .request(http::Method::HEAD, &down, &[], "")
        .await
        .is(200);
    assert_eq!(head.header("content-length"), "700000");
    assert!(head.header("etag").starts_with('"'));
}

#[tokio::test]
async fn stock_clients_follow_to_the_bucket() {
    let pair = Pair::new("gha-stock").await;
    let [one, two] = &pair.hubs;
    let token = runtime_token("acme/shop", &MAIN);
    for version in [1, 2] {
        let job = |name: &str, hub: &Hub| {
            let folder = pair.lab.path(&format!("{name}-{version}"));
            Job::new(folder, hub.url(), &token, version)
        };
        let (saves, restores) = (job("saves", one), job("restores", two));
        std::fs::write(saves.folder().join("deps"), noise(3, 900_000)).unwrap();
        let key = format!("key-{version}");
        let saved = saves.save("deps", &key).await;
        assert!(
            saved.result.as_i64().is_some_and(|id| id > 0),
            "{}",
            saved.log
        );
        let restored = restores.restore("deps", &key, &[]).await;
        assert_eq!(
            restored.result,
            Value::from(key.as_str()),
            "{}",
            restored.log
        );
        let read = |job: &Job| std::fs::read(job.folder().join("deps")).unwrap();
        assert!(read(&saves) == read(&restores));
    }
    assert_eq!(redirected(two).await, 2.0);
    for version in [1, 2] {
        let token = runtime_token(&format!("acme/{version}"), &MAIN);
        let lab = Lab::new();
        let to = gha(one, &token, version);
        build(&lab, "one", None, Some(&to))
            .await
            .assert_all_ran(MULTISTAGE_STEPS);
        let before = redirected(two).await;
        let from = gha(two, &token, version);
        build(&lab, "two", Some(&from), None)
            .await
            .assert_all_cached(MULTISTAGE_STEPS);
        assert!(out(&lab, "one") == out(&lab, "two"));
        // The first version has a single try, and is not sent anywhere.
        let sent = redirected(two).await > before;
        assert_eq!(sent, version == 2, "version {version}");
    }
}
