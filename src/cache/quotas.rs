//! What is settled for single projects: in the catalog, for everybody who works
//! on it, and where nothing is there, on the command line.

use std::collections::BTreeMap;

use super::retention::ProjectLimits;
use crate::catalog::ledger::{MAX_PAGE, ProjectSettings};
use crate::catalog::{Catalog, CatalogError};
use crate::place::ProjectId;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Quotas(pub BTreeMap<ProjectId, ProjectLimits>);

impl Quotas {
    /// What the command line says of one project.
    pub fn said(&self, project: &ProjectId) -> Option<ProjectLimits> {
        self.0.get(project).copied()
    }

    /// What one project may keep.
    pub async fn of(
        &self,
        catalog: &dyn Catalog,
        project: &ProjectId,
    ) -> Result<ProjectLimits, CatalogError> {
        let said = self.said(project).unwrap_or_default();
        let settled = catalog.settings(project).await?;
        Ok(settled.map_or(said, |settled| over(&settled.settings, said)))
    }

    /// What all projects may keep of which anything is settled.
    pub async fn all(
        &self,
        catalog: &dyn Catalog,
    ) -> Result<BTreeMap<ProjectId, ProjectLimits>, CatalogError> {
        let mut all = self.0.clone();
        let mut after: Option<ProjectId> = None;
        loop {
            let page = catalog.all_settings(after.as_ref(), MAX_PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(all);
            };
            after = Some(last.project.clone());
            for settled in page {
                let limits = all.entry(settled.project).or_default();
                *limits = over(&settled.settings, *limits);
            }
        }
    }
}

/// What is settled, and else what was said.
fn over(settled: &ProjectSettings, said: ProjectLimits) -> ProjectLimits {
    ProjectLimits {
        max_bytes: settled.max_bytes.or(said.max_bytes),
        max_age: settled.max_age.or(said.max_age),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::SqliteCatalog;
    use crate::catalog::ledger::{Actor, Ledger as _, Origin};

    #[tokio::test]
    async fn what_is_settled_in_the_catalog_counts_before_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = SqliteCatalog::open(dir.path()).await.unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<ProjectId>().unwrap());
        let bytes = |bytes| ProjectLimits {
            max_bytes: Some(bytes),
            max_age: None,
        };
        let said = Quotas(BTreeMap::from([
            (a.clone(), bytes(1)),
            (b.clone(), bytes(2)),
        ]));
        for (project, bytes) in [(&b, 20), (&c, 30)] {
            let settings = ProjectSettings {
                max_bytes: Some(bytes),
                ..ProjectSettings::default()
            };
            let origin = Origin::here(Actor::Anybody);
            catalog.settle(project, &settings, &origin).await.unwrap();
        }
        let expected = [(a, bytes(1)), (b, bytes(20)), (c, bytes(30))];
        for (project, limits) in &expected {
            assert_eq!(said.of(&catalog, project).await.unwrap(), *limits);
        }
        let all = said.all(&catalog).await.unwrap();
        assert_eq!(all, BTreeMap::from(expected));
    }
}
