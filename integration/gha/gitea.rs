//! Jobs of Gitea's runner. The runner itself needs a Gitea, which is not here;
//! this is the environment that it gives to jobs, by its sources
//! (internal/app/run/runner.go), with the token that Gitea makes
//! (services/actions/auth.go).
//!
//! | in the runner's configuration | what jobs get |
//! |---|---|
//! | `cache.enabled: false`, `runner.envs` | the first version at that `ACTIONS_CACHE_URL` |
//! | `cache.external_server`, older runners | the same |
//! | `cache.external_server`, newer ones | a forwarder of the runner, in both versions, which tells that server of each job first |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::harness::actions::Job;
use crate::harness::{Hub, Lab};

/// Where Gitea is: nobody answers there.
const GITEA: &str = "http://127.0.0.1:9";

/// As Gitea makes it: a scope without a name, that may be written, and numbers
/// of the task.
fn token(task: u64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "exp": now + 3600, "nbf": now,
        "scp": "Actions.Results:1:1", "TaskID": task, "RunID": 1, "JobID": 1,
        "ac": r#"[{"Scope":"","Permission":2}]"#,
    });
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    let header = part(json!({"alg": "HS256", "typ": "JWT"}).to_string());
    let signature = part("by a secret of Gitea's".to_owned());
    format!("{header}.{}.{signature}", part(claims.to_string()))
}

fn job(lab: &Lab, hub: &Hub, task: u64) -> Job {
    let folder = lab.path(&format!("task-{task}"));
    Job::new(folder, hub.url(), &token(task), 1)
        .variable("GITHUB_SERVER_URL", GITEA)
        .variable("ACTIONS_RESULTS_URL", GITEA)
        .variable("GITEA_ACTIONS", "true")
}

#[tokio::test]
async fn jobs_with_the_environment_and_the_token_of_gitea_share_what_they_save() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let first = job(&lab, &hub, 1);
    std::fs::write(first.folder().join("deps"), "of task 1").unwrap();
    let saved = first.save("deps", "deps-1").await;
    assert!(
        saved.result.as_i64().is_some_and(|id| id > 0),
        "{}",
        saved.log
    );
    let second = job(&lab, &hub, 2);
    let restored = second.restore("deps", "deps-2", &["deps-"]).await;
    assert_eq!(restored.result, "deps-1", "{}", restored.log);
    // Newer runners say that there is a second version, where they are asked
    // to forward, and edit what clients make of the name of a server.
    let third = job(&lab, &hub, 3)
        .variable("ACTIONS_RESULTS_URL", &format!("{}/", hub.url()))
        .variable("ACTIONS_CACHE_SERVICE_V2", "true")
        .variable("GITHUB_SERVER_URL", "https://github.com");
    let restored = third.restore("deps", "deps-1", &[]).await;
    assert_eq!(restored.result, "deps-1", "{}", restored.log);
    let content = std::fs::read_to_string(third.folder().join("deps")).unwrap();
    assert_eq!(content, "of task 1");
}

/// Such a runner warns of it and goes on, whatever the answer is.
#[tokio::test]
async fn a_runner_that_tells_of_a_job_first_is_answered() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    for what in ["register", "revoke"] {
        let told = reqwest::Client::builder()
            .tls_backend_preconfigured(layerd::tls::no_client().unwrap())
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("{}/_internal/{what}", hub.url()))
            .bearer_auth("secret")
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(told.status(), 404);
    }
}
