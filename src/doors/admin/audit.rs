//! Who did what.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Office;
use super::admitted::{Admin, Unseen};
use super::asked::Ask;
use super::told::{Failure, Fault, Page, limit};
use crate::catalog::ledger::{Action, AuditEntry, AuditFilter, AuditId};
use crate::place::ProjectId;

/// An entry of the audit log.
pub type Audited = AuditEntry;

/// A page of the audit log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfAudit {
    /// Only what was done to this project.
    #[param(value_type = Option<String>)]
    project: Option<ProjectId>,
    /// Only this: export, flush, delete, evict, mint, exchange, revoke, quota,
    /// import or repair.
    #[param(value_type = Option<String>)]
    action: Option<Action>,
    /// Only of this time and later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only of before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<i64>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// What was done, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit",
    params(OfAudit),
    responses((status = OK, body = Page<AuditEntry>), (status = "default", body = Fault)))]
pub(super) async fn list(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfAudit>,
) -> Result<Answer<Page<AuditEntry>>, Failure> {
    let limit = limit(asked.limit)?;
    let entries = match admin.narrowed(asked.project) {
        Err(Unseen) => Vec::new(),
        Ok(project) => {
            let filter = AuditFilter {
                project,
                action: asked.action,
                since: asked.since,
                until: asked.until,
                before: asked.after.map(AuditId),
                limit: Some(limit),
            };
            office.catalog.audit(&filter).await?
        }
    };
    let next = |entry: &AuditEntry| entry.id.0.to_string();
    Ok(Answer(Page::of(entries, limit, next)))
}
