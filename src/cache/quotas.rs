//! What is settled for single projects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::CacheError;
use super::retention::ProjectLimits;
use crate::catalog::Catalog;
use crate::catalog::ledger::{MAX_PAGE, ProjectSettings};
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

/// What is settled in the catalog for projects, and where it says nothing of one
/// thing, what `unless` says.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The catalog.
    pub catalog: Arc<dyn Catalog>,
    /// What else counts.
    pub unless: Arc<dyn Quotas>,
}

fn over(settings: &ProjectSettings, unless: ProjectLimits) -> ProjectLimits {
    ProjectLimits {
        max_bytes: settings.max_bytes.or(unless.max_bytes),
        max_age: settings.max_age.or(unless.max_age),
    }
}

#[async_trait]
impl Quotas for Settled {
    async fn of(&self, project: &ProjectId) -> Result<ProjectLimits, CacheError> {
        let unless = self.unless.of(project).await?;
        let settled = self.catalog.settings(project).await?;
        Ok(settled.map_or(unless, |settled| over(&settled.settings, unless)))
    }

    async fn all(&self) -> Result<BTreeMap<ProjectId, ProjectLimits>, CacheError> {
        let mut limits = self.unless.all().await?;
        let mut after = None;
        loop {
            let page = self.catalog.all_settings(after.as_ref(), MAX_PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(limits);
            };
            after = Some(last.project.clone());
            for settled in page {
                let unless = limits.get(&settled.project).copied().unwrap_or_default();
                limits.insert(settled.project, over(&settled.settings, unless));
            }
        }
    }
}
