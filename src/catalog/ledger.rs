//! What is kept beside the log of exports: who did what, what was flushed,
//! which tokens count no more, and what was settled for a project.
//!
//! [`Ledger`] is the part of a [`Catalog`](super::Catalog) that keeps it. What
//! changes who sees what (a flush, a revocation, a quota) is written in one
//! transaction with its entry of the audit log, so that neither is without the
//! other.

mod audit;
mod flushes;
mod projects;
mod revocations;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub(super) use self::audit::cut;
pub use self::audit::{
    Action, Actor, AuditEntry, AuditFilter, AuditId, Details, NewAudit, Origin, UnknownAction,
};
pub use self::flushes::{FlushNote, NOTED, NewFlush};
pub(super) use self::flushes::{KEPT, flushed};
pub use self::projects::{ProjectHead, ProjectSettings, RefHead, Settled, is_known};
pub use self::revocations::{NewRevocation, REMEMBERED, Revision, Revocation};
use super::CatalogError;
use crate::place::{GitRef, Place, ProjectId};

/// Entries of one page, at most, whatever is asked for.
pub const MAX_PAGE: u32 = 1000;

/// How long noting what was done may hold up whoever did it.
const NOTING: Duration = Duration::from_secs(2);

/// Waits until `noting` has added `entry` to the audit log. That it was done
/// counts for more: what can't be noted in time is logged.
pub async fn tell<E: fmt::Display>(
    entry: &NewAudit,
    noting: impl Future<Output = Result<AuditId, E>>,
) {
    let why = match tokio::time::timeout(NOTING, noting).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the catalog took longer than {NOTING:?}"),
    };
    tracing::error!(?entry, why, "what was done is not in the audit log");
}

/// What a catalog keeps beside the log of exports.
///
/// - *Append-only*: what was done stays written as it was; only
///   [`trim_audit`](Ledger::trim_audit) drops what is old.
/// - *Clocks*: when something was done is said by the catalog.
/// - *Cost*: lists come in pages of at most [`MAX_PAGE`], by an index; `flushes`
///   and `revocations` of which there is nothing new are one look at an index.
#[async_trait]
pub trait Ledger {
    /// Adds to the audit log what was done.
    async fn note(&self, entry: &NewAudit) -> Result<AuditId, CatalogError>;

    /// What was done, newest first, a page.
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, CatalogError>;

    /// Drops the oldest of what was done before that time, some thousands at
    /// once; gives how many.
    async fn trim_audit(&self, before: Timestamp) -> Result<u64, CatalogError>;

    /// Takes exports out of the log, as [`retire`](super::Catalog::retire) does
    /// and for readers all at once, and notes that. One that is appended
    /// meanwhile goes, or is refused by
    /// [`append`](super::Catalog::append) where its build began before; one of
    /// which that is not known stays. Gives how many.
    async fn flush(&self, flush: &NewFlush) -> Result<u64, CatalogError>;

    /// Flushes of the place's project within [`NOTED`], newest first, at most
    /// a hundred: all that nothing was exported after to this place (whose
    /// scope may be [any](crate::place::Scope::is_any)), nor to the one that was
    /// flushed.
    async fn flushes(&self, place: &Place) -> Result<Vec<FlushNote>, CatalogError>;

    /// From now on a token does not count; saying so again never shortens that.
    async fn revoke(&self, revocation: &NewRevocation) -> Result<(), CatalogError>;

    /// What was revoked after that, oldest first, and still has to be known; a
    /// page. Revisions grow in the order in which they became visible.
    async fn revocations(&self, after: Revision) -> Result<Vec<Revocation>, CatalogError>;

    /// Settles something for a project, in place of what was settled before.
    async fn settle(
        &self,
        project: &ProjectId,
        settings: &ProjectSettings,
        origin: &Origin,
    ) -> Result<(), CatalogError>;

    /// What is settled for a project; nothing unless it was.
    async fn settings(&self, project: &ProjectId) -> Result<Option<Settled>, CatalogError>;

    /// What is settled for projects, by name, those behind `after`; a page.
    async fn all_settings(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<Settled>, CatalogError>;

    /// Projects by name, those behind `after`; a page.
    async fn projects(
        &self,
        after: Option<&ProjectId>,
        limit: u32,
    ) -> Result<Vec<ProjectHead>, CatalogError>;

    /// Refs of the project with exports in the log, by name, those behind
    /// `after`; a page.
    async fn refs(
        &self,
        project: &ProjectId,
        after: Option<&GitRef>,
        limit: u32,
    ) -> Result<Vec<RefHead>, CatalogError>;
}
