//! Builds that never were, with the names of their records known beforehand.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const EPOCH: i64 = 1_795_000_000;

/// One vertex and its record, in milliseconds since the build began.
#[derive(Clone, Debug)]
struct Made {
    inputs: Vec<usize>,
    /// It came from a cache.
    hit: bool,
    duration: i64,
    /// From its completion to its record's date.
    lag: i64,
    /// Its end was not seen.
    open: bool,
    /// Its first input also has the content of the other's result.
    content: bool,
}

/// A build in which everything runs as soon as it can.
struct Story {
    config: Config,
    vertices: Vec<Vertex>,
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(EPOCH * 1000 + milliseconds).unwrap()
}

fn vertex(at: usize) -> Digest {
    Digest::of(&at.to_le_bytes())
}

impl Story {
    /// The clock of the progress is `behind` that of the records.
    fn of(made: &[Made], behind: i64) -> Self {
        let mut dates = Vec::new();
        let mut vertices = Vec::new();
        let mut records = Vec::new();
        for (index, step) in made.iter().enumerate() {
            let ready = step.inputs.iter().map(|input| dates[*input]).max();
            let started = ready.unwrap_or(0).max(0) + 1;
            let completed = started + step.duration;
            let date = if step.hit {
                -3_600_000
            } else {
                completed + step.lag
            };
            dates.push(date);
            let times = [started, completed].map(|time| at(time - behind));
            vertices.push(Vertex {
                digest: vertex(index),
                inputs: step.inputs.iter().map(|input| vertex(*input)).collect(),
                name: StepName::of(&format!("step {index}")),
                run: match step {
                    Made { hit: true, .. } => Run::Not,
                    Made { open: true, .. } => Run::Since(times[0]),
                    Made { .. } => Run::Done(times[0], times[1]),
                },
            });
            let links = step.inputs.iter().enumerate().map(|(input, linked)| {
                if input == 0 && step.content {
                    json!([{"link": made.len()}, {"link": linked, "selector": "sha256:x"}])
                } else {
                    json!([{"link": linked}])
                }
            });
            records.push(json!({
                "digest": format!("sha256:{index}"), "inputs": links.collect::<Vec<Value>>(),
                "layers": [{"layer": 0, "createdAt": at(date)}],
            }));
        }
        records.push(json!({"digest": "sha256:content"}));
        let config = json!({"layers": [{"blob": vertex(0), "parent": -1}], "records": records});
        Self {
            config: Config::parse(config.to_string().as_bytes()).unwrap(),
            vertices,
        }
    }

    /// By record: the name that it was given.
    fn named(&self) -> Vec<(String, String)> {
        steps(&self.config, &self.vertices)
            .into_iter()
            .map(|step| (step.record.to_string(), step.name.to_string()))
            .collect()
    }
}

fn any_build() -> impl Strategy<Value = Vec<Made>> {
    let lag = prop_oneof![8 => 0..15_i64, 2 => 0..400_i64];
    let step = (
        proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::bool::weighted(0.2),
        prop_oneof![0..5_i64, 0..100_i64, 0..3000_i64],
        lag,
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.2),
    );
    proptest::collection::vec(step, 1..30).prop_map(|steps| {
        let build = steps.into_iter().enumerate();
        build
            .map(|(at, (inputs, hit, duration, lag, open, content))| Made {
                inputs: match at {
                    0 => Vec::new(),
                    _ => inputs.iter().map(|input| input.index(at)).collect(),
                },
                hit,
                duration,
                lag,
                open,
                content,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_record_gets_the_name_of_another_step(build in any_build(), behind in 0..20_i64) {
        for (record, name) in Story::of(&build, behind).named() {
            prop_assert_eq!(record.replace("sha256:", "step "), name);
        }
    }
}

fn chain(steps: usize, duration: i64, lag: i64) -> Vec<Made> {
    let made = |at: usize| Made {
        inputs: at.checked_sub(1).into_iter().collect(),
        hit: false,
        duration,
        lag,
        open: false,
        content: false,
    };
    (0..steps).map(made).collect()
}

#[test]
fn steps_that_follow_each_other_within_moments_are_all_named() {
    for (duration, lag) in [(0, 1), (3, 8), (20, 12), (700, 40)] {
        let named = Story::of(&chain(20, duration, lag), 7).named();
        assert_eq!(named.len(), 20, "{duration} ms and {lag} ms: {named:?}");
    }
}

#[test]
fn steps_side_by_side_are_told_apart_by_what_stands_on_them() {
    let mut build = chain(1, 10, 8);
    let step = |inputs: Vec<usize>, lag| Made {
        inputs,
        lag,
        ..build[0].clone()
    };
    // Two that completed at once, whose records are dated the other way round.
    let both = [step(vec![0], 30), step(vec![0], 8)];
    let above = [step(vec![1], 8), step(vec![3, 2], 8)];
    build.extend(both);
    assert_eq!(Story::of(&build, 7).named().len(), 1);
    build.extend(above);
    assert_eq!(Story::of(&build, 7).named().len(), 5);
}

#[test]
fn a_step_whose_end_was_not_seen_may_have_made_its_neighbours_record() {
    let mut build = chain(3, 10, 8);
    build[2].inputs = vec![0];
    build[2].open = true;
    assert_eq!(
        Story::of(&build, 0).named(),
        [("sha256:0".to_owned(), "step 0".to_owned())]
    );
}

#[test]
fn what_came_from_a_cache_gets_no_name_here() {
    let mut build = chain(3, 10, 8);
    build[0].hit = true;
    let named = Story::of(&build, 7).named();
    assert_eq!(named.len(), 2);
    assert!(named.iter().all(|(record, _)| record != "sha256:0"));
}
