//! What goes, by example and by property.

mod properties;

use super::*;
use crate::digest::Digest;

const DAY: i64 = 24 * 3600;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(days * DAY)
}

fn export(id: i64, project: &str, git_ref: &str, days: i64, blobs: &[(&str, u64)]) -> KeptExport {
    KeptExport {
        id: ExportId(id),
        place: Place {
            project: project.parse().unwrap(),
            git_ref: git_ref.parse().unwrap(),
            scope: Default::default(),
        },
        kind: Default::default(),
        time: ago(days),
        used: None,
        blobs: blobs
            .iter()
            .map(|(name, size)| (Digest::of(name.as_bytes()), *size))
            .collect(),
    }
}

fn days(days: u64) -> Option<Duration> {
    Some(Duration::from_secs(days * DAY as u64))
}

fn plan(log: &[KeptExport], limits: &Limits) -> Plan {
    planned(log, limits, &[])
}

fn all(log: &[KeptExport]) -> Log {
    let mut all = Log::default();
    log.iter().for_each(|export| all.add(export));
    all
}

fn planned(log: &[KeptExport], limits: &Limits, subsumed: &[i64]) -> Plan {
    let all = all(log);
    let subsumed = subsumed.iter().map(|id| ExportId(*id)).collect();
    all.plan(limits, &subsumed, now())
}

fn gone(plan: &Plan) -> Vec<(i64, Reason)> {
    let victims = plan.victims.iter();
    victims.map(|victim| (victim.id.0, victim.reason)).collect()
}

#[test]
fn the_newest_entry_of_a_default_branch_goes_like_any_other() {
    let entry = |id, days| KeptExport {
        kind: Kind::Entry,
        ..export(id, "p", "main", days, &[(&format!("entry {id}"), 10)])
    };
    let cache = export(1, "p", "main", 100, &[("cache", 10)]);
    let mut log = Log::default();
    let used = export(4, "p", "dev", 0, &[("used", 10)]);
    for export in [&cache, &entry(2, 100), &entry(3, 100), &used] {
        log.add(export);
    }
    assert!(log.newest_of_many().is_empty(), "entries are not compared");
    let limits = Limits {
        max_age: Some(Duration::from_secs(24 * 3600)),
        ..Limits::default()
    };
    let plan = log.plan(&limits, &HashSet::new(), ago(0));
    let gone: Vec<i64> = plan.victims.iter().map(|victim| victim.id.0).collect();
    assert_eq!(gone, [2, 3]);
}

#[test]
fn without_limits_nothing_goes() {
    let log = [export(1, "p", "dev", 9000, &[("a", 1 << 40)])];
    let plan = plan(&log, &Limits::default());
    assert_eq!(gone(&plan), []);
    assert_eq!(plan.before, plan.after);
}

#[test]
fn an_export_frees_what_no_other_names() {
    let log = [
        export(1, "p", "dev", 40, &[("base", 100), ("one", 10)]),
        export(2, "p", "next", 1, &[("base", 100), ("two", 5)]),
    ];
    let limits = Limits {
        max_age: days(30),
        ..Limits::default()
    };
    let plan = plan(&log, &limits);
    assert_eq!(gone(&plan), [(1, Reason::Expired)]);
    assert_eq!(plan.victims[0].frees, 10);
    assert_eq!((plan.before.bytes, plan.after.bytes), (115, 105));
    assert_eq!((plan.before.blobs, plan.after.blobs), (3, 2));
}

#[test]
fn what_was_read_lately_is_young() {
    let mut read = export(1, "p", "dev", 40, &[("a", 1)]);
    read.used = Some(ago(2));
    let limits = Limits {
        max_age: days(30),
        ..Limits::default()
    };
    assert_eq!(gone(&plan(&[read], &limits)), []);
}

#[test]
fn subsumed_then_idle_then_expired_then_the_oldest_of_the_biggest() {
    let log = [
        export(1, "small", "dev", 20, &[("s", 10)]),
        export(2, "p", "dev", 9, &[("a", 100)]),
        export(3, "p", "gone", 12, &[("b", 50)]),
        export(4, "p", "dev", 8, &[("c", 60)]),
        export(5, "p", "dev", 7, &[("d", 60)]),
        export(6, "p", "dev", 6, &[("e", 60)]),
    ];
    let limits = Limits {
        max_bytes: Some(100),
        max_age: days(15),
        ref_idle: days(10),
        ..Limits::default()
    };
    let idle = Limits {
        projects: BTreeMap::from([(
            "small".parse().unwrap(),
            ProjectLimits {
                max_age: days(365),
                max_bytes: None,
            },
        )]),
        ref_idle: None,
        ..limits.clone()
    };
    let expected = [
        (2, Reason::Subsumed),
        (1, Reason::IdleRef),
        (3, Reason::IdleRef),
        (4, Reason::Size),
        (5, Reason::Size),
    ];
    assert_eq!(gone(&planned(&log, &limits, &[2])), expected);
    // Of the small one nothing goes: the other is over its share.
    let expected = [3, 2, 4, 5].map(|id| (id, Reason::Size));
    assert_eq!(gone(&plan(&log, &idle)), expected);
}

