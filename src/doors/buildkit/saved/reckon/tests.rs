use jiff::Timestamp;

use super::*;
use crate::doors::buildkit::saved::Known;
use crate::step::Origin;

fn step(record: &str, made: i64, name: &str, seconds: u64) -> Step {
    Step {
        record: record.parse().unwrap(),
        created_at: Timestamp::from_second(made).unwrap(),
        name: StepName::of(name),
        duration: Duration::from_secs(seconds),
        origin: Some(Origin {
            builder: "runner-7".to_owned(),
            daemon: Some("other".to_owned()),
        }),
    }
}

fn names(names: &[&str]) -> Vec<StepName> {
    names.iter().map(|name| StepName::of(name)).collect()
}

/// Recorded and estimated seconds, for a daemon that has `known`.
fn seconds(cached: &[&str], hits: &[Step], served: &[Step], known: &Known) -> [u64; 2] {
    let paired = pair(names(cached), hits.to_vec());
    known.with(Some("mine"), |had| {
        let saved = reckon(&paired, served, had);
        [saved.recorded, saved.estimated].map(|time| time.as_secs())
    })
}

#[test]
fn what_exports_list_is_recorded_each_result_once() {
    let hits = [
        step("sha256:a", 1, "[a 1/2] RUN a", 3),
        step("sha256:a", 1, "[a 1/2] RUN a", 3),
        step("sha256:a", 2, "[a 2/2] RUN a", 5),
    ];
    let cached = ["[a 1/2] RUN a", "[a 2/2] RUN a"];
    assert_eq!(seconds(&cached, &hits, &hits, &Known::default()), [8, 0]);
}

#[test]
fn what_an_export_lists_counts_for_steps_that_were_cached() {
    let hits = [
        step("sha256:a", 1, "[a 1/2] RUN a", 3),
        step("sha256:b", 2, "[a 1/2] RUN b", 5),
        step("sha256:a", 3, "[a 1/3] RUN a", 7),
    ];
    let known = Known::default();
    assert_eq!(seconds(&["[a 1/2] RUN a"], &hits, &hits, &known), [3, 0]);
    assert_eq!(seconds(&["[a 1/9] RUN a"], &hits, &hits, &known), [7, 0]);
    let both = ["[a 1/9] RUN a", "[a 1/2] RUN a"];
    assert_eq!(seconds(&both, &hits, &hits, &known), [10, 0]);
    assert_eq!(seconds(&[], &hits, &hits, &known), [0, 0]);
}

#[test]
fn what_no_export_lists_is_estimated_by_the_newest_step_of_its_name() {
    let hits = [step("sha256:c", 1, "[c 9/9] RUN c", 1)];
    let served = [
        step("sha256:a", 1, "[a 1/2] RUN a", 3),
        step("sha256:a", 9, "[a 1/3] RUN a", 5),
        step("sha256:a", 4, "[a 1/2] RUN a", 7),
        hits[0].clone(),
    ];
    let known = Known::default();
    let cached = ["[c 1/1] RUN c", "[a 1/2] RUN a"];
    assert_eq!(seconds(&cached, &hits, &served, &known), [1, 7]);
    // A line was added to the Dockerfile.
    let cached = ["[c 1/1] RUN c", "[a 1/4] RUN a"];
    assert_eq!(seconds(&cached, &hits, &served, &known), [1, 5]);
    assert_eq!(seconds(&["RUN other"], &[], &served, &known), [0, 0]);
    assert_eq!(seconds(&[], &[], &served, &known), [0, 0]);
}

#[test]
fn nothing_is_estimated_where_a_name_is_that_of_several_records() {
    let served = [
        step("sha256:a", 1, "[a 1/2] RUN make", 3),
        step("sha256:b", 2, "[b 1/2] RUN make", 5),
    ];
    let known = Known::default();
    assert_eq!(seconds(&["[x 1/1] RUN make"], &[], &served, &known), [0, 0]);
    assert_eq!(seconds(&["[a 1/2] RUN make"], &[], &served, &known), [0, 3]);
}

#[test]
fn what_the_daemon_had_is_no_saving() {
    let hit = step("sha256:a", 1, "[a 1/1] RUN a", 3);
    let cached = ["[a 1/1] RUN a"];
    let mut own = hit.clone();
    own.origin = Some(Origin {
        builder: "runner-7".to_owned(),
        daemon: Some("mine".to_owned()),
    });
    let all = [hit.clone()];
    for (hits, served) in [(&[own.clone()][..], &[][..]), (&[], &[own.clone()])] {
        assert_eq!(seconds(&cached, hits, served, &Known::default()), [0, 0]);
    }
    // Nobody knows who ran it.
    own.origin = None;
    assert_eq!(seconds(&cached, &[own], &[], &Known::default()), [0, 0]);
    // Counted before, for it and for another one.
    for (daemon, recorded) in [("mine", 0), ("yours", 3)] {
        let known = Known::default();
        known.with(Some(daemon), |had| had.add(&all, &[]));
        assert_eq!(seconds(&cached, &all, &[], &known), [recorded, 0]);
        assert_eq!(seconds(&cached, &[], &all, &known), [0, recorded]);
    }
    // It ran a step of that name, and nobody knows with which result.
    let known = Known::default();
    known.with(Some("mine"), |had| had.add(&[], &names(&["[a 1/7] RUN a"])));
    assert_eq!(seconds(&cached, &[], &all, &known), [0, 0]);
    assert_eq!(seconds(&cached, &all, &[], &known), [3, 0]);
}
