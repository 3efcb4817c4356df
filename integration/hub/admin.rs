//! A hub that is administered: every command that works on one, by an
//! administrator of all projects and by those of two.

use serde_json::Value;

use super::access::{Gate, claims, with};
use super::ask::{described, export, noise};
use super::place;
use crate::harness::layerd;

/// An admin token in a file of the lab; of a project, or of all.
pub async fn admin(gate: &Gate, project: Option<&str>) -> String {
    let keys = gate.lab.path("keys").display().to_string();
    let mint = ["token", "mint", "--admin", "--token-key-file", &keys];
    let of = project.map(|project| ["--project", project]);
    let minted = layerd(mint.iter().chain(of.iter().flatten())).await.ok();
    let file = gate
        .lab
        .path(&format!("admin-{}", project.unwrap_or("all")));
    std::fs::write(&file, minted.stdout.trim()).unwrap();
    file.display().to_string()
}

/// What a command says as JSON that asks the hub with that token.
pub async fn told(gate: &Gate, token: &str, command: &[&str]) -> Value {
    let hub = ["--json", "--hub", gate.hub.url(), "--hub-token-file", token];
    let said = layerd(command.iter().chain(&hub)).await.ok();
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn every_command_works_on_a_hub_as_on_its_store() {
    let gate = Gate::new().await;
    for project in ["p", "q"] {
        let token = with(claims(&["**"], &["**"]), "project", project);
        let mut client = gate.client(&token).await;
        export(
            &mut client,
            &place(project, "main"),
            &[noise(3, 1000)],
            project,
        )
        .await;
    }
    let (all, own) = (admin(&gate, None).await, admin(&gate, Some("p")).await);
    let dir = gate.hub.data_dir().display().to_string();
    for command in [
        &["cache", "ls"][..],
        &["cache", "show", "1"],
        &["cache", "diff", "1", "2"],
        &["cache", "savings"],
        &["audit"],
        &["token", "ls"],
        &["project", "ls"],
        &["project", "show", "q"],
    ] {
        let here = ["--json", "--data-dir", &dir];
        let here = layerd(command.iter().chain(&here)).await.ok();
        let here: Value = serde_json::from_str(&here.stdout).unwrap();
        assert_eq!(told(&gate, &all, command).await, here, "{command:?}");
    }
    let graph = ["cache", "graph", "--project", "p"];
    let (digest, _) = described(&noise(3, 1000));
    let blob = gate.hub.data_dir().join("blobs/sha256").join(digest.hex());
    for missing in [0, 1] {
        let here = ["--json", "--data-dir", &dir];
        let here = layerd(graph.iter().chain(&here)).await.ok();
        let here: Value = serde_json::from_str(&here.stdout).unwrap();
        assert_eq!(here["counts"]["records"], 1, "{here:#}");
        let absent = here["left_out"]["absent_blobs"].as_array().unwrap();
        assert_eq!(absent.len(), missing, "{here:#}");
        assert_eq!(told(&gate, &own, &graph).await, here);
        std::fs::rename(&blob, gate.lab.path("layer")).ok();
    }
    std::fs::rename(gate.lab.path("layer"), &blob).unwrap();
    // Whoever administers one project sees that alone.
    let listed = told(&gate, &own, &["cache", "ls"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["project"], "p");
    assert_eq!(
        told(&gate, &own, &["project", "ls"]).await[0]["project"],
        "p"
    );
    let hub = ["--hub", gate.hub.url(), "--hub-token-file", &own];
    for command in [&["project", "show", "q"][..], &["cache", "show", "2"]] {
        let refused = layerd(command.iter().chain(&hub)).await;
        assert_eq!(refused.code, Some(1), "{command:?}");
        assert!(refused.stderr.contains("there is no"), "{}", refused.stderr);
    }
    let set = ["project", "set", "q", "--max-bytes", "1GiB"];
    assert_eq!(told(&gate, &all, &set).await["max_bytes"], 1 << 30);
    let collected = told(&gate, &all, &["cache", "gc", "--dry-run"]).await;
    assert_eq!(collected["collected"]["exports_after"], 2);
    let flushed = told(&gate, &own, &["cache", "flush", "--project", "p"]).await;
    assert_eq!(flushed["exports"], 1);
    let minted = told(
        &gate,
        &own,
        &["token", "mint", "--project", "p", "--read", "main"],
    );
    let token = minted.await["id"].as_str().unwrap().to_owned();
    told(&gate, &all, &["token", "revoke", &token]).await;
    let actions = told(&gate, &all, &["audit"]).await;
    let actions = actions.as_array().unwrap().iter();
    let actions: Vec<_> = actions
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        ["revoke", "mint", "flush", "quota", "export", "export"]
    );
}

#[tokio::test]
async fn why_a_hub_can_not_be_asked_is_said_in_words() {
    let gate = Gate::new().await;
    let all = admin(&gate, None).await;
    let wrong = gate.lab.path("wrong").display().to_string();
    std::fs::write(&wrong, "nonsense").unwrap();
    for (hub, token, words) in [
        ("http://127.0.0.1:1", all.as_str(), "refused"),
        (gate.hub.url(), &wrong, "token"),
        (gate.hub.url(), "/nowhere", "/nowhere"),
    ] {
        let asked = ["cache", "ls", "--hub", hub, "--hub-token-file", token];
        let refused = layerd(asked).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}
