//! What an archive that is being read has announced, what of it has come, and
//! which exports wait for the rest.

use std::collections::{BTreeSet, HashMap};

use super::ArchiveError;
use super::format::{Index, Labels, MAX_NAMED};
use crate::digest::Digest;
use crate::graph::Manifest;
use crate::place::Place;

/// The number of an export in its archive.
pub(super) type Number = usize;

/// What comes next.
pub(super) enum Coming {
    /// A document of so many bytes.
    Document {
        size: u64,
        /// The export whose manifest it is.
        manifest_of: Option<Number>,
    },
    /// A layer of so many bytes.
    Layer { size: u64 },
    /// What an export may have named that is refused unseen.
    Stranger,
}

/// How it stands with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Something of it is still to come.
    Waiting,
    /// All of it is there.
    Complete,
    /// It was dealt with, or refused.
    Over,
}

/// An export of the archive.
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) manifest: Digest,
    /// Known once its manifest has come.
    pub(super) labels: Option<Labels>,
    pub(super) config: Option<Digest>,
    /// Layers that are still to come.
    missing: usize,
    over: bool,
}

struct Announced {
    size: u64,
    manifest_of: Option<Number>,
    wanted_by: Vec<Number>,
    come: bool,
}

struct Layer {
    size: u64,
    wanted_by: Vec<u32>,
    come: bool,
}

/// An archive as far as it is known.
pub(super) struct Plan {
    exports: Vec<Planned>,
    documents: HashMap<Digest, Announced>,
    layers: HashMap<Digest, Layer>,
    named: usize,
    /// The first layer has come.
    documents_over: bool,
    /// An export was refused before it was known what it names.
    has_strangers: bool,
}

impl Plan {
    /// All that an index lists.
    pub(super) fn new(index: Index) -> Result<Self, ArchiveError> {
        let mut plan = Self {
            exports: Vec::with_capacity(index.manifests.len()),
            documents: HashMap::new(),
            layers: HashMap::new(),
            named: 0,
            documents_over: false,
            has_strangers: false,
        };
        for (number, listed) in index.manifests.into_iter().enumerate() {
            plan.exports.push(Planned {
                name: listed.name(),
                manifest: listed.digest,
                labels: None,
                config: None,
                missing: 0,
                over: false,
            });
            plan.announce(listed.digest, listed.size, number)?;
            if let Some(announced) = plan.documents.get_mut(&listed.digest) {
                announced.manifest_of = Some(number);
            }
        }
        Ok(plan)
    }

    pub(super) fn exports(&self) -> &[Planned] {
        &self.exports
    }

