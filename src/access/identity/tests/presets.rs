//! What jobs of GitHub and GitLab get, by claims as those make them.

use serde_json::{Value, json};

use super::{TABLES, config, granted, texts};

fn github(event: &str, git_ref: &str, base: &str) -> Value {
    json!({
        "sub": "repo:acme/shop:whatever", "repository": "acme/shop", "repository_owner": "acme",
        "repository_id": "74", "repository_owner_id": "65", "event_name": event,
        "ref": git_ref, "ref_type": "branch", "base_ref": base, "head_ref": "main",
    })
}

fn gitlab(source: &str, project: &str, job_project: Option<&str>, git_ref: &str) -> Value {
    let mut claims = json!({
        "sub": "project_path:x", "project_path": project, "project_id": "20",
        "namespace_path": project.split('/').next(), "pipeline_source": source,
        "ref": git_ref, "ref_type": "branch", "ref_path": format!("refs/heads/{git_ref}"),
        "ref_protected": "false",
    });
    if let Some(job_project) = job_project {
        claims["job_project_path"] = job_project.into();
    }
    claims
}

/// The rule, what may be read, and what may be written.
fn of_github(event: &str, git_ref: &str, base: &str) -> (String, Vec<String>, Vec<String>) {
    let config = config(TABLES);
    let (rule, granted) = granted(&config, "github", github(event, git_ref, base)).unwrap();
    assert_eq!(granted.project.as_str(), "acme/shop");
    assert_eq!(granted.subject, "repo:acme/shop:whatever");
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    (
        rule,
        owned(texts(&granted.read)),
        owned(texts(&granted.write)),
    )
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_pull_request_of_a_fork_reads_its_base_and_the_default_branch_and_writes_only_its_own_ref() {
    // The head is the fork's branch, which may have any name: here it is main.
    let (rule, read, write) = of_github("pull_request", "refs/pull/7/merge", "release/2");
    assert_eq!(rule, "github/pull-request");
    assert_eq!(
        read,
        [
            "refs/pull/7/merge",
            "refs/heads/release/2",
            "refs/heads/main"
        ]
    );
    assert_eq!(write, ["refs/pull/7/merge"]);
}

#[test]
fn a_branch_writes_itself_and_reads_itself_and_the_default_branch() {
    for (event, git_ref) in [
        ("push", "refs/heads/feat/x"),
        ("schedule", "refs/heads/feat/x"),
        ("push", "refs/tags/v1"),
        ("merge_group", "refs/heads/gh-readonly-queue/main/pr-7-abc"),
    ] {
        let (rule, read, write) = of_github(event, git_ref, "");
        assert_eq!(rule, "github/branch", "{event}");
        assert_eq!(read, [git_ref, "refs/heads/main"]);
        assert_eq!(write, [git_ref]);
    }
    let (_, read, write) = of_github("push", "refs/heads/main", "");
    assert_eq!(
        (read, write),
        (owned(&["refs/heads/main"]), owned(&["refs/heads/main"]))
    );
}

/// They claim the default branch, or the base, and may run what a stranger
/// wrote.
#[test]
fn an_event_that_a_stranger_can_cause_writes_nothing() {
    for event in [
        "pull_request_target",
        "workflow_run",
        "issue_comment",
        "issues",
        "repository_dispatch",
        "pull_request_review",
        "check_run",
        "dynamic",
        "an event of next year",
    ] {
        let (rule, read, write) = of_github(event, "refs/heads/main", "");
        assert_eq!(rule, "github/other", "{event}");
        assert_eq!(read, ["refs/heads/main"]);
        assert!(write.is_empty(), "{event}");
    }
    // A pull request that was merged runs under the ref of its base.
    let (_, read, write) = of_github("pull_request", "refs/heads/release/2", "release/2");
    assert_eq!(read, ["refs/heads/release/2", "refs/heads/main"]);
    assert!(write.is_empty());
}

#[test]
fn nobody_elses_repository_gets_anything() {
    let config = config(TABLES);
    for owner in ["acme-evil", "evil", "ACME", ""] {
        let mut claims = github("push", "refs/heads/main", "");
        claims["repository_owner"] = owner.into();
        claims["repository"] = format!("{owner}/shop").into();
        assert!(granted(&config, "github", claims).is_none(), "{owner}");
    }
    let mut claims = github("push", "refs/heads/main", "");
    claims.as_object_mut().unwrap().remove("repository_owner");
    assert!(granted(&config, "github", claims).is_none());
    // Nor do claims of one issuer count for rules of another.
    assert!(granted(&config, "gitlab", github("push", "refs/heads/main", "")).is_none());
}

#[test]
fn a_merge_request_of_a_fork_writes_only_a_ref_that_no_branch_has() {
    let config = config(TABLES);
    let claims = gitlab(
        "merge_request_event",
        "mallory/shop",
        Some("acme/shop"),
        "trunk",
    );
    let (rule, grant) = granted(&config, "gitlab", claims).unwrap();
    assert_eq!(rule, "gitlab/merge-request");
    assert_eq!(grant.project.as_str(), "acme/shop");
    assert_eq!(texts(&grant.write), ["refs/merge-requests/20/trunk"]);
    assert_eq!(
        texts(&grant.read),
        [
            "refs/merge-requests/20/trunk",
            "refs/heads/trunk",
            "refs/heads/release/*"
        ]
    );
    // A GitLab that says where it goes.
    let mut claims = gitlab(
        "merge_request_event",
        "acme/shop",
        Some("acme/shop"),
        "trunk",
    );
    claims["target_ref"] = "develop".into();
    let (_, grant) = granted(&config, "gitlab", claims).unwrap();
    assert!(texts(&grant.read).contains(&"refs/heads/develop"));
    assert_eq!(texts(&grant.write), ["refs/merge-requests/20/trunk"]);
    // A GitLab that does not say where a job runs: reading is all there is.
    let claims = gitlab("merge_request_event", "acme/shop", None, "trunk");
    let (rule, grant) = granted(&config, "gitlab", claims).unwrap();
    assert_eq!(rule, "gitlab/other");
    assert!(grant.write.is_empty());
    // In the fork itself, which is not let in.
    let claims = gitlab(
        "merge_request_event",
        "mallory/shop",
        Some("mallory/shop"),
        "trunk",
    );
    assert!(granted(&config, "gitlab", claims).is_none());
}

#[test]
fn a_branch_of_gitlab_writes_itself_and_its_children_do() {
    let config = config(TABLES);
    for (source, job_project, rule) in [
        ("push", None, "gitlab/branch"),
        ("web", Some("acme/a/b"), "gitlab/branch"),
        ("parent_pipeline", Some("acme/a/b"), "gitlab/child"),
    ] {
        let claims = gitlab(source, "acme/a/b", job_project, "feat/x");
        let (matched, grant) = granted(&config, "gitlab", claims).unwrap();
        assert_eq!(matched, rule);
        assert_eq!(grant.project.as_str(), "acme/a/b");
        assert_eq!(texts(&grant.write), ["refs/heads/feat/x"]);
        assert_eq!(grant.lifetime.as_secs(), 300);
    }
    // Whose merge request the child belongs to is not known there.
    let claims = gitlab("parent_pipeline", "acme/shop", None, "trunk");
    let (rule, grant) = granted(&config, "gitlab", claims).unwrap();
    assert_eq!((rule.as_str(), grant.write.len()), ("gitlab/other", 0));
    // A child of a fork's merge request is the fork's, which is not let in.
    let claims = gitlab(
        "parent_pipeline",
        "mallory/shop",
        Some("acme/shop"),
        "trunk",
    );
    assert!(granted(&config, "gitlab", claims).is_none());
}

#[test]
fn claims_that_name_one_owner_and_the_repository_of_another_match_nothing() {
    let config = config(TABLES);
    let mut claims = github("push", "refs/heads/main", "");
    assert!(granted(&config, "github", claims.clone()).is_some());
    for repository in ["evil/shop", "acme", "acme-evil/shop", "acme/shop/x"] {
        claims["repository"] = repository.into();
        let granted = granted(&config, "github", claims.clone());
        assert!(granted.is_none(), "{repository}");
    }
    let tables = TABLES.replace("repositories = [\"acme/**\"]", "owners = [\"acme\"]");
    let config = super::config(&tables);
    let mut claims = gitlab("push", "acme/shop", None, "main");
    assert!(granted(&config, "gitlab", claims.clone()).is_some());
    claims["project_path"] = "evil/shop".into();
    assert!(granted(&config, "gitlab", claims).is_none());
}
