//! What is settled for single projects.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use super::CacheError;
use super::retention::ProjectLimits;
use crate::place::ProjectId;

/// Where it is looked up what a project may keep.
#[async_trait]
pub trait Quotas: fmt::Debug + Send + Sync + 'static {
    /// What one project may keep.
    async fn of(&self, project: &ProjectId) -> Result<ProjectLimits, CacheError>;

    /// What all projects may keep of which anything is settled.
    async fn all(&self) -> Result<BTreeMap<ProjectId, ProjectLimits>, CacheError>;
}

/// Quotas that do not change; none is the default.
#[derive(Clone, Debug, Default)]
pub struct FixedQuotas(pub BTreeMap<ProjectId, ProjectLimits>);

#[async_trait]
impl Quotas for FixedQuotas {
    async fn of(&self, project: &ProjectId) -> Result<ProjectLimits, CacheError> {
        Ok(self.0.get(project).copied().unwrap_or_default())
    }

    async fn all(&self) -> Result<BTreeMap<ProjectId, ProjectLimits>, CacheError> {
        Ok(self.0.clone())
    }
}
