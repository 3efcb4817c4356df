//! What holds of every plan.

use proptest::prelude::*;

use super::*;

fn log() -> impl Strategy<Value = Vec<KeptExport>> {
    let one = (
        prop::sample::select(vec!["p", "q", "r"]),
        prop::sample::select(vec!["main", "master", "dev", "fix/1"]),
        0..60_i64,
        prop::option::of(0..60_i64),
        prop::collection::btree_set(0..24_u64, 0..6),
    );
    prop::collection::vec(one, 0..24).prop_map(|all| {
        let exports = all.into_iter().enumerate();
        let exports = exports.map(|(at, (project, git_ref, age, used, blobs))| {
            let names: Vec<(String, u64)> = blobs
                .iter()
                .map(|blob| (blob.to_string(), blob * 7 + 1))
                .collect();
            let named: Vec<(&str, u64)> = names
                .iter()
                .map(|(name, size)| (name.as_str(), *size))
                .collect();
            KeptExport {
                used: used.map(ago),
                ..export(at as i64 + 1, project, git_ref, age, &named)
            }
        });
        exports.collect()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let quotas = prop::collection::btree_map(
        prop::sample::select(vec!["p", "q"]),
        (prop::option::of(0..400_u64), prop::option::of(0..60_u64)),
        0..3,
    );
    (
        prop::option::of(0..900_u64),
        prop::option::of(0..60_u64),
        prop::option::of(0..60_u64),
        quotas,
    )
        .prop_map(|(max_bytes, age, idle, quotas)| Limits {
            max_bytes,
            max_age: age.and_then(days),
            ref_idle: idle.and_then(days),
            projects: quotas
                .into_iter()
                .map(|(name, (max_bytes, age))| {
                    let max_age = age.and_then(days);
                    (name.parse().unwrap(), ProjectLimits { max_bytes, max_age })
                })
                .collect(),
            ..Limits::default()
        })
}

/// Bytes of what those exports name together.
fn bytes<'a>(exports: impl IntoIterator<Item = &'a KeptExport>) -> u64 {
    let named = exports.into_iter().flat_map(|export| &export.blobs);
    let distinct: BTreeMap<Digest, u64> = named.copied().collect();
    distinct.values().sum()
}

fn is_last_of_default(log: &[KeptExport], id: ExportId) -> bool {
    let own = log.iter().find(|export| export.id == id).unwrap();
    let default = ["refs/heads/main", "refs/heads/master"];
    default.contains(&own.place.git_ref.as_str())
        && log
            .iter()
            .all(|other| other.place != own.place || other.id <= id)
}

proptest! {
    #[test]
    fn what_is_left_is_within_all_limits_or_nothing_is_left_to_take(
        log in log(), limits in limits(),
    ) {
        let plan = plan(&log, &limits);
        let gone: HashSet<ExportId> = plan.victims.iter().map(|victim| victim.id).collect();
        prop_assert_eq!(gone.len(), plan.victims.len(), "each goes once");
        let left = || log.iter().filter(|export| !gone.contains(&export.id));
        prop_assert_eq!(plan.after.bytes, bytes(left()));
        prop_assert_eq!(plan.after.exports, left().count() as u64);
        prop_assert_eq!(plan.before.bytes, bytes(&log));
        let freed: u64 = plan.victims.iter().map(|victim| victim.frees).sum();
        prop_assert_eq!(plan.before.bytes - plan.after.bytes, freed);
        if let Some(limit) = limits.max_bytes {
            prop_assert!(plan.after.bytes <= limit || left().count() == 0);
        }
        for (project, own) in &limits.projects {
            let own_left = || left().filter(|export| export.place.project == *project);
            if let Some(quota) = own.max_bytes {
                prop_assert!(bytes(own_left()) <= quota || own_left().count() == 0);
            }
        }
        for export in left().filter(|export| !is_last_of_default(&log, export.id)) {
            if let Some(age) = limits.max_age(&export.place.project) {
                prop_assert!(!is_older(export.last_use(), age * 4, now()));
            }
        }
    }

    #[test]
    fn the_newest_export_of_a_default_branch_goes_for_size_only_after_all_others(
        log in log(), limits in limits(),
    ) {
        let limits = Limits { projects: BTreeMap::new(), ..limits };
        let plan = plan(&log, &limits);
        let mut left: HashSet<ExportId> = log.iter().map(|export| export.id).collect();
        for victim in &plan.victims {
            left.remove(&victim.id);
            if is_last_of_default(&log, victim.id) {
                let of_whom = |export: &&KeptExport| match victim.reason {
                    Reason::Size => true,
                    _ => export.place.project == victim.place.project,
                };
                for other in log.iter().filter(of_whom) {
                    prop_assert!(!left.contains(&other.id) || is_last_of_default(&log, other.id));
                }
            }
        }
    }

    #[test]
    fn no_more_goes_for_size_than_has_to(log in log(), limit in 0..900_u64) {
        let limits = Limits { max_bytes: Some(limit), ..Limits::default() };
        let plan = plan(&log, &limits);
        let before_last = plan.after.bytes + plan.victims.last().map_or(0, |last| last.frees);
        prop_assert!(plan.victims.is_empty() || before_last > limit);
    }

    #[test]
    fn it_depends_on_nothing_but_the_log_and_the_limits(log in log(), limits in limits()) {
        prop_assert_eq!(plan(&log, &limits), plan(&log, &limits));
    }

    #[test]
    fn room_is_made_without_the_newest_of_a_default_branch_or_not_at_all(
        log in log(), blobs in prop::collection::btree_set(0..24_u64, 0..6), quota in 0..400_u64,
    ) {
        let log: Vec<KeptExport> = log.into_iter().filter(|export| export.place.project.as_str() == "p").collect();
        let new: Vec<(Digest, u64)> = blobs
            .iter()
            .map(|blob| (Digest::of(blob.to_string().as_bytes()), blob * 7 + 1))
            .collect();
        let place = export(1, "p", "dev", 0, &[]).place;
        let room = make_room(all(&log), (&place, &new), quota, &Limits::default(), now());
        let added = KeptExport { blobs: new, ..export(99, "p", "dev", 0, &[]) };
        match room {
            Ok(victims) => {
                let gone: HashSet<ExportId> = victims.iter().map(|victim| victim.id).collect();
                let left = log.iter().filter(|export| !gone.contains(&export.id));
                prop_assert!(bytes(left.chain([&added])) <= quota);
                for victim in &victims {
                    prop_assert!(!is_last_of_default(&log, victim.id));
                }
            }
            Err(NoRoom { needed }) => {
                let kept = log.iter().filter(|export| is_last_of_default(&log, export.id));
                let least = bytes(kept.chain([&added]));
                prop_assert_eq!(needed, least);
                prop_assert!(least > quota);
            }
        }
    }
}
