//! The documents of an archive, as the image specification has them, and how
//! much of anything is taken in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use crate::cache::Document;
use crate::digest::Digest;
use crate::graph::Descriptor;
use crate::place::{GitRef, Place, ProjectId, Scope};

/// The entry with the version of the layout.
pub(super) const LAYOUT: &str = "oci-layout";
/// The entry that lists the exports.
pub(super) const INDEX: &str = "index.json";
/// The folder of all other entries.
const BLOBS: &str = "blobs/sha256/";

/// Bytes of the layout's version.
pub(super) const MAX_LAYOUT_BYTES: u64 = 4 << 10;
/// Bytes of the index.
pub(super) const MAX_INDEX_BYTES: u64 = 32 << 20;
/// Exports of one archive.
pub(super) const MAX_EXPORTS: usize = 100_000;
/// Bytes of one document: what a cache takes of a config and a manifest.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 64 << 20;
/// Bytes of all documents, which a reader keeps in a temporary file.
pub(super) const MAX_DOCUMENTS_BYTES: u64 = 8 << 30;
/// Layers that the exports name, each as often as one names it: what a reader
/// keeps in memory grows with it.
pub(super) const MAX_NAMED: usize = 4_000_000;

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYOUT_VERSION: &str = "1.0.0";

/// The name of a manifest in the index (image specification, `annotations`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// When an export was written (the same).
const CREATED: &str = "org.opencontainers.image.created";
/// What BuildKit's `type=local` looks for.
pub(super) const LATEST: &str = "latest";

const PROJECT: &str = "layerd/project";
const GIT_REF: &str = "layerd/ref";
const SCOPE: &str = "layerd/scope";
const BUILDER: &str = "layerd/builder";
const STEPS: &str = "layerd/steps";
const STEPS_SIZE: &str = "layerd/steps-size";

/// Bytes of a builder's name.
const MAX_BUILDER: usize = 256;

/// The entry of a blob.
pub(super) fn blob_entry(digest: &Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

/// The blob that an entry is, if it is one.
pub(super) fn blob_of(entry: &str) -> Option<Digest> {
    Digest::from_hex(entry.strip_prefix(BLOBS)?).ok()
}

#[derive(Serialize, Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// The content of the layout's entry.
pub(super) fn layout() -> String {
    format!(r#"{{"imageLayoutVersion":"{LAYOUT_VERSION}"}}"#)
}

/// Looks whether it is a layout of the version that is known.
pub(super) fn check_layout(json: &[u8]) -> Result<(), ArchiveError> {
    let layout: Layout = parsed(LAYOUT, json)?;
    if layout.version == LAYOUT_VERSION {
        return Ok(());
    }
    Err(ArchiveError::Malformed(format!(
        "it is an image layout of version {:?}; {LAYOUT_VERSION} is known",
        layout.version
    )))
}

/// The list of exports, the oldest first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u8,
    #[serde(default)]
    media_type: String,
    pub(super) manifests: Vec<Listed>,
}

/// A manifest in the index.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Listed {
    /// An export, and what it is called.
    pub(super) fn new(manifest: &Document, name: String) -> Self {
        Self {
            media_type: MANIFEST_TYPE.to_owned(),
            digest: manifest.digest,
            size: manifest.bytes.len() as u64,
            annotations: BTreeMap::from([(REF_NAME.to_owned(), name)]),
        }
    }

    /// Calls it otherwise.
    pub(super) fn rename(&mut self, name: &str) {
        self.annotations
            .insert(REF_NAME.to_owned(), name.to_owned());
    }

    /// What it is called where a person reads it.
    pub(super) fn name(&self) -> String {
        match self.annotations.get(REF_NAME) {
            Some(name) if is_plain(name) => name.clone(),
            _ => self.digest.to_string(),
        }
    }
}

impl Index {
    /// Of these.
    pub(super) fn new(manifests: Vec<Listed>) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX_TYPE.to_owned(),
            manifests,
        }
    }

    /// The document.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, ArchiveError> {
        written(self)
    }

    /// Parses and checks.
    pub(super) fn parse(json: &[u8]) -> Result<Self, ArchiveError> {
        let index: Self = parsed(INDEX, json)?;
        let wrong = |what: String| Err(ArchiveError::Malformed(format!("{INDEX}: {what}")));
        let is_index = index.media_type.is_empty() || index.media_type == INDEX_TYPE;
        if index.schema_version != 2 || !is_index {
            return wrong("it is no image index".to_owned());
        }
        if index.manifests.len() > MAX_EXPORTS {
            return wrong(format!(
                "it lists {} exports; more than {MAX_EXPORTS} are not taken",
                index.manifests.len()
            ));
        }
        if index.manifests.is_empty() {
            return wrong("it lists nothing".to_owned());
        }
        let mut seen = std::collections::HashSet::new();
        for listed in &index.manifests {
            if listed.media_type != MANIFEST_TYPE {
                return wrong(format!(
                    "{} has the media type {:?}, and is no export",
                    listed.digest, listed.media_type
                ));
            }
            if !seen.insert(listed.digest) {
                return wrong(format!("it lists {} twice", listed.digest));
            }
        }
        Ok(index)
    }
}

