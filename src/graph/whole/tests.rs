use serde_json::{Value, json};

use super::*;

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

fn layer(blob: &str, parent: i64) -> Value {
    json!({
        "blob": digest(blob),
        "parent": parent,
        "annotations": {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "diffID": digest("uncompressed"),
            "size": 7,
            "createdAt": "2026-11-22T05:23:18.123456789Z",
        },
    })
}

fn whole(layers: Value) -> Vec<u8> {
    let record = json!({"digest": digest("record"), "layers": [{"layer": 0}]});
    json!({"layers": layers, "records": [record]})
        .to_string()
        .into_bytes()
}

#[test]
fn what_a_config_says_of_its_layers_is_what_its_manifest_says() {
    let json = whole(json!([layer("a", -1), layer("b", 0), layer("b", -1)]));
    let manifest = Manifest::of_whole(&json).unwrap();
    assert_eq!(manifest.config.digest, Digest::of(&json));
    let blobs: Vec<_> = manifest.layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(blobs, [Digest::of(b"a"), Digest::of(b"b")]);
    let first = &manifest.layers[0];
    assert_eq!(first.size, 7);
    assert_eq!(
        first.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert_eq!(first.annotations[DIFF_ID], digest("uncompressed"));
    assert_eq!(
        first.annotations[CREATED_AT],
        "2026-11-22T05:23:18.123456789Z"
    );
    let written = manifest.to_json().unwrap();
    let read = Manifest::parse(&written).unwrap();
    assert_eq!(read, manifest);
    assert_eq!(read.parse_config(&json).unwrap().layers.len(), 3);
}

#[test]
fn gos_zero_time_is_none() {
    let mut one = layer("a", -1);
    one["annotations"]["createdAt"] = json!("0001-01-01T00:00:00Z");
    let manifest = Manifest::of_whole(&whole(json!([one]))).unwrap();
    assert!(!manifest.layers[0].annotations.contains_key(CREATED_AT));
}

#[test]
fn a_layer_that_does_not_say_all_is_refused() {
    for missing in ["mediaType", "diffID", "size"] {
        for absent in [true, false] {
            let mut one = layer("a", -1);
            let annotations = one["annotations"].as_object_mut().unwrap();
            match absent {
                true => drop(annotations.remove(missing)),
                false => drop(annotations.insert(missing.to_owned(), Value::Null)),
            }
            let refused = Manifest::of_whole(&whole(json!([one])));
            assert!(
                matches!(refused, Err(GraphError::UndescribedLayer(_))),
                "{missing}: {refused:?}"
            );
        }
    }
    let bare = json!({"blob": digest("a"), "parent": -1});
    assert!(matches!(
        Manifest::of_whole(&whole(json!([bare]))),
        Err(GraphError::UndescribedLayer(_))
    ));
}

#[test]
fn what_can_be_read_in_two_ways_or_points_nowhere_is_refused() {
    let mut other = layer("a", 0);
    other["annotations"]["size"] = json!(8);
    assert!(matches!(
        Manifest::of_whole(&whole(json!([layer("a", -1), other]))),
        Err(GraphError::TwoSizes(_))
    ));
    assert!(matches!(
        Manifest::of_whole(&whole(json!([layer("a", 5)]))),
        Err(GraphError::OutOfRange { .. })
    ));
    assert!(matches!(
        Manifest::of_whole(&whole(json!([layer("a", 0)]))),
        Err(GraphError::Cycle { .. })
    ));
    assert!(matches!(
        Manifest::of_whole(b"{\"layers\":[],\"records\":[]}"),
        Err(GraphError::Empty)
    ));
}

#[test]
fn what_is_no_such_config_is_refused_and_nothing_panics() {
    let annotated = |annotations: Value| {
        whole(json!([{"blob": digest("a"), "parent": -1, "annotations": annotations}]))
    };
    for hostile in [
        b"".to_vec(),
        b"\xff\xfe".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        vec![b'['; 100_000],
        whole(json!("layers")),
        whole(json!([[]])),
        whole(json!([{"blob": "sha256:xyz"}])),
        annotated(json!([])),
        annotated(json!({"mediaType": 1, "diffID": digest("d"), "size": 1})),
        annotated(json!({"mediaType": "m", "diffID": "d", "size": 1})),
        annotated(json!({"mediaType": "m", "diffID": digest("d"), "size": -1})),
        annotated(json!({"mediaType": "m", "diffID": digest("d"), "size": 1e30})),
        annotated(json!({"mediaType": "m", "diffID": digest("d"), "size": 1, "createdAt": "now"})),
    ] {
        let refused = Manifest::of_whole(&hostile);
        assert!(
            matches!(refused, Err(GraphError::Malformed { .. })),
            "{refused:?}"
        );
    }
    let large = vec![b' '; usize::try_from(MAX_CONFIG_BYTES).unwrap() + 1];
    assert!(matches!(
        Manifest::of_whole(&large),
        Err(GraphError::TooLarge { .. })
    ));
}

#[test]
fn a_config_cut_off_anywhere_is_refused() {
    let json = whole(json!([layer("a", -1), layer("b", 0)]));
    for end in 0..json.len() {
        assert!(Manifest::of_whole(&json[..end]).is_err(), "{end}");
    }
}
