//! Which of a record's results is served.

use super::*;

/// An export of one record whose result is `blob`, of that media type, made
/// at that time of the year 2026.
fn one(id: u64, blob: u64, media_type: &str, created_at: Option<&str>) -> (u64, Value, Descriptor) {
    let created_at = created_at.map(|day| format!("2026-{day}T00:00:00Z"));
    let config = json!({
        "layers": [{"blob": digest(blob), "parent": -1}],
        "records": [{"digest": digest(1), "layers": [{"layer": 0, "createdAt": created_at}]}],
    });
    (
        id,
        config,
        described(digest(blob).parse().unwrap(), media_type),
    )
}

fn union_of(exports: &[(u64, Value, Descriptor)]) -> Union {
    let mut union = Union::default();
    for (id, config, layer) in exports {
        union.add(&ExportSource {
            id: *id,
            time: Some("2026-06-01T00:00:00Z".parse().unwrap()),
            config: &Parsed::read(config.to_string().as_bytes()).unwrap(),
            layers: std::slice::from_ref(layer),
        });
    }
    union
}

/// The blob that is served.
fn blob(union: &Union, serving: &Serving<'_>) -> Option<u64> {
    let served = union.serve(serving);
    let layer = served.layers.first()?;
    (0..100).find(|number| digest(*number) == layer.digest.to_string())
}

#[test]
fn the_newest_is_served_and_a_tie_is_settled_by_content() {
    let old = one(1, 1, "x+gzip", Some("01-01"));
    let new = one(2, 2, "x+gzip", Some("02-01"));
    let tied = one(3, 3, "x+gzip", Some("02-01"));
    let all = Serving::of(&|_| true);
    assert_eq!(blob(&union_of(&[new.clone(), old.clone()]), &all), Some(2));
    let one = blob(&union_of(&[old.clone(), new.clone(), tied.clone()]), &all);
    assert_eq!(one, blob(&union_of(&[tied, new, old]), &all));
}

#[test]
fn a_date_in_the_future_wins_over_nothing_that_comes_later() {
    let (_, liar, first) = one(1, 1, "x+gzip", Some("12-31"));
    let (_, honest, second) = one(2, 2, "x+gzip", Some("06-02"));
    // Somebody who was served the first exports it again, as served.
    let (_, again, _) = one(3, 1, "x+gzip", Some("06-01"));
    let exports = [
        (1, "06-01", liar, first.clone()),
        (2, "06-03", honest, second),
        (3, "06-04", again, first),
    ];
    let union_of = |order: [usize; 3]| {
        let mut union = Union::default();
        for at in order {
            let (id, day, config, layer) = &exports[at];
            union.add(&ExportSource {
                id: *id,
                time: Some(format!("2026-{day}T00:00:00Z").parse().unwrap()),
                config: &Parsed::read(config.to_string().as_bytes()).unwrap(),
                layers: std::slice::from_ref(layer),
            });
        }
        union
    };
    let all = Serving::of(&|_| true);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let union = union_of(order);
        assert_eq!(blob(&union, &all), Some(2), "{order:?}");
        // What is served of it says no more than that either.
        let other = exports[1].3.digest;
        let deliverable = |digest: &Digest| *digest != other;
        let served = union.serve(&Serving::of(&deliverable));
        let dates = config(&served).results();
        let dates: Vec<_> = dates.iter().map(|(_, date)| date.to_string()).collect();
        assert_eq!(dates, ["2026-06-01T00:00:00Z"], "{order:?}");
    }
}

#[test]
fn the_wanted_compression_comes_before_the_newest() {
    let union = union_of(&[
        one(
            1,
            1,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            Some("01-01"),
        ),
        one(
            2,
            2,
            "application/vnd.oci.image.layer.v1.tar+zstd",
            Some("02-01"),
        ),
        one(
            3,
            3,
            "application/vnd.docker.image.rootfs.diff.tar",
            Some("01-02"),
        ),
    ]);
    let wanting = |compression| {
        blob(
            &union,
            &Serving {
                compression,
                ..Serving::of(&|_| true)
            },
        )
    };
    assert_eq!(wanting(None), Some(2));
    assert_eq!(wanting(Some(Compression::Gzip)), Some(1));
    assert_eq!(wanting(Some(Compression::Zstd)), Some(2));
    assert_eq!(wanting(Some(Compression::Uncompressed)), Some(3));
}

