//! Layer descriptors between a manifest and the catalog, without loss.
//!
//! BuildKit's two annotations (`cache/blobs.go`, `util/compression`) have
//! columns of their own; one that would not come back as the same text stays
//! among the others.

use jiff::Timestamp;

use crate::catalog::Layer;
use crate::digest::Digest;
use crate::graph::Descriptor;

/// The digest of the uncompressed layer.
const DIFF_ID: &str = "containerd.io/uncompressed";

/// When the layer was made.
const CREATED_AT: &str = "buildkit/createdat";

/// As the catalog keeps it.
pub(super) fn to_layer(descriptor: Descriptor) -> Layer {
    let Descriptor {
        media_type,
        digest,
        size,
        mut annotations,
    } = descriptor;
    let diff_id = annotations
        .get(DIFF_ID)
        .and_then(|text| text.parse::<Digest>().ok());
    if diff_id.is_some() {
        annotations.remove(DIFF_ID);
    }
    let created_at = annotations.get(CREATED_AT).and_then(|text| {
        let time: Timestamp = text.parse().ok()?;
        (time.to_string() == *text).then_some(time)
    });
    if created_at.is_some() {
        annotations.remove(CREATED_AT);
    }
    Layer {
        digest,
        size,
        media_type,
        diff_id,
        created_at,
        annotations,
    }
}

/// As a manifest has it.
pub(super) fn to_descriptor(layer: Layer) -> Descriptor {
    let Layer {
        digest,
        size,
        media_type,
        diff_id,
        created_at,
        mut annotations,
    } = layer;
    annotations.extend(diff_id.map(|diff_id| (DIFF_ID.to_owned(), diff_id.to_string())));
    annotations.extend(created_at.map(|time| (CREATED_AT.to_owned(), time.to_string())));
    Descriptor {
        media_type,
        digest,
        size,
        annotations,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_annotation_is_lost_or_changed(
            diff_id in prop_oneof![Just(Digest::of(b"x").to_string()), ".{0,20}"],
            created_at in prop_oneof![
                "20[0-9]{2}-0[1-9]-1[0-9]T1[0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|\\+02:00)",
                ".{0,20}",
            ],
            other in ".{0,20}",
        ) {
            let descriptor = Descriptor {
                media_type: "m".to_owned(),
                digest: Digest::of(b"layer"),
                size: 7,
                annotations: [(DIFF_ID, diff_id), (CREATED_AT, created_at), ("other", other)]
                    .map(|(name, text)| (name.to_owned(), text))
                    .into(),
            };
            prop_assert_eq!(to_descriptor(to_layer(descriptor.clone())), descriptor);
        }
    }

    #[test]
    fn what_buildkit_writes_gets_its_columns() {
        let annotations = [
            (DIFF_ID, Digest::of(b"x").to_string()),
            (CREATED_AT, "2026-11-22T05:23:18.123456789Z".to_owned()),
        ];
        let layer = to_layer(Descriptor {
            media_type: "m".to_owned(),
            digest: Digest::of(b"layer"),
            size: 7,
            annotations: annotations
                .map(|(name, text)| (name.to_owned(), text))
                .into(),
        });
        assert_eq!(layer.diff_id, Some(Digest::of(b"x")));
        assert_eq!(
            layer.created_at,
            "2026-11-22T05:23:18.123456789Z".parse().ok()
        );
        assert!(layer.annotations.is_empty());
    }
}
