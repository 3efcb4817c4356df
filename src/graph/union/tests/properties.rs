//! What holds for any exports: those of a project, and random ones in which
//! nearly everything is one with something, and loops abound.

use proptest::prelude::*;

use super::model::{distinct, found, has_result};
use super::*;
use crate::graph::Manifest;

/// A record's digest, its inputs with selector and link, its layer.
type Drawn = (u64, Vec<Vec<(u64, i64)>>, u64);

/// Small configs with few digests and many links, in any direction.
pub(super) fn tangle() -> impl Strategy<Value = Vec<Value>> {
    let link = (0..2u64, -1..9i64);
    let input = prop::collection::vec(link, 0..4);
    let record = (0..4u64, prop::collection::vec(input, 0..3), 0..5u64);
    let config = prop::collection::vec(record, 1..9);
    prop::collection::vec(config, 1..5).prop_map(|configs| {
        let layers: Vec<Value> = (0..4u64)
            .map(|blob| json!({"blob": digest(blob), "parent": blob as i64 - 1}))
            .collect();
        let config = |records: &Vec<Drawn>| {
            let records = records.iter().map(|(number, inputs, layer)| {
                let link = |(selector, link): &(u64, i64)| {
                    json!({"selector": if *selector == 0 { "" } else { "/x" }, "link": link})
                };
                let inputs = inputs.iter().map(|links| links.iter().map(link).collect::<Vec<_>>());
                step(100 + number, inputs.collect(), *layer)
            });
            json!({"layers": layers, "records": records.collect::<Vec<_>>()})
        };
        configs.iter().map(config).collect()
    })
}

