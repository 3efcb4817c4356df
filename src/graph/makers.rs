//! Which step made which layer.

use std::collections::HashMap;

use jiff::Timestamp;

use super::Config;
use crate::digest::{Digest, RecordDigest};
use crate::step::{Step, StepName};

/// The blobs of `config`, each once and after those that it stands on, with the
/// steps that made it, as far as `steps` has them: more than one where two gave
/// the same bytes.
pub fn blobs<'a>(config: &Config, steps: &'a [Step]) -> Vec<(Digest, Vec<&'a StepName>)> {
    let makers = makers(config, steps);
    let mut places = HashMap::new();
    let mut blobs: Vec<(Digest, Vec<&StepName>)> = Vec::new();
    for layer in lowest_first(config) {
        let blob = config.layers[layer].blob;
        let place = *places.entry(blob).or_insert_with(|| {
            blobs.push((blob, Vec::new()));
            blobs.len() - 1
        });
        let names = &mut blobs[place].1;
        if let Some(step) = makers[layer]
            && !names.contains(&&step.name)
        {
            names.push(&step.name);
        }
    }
    blobs
}

/// By layer of `config`: the step that made it, if `steps` has it.
///
/// A record's result is a layer with all below it, and the step made the
/// topmost. Where a step changed nothing, its result is the layer of the one
/// below: the layer belongs to the record that stands on none of the others. A
/// step that stands on nothing (a base image) made all of its layers.
fn makers<'a>(config: &Config, steps: &'a [Step]) -> Vec<Option<&'a Step>> {
    let known: HashMap<(&RecordDigest, Timestamp), &Step> = steps
        .iter()
        .map(|step| ((&step.record, step.created_at), step))
        .collect();
    let mut records = vec![Vec::new(); config.layers.len()];
    for (at, record) in config.records.iter().enumerate() {
        for (layer, created_at) in record.made() {
            if let Some(layer) = layer {
                records[layer].push((at, created_at));
            }
        }
    }
    let step = |(record, created_at): (usize, Option<Timestamp>)| {
        known
            .get(&(&config.records[record].digest, created_at?))
            .copied()
    };
    let maker = |results: &Vec<(usize, Option<Timestamp>)>| {
        let stands_on_others = |record: usize| {
            let links = config.records[record].inputs.iter().flatten();
            links
                .into_iter()
                .any(|link| results.iter().any(|(other, _)| *other == link.record))
        };
        let mut lowest = results
            .iter()
            .filter(|(record, _)| !stands_on_others(*record));
        match (lowest.next(), lowest.next()) {
            (Some(result), None) => step(*result),
            _ => None,
        }
    };
    let mut makers: Vec<Option<&Step>> = records.iter().map(maker).collect();
    for (layer, results) in records.iter().enumerate() {
        let [(record, _)] = results[..] else { continue };
        if !config.records[record].inputs.is_empty() {
            continue;
        }
        let mut below = config.layers[layer].parent;
        while let Some(layer) = below.filter(|layer| records[*layer].is_empty()) {
            if makers[layer].is_some() {
                break;
            }
            makers[layer] = step(results[0]);
            below = config.layers[layer].parent;
        }
    }
    makers
}

/// The layers of `config`, each after the one it stands on, and what stands on
/// one layer together.
fn lowest_first(config: &Config) -> Vec<usize> {
    let mut above = vec![Vec::new(); config.layers.len()];
    let mut next = Vec::new();
    for (at, layer) in config.layers.iter().enumerate().rev() {
        match layer.parent {
            Some(parent) => above[parent].push(at),
            None => next.push(at),
        }
    }
    let mut order = Vec::with_capacity(config.layers.len());
    while let Some(layer) = next.pop() {
        order.push(layer);
        next.append(&mut above[layer]);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "2026-11-22T05:00:00Z";
    const MAKE: &str = "2026-11-22T05:00:01Z";

    /// A base image of two layers, a step on it, one that changes nothing, and
    /// a layer that nobody's record names.
    fn config() -> Config {
        let blob = |name: &str| Digest::of(name.as_bytes());
        let json = serde_json::json!({
            "layers": [
                {"blob": blob("made"), "parent": 2},
                {"blob": blob("low"), "parent": -1},
                {"blob": blob("high"), "parent": 1},
                {"blob": blob("other"), "parent": -1},
            ],
            "records": [
                {"digest": "sha256:empty", "layers": [{"layer": 0, "createdAt": "2026-11-22T05:00:02Z"}], "inputs": [[{"link": 2}]]},
                {"digest": "sha256:base", "layers": [{"layer": 2, "createdAt": BASE}]},
                {"digest": "sha256:make", "layers": [{"layer": 0, "createdAt": MAKE}], "inputs": [[{"link": 1}]]},
            ],
        });
        Config::parse(json.to_string().as_bytes()).unwrap()
    }

    fn step(record: &str, created_at: &str, name: &str) -> Step {
        Step {
            record: record.parse().unwrap(),
            created_at: created_at.parse().unwrap(),
            name: StepName::of(name),
            duration: Default::default(),
            origin: None,
        }
    }

    fn names(steps: &[Step]) -> Vec<Option<String>> {
        let makers = makers(&config(), steps);
        makers
            .into_iter()
            .map(|step| step.map(|step| step.name.to_string()))
            .collect()
    }

    #[test]
    fn a_layer_belongs_to_the_step_that_made_it_and_not_to_one_that_changed_nothing() {
        let steps = [
            step("sha256:base", BASE, "FROM alpine"),
            step("sha256:make", MAKE, "RUN make"),
            step("sha256:empty", "2026-11-22T05:00:02Z", "RUN true"),
        ];
        let expected = [
            Some("RUN make"),
            Some("FROM alpine"),
            Some("FROM alpine"),
            None,
        ];
        assert_eq!(names(&steps), expected.map(|name| name.map(str::to_owned)));
        assert_eq!(names(&steps[2..]), [const { None }; 4]);
    }

    #[test]
    fn a_step_of_another_date_is_another_step() {
        let steps = [step("sha256:make", BASE, "RUN make")];
        assert_eq!(names(&steps), [const { None }; 4]);
    }

    #[test]
    fn every_layer_comes_once_and_after_the_one_below() {
        assert_eq!(lowest_first(&config()), [1, 2, 0, 3]);
    }
}
