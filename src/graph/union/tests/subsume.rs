//! Which exports a newer one makes superfluous.

use proptest::prelude::*;

use super::*;

fn subsumes(newer: &Value, older: &Value) -> bool {
    let (newer, older) = (Export::new(newer), Export::new(older));
    Newer::new(&newer.source(9)).subsumes(&older.source(3))
}

fn made(number: u64, inputs: Value, layer: u64, second: u64) -> Value {
    let mut made = step(number, inputs, layer);
    made["layers"][0]["createdAt"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
    made
}

/// A base, and a step on it whose results are the given ones.
fn ran(blobs: &[u64], results: &[(u64, u64)]) -> Value {
    let layers: Vec<Value> = (blobs.iter())
        .map(|blob| json!({"blob": digest(*blob), "parent": -1}))
        .collect();
    let result =
        |(layer, second): &(u64, u64)| made(0, json!([]), *layer, *second)["layers"][0].clone();
    json!({"layers": layers, "records": [
        {"digest": digest(1)},
        {"digest": digest(2), "inputs": [[{"link": 0}]], "layers": results.iter().map(result).collect::<Vec<_>>()},
    ]})
}

fn push(list: &mut Value, element: Value) {
    list.as_array_mut().unwrap().push(element);
}

#[test]
fn the_same_export_again_makes_the_first_superfluous() {
    let export = ran(&[5], &[(0, 1)]);
    assert!(subsumes(&export, &export));
}

#[test]
fn a_record_or_a_link_or_a_result_that_only_the_older_has_keeps_it() {
    let newer = ran(&[5], &[(0, 1)]);
    let mut more = newer.clone();
    push(&mut more["records"], json!({"digest": digest(3)}));
    assert!(!subsumes(&newer, &more), "a record");
    assert!(subsumes(&more, &newer));

    let mut linked = more.clone();
    push(&mut linked["records"][1]["inputs"][0], json!({"link": 2}));
    assert!(!subsumes(&more, &linked), "a link");
    assert!(subsumes(&linked, &more));

    let bare = ran(&[5], &[]);
    assert!(!subsumes(&bare, &newer), "a result");
    assert!(subsumes(&newer, &bare));
}

#[test]
fn records_that_the_older_makes_one_keep_it() {
    let apart = json!({"records": [
        {"digest": digest(1)}, {"digest": digest(2)},
        {"digest": digest(3), "inputs": [[{"link": 0}]]},
        {"digest": digest(3), "inputs": [[{"link": 1}]]},
    ]});
    let mut one = apart.clone();
    push(&mut one["records"][2]["inputs"][0], json!({"link": 1}));
    assert!(!subsumes(&apart, &one));
    assert!(subsumes(&one, &apart));
}

#[test]
fn a_result_gives_way_to_one_as_new_in_the_same_compression() {
    let (early, late) = (ran(&[5], &[(0, 1)]), ran(&[6], &[(0, 2)]));
    assert!(subsumes(&late, &early));
    assert!(!subsumes(&early, &late), "made later, exported before");
    let (mut zstd, late) = (Export::new(&early), Export::new(&late));
    for layer in &mut zstd.layers {
        layer.media_type = "x+zstd".to_owned();
    }
    let newer = Newer::new(&late.source(9));
    assert!(!newer.subsumes(&zstd.source(3)), "who asks for zstd");
}

#[test]
fn a_result_that_cannot_be_delivered_stands_in_for_none() {
    let (early, late) = (ran(&[5], &[(0, 1)]), ran(&[6], &[(0, 2)]));
    let (early, mut late) = (Export::new(&early), Export::new(&late));
    late.layers.clear();
    assert!(!Newer::new(&late.source(9)).subsumes(&early.source(3)));
    let mut silent = Export::new(&ran(&[5], &[(0, 1)]));
    silent.layers.clear();
    let newer = Newer::new(&silent.source(9));
    assert!(
        !newer.subsumes(&early.source(3)),
        "it says what the blob is"
    );
    assert!(newer.subsumes(&silent.source(3)));
}

/// What readers of all kinds are served.
fn answers(union: &Union) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for not_before in [None, Some("2026-01-01T00:05:00Z".parse().unwrap())] {
        for compression in [None, Some(Compression::Zstd), Some(Compression::Gzip)] {
            let served = union.serve(&Serving {
                not_before,
                compression,
                ..Serving::of(&|_| true)
            });
            answers.push(served.json);
        }
    }
    answers
}

/// Takes out what newer exports subsume; how many there were, and what is left.
fn pruned(exports: &[Export]) -> (usize, Union) {
    let mut kept = vec![true; exports.len()];
    for newer in (0..exports.len()).rev() {
        let held = Newer::new(&exports[newer].source(newer as u64));
        for older in 0..newer {
            if kept[newer] && kept[older] {
                kept[older] = !held.subsumes(&exports[older].source(older as u64));
            }
        }
    }
    let gone = kept.iter().filter(|kept| !**kept).count();
    let left = union_of(exports, (0..exports.len()).filter(|at| kept[*at]));
    (gone, left)
}

proptest! {
    #[test]
    fn every_reader_is_served_the_same_without_what_is_subsumed(seed in any::<u64>(), count in 1..6_usize) {
        let mut exports = project(seed, count);
        let all = union_of(&exports, 0..count);
        let alone = answers(&all);
        // The last build of the branch exports all that it exported before.
        exports.extend(project(seed, count));
        let (gone, left) = pruned(&exports);
        prop_assert!(gone >= count, "{} of {}", gone, exports.len());
        prop_assert_eq!(left.records(), all.records());
        prop_assert_eq!(answers(&left), alone);
    }

    #[test]
    fn and_where_nearly_everything_is_one_with_something(configs in super::properties::tangle(), parts in 1..6_usize) {
        // Parts of each config come first: some are subsumed, some are not.
        let part = |config: &Value| {
            let mut part = config.clone();
            let records = part["records"].as_array_mut().unwrap();
            records.truncate(parts);
            part
        };
        let all: Vec<Value> = configs.iter().map(part).chain(configs.clone()).collect();
        let exports: Vec<Export> = all.iter().map(Export::new).collect();
        let (_, left) = pruned(&exports);
        let all = union_of(&exports, 0..exports.len());
        prop_assert_eq!(left.records(), all.records());
        prop_assert_eq!(answers(&left), answers(&all));
    }
}
