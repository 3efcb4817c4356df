//! Refusals and flushes are counted by what they were.

use layerd::cache::wire::v1;

use super::access::{Gate, claims, with};
use super::admin::{admin, told};
use super::ask::{export, look_up, noise, publish};
use super::place;
use crate::harness::{Metrics, layerd};

#[tokio::test]
async fn who_may_not_and_who_flushes_is_counted() {
    let gate = Gate::new().await;
    let mut own = gate.client(&claims(&["main"], &["main"])).await;
    export(&mut own, &place("p", "main"), &[noise(1, 100)], "own").await;
    look_up(&mut own, &place("q", "main"), true)
        .await
        .unwrap_err();
    publish(&mut own, &place("p", "dev"), &[], "x")
        .await
        .unwrap_err();
    let mut blind = gate.client(&claims(&[], &["main"])).await;
    look_up(&mut blind, &place("p", "main"), true)
        .await
        .unwrap_err();
    let mut nobody = gate.hub.client(None).await;
    look_up(&mut nobody, &place("p", "main"), true)
        .await
        .unwrap_err();
    let old = with(claims(&["main"], &[]), "exp", 1_000_000_000);
    let mut late = gate.client(&with(old, "iat", 999_999_000)).await;
    look_up(&mut late, &place("p", "main"), true)
        .await
        .unwrap_err();
    let flush = v1::FlushRequest {
        project: "p".to_owned(),
        git_ref: Some("main".to_owned()),
        scope: None,
    };
    own.flush(flush).await.unwrap();
    let all = admin(&gate, None).await;
    told(&gate, &all, &["cache", "flush", "--project", "p"]).await;
    let file = gate.lab.path("build").display().to_string();
    let build = super::access::signed("first", &claims(&["main"], &["main"]));
    std::fs::write(&file, build).unwrap();
    let hub = ["--hub", gate.hub.url(), "--hub-token-file", &file];
    let refused = layerd(["project", "ls"].iter().chain(&hub)).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let metrics = Metrics::at(gate.hub.metrics_address()).await;
    for (series, count) in [
        ("refusals_total{reason=\"project\"}", 1.0),
        ("refusals_total{reason=\"write\"}", 1.0),
        ("refusals_total{reason=\"read\"}", 1.0),
        ("refusals_total{reason=\"no_token\"}", 1.0),
        ("refusals_total{reason=\"expired\"}", 1.0),
        ("refusals_total{reason=\"kind\"}", 1.0),
        ("refusals_total{reason=\"revoked\"}", 0.0),
        ("flushes_total{source=\"writer\"}", 1.0),
        ("flushed_exports_total{source=\"writer\"}", 1.0),
        ("flushes_total{source=\"admin\"}", 1.0),
        ("flushed_exports_total{source=\"admin\"}", 0.0),
    ] {
        assert_eq!(
            metrics.value(&format!("layerd_hub_{series}")),
            count,
            "{series}"
        );
    }
}
