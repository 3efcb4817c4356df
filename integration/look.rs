//! `layerd cache graph|diff` on exports that real builds have written, and what
//! leaves the log for a newer export.

use std::path::Path;

use futures::future::join_all;
use serde_json::Value;

use crate::harness::{Build, Lab, Outcome, layerd, until};
use crate::union::{TO, branch, build, four_branches, runner};

async fn cache(data: &Path, arguments: &[&str]) -> Outcome {
    let place = ["--data-dir", data.to_str().unwrap()];
    layerd(["cache"].iter().chain(arguments).chain(&place)).await
}

async fn json(data: &Path, arguments: &[&str]) -> Value {
    let text = cache(data, &[arguments, &["--json"]].concat()).await.ok();
    serde_json::from_str(&text.stdout).unwrap()
}

/// The names of steps, sorted.
fn names(steps: &Value) -> Vec<&str> {
    let steps = steps.as_array().unwrap().iter();
    let mut names: Vec<&str> = steps
        .map(|step| step["step"].as_str().expect("a step with a name"))
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn diff_names_the_step_whose_file_a_branch_changed_and_what_stands_on_it() {
    let lab = Lab::new();
    four_branches(&lab).await;
    let data = lab.path("data");
    let found = json(&data, &["diff", "1", "2"]).await;
    let copy = "[api 1/2] COPY api.txt /source";
    assert_eq!(names(&found["parts"]), [copy, copy], "{found:#}");
    for part in found["parts"].as_array().unwrap() {
        assert_eq!(part["reason"], "contents", "{part:#}");
        assert_eq!(part["inputs"], serde_json::json!([1]), "{part:#}");
        assert_eq!(names(&part["siblings"]), [copy]);
    }
    for side in ["a", "b"] {
        let follow = names(&found["follow"][side]);
        let starts: Vec<&str> = follow
            .iter()
            .map(|name| name.split_once(']').unwrap().0)
            .collect();
        let expected = [
            "[api 2/2",
            "[final 1/4",
            "[final 2/4",
            "[final 3/4",
            "[final 4/4",
        ];
        assert_eq!(starts, expected, "{found:#}");
    }
    let text = cache(&data, &["diff", "1", "2"]).await.ok().stdout;
    assert!(text.contains("the same command"), "{text}");
    assert!(!text.contains("web 1/2"), "{text}");

    let whole = json(&data, &["graph"]).await;
    let counts = &whole["counts"];
    assert_eq!(counts["exports"], 4);
    assert_eq!(whole["left_out"]["loops"], 0);
    assert_eq!(
        counts["records"],
        whole["records"].as_array().unwrap().len()
    );
    let own = json(&data, &["graph", "--ref", "main"]).await;
    assert_eq!(own["counts"]["exports"], 1);
    let table = cache(&data, &["graph"]).await.ok().stdout;
    assert!(table.contains("[base 1/1] ADD base.tar /"), "{table}");
    let dot = cache(&data, &["graph", "--format", "dot"])
        .await
        .ok()
        .stdout;
    assert!(
        dot.starts_with("digraph cache {") && dot.ends_with("}\n"),
        "{dot}"
    );

    // What is gone is told.
    let blob = std::fs::read_dir(data.join("blobs/sha256")).unwrap();
    std::fs::remove_file(blob.last().unwrap().unwrap().path()).unwrap();
    let whole = json(&data, &["graph"]).await;
    let absent = whole["left_out"]["absent_blobs"].as_array().unwrap();
    assert_eq!(absent.len(), 1, "{whole:#}");
    let text = cache(&data, &["graph"]).await.ok().stdout;
    assert!(
        text.contains("left out missing blobs (see layerd cache fsck): 1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_changed_command_stands_beside_the_one_that_it_took_the_place_of() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let daemon = runner(&lab, "one", "main").await;
    build(&lab, &daemon, &Build::of(&context).cache_to(TO)).await;
    let file = context.join("Dockerfile");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("RUN cat /source > /out", "RUN cat /source >> /out");
    std::fs::write(&file, text).unwrap();
    build(&lab, &daemon, &Build::of(&context).cache_to(TO)).await;
    let found = json(&lab.path("data"), &["diff", "1", "2"]).await;
    let parts = found["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 6, "{found:#}");
    for part in parts {
        assert_eq!(part["reason"], "command", "{part:#}");
        let place = |step: &Value| step["step"].as_str().unwrap()[..8].to_owned();
        assert_eq!(place(part), place(&part["siblings"][0]), "{part:#}");
    }
}

#[tokio::test]
async fn the_same_build_again_leaves_one_export_and_another_target_both() {
    let lab = Lab::new();
    let data = lab.path("data");
    let context = branch(&lab, "main", &[]);
    let daemon = runner(&lab, "one", "main").await;
    let ids = async || {
        let list = json(&data, &["ls"]).await;
        let exports = list.as_array().unwrap().iter();
        exports
            .map(|export| export["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let whole = || Build::of(&context).cache_to(TO);
    build(&lab, &daemon, &whole()).await;
    let named = json(&data, &["show", "1"]).await;
    build(&lab, &daemon, &whole()).await;
    until("the first export has left the log", async || {
        (ids().await == [2]).then_some(())
    })
    .await;
    let steps = |shown: &Value| {
        let records = shown["records"].as_array().unwrap().iter();
        let results = records.flat_map(|record| record["results"].as_array().unwrap());
        results.filter(|result| result["step"].is_string()).count()
    };
    let left = json(&data, &["show", "2"]).await;
    assert_eq!(steps(&left), steps(&named), "names are kept");
    assert!(steps(&left) >= 12, "{left:#}");

    let other = Build::of(&context).target("flavour").cache_to(TO);
    build(&lab, &daemon, &other).await;
    // A fresh daemon imports all of it, and exports it again.
    let second = runner(&lab, "two", "main").await;
    let again = whole().cache_from("type=gha-compatible");
    build(&lab, &second, &again).await.assert_all_cached(12);
    until("the whole build is left once", async || {
        (ids().await == [4, 3]).then_some(())
    })
    .await;
    let third = runner(&lab, "three", "main").await;
    for target in ["final", "flavour"] {
        let made = Build::of(&context)
            .target(target)
            .cache_from("type=gha-compatible");
        let steps = if target == "final" { 12 } else { 2 };
        build(&lab, &third, &made).await.assert_all_cached(steps);
    }
    cache(&data, &["fsck"]).await.ok();
}

#[tokio::test]
async fn writers_of_one_place_at_once_lose_nothing() {
    let lab = Lab::new();
    let context = branch(&lab, "main", &[]);
    let names = ["one", "two", "three"];
    let daemons = join_all(names.map(|name| runner(&lab, name, "main"))).await;
    // Each runs all steps itself, so that every result is there three times;
    // the second time, each exports what it has again.
    for _ in 0..2 {
        let whole = || Build::of(&context).cache_to(TO);
        join_all(
            daemons
                .iter()
                .map(async |daemon| build(&lab, daemon, &whole()).await),
        )
        .await;
    }
    for number in 0..3 {
        let reader = runner(&lab, &format!("reader-{number}"), "main").await;
        let out = lab.path(&format!("out-{number}"));
        let made = Build::of(&context)
            .cache_from("type=gha-compatible")
            .output_folder(&out);
        build(&lab, &reader, &made).await.assert_all_cached(12);
    }
    cache(&lab.path("data"), &["fsck"]).await.ok();
}
