//! What is wrong with one record costs that record and what can't stand
//! without it.

use super::*;

/// Takes a config in beside a good one: what was refused, and what is served.
fn beside(config: &Value) -> (Refused, Served) {
    let good = Export::new(&json!({
        "layers": [{"blob": digest(1), "parent": -1}],
        "records": [step(10, json!([]), 0), step(11, json!([[{"link": 0}]]), 0)],
    }));
    let bad = Export::new(config);
    let mut union = Union::default();
    union.add(&good.source(1));
    let refused = union.add(&bad.source(2));
    let served = serve(&union);
    assert!(served.results >= 2, "the good ones stay");
    super::config(&served);
    (refused, served)
}

/// A config with one sound record, and these.
fn with(records: &[Value]) -> Value {
    let mut all = vec![step(20, json!([]), 0)];
    all.extend_from_slice(records);
    json!({"layers": [{"blob": digest(2), "parent": -1}], "records": all})
}

#[test]
fn a_loop_that_nothing_leads_into_is_refused() {
    let (refused, served) = beside(&with(&[
        step(21, json!([[{"link": 2}]]), 0),
        step(22, json!([[{"link": 1}]]), 0),
        step(23, json!([[{"link": 2}], [{"link": 0}]]), 0),
        step(24, json!([[{"link": 4}]]), 0),
    ]));
    assert_eq!(
        refused,
        Refused {
            unfounded: 4,
            ..Refused::default()
        }
    );
    assert_eq!(served.results, 3);
}

#[test]
fn a_loop_that_something_leads_into_loses_the_link_that_closes_it() {
    let (refused, served) = beside(&with(&[
        step(21, json!([[{"link": 0}, {"link": 2}]]), 0),
        step(22, json!([[{"link": 1}]]), 0),
    ]));
    assert_eq!(refused, Refused::default());
    assert_eq!((served.results, served.left_out.loops), (5, 1));
}

#[test]
fn a_step_that_is_run_again_on_what_it_gave_makes_no_loop() {
    // 30 on 20, and 30 on that: one record for who knows both by one name.
    let twice = with(&[
        step(30, json!([[{"link": 0}]]), 0),
        step(30, json!([[{"link": 1}]]), 0),
    ]);
    let (_, served) = beside(&twice);
    assert_eq!((served.results, served.left_out.loops), (5, 0));
    let known = with(&[
        step(30, json!([[{"link": 0}]]), 0),
        step(30, json!([[{"link": 1}, {"link": 0}]]), 0),
    ]);
    let (_, served) = beside(&known);
    assert_eq!((served.results, served.left_out.loops), (4, 1));
}

#[test]
fn links_to_nothing_are_dropped_and_a_record_with_no_other() {
    let (refused, served) = beside(&with(&[
        step(21, json!([[{"link": -1}, {"link": 99}, {"link": 0}]]), 0),
        step(22, json!([[{"link": 99}]]), 0),
        step(23, json!([[]]), 0),
        step(24, json!([[{"link": 0}], [{"link": 2}]]), 0),
    ]));
    assert_eq!(
        refused,
        Refused {
            dangling: 3,
            unfounded: 3,
            ..Refused::default()
        }
    );
    assert_eq!(served.results, 4);
}

#[test]
fn what_never_comes_again_is_refused_with_what_stands_on_it_alone() {
    let (refused, served) = beside(&with(&[
        json!({"digest": "random:abc"}),
        step(21, json!([[{"link": 1}]]), 0),
        step(22, json!([[{"link": 1}, {"link": 0}]]), 0),
    ]));
    assert_eq!(
        refused,
        Refused {
            random: 1,
            unfounded: 1,
            ..Refused::default()
        }
    );
    assert_eq!(served.results, 4);
}

#[test]
fn results_without_sound_layers_are_dropped_and_their_records_stay() {
    let config = json!({
        "layers": [
            {"blob": digest(2), "parent": -1}, {"blob": digest(3), "parent": 2}, {"blob": digest(4), "parent": 1},
            {"blob": digest(5), "parent": 77}, {"blob": "nonsense", "parent": -1}, {"blob": digest(6), "parent": 4},
        ],
        "records": [
            step(20, json!([]), 1), step(21, json!([]), 3), step(22, json!([]), 4), step(23, json!([]), 5),
            step(24, json!([]), 99), json!({"digest": digest(25), "chains": [{"layers": []}, {"layers": [0, 99]}, {"layers": [4]}]}),
            step(26, json!([[{"link": 0}], [{"link": 5}]]), 0),
        ],
    });
    let (refused, served) = beside(&config);
    assert_eq!(
        refused,
        Refused {
            results: 8,
            ..Refused::default()
        }
    );
    assert_eq!((served.records, served.results), (5, 3));
}

