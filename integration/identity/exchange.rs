//! Who gets a token at `POST /v1/token`, and who does not.

use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use super::{Scene, arguments, claims, form, post, shown, tables, with, written};
use crate::harness::oidc::{Answers, Issuer, public, text};
use crate::harness::{Lab, Metrics, layerd, layerd_with};

const MAIN: &str = "refs/heads/main";
const PULL: &str = "refs/pull/7/merge";

/// What a token says that it grants.
async fn explained(token: &str) -> Value {
    let explain = ["token", "explain", "--json", "-"];
    let told = layerd_with(&explain, &[], token).await.ok().stdout;
    serde_json::from_str(&told).unwrap()
}

#[tokio::test]
async fn a_job_gets_a_token_for_what_it_is_and_the_hub_takes_it() {
    let scene = Scene::new().await;
    let identity = scene
        .issuer
        .sign("first", &claims(&scene.issuer, "pull_request", PULL, "rel"));
    let (status, body) = scene.exchange(&identity).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(
        body["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(body["expires_in"], 900);
    assert_eq!(body["scope"], "read write");
    let token = body["access_token"].as_str().unwrap();
    let told = explained(token).await;
    assert_eq!(told["project"], "acme/shop");
    assert_eq!(told["write"], json!([PULL]));
    assert_eq!(told["read"], json!([PULL, "refs/heads/rel", MAIN]));

    // The hub lets it do just that.
    let mut client = scene.hub.client(Some(token)).await;
    let place = |git_ref: &str| crate::hub::place("acme/shop", git_ref);
    let ask = |git_ref: &str| layerd::cache::wire::v1::WritableRequest {
        place: Some(place(git_ref)),
    };
    client.writable(ask(PULL)).await.unwrap();
    let refused = client.writable(ask(MAIN)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    // Less than that, for whoever wants less.
    let narrow = [&form(&identity)[..], &[("scope", "read")]].concat();
    let (_, body) = scene.post(&narrow).await;
    assert_eq!(body["scope"], "read");
    assert_eq!(
        explained(body["access_token"].as_str().unwrap()).await["write"],
        json!([])
    );

    let metrics = Metrics::at(scene.hub.metrics_address()).await;
    let granted = "layerd_token_exchanges_total{rule=\"ci/pull-request\",outcome=\"granted\"}";
    assert_eq!(metrics.value(granted), 2.0);
    // Nobody sees a token, nor the identity.
    let log = scene.hub.log();
    assert!(log.contains("ci/pull-request"), "{log}");
    for secret in [token, &identity] {
        let (_, signature) = secret.rsplit_once('.').unwrap();
        assert!(!log.contains(signature));
    }
}

/// A token with that header, signed as HS256 is.
fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", text(hmac::sign(&key, message.as_bytes())))
}

#[tokio::test]
async fn an_identity_that_is_not_genuine_or_not_meant_for_the_hub_gets_nothing() {
    let scene = Scene::new().await;
    let issuer = &scene.issuer;
    let good = claims(issuer, "push", MAIN, "");
    let now = Timestamp::now().as_second();
    let signed = |claims: Value| issuer.sign("first", &claims);
    let unsigned = format!(
        "{}.{}.",
        text(json!({"alg": "none", "kid": "first"}).to_string()),
        text(good.to_string())
    );
    let confused = forged(
        &json!({"alg": "HS256", "kid": "first"}),
        &good,
        &public("first"),
    );
    let other = issuer.sign("other", &good);
    let (_, signature) = other.rsplit_once('.').unwrap();
    let genuine = signed(good.clone());
    let (message, _) = genuine.rsplit_once('.').unwrap();
    for (token, outcome, told) in [
        (unsigned, "key", "algorithm"),
        (confused, "key", "algorithm"),
        (other.clone(), "key", "does not publish"),
        (format!("{message}.{signature}"), "signature", "signature"),
        (format!("{message}."), "signature", "signature"),
        (
            signed(with(good.clone(), "aud", "sts.example.com")),
            "audience",
            "audience",
        ),
        (
            signed(with(good.clone(), "iss", "http://127.0.0.1:1")),
            "issuer",
            "not configured",
        ),
        (
            signed(with(good.clone(), "exp", now - 3600)),
            "time",
            "expired",
        ),
        (
            signed(with(good.clone(), "nbf", now + 3600)),
            "time",
            "counts only in",
        ),
        (
            signed(with(good.clone(), "exp", now + 1_000_000_000)),
            "time",
            "good for more",
        ),
        (
            signed(with(good.clone(), "exp", Value::Null)),
            "malformed",
            "exp",
        ),
        (
            signed(with(good.clone(), "repository_owner", "evil")),
            "no_rule",
            "repository",
        ),
        (
            signed(with(good.clone(), "repository", "acme/*")),
            "unfit",
            "repository",
        ),
        ("nonsense".to_owned(), "malformed", "identity token"),
        ("x".repeat(20_000), "malformed", "longer than"),
    ] {
        let shown: String = token.chars().take(80).collect();
        let rule = if outcome == "unfit" {
            "ci/branch"
        } else {
            "none"
        };
        let series =
            format!("layerd_token_exchanges_total{{rule=\"{rule}\",outcome=\"{outcome}\"}}");
        let before = Metrics::at(scene.hub.metrics_address())
            .await
            .value(&series);
        let (status, body) = scene.exchange(&token).await;
        assert_eq!(status, 400, "{shown}: {body}");
        let error = body["error"].as_str().unwrap();
        assert!(
            ["invalid_grant", "invalid_request"].contains(&error),
            "{body}"
        );
        let description = body["error_description"].as_str().unwrap();
        assert!(description.contains(told), "{shown}: {description}");
        // Rules are nobody's business.
        assert!(!description.contains("acme\""), "{description}");
        let after = Metrics::at(scene.hub.metrics_address())
            .await
            .value(&series);
        assert_eq!(after, before + 1.0, "{series}");
    }
    // None of these had the keys fetched more than once.
    assert_eq!(issuer.asked(), 1);
    scene.granted(&good).await;
}

#[tokio::test]
async fn a_request_of_the_wrong_shape_is_told_what_is_wrong() {
    let scene = Scene::new().await;
    let token = scene
        .issuer
        .sign("first", &claims(&scene.issuer, "push", MAIN, ""));
    let [grant, subject, kind] = form(&token);
    for (fields, error) in [
        (vec![], "invalid_request"),
        (vec![grant, subject], "invalid_request"),
        (vec![subject, kind], "invalid_request"),
        (vec![grant, subject, kind, subject], "invalid_request"),
        (
            vec![("grant_type", "password"), subject, kind],
            "unsupported_grant_type",
        ),
        (
            vec![grant, subject, ("subject_token_type", "saml2")],
            "invalid_request",
        ),
        (
            vec![grant, subject, kind, ("actor_token", "x")],
            "invalid_request",
        ),
        (
            vec![grant, subject, kind, ("requested_token_type", "x")],
            "invalid_request",
        ),
        (
            vec![grant, subject, kind, ("audience", "x")],
            "invalid_target",
        ),
        (
            vec![grant, subject, kind, ("resource", "http://x")],
            "invalid_target",
        ),
        (
            vec![grant, subject, kind, ("scope", "admin")],
            "invalid_scope",
        ),
    ] {
        let (status, body) = scene.post(&fields).await;
        assert_eq!(
            (status, body["error"].as_str().unwrap()),
            (400, error),
            "{body}"
        );
    }
    let fine = [
        grant,
        subject,
        kind,
        ("audience", "layerd"),
        ("scope", ""),
        ("x", "y"),
    ];
    assert_eq!(scene.post(&fine).await.0, 200);
    let long = "x".repeat(70 << 10);
    for (kind, body, status) in [
        ("application/json", "{}", 415),
        ("text/plain", "a=b", 415),
        ("application/x-www-form-urlencoded", long.as_str(), 413),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            "%ff%00=\u{0}",
            400,
        ),
    ] {
        let (found, _, body) = post(&scene.hub, kind, body).await;
        assert_eq!(found, status, "{kind}: {body}");
        assert!(body.contains("invalid_request"), "{body}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_slow_or_says_too_much_costs_its_own_jobs_alone() {
    let (lab, slow, well) = (Lab::new(), Issuer::start().await, Issuer::start().await);
    let tables = tables(&slow, "5m") + &tables(&well, "5m").replace("'ci'", "'well'");
    let hub = lab
        .hub("hub")
        .arguments(arguments(&lab, &tables).await)
        .start()
        .await;
    let scene = Scene {
        lab,
        issuer: slow,
        hub,
    };
    scene.issuer.answer(Answers::Never);
    let token = scene
        .issuer
        .sign("first", &claims(&scene.issuer, "push", MAIN, ""));
    let other = well.sign("first", &claims(&well, "push", MAIN, ""));
    let (waited, at_once) = tokio::join!(scene.exchange(&token), scene.exchange(&other));
    assert_eq!(at_once.0, 200, "{}", at_once.1);
    assert_eq!(waited.0, 503, "{}", waited.1);
    assert_eq!(waited.1["error"], "temporarily_unavailable");
    scene.issuer.answer(Answers::Huge);
    let (status, body) = scene.exchange(&token).await;
    assert_eq!(status, 503, "{body}");
    // Strangers are not told where the hub asks, nor what it was answered.
    assert!(!body.to_string().contains("127.0.0.1"), "{body}");
    scene.issuer.answer(Answers::Well);
    let recovered = crate::harness::until("keys again", async || {
        (scene.exchange(&token).await.0 == 200).then_some(())
    });
    recovered.await;
}

#[tokio::test]
async fn the_command_exchanges_what_a_file_the_environment_or_github_gives() {
    let scene = Scene::new().await;
    let identity = scene
        .issuer
        .sign("first", &claims(&scene.issuer, "push", MAIN, ""));
    let file = shown(&written(&scene.lab, "id.jwt", &identity));
    let exchange = ["token", "exchange", "--hub", scene.hub.url()];
    let of_file = [&exchange[..], &["--identity-token-file", &file]].concat();
    let token = layerd(of_file).await.ok().stdout;
    assert_eq!(explained(&token).await["write"], json!([MAIN]));

    let environment = [("LAYERD_IDENTITY_TOKEN", identity.as_str())];
    let token = layerd_with(&exchange, &environment, "").await.ok().stdout;
    assert_eq!(explained(&token).await["project"], "acme/shop");

    scene.issuer.identify(&identity);
    let asked = format!("{}/identity?v=1", scene.issuer.url());
    let environment = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", asked.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "asked"),
    ];
    let path = scene.lab.path("token");
    let out = shown(&path);
    let of_github = [&exchange[..], &["--github", "-o", &out]].concat();
    let outcome = layerd_with(&of_github, &environment, "").await.ok();
    assert_eq!(outcome.stdout, "");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(explained(&token).await["project"], "acme/shop");

    let outcome = layerd(of_github).await.failed();
    assert!(
        outcome.stderr.contains("id-token: write"),
        "{}",
        outcome.stderr
    );
    let outcome = layerd(exchange).await.failed();
    assert!(
        outcome.stderr.contains("LAYERD_IDENTITY_TOKEN"),
        "{}",
        outcome.stderr
    );
    let bad = scene
        .issuer
        .sign("other", &claims(&scene.issuer, "push", MAIN, ""));
    let environment = [("LAYERD_IDENTITY_TOKEN", bad.as_str())];
    let outcome = layerd_with(&exchange, &environment, "").await.failed();
    assert!(
        outcome.stderr.contains("does not publish"),
        "{}",
        outcome.stderr
    );

    // A hub without issuers says so.
    let plain = scene.lab.hub("plain").start().await;
    let elsewhere = [
        "token",
        "exchange",
        "--hub",
        plain.url(),
        "--identity-token-file",
        &file,
    ];
    let outcome = layerd(elsewhere).await.failed();
    assert!(
        outcome.stderr.contains("names no issuer"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn explain_says_offline_which_rule_matches_and_why_others_do_not() {
    let (lab, issuer) = (Lab::new(), Issuer::start().await);
    let config = shown(&written(&lab, "hub.toml", &tables(&issuer, "15m")));
    let identity = issuer.sign("first", &claims(&issuer, "push", MAIN, ""));
    let explain = ["token", "explain", "--config", &config, "-"];
    let told = layerd_with(&explain, &[], &identity).await.ok().stdout;
    for part in [
        "ci/pull-request",
        "\"event_name\" is \"push\", not \"pull_request\"",
        "ci/branch",
        "matches",
        "acme/shop",
        "refs/heads/main",
        "NOT CHECKED",
        "repository_owner",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (_, signature) = identity.rsplit_once('.').unwrap();
    assert!(!told.contains(signature));
    let foreign = with(
        claims(&issuer, "push", MAIN, ""),
        "repository_owner",
        "evil",
    );
    let foreign = issuer.sign("first", &foreign);
    let json = ["token", "explain", "--json", "--config", &config, "-"];
    let outcome = layerd_with(&json, &[], &foreign).await.failed();
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["rule"], Value::Null);
    assert_eq!(told["passed"].as_array().unwrap().len(), 3);
    assert!(
        told["refused"]
            .as_str()
            .unwrap()
            .contains("none of the hub's rules")
    );
    assert_eq!(told["claims"]["repository"], "acme/shop");
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn an_identity_of_a_branch_that_looks_like_another_gets_nothing() {
    let scene = Scene::new().await;
    for (git_ref, status) in [
        ("refs/heads/m\u{430}in", 400),
        ("refs/heads/ma\u{fe0f}in", 400),
        ("refs/heads/ветка", 200),
    ] {
        let claims = claims(&scene.issuer, "push", git_ref, "");
        let identity = scene.issuer.sign("first", &claims);
        let (told, body) = scene.exchange(&identity).await;
        assert_eq!(told, status, "{git_ref:?}: {body}");
        if status == 400 {
            let why = body["error_description"].as_str().unwrap();
            assert!(why.contains("nothing new is written to ref"), "{why}");
        }
    }
}
