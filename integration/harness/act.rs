//! nektos/act: workflows on this machine, without Docker.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::tools::{installed, pinned};
use super::wait::DEADLINE;
use super::{Outcome, context};

/// A workflow of `testdata/act`, and where act keeps what it keeps.
pub struct Act {
    home: PathBuf,
    workflow: PathBuf,
}

impl Act {
    /// In an empty folder.
    pub fn new(folder: &Path) -> Self {
        let workflow = context::copy_alone("act", folder);
        let version = pinned("ACTIONS_CACHE_VERSION");
        let modules = installed(&format!("actions-cache-{version}"), "node_modules");
        let link = workflow.join("cache/node_modules");
        std::os::unix::fs::symlink(modules, link).expect("a link");
        let home = folder.join("home");
        std::fs::create_dir_all(&home).expect("a folder");
        Self { home, workflow }
    }

    /// Runs the workflow as on a push, with these variables for its jobs.
    pub async fn push(&self, variables: &[(&str, &str)]) -> Outcome {
        self.push_with(&[], variables).await
    }

    /// The same with more options of act's.
    pub async fn push_with(&self, options: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let program = installed(&format!("act-{}", pinned("ACT_VERSION")), "act");
        let mut command = Command::new(program);
        command
            .args(["push", "-W", "ci.yml", "-P", "ubuntu-latest=-self-hosted"])
            .args(options);
        for (name, value) in variables {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command
            .current_dir(&self.workflow)
            .env("HOME", &self.home)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let line = format!("{:?}", command.as_std());
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("still running: {line}"));
        Outcome::new(line, &output.expect("act runs"))
    }
}
