//! Real and hostile documents.

mod properties;

use serde_json::{Value, json};

use super::*;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn parse(config: &Value) -> Result<Config, GraphError> {
    Config::parse(config.to_string().as_bytes())
}

/// A manifest with these layers and that config.
fn image(config: &Value, layers: &[&str]) -> Value {
    let bytes = config.to_string();
    let layers: Vec<Value> = layers
        .iter()
        .map(|name| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(name), "size": name.len(),
                "annotations": {"containerd.io/uncompressed": digest("diff"), "buildkit/createdat": "2026-11-22T05:23:18Z"},
            })
        })
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": CONFIG_MEDIA_TYPE, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len()},
        "layers": layers,
    })
}

fn two_steps() -> Value {
    json!({
        "layers": [{"blob": digest("a"), "parent": -1}, {"blob": digest("b")}],
        "records": [
            {"digest": digest("from"), "layers": [{"layer": 0, "createdAt": "2026-11-22T05:23:18.123456789Z"}]},
            {"digest": digest("run"), "inputs": [[{"link": 0}, {"selector": "/etc", "link": 0}]],
             "chains": [{"layers": [0, 1], "createdAt": "0001-01-01T00:00:00Z"}]},
        ],
    })
}

#[test]
fn an_absent_parent_is_layer_0_and_minus_1_is_the_root() {
    let config = parse(&two_steps()).unwrap();
    assert_eq!(
        config.layers[0],
        Layer {
            blob: digest("a"),
            parent: None
        }
    );
    assert_eq!(
        config.layers[1],
        Layer {
            blob: digest("b"),
            parent: Some(0)
        }
    );
    assert_eq!(
        config.records[1].inputs[0][1],
        Link {
            selector: "/etc".into(),
            record: 0
        }
    );
    assert_eq!(config.records[1].chains[0].layers, [0, 1]);
}

#[test]
fn null_is_the_zero_value_as_in_go() {
    let config = json!({"layers": null, "records": [{"digest": digest("x"), "inputs": null, "layers": null, "chains": null}]});
    assert_eq!(parse(&config).unwrap().records.len(), 1);
}

#[test]
fn unknown_fields_are_ignored() {
    let mut config = two_steps();
    config["later"] = json!([1, 2]);
    config["records"][0]["later"] = json!({"deep": [{}]});
    assert!(parse(&config).is_ok());
}

#[test]
fn indices_out_of_range_are_refused() {
    for (path, index) in [
        ("/layers/1/parent", -2),
        ("/layers/1/parent", 2),
        ("/records/1/inputs/0/0/link", 2),
        ("/records/1/inputs/0/0/link", -1),
        ("/records/0/layers/0/layer", 2),
        ("/records/0/layers/0/layer", -1),
        ("/records/1/chains/0/layers/1", i64::MAX),
        ("/records/1/chains/0/layers/1", i64::MIN),
    ] {
        let mut config = two_steps();
        match config.pointer_mut(path) {
            Some(slot) => *slot = json!(index),
            None => config["layers"][1]["parent"] = json!(index),
        }
        let error = parse(&config).unwrap_err();
        assert!(
            matches!(error, GraphError::OutOfRange { index: found, .. } if found == index),
            "{path}: {error}"
        );
    }
}

#[test]
fn cycles_are_refused() {
    let mut records = two_steps();
    records["records"][0]["inputs"] = json!([[{"link": 1}]]);
    assert!(matches!(
        parse(&records),
        Err(GraphError::Cycle { what: "record", .. })
    ));
    let mut own = two_steps();
    own["records"][0]["inputs"] = json!([[{"link": 0}]]);
    assert!(matches!(
        parse(&own),
        Err(GraphError::Cycle {
            what: "record",
            index: 0
        })
    ));
    // An absent parent is 0: the lowest layer without one stands on itself.
    let layers = json!({"layers": [{"blob": digest("a")}]});
    assert!(matches!(
        parse(&layers),
        Err(GraphError::Cycle {
            what: "layer",
            index: 0
        })
    ));
}

#[test]
fn an_input_that_nothing_satisfies_is_refused() {
    for empty in [json!([]), Value::Null] {
        let mut config = two_steps();
        config["records"][1]["inputs"] = json!([[{"link": 0}], empty]);
        assert!(matches!(
            parse(&config),
            Err(GraphError::EmptyInput {
                record: 1,
                input: 1
            })
        ));
    }
}

#[test]
fn wrong_types_and_digests_are_refused() {
    for config in [
        json!(null),
        json!([]),
        json!(7),
        json!({"layers": {}}),
        json!({"layers": [{}]}),
        json!({"layers": [[digest("a"), -1]]}),
        json!({"layers": [{"blob": "sha256:00", "parent": -1}]}),
        json!({"layers": [{"blob": "../../etc/passwd", "parent": -1}]}),
        json!({"layers": [{"blob": digest("a"), "parent": "x"}]}),
        json!({"layers": [{"blob": digest("a"), "parent": 0.5}]}),
        json!({"layers": [{"blob": digest("a"), "parent": -1, "annotations": {"size": -1}}]}),
        json!({"records": [{}]}),
        json!({"records": [{"digest": "nothing"}]}),
        json!({"records": [{"digest": digest("a"), "layers": [{"layer": 0, "createdAt": "yesterday"}]}]}),
    ] {
        assert!(
            matches!(parse(&config), Err(GraphError::Malformed { .. })),
            "{config}"
        );
    }
}

