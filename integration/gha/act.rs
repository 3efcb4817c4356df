//! nektos/act, whose jobs have the client of actions/cache.

use super::ask::Ask;
use crate::harness::act::Act;
use crate::harness::{Lab, Outcome, layerd};

#[track_caller]
fn says(job: &Outcome, lines: &[&str]) {
    for line in lines {
        assert!(job.stdout.contains(line), "no {line:?} in {}", job.stdout);
    }
}

/// The first job has nothing and saves; the second, which stands in another
/// workspace, has what the first saved.
#[tokio::test]
async fn a_job_of_act_restores_what_another_one_saved() {
    for version in [1, 2] {
        let lab = Lab::new();
        let key = lab.path("ci.pem").display().to_string();
        layerd(["token", "key", "-o", &key]).await.ok();
        let arguments = ["--auth", "token", "--token-key-file", &key];
        let hub = lab.hub("hub").arguments(arguments).start().await;
        let mint = ["token", "mint", "--token-key-file", &key];
        let refs = ["--project=acme/shop", "--read=main", "--write=main"];
        let token = layerd(mint.iter().chain(&refs)).await.ok().stdout;
        let url = format!("{}/", hub.url());
        let mut variables = vec![
            ("ACTIONS_CACHE_URL", url.as_str()),
            ("ACTIONS_RESULTS_URL", &url),
            ("ACTIONS_RUNTIME_TOKEN", token.trim()),
        ];
        if version == 2 {
            variables.push(("ACTIONS_CACHE_SERVICE_V2", "true"));
        }
        let first = Act::new(&lab.folder("one")).push(&variables).await.ok();
        says(&first, &["built from nothing", "saved it"]);
        let second = Act::new(&lab.folder("two")).push(&variables).await.ok();
        let expected = ["found what a job has made", "built from deps-1"];
        says(&second, &expected);
        says(&second, &["did not save it"]);
        assert!(!second.stdout.contains("Warning"), "{}", second.stdout);
    }
}

/// act's own token has a scope without a name; without its server for artifacts
/// there is no token at all, and the client says so with an empty one.
#[tokio::test]
async fn jobs_of_act_need_no_token_where_the_hub_asks_for_none() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let url = format!("{}/", hub.url());
    let variables = [("ACTIONS_CACHE_URL", url.as_str())];
    let one = Act::new(&lab.folder("one"));
    says(
        &one.push(&variables).await.ok(),
        &["built from nothing", "saved it"],
    );
    let artifacts = lab.path("artifacts").display().to_string();
    let options = [
        "--artifact-server-path",
        &artifacts,
        "--artifact-server-addr",
        "127.0.0.1",
        "--artifact-server-port",
        "0",
    ];
    let two = Act::new(&lab.folder("two"));
    let second = two.push_with(&options, &variables).await.ok();
    says(&second, &["found what a job has made"]);
    let ask = Ask::new(hub.url(), Some(""));
    ask.reserve("key", "version").await.is(201);
}