#[test]
fn a_project_is_cut_to_its_quota_and_no_other_for_it() {
    let log = [
        export(1, "p", "dev", 9, &[("a", 100)]),
        export(2, "q", "dev", 9, &[("b", 900)]),
        export(3, "p", "dev", 8, &[("c", 60)]),
    ];
    let quota = ProjectLimits {
        max_bytes: Some(70),
        max_age: None,
    };
    let limits = Limits {
        projects: BTreeMap::from([("p".parse().unwrap(), quota)]),
        ..Limits::default()
    };
    assert_eq!(gone(&plan(&log, &limits)), [(1, Reason::Quota)]);
}

#[test]
fn a_default_branch_stays_longer_and_its_newest_export_goes_last() {
    let log = [
        export(1, "p", "main", 50, &[("a", 10)]),
        export(2, "p", "main", 40, &[("b", 10)]),
        export(3, "p", "dev", 20, &[("c", 10)]),
        export(4, "p", "dev", 1, &[("d", 10)]),
    ];
    let cut = |bytes| {
        let limits = Limits {
            max_bytes: Some(bytes),
            ..Limits::default()
        };
        gone(&plan(&log, &limits))
    };
    let order = [3, 1, 4, 2].map(|id| (id, Reason::Size));
    for left in 0..4 {
        assert_eq!(cut(left * 10), order[..4 - left as usize]);
    }
    let aged = |max_age| {
        let limits = Limits {
            max_age: days(max_age),
            ..Limits::default()
        };
        gone(&plan(&log, &limits))
    };
    assert_eq!(aged(30), []);
    assert_eq!(aged(15), [(3, Reason::Expired)]);
    assert_eq!(aged(11), [(1, Reason::Expired), (3, Reason::Expired)]);
    let one_left = [1, 3].map(|id| (id, Reason::Expired));
    assert_eq!(aged(2), one_left, "the project is in use");
    let all = [1, 3, 4, 2].map(|id| (id, Reason::Expired));
    assert_eq!(aged(0), all, "nobody uses it any more");
}

#[test]
fn the_oldest_make_room_in_a_quota_and_a_default_branch_stays() {
    let log = || {
        vec![
            export(1, "p", "main", 50, &[("a", 10), ("base", 20)]),
            export(2, "p", "dev", 9, &[("b", 10), ("base", 20)]),
            export(3, "p", "dev", 8, &[("c", 10)]),
        ]
    };
    let room = |git_ref: &str, size, quota| {
        let new = export(9, "p", git_ref, 0, &[("base", 20), ("new", size)]);
        let into = (&new.place, &new.blobs[..]);
        make_room(all(&log()), into, quota, &Limits::default(), now())
            .map(|victims| victims.iter().map(|victim| victim.id.0).collect::<Vec<_>>())
    };
    assert_eq!(room("dev", 10, 60), Ok(vec![]));
    assert_eq!(room("dev", 10, 50), Ok(vec![2]));
    assert_eq!(room("dev", 10, 40), Ok(vec![2, 3]));
    assert_eq!(room("dev", 11, 40), Err(NoRoom { needed: 41 }));
    // It will be the newest of that branch.
    assert_eq!(room("main", 11, 40), Ok(vec![1, 2, 3]));
    // Those of its own ref go before older ones of others.
    assert_eq!(room("other", 10, 50), Ok(vec![2]));
    assert_eq!(room("main", 10, 50), Ok(vec![1]));
    assert_eq!(room("dev", 100, 40), Err(NoRoom { needed: 130 }));
}

#[test]
fn two_blobs_whose_digests_begin_alike_are_two() {
    let named = |id: i64, project: &str, last: char, size: u64| {
        let digest = format!("sha256:{}{last}", "7".repeat(63)).parse().unwrap();
        KeptExport {
            blobs: vec![(digest, size)],
            ..export(id, project, "dev", id, &[])
        }
    };
    let log = [named(1, "p", '1', 10), named(2, "q", '2', 1000)];
    let half = Limits {
        max_bytes: Some(500),
        ..Limits::default()
    };
    let plan = plan(&log, &half);
    assert_eq!((plan.before.blobs, plan.before.bytes), (2, 1010));
    assert_eq!(gone(&plan), [(2, Reason::Size)]);
    assert_eq!((plan.victims[0].frees, plan.after.bytes), (1000, 10));
}
