//! Which steps are kept with an export.
//!
//! A build knows the names of the steps that it ran. The other records of its
//! export came from a cache, with the date at which an earlier build made them,
//! and the project's exports have kept that build's names.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::MAX_STEPS;
use crate::digest::RecordDigest;
use crate::graph::Config;
use crate::step::Step;

/// A result of a record: what a step is known by.
type Made = (RecordDigest, Timestamp);

/// The results of `config` that `ran` has no name for.
pub(super) fn nameless(config: &Config, ran: &[Step]) -> Vec<Made> {
    let named: BTreeSet<Made> = ran.iter().map(made).collect();
    config
        .results()
        .into_iter()
        .filter(|made| !named.contains(made))
        .take(MAX_STEPS)
        .collect()
}

/// What of `ran` and `kept` belongs to `config`, each result's once.
pub(super) fn of_export(config: &Config, ran: Vec<Step>, kept: Vec<Step>) -> Vec<Step> {
    let mut wanted = config.results();
    ran.into_iter()
        .chain(kept)
        .filter(|step| wanted.remove(&made(step)))
        .take(MAX_STEPS)
        .collect()
}

/// The steps, and those dated after the export itself by its date, too: so a
/// union dates their results.
pub(super) fn with_cut_dates(steps: &[Step], time: Timestamp) -> Vec<Step> {
    let late = steps.iter().filter(|step| step.created_at > time);
    let cut = late.map(|step| Step {
        created_at: time,
        ..step.clone()
    });
    steps.iter().cloned().chain(cut).collect()
}

fn made(step: &Step) -> Made {
    (step.record.clone(), step.created_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::step::StepName;

    fn step(record: &str, second: i64, name: &str) -> Step {
        Step {
            record: record.parse().unwrap(),
            created_at: Timestamp::from_second(second).unwrap(),
            name: StepName::of(name),
            duration: Default::default(),
            origin: None,
        }
    }

    #[test]
    fn an_export_keeps_each_of_its_results_once_and_nothing_else() {
        let result = |second| serde_json::json!([{"layer": 0, "createdAt": Timestamp::from_second(second).unwrap()}]);
        let config = serde_json::json!({
            "layers": [{"blob": Digest::of(b"a"), "parent": -1}],
            "records": [
                {"digest": "sha256:a", "layers": result(1)},
                {"digest": "sha256:b", "layers": result(2)},
                {"digest": "sha256:c", "layers": result(3)},
                {"digest": "sha256:d"},
            ],
        });
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        let ran = vec![
            step("sha256:a", 1, "ran"),
            step("sha256:x", 1, "of nothing here"),
        ];
        let [b, c] = [("sha256:b", 2), ("sha256:c", 3)]
            .map(|(record, second)| made(&step(record, second, "")));
        assert_eq!(nameless(&config, &ran), [b, c]);
        let kept = vec![
            step("sha256:b", 2, "kept"),
            step("sha256:a", 1, "known already"),
            step("sha256:c", 2, "of another date"),
        ];
        let names: Vec<_> = of_export(&config, ran, kept)
            .iter()
            .map(|step| step.name.to_string())
            .collect();
        assert_eq!(names, ["ran", "kept"]);
    }
    #[test]
    fn a_step_from_the_future_is_known_by_the_date_that_its_result_gets_too() {
        let steps = [step("sha256:a", 5, "late"), step("sha256:b", 3, "in time")];
        let time = Timestamp::from_second(4).unwrap();
        let kept = with_cut_dates(&steps, time);
        assert_eq!(kept[..2], steps);
        assert_eq!(kept[2..], [step("sha256:a", 4, "late")]);
    }
}