#[test]
fn another_stands_in_for_one_that_is_not_there_or_too_old() {
    let union = union_of(&[
        one(1, 1, "x+gzip", Some("01-01")),
        one(2, 2, "x+gzip", Some("02-01")),
    ]);
    let present = |blob: &Digest| blob.to_string() != digest(2);
    assert_eq!(blob(&union, &Serving::of(&present)), Some(1));
    let not_before = "2026-01-15T00:00:00Z".parse().ok();
    let served = union.serve(&Serving {
        not_before,
        ..Serving::of(&present)
    });
    assert_eq!((served.records, served.results), (0, 0));
    assert_eq!((served.left_out.absent, served.left_out.old), (1, 1));
    assert_eq!(served.left_out.fruitless, 1);
}

#[test]
fn a_result_without_a_time_is_as_old_as_the_newest_export_that_has_it() {
    let union = union_of(&[one(1, 1, "x+gzip", None)]);
    let since = |time: &str| {
        let not_before = time.parse().ok();
        blob(
            &union,
            &Serving {
                not_before,
                ..Serving::of(&|_| true)
            },
        )
    };
    assert_eq!(since("2026-05-31T00:00:00Z"), Some(1));
    assert_eq!(since("2026-06-02T00:00:00Z"), None);
}

#[test]
fn a_clock_that_runs_ahead_makes_no_result_newer_than_its_export() {
    let union = union_of(&[one(1, 1, "x+gzip", Some("12-31"))]);
    let not_before = "2026-06-02T00:00:00Z".parse().ok();
    assert_eq!(
        blob(
            &union,
            &Serving {
                not_before,
                ..Serving::of(&|_| true)
            }
        ),
        None
    );
}

#[test]
fn ancestors_of_a_result_stay_without_results_of_their_own() {
    let export = json!({
        "layers": [{"blob": digest(1), "parent": -1}, {"blob": digest(2), "parent": -1}],
        "records": [step(10, json!([]), 0), step(11, json!([[{"link": 0}]]), 1), step(12, json!([[{"link": 1}]]), 0)],
    });
    let union = union(&[export]);
    let present = |blob: &Digest| blob.to_string() != digest(1);
    let served = union.serve(&Serving::of(&present));
    assert_eq!((served.records, served.results), (2, 1));
    assert_eq!((served.left_out.absent, served.left_out.fruitless), (2, 1));
}

#[test]
fn a_record_known_without_a_result_gets_that_of_another_export() {
    let bare = json!({"records": [{"digest": digest(1)}]});
    let full =
        json!({"layers": [{"blob": digest(5), "parent": -1}], "records": [step(1, json!([]), 0)]});
    let served = serve(&union(&[bare, full]));
    assert_eq!((served.records, served.results), (1, 1));
}

#[test]
fn a_long_chain_refers_to_the_tree_and_says_the_same() {
    let depth = 200u64;
    let layers: Vec<Value> = (0..depth)
        .map(|blob| json!({"blob": digest(blob), "parent": blob as i64 - 1}))
        .collect();
    let export = json!({"layers": layers, "records": [step(1000, json!([]), depth - 1), step(1001, json!([]), 5)]});
    let served = serve(&union(&[export]));
    let config = config(&served);
    let mut blobs = Vec::new();
    let long = config
        .records
        .iter()
        .find(|record| !record.results.is_empty())
        .unwrap();
    let mut at = Some(long.results[0].0);
    while let Some(layer) = at {
        blobs.push(config.layers[layer].blob.to_string());
        at = config.layers[layer].parent;
    }
    assert_eq!(blobs, (0..depth).rev().map(digest).collect::<Vec<_>>());
    let short = config
        .records
        .iter()
        .find(|record| record.results.is_empty())
        .unwrap();
    assert_eq!(short.chains[0].layers.len(), 6);
    assert_eq!(served.layers.len(), depth as usize);
}
