//! An import, in parts that stream: what it is, the layers that it names, and
//! its documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::v1::look_up_response::{Nothing, Part};
use super::{Malformed, append, count, digests, joined, nanoseconds, pieces, short, timestamp, v1};
use crate::cache::{Document, Documents, Flushed, Import, Lease};
use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::graph::LeftOut;
use crate::place::Place;

/// Blobs in one message.
const LAYERS: usize = 4096;
/// The largest document of an import, in bytes: what BuildKit could not take in
/// anyway.
const MAX_DOCUMENT: u64 = 512 << 20;
/// Layers that an import may name, and blobs that may be withdrawn of it.
const MAX_LAYERS: usize = 4_000_000;

/// What is sent of an import, in order. `lease` is what the hub took for it.
pub fn import_parts(import: Option<&Import>, lease: i64) -> Vec<v1::LookUpResponse> {
    let Some(import) = import else {
        return nothing(None);
    };
    let (manifest, config) = match &import.documents {
        Documents::Whole(config) => (Bytes::new(), config.clone()),
        Documents::Parts { manifest, config } => (manifest.bytes.clone(), config.bytes.clone()),
    };
    let mut parts = vec![response(Part::Found(v1::Found {
        exports: import.exports as u64,
        builders: import.builders as u64,
        export: import.export.map_or(0, |id| id.0),
        exported_at_ns: nanoseconds(import.exported_at),
        builder: import.builder.clone(),
        records: import.records as u64,
        left_out: Some(v1::LeftOut {
            absent: import.left_out.absent,
            old: import.left_out.old,
            fruitless: import.left_out.fruitless,
            cut: import.left_out.cut,
            cut_results: import.left_out.cut_results,
            loops: import.left_out.loops,
        }),
        refused: import.refused,
        lease,
        manifest_bytes: manifest.len() as u64,
        config_bytes: config.len() as u64,
        flushed_at_ns: import.flushed.as_ref().map(at),
        flushed_by: by(import.flushed.as_ref()),
    }))];
    let withdrawn = import.withdrawn.chunks(LAYERS);
    parts.extend(withdrawn.map(|withdrawn| response(Part::Withdrawn(joined(withdrawn)))));
    let layers: Vec<_> = import.layers.iter().collect();
    parts.extend(layers.chunks(LAYERS).map(|layers| {
        response(Part::Layers(v1::NamedLayers {
            digests: joined(layers.iter().map(|(digest, _)| *digest)),
            sizes: layers.iter().map(|(_, size)| **size).collect(),
        }))
    }));
    parts.extend(pieces(manifest).map(|piece| response(Part::Manifest(piece))));
    parts.extend(pieces(config).map(|piece| response(Part::Config(piece))));
    parts
}

/// What is sent where there is nothing.
pub fn nothing(flushed: Option<&Flushed>) -> Vec<v1::LookUpResponse> {
    vec![response(Part::Nothing(Nothing {
        flushed_at_ns: flushed.map(at),
        flushed_by: by(flushed),
    }))]
}

fn at(flushed: &Flushed) -> i64 {
    nanoseconds(flushed.at)
}

fn by(flushed: Option<&Flushed>) -> String {
    flushed.map_or_else(String::new, |flushed| flushed.by.clone())
}

/// A flush as it was sent.
fn flushed(at: Option<i64>, by: String) -> Result<Option<Flushed>, Malformed> {
    let Some(at) = at else { return Ok(None) };
    Ok(Some(Flushed {
        at: timestamp(at)?,
        by: short("whoever flushed", by)?,
    }))
}

fn response(part: Part) -> v1::LookUpResponse {
    v1::LookUpResponse { part: Some(part) }
}

/// Puts an import together again, from its parts.
#[derive(Default)]
pub struct ImportReader {
    found: Option<v1::Found>,
    nothing: Option<Nothing>,
    withdrawn: Vec<Digest>,
    layers: BTreeMap<Digest, u64>,
    manifest: BytesMut,
    config: BytesMut,
}

impl ImportReader {
    /// Takes the next part in.
    pub fn take(&mut self, response: v1::LookUpResponse) -> Result<(), Malformed> {
        let Some(part) = response.part else {
            // Of a newer hub.
            return Ok(());
        };
        match (part, &self.found) {
            (Part::Nothing(nothing), None) => self.nothing = Some(nothing),
            (Part::Found(found), None) if self.nothing.is_none() => {
                if found.manifest_bytes.max(found.config_bytes) > MAX_DOCUMENT {
                    return Err(Malformed::new("a document that nobody could take in"));
                }
                self.found = Some(found);
            }
            (Part::Withdrawn(withdrawn), Some(_)) => {
                self.withdrawn.extend(digests(&withdrawn)?);
                if self.withdrawn.len() > MAX_LAYERS {
                    return Err(Malformed::new("too many blobs are withdrawn"));
                }
            }
            (Part::Layers(layers), Some(_)) => {
                let named = digests(&layers.digests)?;
                if named.len() != layers.sizes.len() || self.layers.len() + named.len() > MAX_LAYERS
                {
                    return Err(Malformed::new("layers without sizes, or too many"));
                }
                self.layers.extend(named.into_iter().zip(layers.sizes));
            }
            (Part::Manifest(bytes), Some(found)) => {
                append(&mut self.manifest, &bytes, found.manifest_bytes)?;
            }
            (Part::Config(bytes), Some(found)) => {
                append(&mut self.config, &bytes, found.config_bytes)?;
            }
            _ => return Err(Malformed::new("parts of an import in a wrong order")),
        }
        Ok(())
    }

    /// Who has flushed what would be there, if anybody has.
    pub fn flushed(&self) -> Result<Option<Flushed>, Malformed> {
        let Some(nothing) = &self.nothing else {
            return Ok(None);
        };
        flushed(nothing.flushed_at_ns, nothing.flushed_by.clone())
    }

    /// The import, once all parts are in: seen from `place`, kept by a lease of
    /// that number, if any.
    pub fn finish(self, place: Place) -> Result<Option<(Import, Option<i64>)>, Malformed> {
        let Some(found) = self.found else {
            return match self.nothing {
                Some(_) => Ok(None),
                None => Err(Malformed::new("an answer without a beginning")),
            };
        };
        if self.manifest.len() as u64 != found.manifest_bytes
            || self.config.len() as u64 != found.config_bytes
        {
            return Err(Malformed::new("an answer that breaks off"));
        }
        let config = self.config.freeze();
        let documents = match found.manifest_bytes {
            0 => Documents::Whole(config),
            _ => Documents::Parts {
                manifest: Document::new(self.manifest.freeze()),
                config: Document::new(config),
            },
        };
        let left_out = found.left_out.unwrap_or_default();
        let import = Import {
            place,
            exports: count(found.exports),
            builders: count(found.builders),
            export: (found.export != 0).then_some(ExportId(found.export)),
            exported_at: timestamp(found.exported_at_ns)?,
            builder: short("builder", found.builder)?,
            records: count(found.records),
            left_out: LeftOut {
                absent: left_out.absent,
                old: left_out.old,
                fruitless: left_out.fruitless,
                cut: left_out.cut,
                cut_results: left_out.cut_results,
                loops: left_out.loops,
            },
            refused: found.refused,
            withdrawn: self.withdrawn,
            flushed: flushed(found.flushed_at_ns, found.flushed_by)?,
            documents,
            layers: Arc::new(self.layers),
            lease: Lease::default(),
        };
        Ok(Some((import, (found.lease != 0).then_some(found.lease))))
    }
}
