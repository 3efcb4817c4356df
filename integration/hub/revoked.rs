//! Tokens that are revoked while they are used, who did what, and what was
//! flushed, at hubs that share a store.

use jiff::Timestamp;
use layerd::cache::wire::v1;
use layerd::cache::wire::{self, v1::look_up_response::Part};
use layerd::cache::{Form, Limits};
use serde_json::Value;
use tonic::{Code, Status};

use super::access::{Gate, claims, signed, with};
use super::ask::{described, export, noise};
use super::blobs::{begin, commit, open, piece};
use super::{place, read};
use crate::harness::{HubClient, layerd, layerd_with, until};

async fn writable(client: &mut HubClient) -> Result<(), Status> {
    let place = Some(place("p", "main"));
    let answer = client.writable(v1::WritableRequest { place });
    answer.await.map(drop)
}

/// What the audit log has, newest first.
async fn audit(gate: &Gate, arguments: &[&str]) -> Vec<Value> {
    let dir = gate.hub.data_dir().display().to_string();
    let audit = ["audit", "--json", "--data-dir", &dir];
    let listed = layerd(audit.iter().chain(arguments)).await.ok();
    serde_json::from_str(&listed.stdout).unwrap()
}

/// The id of a token, as ours are.
const OTHER: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_hub_and_its_streams_end() {
    let gate = Gate::new().await;
    let keys = gate.lab.path("keys").display().to_string();
    let second = gate.lab.hub("two").data_dir(gate.hub.data_dir());
    let arguments = ["--auth", "token", "--token-key-file", &keys];
    let second = second.arguments(arguments).start().await;
    let leaked = signed("first", &with(claims(&["**"], &["**"]), "jti", "leaked"));
    let other = signed("first", &with(claims(&["**"], &["**"]), "jti", OTHER));
    let mut clients = Vec::new();
    for hub in [&gate.hub, &second] {
        let mut client = hub.client(Some(&leaked)).await;
        writable(&mut client).await.unwrap();
        clients.push(client);
    }
    let blob = noise(81, 500_000);
    let (digest, _) = described(&blob);
    let at = place("p", "main");
    let mut upload = begin(&mut clients[1], open(&at, &digest)).await.unwrap();
    assert_eq!(upload.offset().await.unwrap(), Some(0));

    let dir = gate.hub.data_dir().display().to_string();
    let revoke = [
        "token",
        "revoke",
        "--data-dir",
        &dir,
        "--reason",
        "in a log",
        "-",
    ];
    let told = layerd_with(revoke, &[], &leaked).await.ok().stdout;
    assert!(told.contains("token leaked of test is revoked"), "{told}");
    for client in &mut clients {
        let refused = until("it is revoked", async || writable(client).await.err()).await;
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        assert_eq!(refused.message(), "the token was revoked: get a new one");
    }
    let mut others = second.client(Some(&other)).await;
    writable(&mut others).await.unwrap();
    // What is sent byte by byte comes to an end.
    let ended = until("the upload is ended", async || {
        let sent = upload.pieces.send(piece(blob.slice(..1000))).await;
        match sent {
            Ok(()) => None,
            Err(_) => Some(()),
        }
    });
    ended.await;
    let ended = upload.stored().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");

    let revoked = audit(&gate, &["--action", "revoke"]).await;
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0]["details"]["token"], "leaked");
    assert_eq!(revoked[0]["details"]["why"], "in a log");
    assert_eq!(revoked[0]["actor"]["kind"], "user");
    let by_id = ["token", "revoke", "--data-dir", &dir, OTHER];
    layerd(by_id).await.ok();
    let refused = until("it is revoked", async || writable(&mut others).await.err()).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let gate = Gate::new().await;
    // With the minute by which clocks may differ.
    let soon = Timestamp::now().as_second() - 58;
    let short = with(claims(&["**"], &["**"]), "exp", soon);
    let short = with(with(short, "iat", soon - 100), "nbf", soon - 100);
    let mut client = gate.client(&short).await;
    let blob = noise(82, 500_000);
    let (digest, size) = described(&blob);
    let mut upload = begin(&mut client, open(&place("p", "main"), &digest))
        .await
        .unwrap();
    assert_eq!(upload.offset().await.unwrap(), Some(0));
    until("it has expired", async || writable(&mut client).await.err()).await;
    until("the upload is ended", async || {
        let sent = upload.pieces.send(piece(blob.slice(..1000))).await;
        sent.err()
    })
    .await;
    let _ = upload.pieces.send(commit(&digest, size)).await;
    let ended = upload.stored().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(ended.message().contains("has expired"), "{ended:?}");
}

