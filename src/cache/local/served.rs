//! What is served of a union, kept for the next build that asks the same.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::blobs::Generation;
use crate::cache::{CacheError, Document, Documents, Form, Limits};
use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::graph::{Budget, Compression, Descriptor, LeftOut, Manifest, Serving, Union};

/// Answers that are kept for one union.
const KEPT: usize = 8;

/// All that an answer depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    /// The exports of the union, by rank.
    pub(super) order: Vec<ExportId>,
    /// The blobs that were there; `None` where that can't be told apart from
    /// another moment.
    pub(super) generation: Option<Generation>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) compression: Option<Compression>,
    pub(super) limits: Limits,
    /// Blobs that are there and could not be read.
    pub(super) avoided: Vec<Digest>,
}

/// What is served.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) documents: Documents,
    /// Size in bytes of every layer blob that is named.
    pub(super) layers: Arc<BTreeMap<Digest, u64>>,
    pub(super) records: usize,
    /// The exports that hold any of them.
    pub(super) exports: Vec<ExportId>,
    pub(super) left_out: LeftOut,
}

/// The latest answers.
#[derive(Debug, Default)]
pub(super) struct LatelyServed(VecDeque<(Question, Arc<Answer>)>);

impl LatelyServed {
    /// The answer to the same question.
    pub(super) fn get(&self, question: &Question) -> Option<Arc<Answer>> {
        question.generation.as_ref()?;
        let found = self.0.iter().find(|(asked, _)| asked == question);
        found.map(|(_, answer)| Arc::clone(answer))
    }

    /// Keeps an answer.
    pub(super) fn keep(&mut self, question: Question, answer: Arc<Answer>) {
        if question.generation.is_some() {
            self.0.truncate(KEPT - 1);
            self.0.push_front((question, answer));
        }
    }
}

/// Serves what `question` asks of `union`, without the `absent` blobs. Takes
/// time.
pub(super) fn answer(
    union: &Union,
    question: &Question,
    absent: &HashSet<Digest>,
) -> Result<Answer, CacheError> {
    let order: Vec<u64> = question
        .order
        .iter()
        .map(|id| id.0.unsigned_abs())
        .collect();
    let bytes = match question.limits.form {
        Form::Whole => None,
        Form::Parts { max_bytes } => Some(max_bytes as u64),
    };
    let present = |blob: &Digest| !absent.contains(blob);
    let served = union.serve(&Serving {
        order: &order,
        not_before: question.not_before,
        compression: question.compression,
        budget: Budget {
            records: Some(question.limits.records),
            config_bytes: bytes,
            manifest_bytes: bytes,
        },
        annotated: bytes.is_none(),
        ..Serving::of(&present)
    });
    let layers = served.layers.iter().map(|layer| (layer.digest, layer.size));
    let layers = Arc::new(layers.collect());
    let config = Bytes::from(served.json);
    let documents = match question.limits.form {
        Form::Whole => Documents::Whole(config),
        Form::Parts { .. } => {
            let config = Document::new(config);
            let manifest = Manifest {
                config: Descriptor::of_config(config.digest, config.bytes.len() as u64),
                layers: served.layers,
            };
            let manifest = Document::new(manifest.to_json()?.into());
            Documents::Parts { manifest, config }
        }
    };
    let exports = served.exports.into_iter();
    Ok(Answer {
        documents,
        layers,
        records: served.records,
        exports: exports.map(|id| ExportId(id.cast_signed())).collect(),
        left_out: served.left_out,
    })
}