/// The config with those links only that point back, and no bad layer.
fn untangled(mut config: Value) -> Value {
    for (at, record) in config["records"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for input in record["inputs"].as_array_mut().into_iter().flatten() {
            let links = input.as_array_mut().into_iter();
            links.for_each(|links| {
                links.retain(|link| (0..at as i64).contains(&link["link"].as_i64().unwrap()))
            });
        }
        if let Some(inputs) = record["inputs"].as_array_mut() {
            inputs.retain(|input| input != &json!([]));
        }
        record["layers"] = json!([]);
    }
    config
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = generate::Random(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_never_matters(seed: u64, order: u64) {
        let exports = project(seed, 8);
        let (one, other) = (union_of(&exports, 0..8), union_of(&exports, shuffled(8, order)));
        prop_assert_eq!(serve(&one), serve(&other));
        prop_assert_eq!(one.survey(), other.survey());
        let tight = Serving {
            budget: Budget { records: Some(3), ..Budget::default() },
            order: &[5, 2],
            ..Serving::of(&|_| true)
        };
        prop_assert_eq!(one.serve(&tight), other.serve(&tight));
    }

    #[test]
    fn the_order_of_arrival_never_matters_in_a_tangle(configs in tangle(), order: u64) {
        let exports: Vec<Export> = configs.iter().map(Export::new).collect();
        let one = union_of(&exports, 0..exports.len());
        let other = union_of(&exports, shuffled(exports.len(), order));
        prop_assert_eq!(serve(&one), serve(&other));
        prop_assert_eq!(one.survey(), other.survey());
    }

    #[test]
    fn what_is_served_of_a_tangle_is_a_valid_config(configs in tangle()) {
        let union = union(&configs);
        let served = serve(&union);
        let config = config(&served);
        prop_assert_eq!(union.survey().records.len(), union.records(), "no record is lost to a loop");
        prop_assert_eq!(config.records.len(), served.records);
        let joined = Config::parse(&served.json).unwrap();
        let mut leaf = vec![true; joined.records.len()];
        for link in joined.records.iter().flat_map(|record| record.inputs.iter().flatten()) {
            leaf[link.record] = false;
        }
        prop_assert!(leaf.iter().filter(|leaf| **leaf).count() <= 1);
    }

    #[test]
    fn what_was_taken_in_before_changes_nothing(seed: u64) {
        let exports = project(seed, 5);
        let once = union_of(&exports, 0..5);
        let mut twice = once.clone();
        for (at, export) in exports.iter().enumerate() {
            twice.add(&export.source(at as u64));
        }
        prop_assert_eq!(serve(&once), serve(&twice));
        for (at, export) in exports.iter().enumerate() {
            let again = ExportSource { id: 100 + at as u64, ..export.source(at as u64) };
            twice.add(&again);
        }
        prop_assert_eq!(serve(&once).json, serve(&twice).json);
    }

    #[test]
    fn what_is_served_and_taken_in_again_is_served_unchanged(seed: u64) {
        let served = serve(&union_of(&project(seed, 5), 0..5));
        let mut again = Union::default();
        let parsed = Parsed::read(&served.json).unwrap();
        let time = Some("2030-01-01T00:00:00Z".parse().unwrap());
        again.add(&ExportSource { id: 1, time, config: &parsed, layers: &served.layers });
        prop_assert_eq!(serve(&again).json, served.json);
    }

    #[test]
    fn a_record_is_known_by_buildkits_rule(seed: u64) {
        let exports = project(seed, 4);
        let configs: Vec<Config> =
            exports.iter().map(|export| Config::parse(&export.json).unwrap()).collect();
        prop_assert_eq!(union_of(&exports, 0..4).records(), distinct(&configs));
    }

    #[test]
    fn a_record_is_known_by_buildkits_rule_in_a_tangle(configs in tangle()) {
        let configs: Vec<Value> = configs.into_iter().map(untangled).collect();
        let parsed: Vec<Config> =
            configs.iter().map(|config| Config::parse(config.to_string().as_bytes()).unwrap()).collect();
        prop_assert_eq!(union(&configs).records(), distinct(&parsed));
    }

    #[test]
    fn no_hit_of_any_export_is_lost_and_none_is_ambiguous(seed: u64) {
        let exports = project(seed, 8);
        let served = serve(&union_of(&exports, 0..8));
        prop_assert_eq!(served.left_out.loops, 0);
        let config = config(&served);
        for export in &exports {
            let build = Config::parse(&export.json).unwrap();
            for (record, found) in found(&build, &config).iter().enumerate() {
                prop_assert!(found.len() <= 1);
                if has_result(&build, record) {
                    prop_assert!(found.iter().any(|found| has_result(&config, *found)));
                }
            }
        }
    }

    #[test]
    fn a_cut_keeps_to_its_budget_and_keeps_ancestors(
        seed: u64, records in 0u64..40, config_bytes in 0u64..60_000, manifest_bytes in 0u64..20_000, annotated: bool,
    ) {
        let exports = project(seed, 6);
        let union = union_of(&exports, 0..6);
        let budget = Budget {
            records: Some(records),
            config_bytes: Some(config_bytes.max(400)),
            manifest_bytes: Some(manifest_bytes.max(600)),
        };
        let served = union.serve(&Serving { budget, annotated, order: &[3], ..Serving::of(&|_| true) });
        prop_assert!(served.json.len() as u64 <= config_bytes.max(400));
        let manifest = Manifest {
            config: Descriptor::of_config(Digest::of(&served.json), served.json.len() as u64),
            layers: served.layers.clone(),
        };
        prop_assert!(manifest.to_json().unwrap().len() as u64 <= manifest_bytes.max(600));
        let config = config(&served);
        let weights = config.records.iter().map(|record| match record.chains.first() {
            Some(chain) => 12 + chain.layers.len() as u64,
            None => 5,
        });
        prop_assert!(weights.sum::<u64>() <= 22 * records);
        let whole = serve(&union);
        prop_assert_eq!(whole.records, served.records + served.left_out.cut as usize);
        prop_assert_eq!(whole.results, served.results + served.left_out.cut_results as usize);
        let mut leads: Vec<bool> = (0..config.records.len()).map(|at| has_result(&config, at)).collect();
        for at in (0..config.records.len()).rev() {
            for link in config.records[at].inputs.iter().flatten() {
                leads[link.record] |= leads[at];
            }
        }
        prop_assert!(leads.iter().all(|leads| *leads), "each record leads to a result");
    }

    #[test]
    fn layers_that_are_gone_take_their_results_and_nothing_else(seed: u64, gone in 1u8..4) {
        let exports = project(seed, 6);
        let union = union_of(&exports, 0..6);
        let present = |blob: &Digest| blob.as_bytes()[9] % 4 >= gone;
        let served = union.serve(&Serving::of(&present));
        prop_assert!(served.layers.iter().all(|layer| present(&layer.digest)));
        let config = config(&served);
        for export in &exports {
            let build = Config::parse(&export.json).unwrap();
            let found = found(&build, &config);
            for (record, found) in build.records.iter().zip(&found) {
                let Some(&(mut layer, _)) = record.results.first() else { continue };
                let whole = loop {
                    if !present(&build.layers[layer].blob) {
                        break false;
                    }
                    match build.layers[layer].parent {
                        Some(parent) => layer = parent,
                        None => break true,
                    }
                };
                prop_assert!(!whole || found.iter().any(|found| has_result(&config, *found)));
            }
        }
    }
}
