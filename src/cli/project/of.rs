//! The projects that a command is about: those of a store, or of a hub.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;

use super::hub_api::{HubApi, Wanted};
use super::hub_args::HubArgs;
use super::stored::{Stored, typist};
use crate::cache::retention::ProjectLimits;
use crate::catalog::ledger::{self, MAX_PAGE, ProjectHead, ProjectSettings};
use crate::catalog::{Catalog, Filter};
use crate::doors::admin::{NewSettings, ProjectDetails, Settings};
use crate::place::ProjectId;

/// Of which.
#[derive(Debug, Args)]
pub(super) struct Of {
    #[command(flatten)]
    hub: HubArgs,

    #[command(flatten)]
    stored: Stored,
}

/// Its projects.
pub(super) enum Projects {
    Here(Arc<dyn Catalog>),
    Hub(HubApi),
}

impl Of {
    pub(super) async fn open(&self) -> anyhow::Result<Projects> {
        Ok(match self.hub.api()? {
            Some(hub) => Projects::Hub(hub),
            None => Projects::Here(self.stored.open().await?),
        })
    }
}

impl Projects {
    /// All, by name.
    pub(super) async fn list(&self) -> anyhow::Result<Vec<ProjectHead>> {
        let catalog = match self {
            Self::Hub(hub) => return hub.items(Wanted::at(&["projects"]), None).await,
            Self::Here(catalog) => catalog,
        };
        let mut projects: Vec<ProjectHead> = Vec::new();
        loop {
            let last = projects.last().map(|head| &head.project);
            let page = catalog.projects(last, MAX_PAGE).await?;
            if page.is_empty() {
                return Ok(projects);
            }
            projects.extend(page);
        }
    }

    /// One, with what is settled for it.
    pub(super) async fn one(&self, project: &ProjectId) -> anyhow::Result<ProjectDetails> {
        let catalog = match self {
            Self::Hub(hub) => return hub.get(Wanted::at(&["projects", project.as_str()])).await,
            Self::Here(catalog) => catalog,
        };
        let filter = Filter {
            project: Some(project.clone()),
            limit: Some(1),
            ..Filter::default()
        };
        let exports = catalog.count(&filter).await?;
        let newest = catalog.list(&filter).await?.into_iter().next();
        let settled = catalog.settings(project).await?;
        let settled = settled.filter(|settled| settled.settings != ProjectSettings::default());
        if exports == 0 && settled.is_none() {
            bail!("there is no project {project}");
        }
        let head = ProjectHead {
            project: project.clone(),
            exports,
            written: newest.as_ref().map(|newest| newest.time),
            newest: newest.map(|newest| newest.id),
        };
        // What a hub says of it is not known here.
        let hub = ProjectLimits::default();
        Ok(ProjectDetails::of(head, settled.map(Settings::from), hub))
    }

    /// Settles this for one, in place of what was.
    pub(super) async fn settle(
        &self,
        project: &ProjectId,
        new: &NewSettings,
    ) -> anyhow::Result<Settings> {
        let catalog = match self {
            Self::Hub(hub) => {
                let wanted = Wanted::at(&["projects", project.as_str(), "settings"]);
                return hub.send(Method::PUT, wanted, new).await;
            }
            Self::Here(catalog) => catalog,
        };
        if let Err(unwritable) = project.check_new()
            && !ledger::is_known(&**catalog, project).await?
        {
            return Err(unwritable.into());
        }
        let settings = ProjectSettings {
            max_bytes: new.max_bytes,
            max_age: new.max_age_seconds.map(Duration::from_secs),
            note: new.note.clone(),
        };
        catalog.settle(project, &settings, &typist()).await?;
        match catalog.settings(project).await? {
            Some(settled) => Ok(settled.into()),
            None => bail!("somebody else settled it meanwhile"),
        }
    }

    /// Settles nothing for one any more.
    pub(super) async fn unsettle(&self, project: &ProjectId) -> anyhow::Result<()> {
        match self {
            Self::Hub(hub) => {
                let wanted = Wanted::at(&["projects", project.as_str(), "settings"]);
                hub.delete(wanted).await
            }
            Self::Here(catalog) => {
                let nothing = ProjectSettings::default();
                if !ledger::is_known(&**catalog, project).await? {
                    bail!("there is no project {project}");
                }
                match catalog.settings(project).await? {
                    Some(settled) if settled.settings != nothing => {
                        Ok(catalog.settle(project, &nothing, &typist()).await?)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    pub(super) async fn close(&self) {
        if let Self::Here(catalog) = self {
            catalog.close().await;
        }
    }
}
