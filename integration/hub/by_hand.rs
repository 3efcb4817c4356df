//! What is done in a store by hand: the hub goes by it, and its audit log tells.

use serde_json::Value;

use super::access::{Gate, claims};
use super::admin::{admin, told};
use super::ask::{described, export, noise};
use super::place;
use crate::harness::{layerd, until};

/// What a command says as JSON that works on the store itself.
async fn here(gate: &Gate, command: &[&str]) -> Value {
    let dir = gate.hub.data_dir().display().to_string();
    let store = ["--json", "--data-dir", &dir];
    let said = layerd(command.iter().chain(&store)).await.ok();
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn whatever_is_removed_or_brought_by_hand_is_in_the_audit_log() {
    let gate = Gate::new().await;
    let mut client = gate.client(&claims(&["**"], &["**"])).await;
    for (seed, git_ref) in [(1, "main"), (2, "dev")] {
        export(
            &mut client,
            &place("p", git_ref),
            &[noise(seed, 1000)],
            git_ref,
        )
        .await;
    }
    let archive = gate.lab.path("archive").display().to_string();
    here(&gate, &["cache", "export", "-o", &archive]).await;
    here(&gate, &["cache", "import", &archive, "--project", "q"]).await;
    here(&gate, &["cache", "gc", "--quota", "q=1500"]).await;
    // Both of what is left name one that is damaged.
    let (digest, _) = described(&noise(1, 1000));
    let blob = gate.hub.data_dir().join("blobs/sha256").join(digest.hex());
    std::fs::write(&blob, noise(3, 1000)).unwrap();
    here(&gate, &["cache", "fsck", "--repair"]).await;
    let audit = here(&gate, &["audit"]).await;
    let audit = audit.as_array().unwrap();
    let of = |action: &str| {
        let of = audit.iter().filter(|entry| entry["action"] == action);
        of.collect::<Vec<_>>()
    };
    assert!(
        audit.iter().all(|entry| entry["actor"]["kind"] == "user"
            || entry["action"] == "export"
            || entry["actor"]["kind"] == "layerd"),
        "{audit:#?}"
    );
    let [import] = of("import")[..] else {
        panic!("{audit:#?}")
    };
    assert_eq!(
        (&import["project"], &import["details"]["exports"]),
        (&"q".into(), &2.into())
    );
    let gc = of("evict")
        .into_iter()
        .find(|entry| entry["actor"]["kind"] == "user");
    assert_eq!(gc.unwrap()["details"]["exports"], 1, "{audit:#?}");
    assert!(!of("delete").is_empty(), "{audit:#?}");
    assert!(
        of("delete")
            .iter()
            .all(|entry| entry["project"].is_string())
    );
    assert_eq!(of("repair")[0]["details"]["damaged"], 1, "{audit:#?}");
}

#[tokio::test]
async fn what_is_settled_in_a_store_counts_at_its_hub() {
    let gate = Gate::new().await;
    let all = admin(&gate, None).await;
    let settled = here(&gate, &["project", "set", "p", "--max-bytes", "1GiB"]).await;
    assert_eq!(settled["max_bytes"], 1 << 30);
    let shown = told(&gate, &all, &["project", "show", "p"]).await;
    assert_eq!(shown["settings"], settled);
    let dir = gate.hub.data_dir().display().to_string();
    layerd(["project", "unset", "p", "--data-dir", &dir])
        .await
        .ok();
    let gone = layerd(["project", "show", "p", "--data-dir", &dir]).await;
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stderr.contains("there is no project p"),
        "{}",
        gone.stderr
    );
}

#[tokio::test]
async fn a_hub_says_whether_a_token_was_revoked() {
    let gate = Gate::new().await;
    let all = admin(&gate, None).await;
    let mint = ["token", "mint", "--project", "p", "--read", "main"];
    let minted = told(&gate, &all, &mint).await;
    let token = minted["token"].as_str().unwrap();
    let online = ["--hub", gate.hub.url(), "--hub-token-file", &all];
    let explain =
        async |more: &[&str]| layerd(["token", "explain", token].iter().chain(more)).await;
    let said = explain(&online).await.ok().stdout;
    assert!(said.contains("no: the hub takes it"), "{said}");
    let said = explain(&[]).await.ok().stdout;
    assert!(said.contains("NOT KNOWN: no hub was asked"), "{said}");
    here(&gate, &["token", "revoke", minted["id"].as_str().unwrap()]).await;
    let refused = until("the hub knows it", async || {
        let said = explain(&online).await;
        (said.code == Some(1)).then_some(said.stdout)
    });
    let refused = refused.await;
    assert!(refused.contains("the token was revoked"), "{refused}");
    assert!(refused.contains("revoked   YES"), "{refused}");
    assert!(refused.contains("signature right, by the hub"), "{refused}");
    // A hub that does not say it leaves the rest as it is.
    let wrong = ["--hub", gate.hub.url()];
    let said = explain(&wrong).await.ok().stdout;
    assert!(
        said.contains("NOT KNOWN, since the hub does not say: an admin token is needed"),
        "{said}"
    );
}