    /// Bytes of all layers.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.layers.values().map(|layer| layer.size);
        sizes.fold(0, u64::saturating_add)
    }

    pub(super) fn standing(&self, number: Number) -> Standing {
        match self.exports.get(number) {
            None => Standing::Over,
            Some(export) if export.over => Standing::Over,
            Some(export) if self.documents_over && export.missing == 0 => Standing::Complete,
            Some(_) => Standing::Waiting,
        }
    }

    /// It is dealt with; false where it was already.
    pub(super) fn end(&mut self, number: Number) -> bool {
        let Some(export) = self.exports.get_mut(number) else {
            return false;
        };
        self.has_strangers |= export.labels.is_none();
        !std::mem::replace(&mut export.over, true)
    }

    /// What it is that begins now.
    pub(super) fn comes(&mut self, digest: &Digest) -> Result<Coming, ArchiveError> {
        let twice = || ArchiveError::Malformed(format!("{digest} comes twice"));
        if let Some(announced) = self.documents.get_mut(digest) {
            if std::mem::replace(&mut announced.come, true) {
                return Err(twice());
            }
            if self.documents_over {
                return Err(ArchiveError::Malformed(format!(
                    "{digest} is a document, and comes behind a layer"
                )));
            }
            return Ok(Coming::Document {
                size: announced.size,
                manifest_of: announced.manifest_of,
            });
        }
        match self.layers.get_mut(digest) {
            None if self.has_strangers => Ok(Coming::Stranger),
            None => Err(ArchiveError::Malformed(format!(
                "nothing before {digest} names it"
            ))),
            Some(layer) if layer.come => Err(twice()),
            Some(layer) => {
                layer.come = true;
                Ok(Coming::Layer { size: layer.size })
            }
        }
    }

    /// No document comes any more: gives those that have not come, with the
    /// exports that need them; nothing when it is known already.
    pub(super) fn end_documents(&mut self) -> Vec<(Digest, Vec<Number>)> {
        if std::mem::replace(&mut self.documents_over, true) {
            return Vec::new();
        }
        let absent = self.documents.iter().filter(|(_, known)| !known.come);
        absent
            .map(|(digest, known)| (*digest, known.wanted_by.clone()))
            .collect()
    }

    /// Layers that have not come, of an export that waits for some.
    pub(super) fn absent_of(&self, number: Number) -> Option<Digest> {
        let wanted = |layer: &Layer| layer.wanted_by.iter().any(|by| *by as usize == number);
        let mut absent = self.layers.iter().filter(|(_, layer)| !layer.come);
        absent
            .find(|(_, layer)| wanted(layer))
            .map(|(digest, _)| *digest)
    }

    /// Those who want a document or a layer, and have not been dealt with.
    pub(super) fn wanting(&self, digest: &Digest) -> Vec<Number> {
        let of_document = self.documents.get(digest).map(|known| &known.wanted_by);
        let of_layer = self.layers.get(digest).map(|layer| &layer.wanted_by);
        let documents = of_document.into_iter().flatten().copied();
        let layers = of_layer.into_iter().flatten().map(|by| *by as usize);
        let mut all: Vec<Number> = documents.chain(layers).collect();
        all.retain(|number| self.standing(*number) != Standing::Over);
        all
    }

    /// The places of those, each project and ref once.
    pub(super) fn places_wanting(&self, digest: &Digest) -> Vec<Place> {
        let mut seen = BTreeSet::new();
        let mut places = Vec::new();
        for number in self.wanting(digest) {
            let labels = self
                .exports
                .get(number)
                .and_then(|export| export.labels.as_ref());
            let Some(place) = labels.map(|labels| &labels.place) else {
                continue;
            };
            if seen.insert((&place.project, &place.git_ref)) {
                places.push(place.clone());
            }
        }
        places
    }

    /// The manifest of an export has come: takes in what it names. An error of
    /// the inner kind is the export's alone.
    pub(super) fn manifest(
        &mut self,
        number: Number,
        manifest: &Manifest,
        labels: Labels,
    ) -> Result<Result<(), String>, ArchiveError> {
        let sizes = match manifest.sizes() {
            Ok(sizes) => sizes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let known = |(digest, size): (&Digest, &u64)| {
            let known = self.layers.get(digest);
            known.is_some_and(|layer| layer.size != *size)
        };
        if let Some((digest, _)) = sizes.iter().find(|(digest, size)| known((digest, size))) {
            return Ok(Err(format!("its {digest} has another size elsewhere")));
        }
        self.named += sizes.len();
        if self.named > MAX_NAMED {
            return Err(ArchiveError::Malformed(format!(
                "its exports name more than {MAX_NAMED} layers"
            )));
        }
        let config = (manifest.config.digest, manifest.config.size);
        for (digest, size) in [Some(config), labels.steps].into_iter().flatten() {
            self.announce(digest, size, number)?;
        }
        for (digest, size) in &sizes {
            let layer = self.layers.entry(*digest).or_insert(Layer {
                size: *size,
                wanted_by: Vec::new(),
                come: false,
            });
            layer
                .wanted_by
                .push(u32::try_from(number).unwrap_or(u32::MAX));
        }
        if let Some(export) = self.exports.get_mut(number) {
            export.missing = sizes.len();
            export.config = Some(config.0);
            export.labels = Some(labels);
        }
        Ok(Ok(()))
    }

    /// A layer is there, for all that want it.
    pub(super) fn arrived(&mut self, digest: &Digest) {
        let Some(layer) = self.layers.get(digest) else {
            return;
        };
        for number in &layer.wanted_by {
            if let Some(export) = self.exports.get_mut(*number as usize) {
                export.missing = export.missing.saturating_sub(1);
            }
        }
    }

    /// A document is to come, unless it was announced already.
    fn announce(&mut self, digest: Digest, size: u64, by: Number) -> Result<(), ArchiveError> {
        let announced = self.documents.entry(digest).or_insert(Announced {
            size,
            manifest_of: None,
            wanted_by: Vec::new(),
            come: false,
        });
        if announced.size != size {
            return Err(ArchiveError::Malformed(format!(
                "{digest} is announced with two sizes"
            )));
        }
        announced.wanted_by.push(by);
        Ok(())
    }
}
