//! What builds get of the log, as a person looks at it: the union of a
//! project's exports, and two exports side by side.
//!
//! Reads only, and holds nothing up that runs beside it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::CacheError;
use super::descriptors::to_descriptor;
use crate::blobs::BlobStore;
use crate::catalog::{Catalog, CatalogError, Export, ExportHead, ExportId, Filter, Kind};
use crate::digest::{Digest, RecordDigest};
use crate::graph::{
    Comparison, Descriptor, ExportSource, GraphError, LeftOut, Parsed, Part, Refused, Serving,
    Survey, SurveyedRecord, Union,
};
use crate::step::{Step, StepName};

/// A union from the inside.
#[derive(Debug, Default)]
pub struct View {
    /// The exports in it, oldest first.
    pub heads: Vec<ExportHead>,
    /// Those that could not be read, and why.
    pub unreadable: Vec<Unreadable>,
    /// What of the others is not in it.
    pub refused: Refused,
    /// Its records.
    pub survey: Survey,
    /// What is known of their steps.
    pub names: Names,
    /// What a build that can take all of it does not get.
    pub left_out: LeftOut,
    /// Distinct blobs that its exports name.
    pub blobs: u64,
    /// Bytes of those, as stored.
    pub bytes: u64,
    /// Blobs that are not there, or have another size; none where nobody
    /// looked.
    pub absent: Option<Vec<Digest>>,
}

/// A view that is put together, export by export, from the oldest on.
#[derive(Default)]
pub struct Viewing {
    heads: Vec<ExportHead>,
    unreadable: Vec<Unreadable>,
    gathered: Gathered,
}

/// An export that can't be used.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Which one.
    pub export: ExportId,
    /// What is wrong.
    pub error: String,
}

/// Two exports side by side.
#[derive(Debug)]
pub struct Difference {
    /// What they hold together.
    pub survey: Survey,
    /// What is known of their steps.
    pub names: Names,
    /// Which records they share, and which not.
    pub comparison: Comparison,
    /// Where they part, and why.
    pub parts: Vec<Part>,
}

/// The names of steps, by what they made.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<(RecordDigest, Timestamp), StepName>,
    /// By record digest alone, where all steps that have it have one name.
    alike: HashMap<RecordDigest, Option<StepName>>,
}

impl Names {
    /// Those of these steps.
    pub fn of_steps(steps: Vec<Step>) -> Self {
        let mut names = Self::default();
        names.add(steps);
        names
    }

    fn add(&mut self, steps: Vec<Step>) {
        for step in steps {
            let alike = self.alike.entry(step.record.clone());
            let alike = alike.or_insert_with(|| Some(step.name.clone()));
            if alike.as_ref() != Some(&step.name) {
                *alike = None;
            }
            self.exact.insert((step.record, step.created_at), step.name);
        }
    }

    /// What a step was called by a build that ran it: this one, or else one of
    /// the same command.
    pub fn of(&self, record: &SurveyedRecord) -> Option<&StepName> {
        let ran = record.made.iter().rev();
        let mut ran = ran.filter_map(|made| self.exact.get(&(record.digest.clone(), *made)));
        ran.next()
            .or_else(|| self.alike.get(&record.digest)?.as_ref())
    }
}

/// Exports taken together, and how that went.
#[derive(Default)]
struct Gathered {
    union: Union,
    names: Names,
    refused: Refused,
    sizes: BTreeMap<Digest, u64>,
}

impl Gathered {
    fn add(&mut self, export: Export) -> Result<(), GraphError> {
        let config = Parsed::read(&export.config)?;
        let sizes = export.layers.iter().map(|layer| (layer.digest, layer.size));
        self.sizes.extend(sizes);
        let layers: Vec<Descriptor> = export.layers.into_iter().map(to_descriptor).collect();
        self.refused += self.union.add(&ExportSource {
            id: export.head.id.0.unsigned_abs(),
            time: Some(export.head.time),
            config: &config,
            layers: &layers,
        });
        self.names.add(export.steps);
        Ok(())
    }
}

impl View {
    /// The union of all that `filters` let through together, entries apart.
    pub async fn of(
        blobs: &dyn BlobStore,
        catalog: &dyn Catalog,
        filters: &[Filter],
    ) -> Result<Self, CacheError> {
        let mut all = BTreeMap::new();
        for filter in filters {
            let filter = Filter {
                kind: Some(Kind::Cache),
                ..filter.clone()
            };
            let heads = catalog.list(&filter).await?.into_iter();
            all.extend(heads.map(|head| (head.id, head)));
        }
        let mut viewing = Viewing::default();
        for id in all.into_keys() {
            match catalog.get(id).await {
                Ok(Some(export)) => viewing.add(export),
                // It has left the log this moment.
                Ok(None) => {}
                Err(error @ CatalogError::Corrupt { .. }) => viewing.miss(id, error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        let found = {
            let named: Vec<Digest> = viewing.named().keys().copied().collect();
            blobs.sizes(&named).await?
        };
        Ok(viewing.end(Some(&found)))
    }
}

impl Viewing {
    /// Takes an export in.
    pub fn add(&mut self, export: Export) {
        let head = export.head.clone();
        match self.gathered.add(export) {
            Ok(()) => self.heads.push(head),
            Err(error) => self.miss(head.id, error.to_string()),
        }
    }

    /// An export can't be read.
    pub fn miss(&mut self, export: ExportId, error: String) {
        self.unreadable.push(Unreadable { export, error });
    }

    /// The blobs that its exports name, with their sizes.
    pub fn named(&self) -> &BTreeMap<Digest, u64> {
        &self.gathered.sizes
    }

    /// All of it, where those blobs were `found` with these sizes, in their
    /// order; none where nobody looked.
    pub fn end(self, found: Option<&[Option<u64>]>) -> View {
        let Gathered {
            union,
            names,
            refused,
            sizes,
        } = self.gathered;
        let absent = found.map(|found| {
            let gone = sizes.iter().zip(found);
            let gone = gone.filter(|((_, size), found)| **found != Some(**size));
            gone.map(|((digest, _), _)| *digest).collect::<Vec<_>>()
        });
        let gone = absent.as_deref().unwrap_or_default();
        let present = |digest: &Digest| gone.binary_search(digest).is_err();
        let left_out = union.serve(&Serving::of(&present)).left_out;
        View {
            heads: self.heads,
            unreadable: self.unreadable,
            refused,
            survey: union.survey(),
            names,
            left_out,
            blobs: sizes.len() as u64,
            bytes: sizes.values().sum(),
            absent,
        }
    }
}

impl Difference {
    /// Of the first export, by its number, and the second.
    pub fn of(first: Export, second: Export) -> Result<Self, GraphError> {
        let [one, other] = [&first, &second].map(|export| export.head.id.0.unsigned_abs());
        let mut gathered = Gathered::default();
        gathered.add(first)?;
        gathered.add(second)?;
        let survey = gathered.union.survey();
        let comparison = survey.compare(one, other);
        let parts = survey.parts(&comparison);
        Ok(Self {
            survey,
            names: gathered.names,
            comparison,
            parts,
        })
    }
}
