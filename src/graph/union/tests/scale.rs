//! Shapes that are slow, or deep, for whoever is careless. Each test takes
//! seconds in a debug build; what is not near-linear takes hours.

use super::*;

fn export(layers: Vec<Value>, records: Vec<Value>) -> Value {
    json!({"layers": layers, "records": records})
}

fn base() -> Vec<Value> {
    vec![json!({"blob": digest(1), "parent": -1})]
}

/// Served, with counts of records and results, and none lost to a loop.
fn counts(configs: &[Value]) -> (usize, usize) {
    let served = serve(&union(configs));
    assert_eq!(served.left_out.loops, 0);
    config(&served);
    (served.records, served.results)
}

#[test]
fn a_chain_of_100_000_records_and_layers() {
    let depth = 100_000u64;
    let layers = (0..depth).map(|at| json!({"blob": digest(at), "parent": at as i64 - 1}));
    let records = (0..depth).map(|at| match at {
        0 => step(0, json!([]), 0),
        at => step(at, json!([[{"link": at - 1}]]), at),
    });
    let config = export(layers.collect(), records.collect());
    let union = union(&[config.clone(), config]);
    let served = serve(&union);
    assert_eq!(
        (served.records, served.results),
        (depth as usize, depth as usize)
    );
    assert!(
        served.json.len() < 100_000_000,
        "no list of layers for each record"
    );
    let survey = union.survey();
    assert_eq!(survey.records.last().unwrap().depth, depth as u32 - 1);
    let budget = Budget {
        records: Some(1000),
        ..Budget::default()
    };
    let cut = union.serve(&Serving {
        budget,
        ..Serving::of(&|_| true)
    });
    assert_eq!(cut.records, 197, "chains of 1 to 197 layers weigh 21,867");
}

#[test]
fn ten_thousand_copies_onto_one_base_again_and_again() {
    let fan = |from: u64| {
        let mut records = vec![step(1, json!([]), 0)];
        for at in from..from + 10_000 {
            let context = records.len();
            records.push(json!({"digest": digest(1000 + at)}));
            records.push(step(2, json!([[{"link": 0}], [{"link": context}]]), 0));
        }
        export(base(), records)
    };
    assert_eq!(counts(&[fan(0), fan(5_000), fan(0)]), (30_001, 15_001));
}

#[test]
fn a_lattice_of_diamonds() {
    let mut records = vec![step(0, json!([]), 0), step(1, json!([]), 0)];
    for level in 1..20_000u64 {
        let below = (level - 1) * 2;
        for side in 0..2 {
            records.push(step(
                level * 2 + side,
                json!([[{"link": below}], [{"link": below + 1}]]),
                0,
            ));
        }
    }
    let config = export(base(), records);
    assert_eq!(counts(&[config.clone(), config]), (40_000, 40_000));
}

#[test]
fn ten_thousand_alternatives_in_one_record_or_one_by_one() {
    let count = 10_000;
    let mut records: Vec<Value> = (0..count).map(|at| json!({"digest": digest(at)})).collect();
    let all: Vec<Value> = (0..count).map(|at| json!({"link": at})).collect();
    records.push(step(count, json!([all]), 0));
    let at_once = export(base(), records);
    let mut records: Vec<Value> = (0..count).map(|at| json!({"digest": digest(at)})).collect();
    records.extend((0..count).map(|at| step(count, json!([[{"link": at}]]), 0)));
    let apart = export(base(), records);
    let mut records: Vec<Value> = (0..count).map(|at| json!({"digest": digest(at)})).collect();
    records.extend((1..count).map(|at| step(count, json!([[{"link": at}, {"link": at - 1}]]), 0)));
    let chained = export(base(), records);
    assert_eq!(
        counts(&[apart.clone(), chained.clone(), at_once.clone()]),
        (10_001, 1)
    );
    assert_eq!(counts(&[chained, apart, at_once]), (10_001, 1));
}

#[test]
fn ten_thousand_results_of_one_record() {
    let layers: Vec<Value> = (0..10_000)
        .map(|blob| json!({"blob": digest(blob), "parent": -1}))
        .collect();
    let results: Vec<Value> = (0..10_000)
        .map(|layer| json!({"layer": layer, "createdAt": "2026-01-01T00:00:00Z"}))
        .collect();
    let config = export(
        layers,
        vec![json!({"digest": digest(1), "layers": results})],
    );
    let union = union(&[config.clone(), config]);
    assert_eq!(serve(&union).layers.len(), 1);
    assert_eq!(union.survey().records[0].results, 10_000);
}

#[test]
fn one_merge_at_the_root_merges_all_that_stands_on_it() {
    // Two towers that differ only at the root, and a record that joins them.
    let tower = |root: u64| {
        let mut records = vec![
            json!({"digest": digest(root)}),
            step(50, json!([[{"link": 0}]]), 0),
        ];
        records.extend((0..20_000u64).map(|at| step(100 + at, json!([[{"link": at + 1}]]), 0)));
        export(base(), records)
    };
    let joint = export(
        base(),
        vec![
            json!({"digest": digest(1)}),
            json!({"digest": digest(2)}),
            step(50, json!([[{"link": 0}, {"link": 1}]]), 0),
        ],
    );
    assert_eq!(counts(&[tower(1), tower(2), joint]), (20_003, 20_001));
}

#[test]
fn a_grid_in_which_every_input_is_shared_by_many() {
    let side = 150u64;
    let mut records: Vec<Value> = (0..2 * side)
        .map(|at| json!({"digest": digest(at)}))
        .collect();
    for (row, column) in (0..side * side).map(|at| (at / side, at % side)) {
        records.push(step(
            1000,
            json!([[{"link": row}], [{"link": side + column}]]),
            0,
        ));
    }
    let config = export(base(), records);
    let all = (2 * side + side * side) as usize;
    assert_eq!(
        counts(&[config.clone(), config]),
        (all, all - 2 * side as usize)
    );
}

#[test]
fn a_loop_through_all_records() {
    let count = 50_000u64;
    let records = (0..count).map(|at| {
        let before = (at + count - 1) % count;
        let inputs = if at == 0 {
            json!([[{"link": before}, {"link": count}]])
        } else {
            json!([[{"link": before}]])
        };
        step(at, inputs, 0)
    });
    let records = records.chain([json!({"digest": digest(count)})]);
    let served = serve(&union(&[export(base(), records.collect())]));
    assert_eq!((served.records, served.left_out.loops), (50_001, 1));
}
