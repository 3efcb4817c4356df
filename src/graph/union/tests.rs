//! What a union promises.

mod hostile;
mod model;
mod properties;
mod results;
mod scale;
mod subsume;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::generate::{self, Project, World, digest};
use super::*;
use crate::digest::Digest;
use crate::graph::{CREATED_AT, Config, DIFF_ID};

/// An export as the union takes it.
struct Export {
    parsed: Parsed,
    json: Vec<u8>,
    layers: Vec<Descriptor>,
}

impl Export {
    /// Of a config in which every layer is a gzip one.
    fn new(config: &Value) -> Self {
        let blobs = config["layers"].as_array().into_iter().flatten();
        let blobs = blobs.filter_map(|layer| layer["blob"].as_str()?.parse::<Digest>().ok());
        Self {
            parsed: Parsed::read(config.to_string().as_bytes()).unwrap(),
            json: config.to_string().into_bytes(),
            layers: blobs.map(|blob| described(blob, "x+gzip")).collect(),
        }
    }

    fn source(&self, id: u64) -> ExportSource<'_> {
        ExportSource {
            id,
            time: Some(Timestamp::from_second(1_800_000_000 + id as i64 * 60).unwrap()),
            config: &self.parsed,
            layers: &self.layers,
        }
    }
}

fn described(digest: Digest, media_type: &str) -> Descriptor {
    let annotations = [
        (
            DIFF_ID.to_owned(),
            Digest::of(digest.as_bytes()).to_string(),
        ),
        (CREATED_AT.to_owned(), "2026-01-01T00:00:00Z".to_owned()),
    ];
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: 7,
        annotations: annotations.into(),
    }
}

/// Exports of a small project.
fn project(seed: u64, count: usize) -> Vec<Export> {
    let project = Project {
        stages: 3,
        steps: 4,
        branches: 4,
        changed: 15,
        repeated: 30,
    };
    let mut world = World::new(seed, project);
    (0..count)
        .map(|_| {
            let export = world.export();
            let described = |layer: &generate::Layer| Descriptor {
                media_type: layer.media_type.to_owned(),
                digest: layer.digest.parse().unwrap(),
                size: 7,
                annotations: [
                    (DIFF_ID.to_owned(), layer.diff_id.clone()),
                    (CREATED_AT.to_owned(), layer.created_at.clone()),
                ]
                .into(),
            };
            Export {
                parsed: Parsed::read(export.config.as_bytes()).unwrap(),
                layers: export.layers.iter().map(described).collect(),
                json: export.config.into_bytes(),
            }
        })
        .collect()
}

/// The union of exports that get their numbers by place, added in that order.
fn union_of(exports: &[Export], order: impl IntoIterator<Item = usize>) -> Union {
    let mut union = Union::default();
    for at in order {
        union.add(&exports[at].source(at as u64));
    }
    union
}

fn union(configs: &[Value]) -> Union {
    let exports: Vec<Export> = configs.iter().map(Export::new).collect();
    union_of(&exports, 0..exports.len())
}

/// All that can be served.
fn serve(union: &Union) -> Served {
    union.serve(&Serving::of(&|_| true))
}

/// What is served, parsed by the strict rules, without the joining record.
fn config(served: &Served) -> Config {
    let mut config = Config::parse(&served.json).unwrap();
    assert!(config.records.len() - served.records <= 1);
    config.records.truncate(served.records);
    config
}

/// A record with a result of its own: layer `number` of a config.
fn step(number: u64, inputs: Value, layer: u64) -> Value {
    json!({"digest": digest(number), "inputs": inputs, "layers": [{"layer": layer, "createdAt": "2026-01-01T00:00:00Z"}]})
}

#[test]
fn one_export_comes_back_with_all_that_it_holds() {
    let export = json!({
        "layers": [{"blob": digest(1), "parent": -1}, {"blob": digest(2)}],
        "records": [step(10, json!([]), 0), step(11, json!([[{"link": 0, "selector": "/a"}]]), 1)],
    });
    let served = serve(&union(&[export]));
    let config = config(&served);
    assert_eq!(
        (served.records, served.results, config.layers.len()),
        (2, 2, 2)
    );
    assert_eq!(served.layers.len(), 2);
    assert_eq!(served.exports, [0]);
    assert_eq!(config.records[1].inputs[0][0].selector.as_ref(), "/a");
    assert_eq!(served.left_out, LeftOut::default());
    let chain: Vec<Digest> = (config.records[1].chains[0].layers.iter())
        .map(|layer| config.layers[*layer].blob)
        .collect();
    assert_eq!(chain, [1, 2].map(|blob| digest(blob).parse().unwrap()));
}

