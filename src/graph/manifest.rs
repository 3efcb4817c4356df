//! A cache manifest: the config, and a descriptor for each layer.
//!
//! BuildKit writes an OCI image manifest, or an index that lists the config
//! among its layers (`cache/remotecache/export.go`). Either way it is known by
//! its config's media type. What is served is always an image manifest.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::limits::MAX_MANIFEST_BYTES;
use super::shape::Object;
use super::{CONFIG_MEDIA_TYPE, Config, GraphError, wire};
use crate::digest::Digest;

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The annotation with the digest of the uncompressed layer.
pub(super) const DIFF_ID: &str = "containerd.io/uncompressed";
/// The annotation with the time when the layer was made.
pub(super) const CREATED_AT: &str = "buildkit/createdat";

/// A cache manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cache config.
    pub config: Descriptor,
    /// The layers, in the manifest's order; one blob may be listed twice.
    pub layers: Vec<Descriptor>,
}

/// A content descriptor of the image specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; the image specification's, BuildKit's or Docker's.
    pub media_type: String,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// BuildKit's are `containerd.io/uncompressed` and `buildkit/createdat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Whether a document is meant as a manifest, cache or not: the image
    /// specification demands a `schemaVersion`, and a cache config has none.
    pub fn recognise(json: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Versioned {
            #[serde(rename = "schemaVersion")]
            _version: serde::de::IgnoredAny,
        }

        serde_json::from_slice::<Versioned>(json).is_ok()
    }

    /// Parses a manifest; [`GraphError::NotACacheManifest`] and
    /// [`GraphError::Malformed`] tell that the document is something else.
    pub fn parse(json: &[u8]) -> Result<Self, GraphError> {
        let what = "cache manifest";
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(GraphError::TooLarge {
                what,
                size: json.len() as u64,
                limit: MAX_MANIFEST_BYTES,
            });
        }
        let Object(wire::Manifest {
            config,
            layers,
            manifests,
            fs_layers,
        }) = serde_json::from_slice(json)
            .map_err(|source| GraphError::Malformed { what, source })?;
        let manifest = match (config, manifests) {
            _ if fs_layers.is_some() => Err(GraphError::NotACacheManifest),
            (config, Some(_)) if config.is_some() || layers.is_some() => {
                Err(GraphError::Ambiguous("both an image manifest and an index"))
            }
            (_, Some(manifests)) => of_index(manifests.into_objects()),
            (Some(Object(config)), None) => {
                of_image(config, layers.unwrap_or_default().into_objects())
            }
            (None, None) => Err(GraphError::NotACacheManifest),
        }?;
        manifest.sizes()?;
        Ok(manifest)
    }

    /// Parses the config that this manifest names, and checks that it is that
    /// one and that every layer of it is named here.
    pub fn parse_config(&self, json: &[u8]) -> Result<Config, GraphError> {
        let (actual, actual_size) = (Digest::of(json), json.len() as u64);
        let (expected, expected_size) = (self.config.digest, self.config.size);
        if (actual, actual_size) != (expected, expected_size) {
            return Err(GraphError::WrongConfig {
                expected,
                expected_size,
                actual,
                actual_size,
            });
        }
        let config = Config::parse(json)?;
        let named: HashSet<Digest> = self.layers.iter().map(|layer| layer.digest).collect();
        match config
            .layers
            .iter()
            .find(|layer| !named.contains(&layer.blob))
        {
            Some(layer) => Err(GraphError::UnlistedLayer(layer.blob)),
            None if config.layers.is_empty() => Err(GraphError::Empty),
            None => Ok(config),
        }
    }

    /// The size in bytes of each blob that is a layer.
    pub fn sizes(&self) -> Result<HashMap<Digest, u64>, GraphError> {
        let mut sizes = HashMap::with_capacity(self.layers.len());
        for layer in &self.layers {
            if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
                return Err(GraphError::TwoSizes(layer.digest));
            }
        }
        Ok(sizes)
    }

    /// An OCI image manifest that says the same; the same bytes every time.
    pub fn to_json(&self) -> Result<Vec<u8>, GraphError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Image<'a> {
            schema_version: u8,
            media_type: &'a str,
            config: &'a Descriptor,
            layers: &'a [Descriptor],
        }

        let image = Image {
            schema_version: 2,
            media_type: IMAGE_MANIFEST,
            config: &self.config,
            layers: &self.layers,
        };
        serde_json::to_vec(&image).map_err(|source| GraphError::Malformed {
            what: "cache manifest",
            source,
        })
    }
}

impl Descriptor {
    /// The descriptor of a cache config.
    pub fn of_config(digest: Digest, size: u64) -> Self {
        Self {
            media_type: CONFIG_MEDIA_TYPE.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
        }
    }

    fn is_config(&self) -> bool {
        self.media_type == CONFIG_MEDIA_TYPE
    }
}

fn of_image(
    config: wire::Descriptor,
    layers: impl Iterator<Item = wire::Descriptor>,
) -> Result<Manifest, GraphError> {
    let config = Descriptor::from(config);
    if !config.is_config() {
        return Err(GraphError::NotACacheManifest);
    }
    Ok(Manifest {
        config,
        layers: layers.map(Descriptor::from).collect(),
    })
}

fn of_index(manifests: impl Iterator<Item = wire::Descriptor>) -> Result<Manifest, GraphError> {
    let (mut configs, layers): (Vec<_>, Vec<_>) = manifests
        .map(Descriptor::from)
        .partition(Descriptor::is_config);
    let config = configs.pop().ok_or(GraphError::NotACacheManifest)?;
    if !configs.is_empty() {
        return Err(GraphError::Ambiguous("it names two cache configs"));
    }
    Ok(Manifest { config, layers })
}

impl From<wire::Descriptor> for Descriptor {
    fn from(wire: wire::Descriptor) -> Self {
        Self {
            media_type: wire.media_type,
            digest: wire.digest,
            size: wire.size,
            annotations: wire.annotations.0,
        }
    }
}