/// What a manifest says besides its config and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) place: Place,
    pub(super) time: Option<Timestamp>,
    pub(super) builder: String,
    /// The document with the steps, and its size in bytes.
    pub(super) steps: Option<(Digest, u64)>,
}

impl Labels {
    fn annotations(&self) -> BTreeMap<String, String> {
        let place = &self.place;
        let mut annotations = BTreeMap::from([
            (PROJECT, place.project.to_string()),
            (GIT_REF, place.git_ref.to_string()),
            (SCOPE, place.scope.to_string()),
            (BUILDER, self.builder.clone()),
        ]);
        annotations.extend(self.time.map(|time| (CREATED, time.to_string())));
        if let Some((digest, size)) = &self.steps {
            annotations.insert(STEPS, digest.to_string());
            annotations.insert(STEPS_SIZE, size.to_string());
        }
        let owned = |(name, text): (&str, _)| (name.to_owned(), text);
        annotations.into_iter().map(owned).collect()
    }

    /// Those of a manifest. What is absent, as in a layout that BuildKit wrote
    /// itself, is what a build that says nothing has.
    pub(super) fn parse(manifest: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Annotated {
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }

        let Annotated { annotations } =
            serde_json::from_slice(manifest).map_err(|error| error.to_string())?;
        let text = |name: &str| annotations.get(name);
        let builder = text(BUILDER).map_or("", String::as_str);
        if builder.len() > MAX_BUILDER || builder.chars().any(char::is_control) {
            return Err(format!("the annotation {BUILDER} is no name of a host"));
        }
        let steps = match (text(STEPS), text(STEPS_SIZE)) {
            (Some(digest), Some(size)) => Some((
                digest
                    .parse()
                    .map_err(|error| format!("{STEPS}: {error}"))?,
                size.parse()
                    .map_err(|error| format!("{STEPS_SIZE}: {error}"))?,
            )),
            (None, None) => None,
            _ => return Err(format!("{STEPS} and {STEPS_SIZE} go together")),
        };
        let scope: Scope = name(SCOPE, text(SCOPE))?;
        if scope.is_any() {
            return Err(format!("the annotation {SCOPE} names no one scope"));
        }
        let project: ProjectId = name(PROJECT, text(PROJECT))?;
        let git_ref: GitRef = name(GIT_REF, text(GIT_REF))?;
        Ok(Self {
            place: Place {
                project,
                git_ref,
                scope,
            },
            // It is for those who read it.
            time: text(CREATED).and_then(|time| time.parse().ok()),
            builder: builder.to_owned(),
            steps,
        })
    }
}

fn name<T>(annotation: &str, text: Option<&String>) -> Result<T, String>
where
    T: Default + std::str::FromStr<Err: std::fmt::Display>,
{
    let Some(text) = text else {
        return Ok(T::default());
    };
    text.parse()
        .map_err(|error| format!("the annotation {annotation} is not to be used: {error}"))
}

/// The manifest of an export.
pub(super) fn manifest(
    config: &Document,
    layers: &[Descriptor],
    labels: &Labels,
) -> Result<Document, ArchiveError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Image<'a> {
        schema_version: u8,
        media_type: &'a str,
        config: Descriptor,
        layers: &'a [Descriptor],
        annotations: BTreeMap<String, String>,
    }

    let json = written(&Image {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        config: Descriptor::of_config(config.digest, config.bytes.len() as u64),
        layers,
        annotations: labels.annotations(),
    })?;
    Ok(Document::new(json.into()))
}

/// A name that shows what it is, and nothing else.
fn is_plain(name: &str) -> bool {
    name.len() <= 128 && name.chars().all(|letter| letter.is_ascii_graphic())
}

pub(super) fn written(document: &impl Serialize) -> Result<Vec<u8>, ArchiveError> {
    serde_json::to_vec(document)
        .map_err(|error| ArchiveError::Malformed(format!("a document can't be written: {error}")))
}

fn parsed<'a, T: Deserialize<'a>>(what: &str, json: &'a [u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(json)
        .map_err(|error| ArchiveError::Malformed(format!("{what}: {error}")))
}
