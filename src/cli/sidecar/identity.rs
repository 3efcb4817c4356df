//! The identity of this host, which the hub exchanges for a token.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::cache::remote::{HubAddress, Identity};

/// What can be said of it.
#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// A file with an identity token that the CI signed for this job (OpenID
    /// Connect), which --hub exchanges for a token of its own; read again when it
    /// changes.
    #[arg(
        long = "hub-identity-file",
        id = "hub_identity_file",
        env = "LAYERD_HUB_IDENTITY_FILE",
        value_name = "FILE",
        requires = "hub",
        conflicts_with_all = ["hub_token_file", "hub_identity"]
    )]
    file: Option<PathBuf>,

    /// The same, from a CI that is asked for it: `github` is for jobs of GitHub
    /// Actions with `permissions: id-token: write`.
    #[arg(
        long = "hub-identity",
        id = "hub_identity",
        env = "LAYERD_HUB_IDENTITY",
        value_name = "CI",
        requires = "hub",
        conflicts_with = "hub_token_file"
    )]
    asked: Option<Asked>,

    /// Who an identity that is asked for is to be for, as the hub expects it:
    /// the first --hub unless given.
    #[arg(
        long = "hub-identity-audience",
        id = "hub_identity_audience",
        env = "LAYERD_HUB_IDENTITY_AUDIENCE",
        value_name = "TEXT",
        requires = "hub_identity"
    )]
    audience: Option<String>,
}

/// A CI that gives identities to its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Asked {
    /// GitHub Actions.
    Github,
}

impl IdentityArgs {
    /// The identity, if there is to be one.
    pub(super) fn identity(&self, hub: Option<&HubAddress>) -> anyhow::Result<Option<Identity>> {
        if let Some(file) = &self.file {
            return Ok(Some(Identity::file(file).context("--hub-identity-file")?));
        }
        let Some(Asked::Github) = self.asked else {
            return Ok(None);
        };
        let audience = self.audience.clone();
        let audience = audience
            .or(hub.map(ToString::to_string))
            .unwrap_or_default();
        Ok(Some(Identity::github(&audience)))
    }
}