#[test]
fn the_same_step_on_two_parents_is_two_records() {
    let on = |base: u64, blob: u64| {
        json!({
            "layers": [{"blob": digest(blob), "parent": -1}],
            "records": [{"digest": digest(base)}, step(11, json!([[{"link": 0}]]), 0)],
        })
    };
    let served = serve(&union(&[on(1, 5), on(2, 6)]));
    assert_eq!((served.records, served.results), (4, 2));
}

#[test]
fn records_that_share_one_alternative_of_every_input_are_one_through_others() {
    // 20 on a; 20 on b; then 20 on either: all are one, and so is what stands
    // on them.
    let with = |base: Value, blob: u64| {
        json!({
            "layers": [{"blob": digest(blob), "parent": -1}],
            "records": [
                {"digest": digest(1)}, {"digest": digest(2)},
                {"digest": digest(20), "inputs": [base]},
                step(30, json!([[{"link": 2}]]), 0),
            ],
        })
    };
    let on_a = with(json!([{"link": 0}]), 5);
    let on_b = with(json!([{"link": 1}]), 6);
    let on_either = with(json!([{"link": 0}, {"link": 1}]), 7);
    assert_eq!(union(&[on_a.clone(), on_b.clone()]).records(), 6);
    let union = union(&[on_a, on_b, on_either]);
    assert_eq!(union.records(), 4);
    let survey = union.survey();
    let top = survey
        .records
        .iter()
        .find(|record| record.depth == 2)
        .unwrap();
    assert_eq!(
        (top.results, top.exports.as_slice()),
        (3, [0, 1, 2].as_slice())
    );
}

#[test]
fn another_selector_or_one_input_apart_is_another_record() {
    let with = |second: Value| {
        json!({"records": [
            {"digest": digest(1)}, {"digest": digest(2)}, {"digest": digest(3)},
            {"digest": digest(20), "inputs": [[{"link": 0}], [second]]},
        ]})
    };
    let records = |a: Value, b: Value| union(&[with(a), with(b)]).records();
    assert_eq!(records(json!({"link": 1}), json!({"link": 1})), 4);
    assert_eq!(records(json!({"link": 1}), json!({"link": 2})), 5);
    assert_eq!(
        records(json!({"link": 1}), json!({"link": 1, "selector": "/x"})),
        5
    );
}

#[test]
fn two_or_more_leaves_are_joined_by_a_record_that_no_export_may_bring_back() {
    let export = json!({
        "layers": [{"blob": digest(1), "parent": -1}],
        "records": [step(10, json!([]), 0), step(11, json!([[{"link": 0}]]), 0), step(12, json!([[{"link": 0}]]), 0)],
    });
    let first = union(&[export]);
    let served = serve(&first);
    let whole = Config::parse(&served.json).unwrap();
    let joining = whole.records.last().unwrap();
    assert_eq!((whole.records.len(), joining.digest.as_str()), (4, JOINING));
    assert_eq!(joining.inputs[0].len(), 2);
    let mut again = Union::default();
    let parsed = Parsed::read(&served.json).unwrap();
    let refused = again.add(&ExportSource {
        config: &parsed,
        layers: &served.layers,
        ..Export::new(&json!({})).source(0)
    });
    assert_eq!(
        refused,
        Refused {
            joining: 1,
            ..Refused::default()
        }
    );
    assert_eq!(serve(&again).json, served.json);
}

#[test]
fn the_joining_record_has_the_digest_of_what_it_is() {
    let name = b"layerd: the record that joins every leaf";
    assert_eq!(Digest::of(name).to_string(), JOINING);
}

#[test]
fn two_exports_are_compared_down_to_where_they_part() {
    let export = |second: u64| {
        json!({
            "layers": [{"blob": digest(1), "parent": -1}],
            "records": [
                step(10, json!([]), 0), step(second, json!([[{"link": 0}]]), 0),
                step(30, json!([[{"link": 1}]]), 0),
            ],
        })
    };
    let survey = union(&[export(11), export(12)]).survey();
    let comparison = survey.compare(0, 1);
    let counts = [
        comparison.shared.len(),
        comparison.first.len(),
        comparison.second.len(),
    ];
    assert_eq!(counts, [1, 2, 2]);
    let parting = comparison
        .parting
        .iter()
        .map(|at| survey.records[*at].digest.as_str());
    let mut parting: Vec<&str> = parting.collect();
    parting.sort_unstable();
    let mut expected = [digest(11), digest(12)];
    expected.sort_unstable();
    assert_eq!(parting, expected);
}
