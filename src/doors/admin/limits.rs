//! What counts for a project, and where that was said.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cache::retention::ProjectLimits;

/// The limits that are in force for a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectLimitsInForce {
    /// What its layers may take, in bytes; nothing where there is no limit.
    pub max_bytes: Option<u64>,
    /// Who says so.
    pub max_bytes_from: Option<SaidBy>,
    /// How old its exports may get unused, in seconds; nothing where there is no
    /// limit.
    pub max_age_seconds: Option<u64>,
    /// Who says so.
    pub max_age_from: Option<SaidBy>,
}

/// Where a limit was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SaidBy {
    /// In the settings of the project.
    Settled,
    /// On the command line of the hub.
    Hub,
}

impl ProjectLimitsInForce {
    /// What is settled, and else what the hub says.
    pub fn of(settled: ProjectLimits, hub: ProjectLimits) -> Self {
        let (max_bytes, max_bytes_from) = first(settled.max_bytes, hub.max_bytes);
        let (max_age, max_age_from) = first(settled.max_age, hub.max_age);
        Self {
            max_bytes,
            max_bytes_from,
            max_age_seconds: max_age.as_ref().map(Duration::as_secs),
            max_age_from,
        }
    }
}

fn first<T>(settled: Option<T>, hub: Option<T>) -> (Option<T>, Option<SaidBy>) {
    match (settled, hub) {
        (Some(settled), _) => (Some(settled), Some(SaidBy::Settled)),
        (None, Some(hub)) => (Some(hub), Some(SaidBy::Hub)),
        (None, None) => (None, None),
    }
}
