//! The client that actions/cache has, in both versions.

use serde_json::Value;

use crate::harness::actions::Job;
use crate::harness::{Hub, Lab, runtime_token, tree};

const MAIN: [(&str, u8); 1] = [("refs/heads/main", 3)];

/// A job of a project, in a folder of that name.
fn job(lab: &Lab, hub: &Hub, name: &str, version: u8) -> Job {
    let token = runtime_token("acme/shop", &MAIN);
    Job::new(lab.path(name), hub.url(), &token, version)
}

fn fill(job: &Job, content: &str) {
    let folder = job.folder().join("deps/inner");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), content).unwrap();
}

fn found(job: &Job) -> Option<String> {
    std::fs::read_to_string(job.folder().join("deps/inner/file")).ok()
}

async fn saves_and_restores(version: u8) {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    let one = job(&lab, &hub, "one", version);
    let miss = one.restore("deps", "deps-1", &["deps-"]).await;
    assert_eq!(miss.result, Value::Null, "{}", miss.log);
    assert!(
        !miss.log.contains("##[error]") && !miss.log.contains("::warning::"),
        "{}",
        miss.log
    );

    fill(&one, "first");
    let saved = one.save("deps", "deps-1").await;
    assert!(
        saved.result.as_i64().is_some_and(|id| id > 0),
        "{}",
        saved.log
    );
    let two = job(&lab, &hub, "two", version);
    let restored = two.restore("deps", "deps-1", &[]).await;
    assert_eq!(restored.result, "deps-1", "{}", restored.log);
    assert_eq!(found(&two).as_deref(), Some("first"));

    // Taken: the job is told so, and goes on.
    fill(&one, "other");
    let taken = one.save("deps", "deps-1").await;
    assert_eq!(taken.result, -1, "{}", taken.log);
    assert!(
        taken.log.contains("another job may be creating this cache"),
        "{}",
        taken.log
    );
    assert!(
        !taken.log.contains("Attempt 1 of"),
        "it tried again: {}",
        taken.log
    );

    fill(&one, "second");
    one.save("deps", "deps-2").await;
    let three = job(&lab, &hub, "three", version);
    let looked = three.look("deps", "deps-9", &["other-", "deps-"]).await;
    assert_eq!(looked.result, "deps-2", "{}", looked.log);
    assert_eq!(found(&three), None, "it was to look only");
    let restored = three.restore("deps", "deps-9", &["other-", "deps-"]).await;
    assert_eq!(restored.result, "deps-2", "{}", restored.log);
    assert_eq!(found(&three).as_deref(), Some("second"));
    // Another path is another version.
    let other = three.restore("other", "deps-1", &["deps-"]).await;
    assert_eq!(other.result, Value::Null, "{}", other.log);
}

#[tokio::test]
async fn the_first_version_saves_restores_and_misses() {
    saves_and_restores(1).await;
}

#[tokio::test]
async fn the_second_version_saves_restores_and_misses() {
    saves_and_restores(2).await;
}

#[tokio::test]
async fn what_one_version_saves_the_other_restores() {
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    for (from, to) in [(1, 2), (2, 1)] {
        let key = format!("from-{from}");
        let one = job(&lab, &hub, &format!("saves-{from}"), from);
        fill(&one, &key);
        let saved = one.save("deps", &key).await;
        assert!(
            saved.result.as_i64().is_some_and(|id| id > 0),
            "{}",
            saved.log
        );
        let two = job(&lab, &hub, &format!("restores-{from}"), to);
        let restored = two.restore("deps", &key, &[]).await;
        assert_eq!(restored.result, *key, "{}", restored.log);
        assert_eq!(found(&two), Some(key));
    }
}

/// Large enough for blocks of 64 MiB, 8 at a time, in the second version, and
/// for chunks of 32 MiB, 4 at a time, in the first.
#[tokio::test]
async fn many_blocks_at_a_time_become_one_entry() {
    const MIB: usize = 300;
    let lab = Lab::new();
    let hub = lab.hub("hub").start().await;
    for version in [1, 2] {
        let one = job(&lab, &hub, &format!("saves-{version}"), version);
        std::fs::create_dir(one.folder().join("deps")).unwrap();
        for part in 0..3 {
            let seed = (u64::from(version) << 8) + part;
            let content = crate::hub::noise(seed, (MIB / 3) << 20);
            std::fs::write(one.folder().join(format!("deps/{part}")), content).unwrap();
        }
        let key = format!("large-{version}");
        let saved = one.save("deps", &key).await;
        assert!(
            saved.result.as_i64().is_some_and(|id| id > 0),
            "{}",
            saved.log
        );
        let two = job(&lab, &hub, &format!("restores-{version}"), version);
        let restored = two.restore("deps", &key, &[]).await;
        assert_eq!(restored.result, *key, "{}", restored.log);
        let trees = [&one, &two].map(|job| tree(&job.folder().join("deps")));
        assert!(
            trees[0] == trees[1],
            "what was restored is not what was saved"
        );
    }
}