/// What a look-up says where it finds nothing.
async fn nothing(client: &mut HubClient, git_ref: &str) -> v1::look_up_response::Nothing {
    let limits = Limits {
        records: 1000,
        form: Form::Whole,
    };
    let mut request = wire::look_up_request(&[], &limits);
    request.wants.push(v1::Want {
        place: Some(place("p", git_ref)),
        ..v1::Want::default()
    });
    let mut parts = client.look_up(request).await.unwrap().into_inner();
    match parts.message().await.unwrap().unwrap().part {
        Some(Part::Nothing(nothing)) => nothing,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn exports_and_flushes_are_in_the_audit_log_and_a_flush_is_told() {
    let gate = Gate::new().await;
    let token = gate.lab.path("token");
    let ops = with(claims(&["**"], &["**"]), "sub", "alice");
    std::fs::write(&token, signed("first", &ops)).unwrap();
    let mut client = gate.client(&claims(&["**"], &["**"])).await;
    assert_eq!(nothing(&mut client, "main").await.flushed_at_ns, None);
    let (blob, main) = (noise(83, 5000), place("p", "main"));
    export(&mut client, &main, std::slice::from_ref(&blob), "x").await;
    export(
        &mut client,
        &place("p", "dev"),
        std::slice::from_ref(&blob),
        "y",
    )
    .await;

    let file = token.display().to_string();
    let flush = [
        "cache",
        "flush",
        "--hub",
        gate.hub.url(),
        "--hub-token-file",
        &file,
    ];
    let wrong = layerd(flush.iter().chain(&["--project", "q"])).await;
    assert!(
        wrong
            .failed()
            .stderr
            .contains("the token is for project p, not for q")
    );
    let flushed = layerd(flush.iter().chain(&["--project", "p"])).await.ok();
    assert_eq!(
        flushed.stdout,
        "flushed 2 exports of project p, every ref, every scope\n"
    );
    let told = nothing(&mut client, "main").await;
    assert_eq!(told.flushed_by, "alice");
    let at = Timestamp::from_nanosecond(told.flushed_at_ns.unwrap().into()).unwrap();
    assert!(Timestamp::now().duration_since(at).as_secs().abs() < 60);
    read(&mut client, "p", &described(&blob).0, 0).await.ok();

    let entries = audit(&gate, &["--project", "p"]).await;
    let done: Vec<_> = entries
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(done, ["flush", "export", "export"]);
    assert_eq!(entries[0]["actor"]["subject"], "alice");
    assert_eq!(entries[0]["details"]["exports"], 2);
    assert_eq!(entries[2]["actor"]["id"], "1");
    assert_eq!(entries[2]["ref"], "refs/heads/main");
    assert!(entries[2]["request"].is_string());
    assert_eq!(entries[2]["details"]["builder"], "runner");
    let dir = gate.hub.data_dir().display().to_string();
    let table = layerd(["audit", "--data-dir", &dir, "--action", "flush"])
        .await
        .ok();
    assert!(table.stdout.contains("alice (token 1)"), "{}", table.stdout);

    // Once there is something newer it is no news, even if that is gone again.
    export(&mut client, &main, &[blob], "z").await;
    let here = [
        "cache",
        "flush",
        "--data-dir",
        &dir,
        "--project",
        "p",
        "--scope",
        "other",
    ];
    let flushed = layerd(here.iter().chain(&["--json"])).await.ok();
    let flushed: Value = serde_json::from_str(&flushed.stdout).unwrap();
    assert_eq!(
        (&flushed["exports"], &flushed["scope"]),
        (&0.into(), &"other".into())
    );
}
