//! The uploads of one export: which refs are locked, and how far they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

use super::super::proto::content as api;
use super::timestamp;
use crate::blobs::Ingest;

/// Refs that one export may have in progress; BuildKit has four at a time.
const MAX_REFS: usize = 10_000;
/// The longest ref, in bytes.
const MAX_REF: usize = 4096;

/// Every upload that was begun and not ended.
#[derive(Clone, Default)]
pub struct Statuses(Arc<Mutex<BTreeMap<String, Upload>>>);

#[derive(Default)]
struct Upload {
    locked: bool,
    status: api::Status,
}

impl Statuses {
    /// Locks a ref for one writer. A second one is told, in containerd's code,
    /// to come back later.
    pub fn lock(&self, name: &str) -> Result<Locked, Status> {
        if name.is_empty() {
            return Err(Status::invalid_argument(
                "first message must have a reference",
            ));
        }
        if name.len() > MAX_REF {
            return Err(Status::invalid_argument(format!(
                "a reference is at most {MAX_REF} bytes"
            )));
        }
        let mut uploads = self.uploads();
        if uploads.len() >= MAX_REFS && !uploads.contains_key(name) {
            return Err(Status::resource_exhausted("too many uploads in progress"));
        }
        let upload = uploads.entry(name.to_owned()).or_default();
        if std::mem::replace(&mut upload.locked, true) {
            return Err(Status::unavailable(format!(
                "ref {name:?} is locked by another writer: unavailable"
            )));
        }
        upload.status.r#ref = name.to_owned();
        Ok(Locked {
            statuses: self.clone(),
            name: name.to_owned(),
        })
    }

    /// One upload.
    pub fn get(&self, name: &str) -> Result<api::Status, Status> {
        self.uploads()
            .get(name)
            .map(|upload| upload.status.clone())
            .ok_or_else(|| no_ingest(name))
    }

    /// The uploads that any of `filters` selects; all where there is none.
    pub fn list(&self, filters: &[String]) -> Result<Vec<api::Status>, Status> {
        let filters = filters
            .iter()
            .map(|text| Filter::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let selected =
            |name: &str| filters.is_empty() || filters.iter().any(|filter| filter.selects(name));
        let uploads = self.uploads();
        Ok(uploads
            .iter()
            .filter(|(name, _)| selected(name))
            .map(|(_, upload)| upload.status.clone())
            .collect())
    }

    /// Forgets an upload that nobody is writing.
    pub fn forget(&self, name: &str) -> Result<(), Status> {
        let mut uploads = self.uploads();
        match uploads.get(name) {
            None => Err(no_ingest(name)),
            Some(upload) if upload.locked => Err(Status::failed_precondition(format!(
                "ref {name:?} is being written: failed precondition"
            ))),
            Some(_) => {
                uploads.remove(name);
                Ok(())
            }
        }
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A ref that is locked until this is dropped. What was uploaded stays known,
/// so that it can be resumed, unless it was [ended](Self::end).
pub struct Locked {
    statuses: Statuses,
    name: String,
}

impl Locked {
    /// The ref.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes how far the upload is.
    pub fn note(&self, ingest: &dyn Ingest, total: i64, expected: &str) {
        if let Some(upload) = self.statuses.uploads().get_mut(&self.name) {
            upload.status.started_at = timestamp(ingest.started_at());
            upload.status.updated_at = timestamp(ingest.updated_at());
            upload.status.offset = i64::try_from(ingest.offset()).unwrap_or(i64::MAX);
            upload.status.total = total;
            upload.status.expected = expected.to_owned();
        }
    }

    /// The upload is over: committed, or never needed.
    pub fn end(&self) {
        self.statuses.uploads().remove(&self.name);
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(upload) = self.statuses.uploads().get_mut(&self.name) {
            upload.locked = false;
        }
    }
}

fn no_ingest(name: &str) -> Status {
    let short: String = name.chars().take(200).collect();
    Status::not_found(format!("could not get status for ref {short:?}: not found"))
}

/// The part of containerd's filter language that makes sense for an upload:
/// `ref==NAME` and `ref!=NAME`.
enum Filter {
    Is(String),
    IsNot(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Status> {
        let unquoted = |value: &str| value.trim_matches('"').to_owned();
        if let Some(value) = text.strip_prefix("ref==") {
            return Ok(Self::Is(unquoted(value)));
        }
        if let Some(value) = text.strip_prefix("ref!=") {
            return Ok(Self::IsNot(unquoted(value)));
        }
        Err(Status::invalid_argument(
            "filters of uploads are ref==NAME and ref!=NAME",
        ))
    }

    fn selects(&self, name: &str) -> bool {
        match self {
            Self::Is(wanted) => wanted == name,
            Self::IsNot(unwanted) => unwanted != name,
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_locked_ref_is_unavailable_until_its_writer_is_gone() {
        let statuses = Statuses::default();
        let first = statuses.lock("layer-a").unwrap();
        assert_eq!(
            statuses.lock("layer-a").err().unwrap().code(),
            Code::Unavailable
        );
        assert!(statuses.lock("layer-b").is_ok());
        drop(first);
        assert!(statuses.lock("layer-a").is_ok());
    }

    #[test]
    fn what_was_begun_stays_known_until_it_ends() {
        let statuses = Statuses::default();
        drop(statuses.lock("a").unwrap());
        let b = statuses.lock("b").unwrap();
        assert_eq!(statuses.list(&[]).unwrap().len(), 2);
        assert_eq!(statuses.list(&["ref==a".to_owned()]).unwrap()[0].r#ref, "a");
        assert_eq!(statuses.list(&["ref!=a".to_owned()]).unwrap()[0].r#ref, "b");
        assert_eq!(
            statuses.list(&["size>1".to_owned()]).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            statuses.forget("b").unwrap_err().code(),
            Code::FailedPrecondition
        );
        b.end();
        assert_eq!(statuses.get("b").unwrap_err().code(), Code::NotFound);
        statuses.forget("a").unwrap();
        assert_eq!(statuses.forget("a").unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn a_ref_has_a_name_and_a_bound() {
        let statuses = Statuses::default();
        assert_eq!(
            statuses.lock("").err().unwrap().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            statuses
                .lock(&"x".repeat(MAX_REF + 1))
                .err()
                .unwrap()
                .code(),
            Code::InvalidArgument
        );
    }
}
