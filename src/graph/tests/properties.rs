//! Random documents, valid, nearly valid and hostile.

use proptest::prelude::*;

use super::*;

fn valid_config() -> impl Strategy<Value = Value> {
    let parents = prop::collection::vec(any::<prop::sample::Index>(), 1..30);
    let links = prop::collection::vec(
        (
            prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            any::<prop::sample::Index>(),
        ),
        0..30,
    );
    (parents, links).prop_map(|(parents, records)| {
        let layer = |(at, parent): (usize, &prop::sample::Index)| {
            json!({"blob": digest(&at.to_string()), "parent": parent.index(at + 1) as i64 - 1})
        };
        let record = |(at, (inputs, result)): (usize, &(Vec<prop::sample::Index>, prop::sample::Index))| {
            let link = |input: &prop::sample::Index| json!([{"link": input.index(at)}]);
            let inputs: Vec<Value> = inputs.iter().filter(|_| at > 0).map(link).collect();
            json!({"digest": digest(&at.to_string()), "inputs": inputs, "layers": [{"layer": result.index(parents.len())}]})
        };
        json!({
            "layers": parents.iter().enumerate().map(layer).collect::<Vec<_>>(),
            "records": records.iter().enumerate().map(record).collect::<Vec<_>>(),
        })
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!(digest("a"))),
        Just(json!(CONFIG_MEDIA_TYPE)),
    ];
    let key = prop::sample::select(vec![
        "layers",
        "records",
        "blob",
        "parent",
        "digest",
        "inputs",
        "link",
        "layer",
        "chains",
        "createdAt",
        "config",
        "manifests",
        "size",
        "mediaType",
        "annotations",
        "other",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|fields| Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn every_valid_config_parses(config in valid_config()) {
        let parsed = parse(&config).unwrap();
        prop_assert_eq!(parsed.layers.len(), config["layers"].as_array().unwrap().len());
        prop_assert_eq!(parsed.records.len(), config["records"].as_array().unwrap().len());
    }

    #[test]
    fn any_document_is_taken_or_refused(document in any_json()) {
        Config::parse(document.to_string().as_bytes()).ok();
        Manifest::parse(document.to_string().as_bytes()).ok();
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in any::<Vec<u8>>()) {
        prop_assert!(Config::parse(&bytes).is_err() || !bytes.is_empty());
        Manifest::parse(&bytes).ok();
    }

    #[test]
    fn a_valid_config_with_one_thing_changed_is_taken_or_refused(config in valid_config(), at in any::<prop::sample::Index>(), other in any_json()) {
        let mut config = config;
        let list = if at.index(2) == 0 { "layers" } else { "records" };
        if let Some(elements) = config[list].as_array_mut().filter(|elements| !elements.is_empty()) {
            let index = at.index(elements.len());
            if let Some((_, field)) = elements[index].as_object_mut().and_then(|fields| fields.iter_mut().next()) {
                *field = other;
            }
        }
        if let Ok(parsed) = parse(&config) {
            prop_assert!(parsed.layers.iter().all(|layer| layer.parent.is_none_or(|parent| parent < parsed.layers.len())));
            prop_assert!(parsed.records.iter().flat_map(|record| record.inputs.iter().flatten()).all(|link| link.record < parsed.records.len()));
        }
    }
}