#[test]
fn what_is_no_record_is_passed_over() {
    let (refused, served) = beside(&with(&[
        Value::Null,
        json!(7),
        json!({"digest": "nonsense"}),
        json!({"digest": digest(21), "inputs": {"link": 0}}),
        step(22, json!([[{"link": 2}]]), 0),
        step(23, json!([[{"link": 0}]]), 0),
    ]));
    assert_eq!(
        refused,
        Refused {
            malformed: 4,
            unfounded: 1,
            ..Refused::default()
        }
    );
    assert_eq!(served.results, 4);
    for nothing in ["", "[]", "null", "{\"records\":", "\u{0}"] {
        assert!(Parsed::read(nothing.as_bytes()).is_err(), "{nothing:?}");
    }
    for empty in ["{}", "{\"records\":null,\"layers\":7}"] {
        assert_eq!(Parsed::read(empty.as_bytes()).unwrap().records(), 0);
    }
}

#[test]
fn two_descriptions_of_a_blob_are_settled_the_same_in_every_order() {
    let config =
        json!({"layers": [{"blob": digest(1), "parent": -1}], "records": [step(10, json!([]), 0)]});
    let exports: Vec<Export> = [(7, "a+gzip"), (8, "a+gzip"), (7, "b+zstd")]
        .map(|(size, media_type)| {
            let mut export = Export::new(&config);
            export.layers[0].size = size;
            export.layers[0].media_type = media_type.to_owned();
            export
        })
        .into();
    let served = serve(&union_of(&exports, [0, 1, 2]));
    for order in [[0, 2, 1], [1, 0, 2], [2, 1, 0]] {
        assert_eq!(serve(&union_of(&exports, order)).json, served.json);
    }
}

#[test]
fn a_selector_may_hold_any_text() {
    let selector = "/ü\"\\\u{1}";
    let (_, served) = beside(&with(&[step(
        21,
        json!([[{"link": 0, "selector": selector}]]),
        0,
    )]));
    let config = super::config(&served);
    let mut links = config
        .records
        .iter()
        .flat_map(|record| record.inputs.iter().flatten());
    assert!(links.any(|link| &*link.selector == selector));
}

#[test]
fn a_later_export_gives_no_layer_another_meaning() {
    let config = json!({
        "layers": [{"blob": digest(1), "parent": -1}],
        "records": [step(10, json!([]), 0)],
    });
    let (honest, mut hostile) = (Export::new(&config), Export::new(&config));
    hostile.layers[0].media_type = "x".to_owned();
    let other = Digest::of(b"other").to_string();
    hostile.layers[0]
        .annotations
        .insert(DIFF_ID.to_owned(), other);
    for turned in [false, true] {
        let mut exports = [honest.source(1), hostile.source(2)];
        if turned {
            exports.reverse();
        }
        let mut union = Union::default();
        let refused = exports.map(|export| union.add(&export).contradicting);
        assert_eq!(refused.iter().sum::<u64>(), 1);
        assert_eq!(serve(&union).layers, honest.layers);
    }
}

#[test]
fn many_results_on_one_chain_that_does_not_fit_are_passed_over_at_once() {
    const DEPTH: usize = 20_000;
    const RECORDS: u64 = 20_000;
    let layer = |at: usize| json!({"blob": digest(at as u64), "parent": at as i64 - 1});
    let record = |at| step(1_000_000 + at, json!([]), DEPTH as u64 - 1);
    let export = Export::new(&json!({
        "layers": (0..DEPTH).map(layer).collect::<Vec<_>>(),
        "records": (0..RECORDS).map(record).collect::<Vec<_>>(),
    }));
    let mut union = Union::default();
    union.add(&export.source(1));
    let served = union.serve(&Serving {
        budget: Budget {
            config_bytes: Some(1 << 20),
            manifest_bytes: Some(1 << 20),
            ..Budget::default()
        },
        ..Serving::of(&|_| true)
    });
    assert_eq!((served.records, served.left_out.cut), (0, RECORDS));
}
