//! The names of steps, kept from export to export.

use super::*;
use crate::catalog::ledger;
use crate::step::{Origin, StepName};

const DATE: &str = "2026-11-22T05:23:18.123456789Z";

/// An export of one layer whose record was made then.
fn dated(place: Place, steps: Vec<Step>) -> Publication {
    let mut publication = export(place, &["layer"]);
    let blob = Digest::of(b"layer");
    let config = json!({
        "layers": [{"blob": blob, "parent": -1}],
        "records": [{"digest": blob, "layers": [{"layer": 0, "createdAt": DATE}]}],
    });
    let config = Document::new(config.to_string().into());
    let manifest = String::from_utf8(publication.manifest.bytes.to_vec()).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"] = json!(config.digest);
    manifest["config"]["size"] = json!(config.bytes.len());
    publication.manifest = Document::new(manifest.to_string().into());
    publication.config = config;
    publication.steps = steps;
    publication.uploaded.insert(blob);
    publication
}

#[tokio::test]
async fn a_step_is_known_to_later_exports_of_its_project_and_to_no_other() {
    let (_dir, cache) = cache();
    let step = Step {
        record: Digest::of(b"layer").to_string().parse().unwrap(),
        created_at: DATE.parse().unwrap(),
        name: StepName::of("RUN make"),
        duration: std::time::Duration::from_millis(1500),
        origin: Some(Origin {
            builder: "runner-7".to_owned(),
            daemon: Some("x1".to_owned()),
        }),
    };
    let mut known = Vec::new();
    for (project, git_ref, steps) in [
        ("p", "main", vec![step.clone()]),
        ("p", "dev", vec![]),
        ("q", "main", vec![]),
    ] {
        upload(&cache, project, "layer").await;
        let publication = dated(place(project, git_ref), steps);
        known.push(cache.publish(publication).await.unwrap().steps);
    }
    assert_eq!(known, [vec![step.clone()], vec![step.clone()], vec![]]);
    let result = [(step.record.clone(), step.created_at)];
    let of = async |project: &str| {
        let project = project.parse().unwrap();
        cache.steps(&project, &result).await.unwrap()
    };
    assert_eq!(of("p").await, [step]);
    assert_eq!(of("q").await, []);
}

#[tokio::test]
async fn a_step_of_a_ref_that_may_not_be_read_is_named_to_nobody_who_may_not() {
    let (_dir, cache) = cache();
    let step = Step {
        record: Digest::of(b"layer").to_string().parse().unwrap(),
        created_at: DATE.parse().unwrap(),
        name: StepName::of("RUN secret"),
        duration: Default::default(),
        origin: None,
    };
    upload(&cache, "p", "layer").await;
    let secret = dated(place("p", "secret"), vec![step.clone()]);
    cache.publish(secret).await.unwrap();
    let (project, result) = ("p".parse().unwrap(), [(step.record, step.created_at)]);
    for (readable, known) in [
        ("main", 0),
        ("refs/heads/s*", 1),
        ("secret", 1),
        ("refs/tags/*", 0),
    ] {
        let readable = [readable.parse().unwrap()];
        let told = cache.steps_of(&project, Some(&readable), &result).await;
        assert_eq!(told.unwrap().len(), known, "{readable:?}");
        let mut export = dated(place("p", "main"), vec![]);
        export.readable = Some(readable.to_vec());
        let published = cache.publish(export).await.unwrap();
        assert_eq!(published.steps.len(), known, "{readable:?}");
        let flush = Flush {
            project: "p".parse().unwrap(),
            git_ref: Some("main".parse().unwrap()),
            scope: None,
        };
        cache
            .flush(&flush, &ledger::Origin::here(ledger::Actor::Anybody))
            .await
            .unwrap();
    }
}
