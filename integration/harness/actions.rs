//! The client that actions/cache has, as a job of a runner.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::tools::{installed, pinned};
use super::wait::DEADLINE;

/// A job that saves and restores folders.
#[derive(Clone, Debug)]
pub struct Job {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a job said.
#[derive(Debug)]
pub struct Said {
    /// What the client gave: a number, a key, nothing, or what it threw.
    pub result: Value,
    /// What it logged.
    pub log: String,
}

impl Job {
    /// In a folder, for the cache at `url` with this token, in version 1 or 2 of
    /// the protocol.
    pub fn new(folder: PathBuf, url: &str, token: &str, version: u8) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        let temporary = folder.join("tmp");
        std::fs::create_dir_all(&temporary).expect("a folder");
        let mut environment = vec![
            ("ACTIONS_RUNTIME_TOKEN", token.to_owned()),
            // The first version is concatenated to it.
            ("ACTIONS_CACHE_URL", format!("{url}/")),
            ("ACTIONS_RESULTS_URL", format!("{url}/")),
            ("RUNNER_TEMP", temporary.display().to_string()),
            ("GITHUB_WORKSPACE", folder.display().to_string()),
            ("GITHUB_SERVER_URL", "https://github.com".to_owned()),
        ];
        if version == 2 {
            environment.push(("ACTIONS_CACHE_SERVICE_V2", "true".to_owned()));
        }
        Self {
            folder,
            environment,
        }
    }

    /// With a variable of its environment as it is said here.
    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.environment.retain(|(other, _)| *other != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Saves a path of its folder under a key.
    pub async fn save(&self, path: &str, key: &str) -> Said {
        let input = json!({"operation": "save", "paths": [path], "key": key});
        self.run(&input).await
    }

    /// Restores a path by a key, or by others.
    pub async fn restore(&self, path: &str, key: &str, others: &[&str]) -> Said {
        let input = json!({
            "operation": "restore", "paths": [path], "key": key, "restoreKeys": others,
        });
        self.run(&input).await
    }

    /// Looks only whether it could.
    pub async fn look(&self, path: &str, key: &str, others: &[&str]) -> Said {
        let input = json!({
            "operation": "look", "paths": [path], "key": key, "restoreKeys": others,
        });
        self.run(&input).await
    }

    async fn run(&self, input: &Value) -> Said {
        let version = pinned("ACTIONS_CACHE_VERSION");
        let program = installed(&format!("actions-cache-{version}"), "actions-cache");
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("node runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let written = stdin.write_all(input.to_string().as_bytes()).await;
        written.expect("it reads");
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.expect("it ends").expect("it ran");
        let log = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let result = log.lines().find_map(|line| line.strip_prefix("RESULT "));
        let result = result.unwrap_or_else(|| panic!("{input}: {log}"));
        Said {
            result: serde_json::from_str(result).expect("JSON"),
            log,
        }
    }
}