#[test]
fn too_many_of_anything_are_refused_while_they_are_read() {
    let config = json!({"records": [{"digest": digest("a"), "inputs": vec![json!([]); limits::MAX_INPUTS + 1]}]});
    assert!(matches!(parse(&config), Err(GraphError::Malformed { .. })));
    let bytes = vec![b' '; MAX_CONFIG_BYTES as usize + 1];
    assert!(matches!(
        Config::parse(&bytes),
        Err(GraphError::TooLarge { .. })
    ));
    assert!(matches!(
        Manifest::parse(&bytes),
        Err(GraphError::TooLarge { .. })
    ));
}

#[test]
fn chains_of_100_000_are_parsed_and_their_cycles_found() {
    const DEEP: usize = 100_000;
    let config = |first_parent: i64, first_inputs: &str| {
        let layers = (0..DEEP as i64).map(|at| {
            format!(
                r#"{{"blob":"{}","parent":{}}}"#,
                digest("a"),
                if at == 0 { first_parent } else { at - 1 }
            )
        });
        let records = (0..DEEP).map(|at| match at {
            0 => format!(r#"{{"digest":"{}","inputs":{first_inputs}}}"#, digest("r")),
            _ => format!(
                r#"{{"digest":"{}","inputs":[[{{"link":{}}}]]}}"#,
                digest("r"),
                at - 1
            ),
        });
        let list = |items: Vec<String>| items.join(",");
        format!(
            r#"{{"layers":[{}],"records":[{}]}}"#,
            list(layers.collect()),
            list(records.collect())
        )
    };
    assert_eq!(
        Config::parse(config(-1, "[]").as_bytes())
            .unwrap()
            .records
            .len(),
        DEEP
    );
    let last = DEEP as i64 - 1;
    assert!(matches!(
        Config::parse(config(last, "[]").as_bytes()),
        Err(GraphError::Cycle { what: "layer", .. })
    ));
    let looping = format!(r#"[[{{"link":{last}}}]]"#);
    assert!(matches!(
        Config::parse(config(-1, &looping).as_bytes()),
        Err(GraphError::Cycle { what: "record", .. })
    ));
}

#[test]
fn deep_nesting_is_refused_and_overflows_no_stack() {
    let nested = format!(r#"{{"later":{}"#, "[".repeat(1_000_000));
    assert!(Config::parse(nested.as_bytes()).is_err());
    assert!(Manifest::parse(nested.as_bytes()).is_err());
}

#[test]
fn an_image_manifest_and_an_index_say_the_same() {
    let image = image(&two_steps(), &["a", "b", "a"]);
    let mut manifests = image["layers"].as_array().unwrap().clone();
    manifests.push(image["config"].clone());
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
    let of_image = Manifest::parse(image.to_string().as_bytes()).unwrap();
    assert_eq!(
        of_image,
        Manifest::parse(index.to_string().as_bytes()).unwrap()
    );
    assert_eq!(of_image.layers.len(), 3);
    assert!(
        of_image
            .parse_config(two_steps().to_string().as_bytes())
            .is_ok()
    );
}

#[test]
fn what_is_served_parses_back_and_never_changes() {
    let manifest =
        Manifest::parse(image(&two_steps(), &["a", "b"]).to_string().as_bytes()).unwrap();
    let served = manifest.to_json().unwrap();
    assert_eq!(served, manifest.to_json().unwrap());
    assert_eq!(Manifest::parse(&served).unwrap(), manifest);
    let served: Value = serde_json::from_slice(&served).unwrap();
    assert_eq!(served, image(&two_steps(), &["a", "b"]));
}

#[test]
fn other_documents_are_no_cache_manifest() {
    let mut docker = image(&two_steps(), &["a"]);
    docker["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    for document in [
        docker,
        json!({}),
        json!({"manifests": []}),
        two_steps(),
        json!({"fsLayers": [], "config": null}),
    ] {
        let parsed = Manifest::parse(document.to_string().as_bytes());
        assert!(
            matches!(
                parsed,
                Err(GraphError::NotACacheManifest | GraphError::Malformed { .. })
            ),
            "{document}"
        );
    }
}

#[test]
fn a_manifest_that_can_be_read_in_two_ways_is_refused() {
    let mut both = image(&two_steps(), &["a"]);
    both["manifests"] = json!([both["config"].clone()]);
    assert!(matches!(
        Manifest::parse(both.to_string().as_bytes()),
        Err(GraphError::Ambiguous(_))
    ));
    let config = both["config"].clone();
    let twice = json!({"manifests": [config, config]});
    assert!(matches!(
        Manifest::parse(twice.to_string().as_bytes()),
        Err(GraphError::Ambiguous(_))
    ));
    let mut sizes = image(&two_steps(), &["a", "a"]);
    sizes["layers"][1]["size"] = json!(99);
    assert!(matches!(
        Manifest::parse(sizes.to_string().as_bytes()),
        Err(GraphError::TwoSizes(_))
    ));
}

#[test]
fn a_config_must_be_the_one_that_the_manifest_names() {
    let manifest = |layers: &[&str]| {
        Manifest::parse(image(&two_steps(), layers).to_string().as_bytes()).unwrap()
    };
    assert!(matches!(
        manifest(&["a", "b"]).parse_config(b"{}"),
        Err(GraphError::WrongConfig { .. })
    ));
    let unlisted = manifest(&["a"]).parse_config(two_steps().to_string().as_bytes());
    assert!(matches!(unlisted, Err(GraphError::UnlistedLayer(layer)) if layer == digest("b")));
    let empty = json!({});
    let manifest = Manifest::parse(image(&empty, &[]).to_string().as_bytes()).unwrap();
    assert!(matches!(
        manifest.parse_config(empty.to_string().as_bytes()),
        Err(GraphError::Empty)
    ));
}
