//! Debian's Prometheus, with a configuration of the test's own.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::lab::free_port;
use super::process::Process;
use super::until;

/// A running server.
pub struct Prometheus {
    _process: Process,
    url: String,
}

impl Prometheus {
    /// One with this configuration, that answers.
    pub async fn start(folder: PathBuf, config: &str) -> Self {
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).expect("a configuration");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command
            .args(["--log.level", "warn", "--web.listen-address", &address])
            .arg("--config.file")
            .arg(file)
            .arg("--storage.tsdb.path")
            .arg(folder.join("series"));
        let mut process = Process::spawn("prometheus", &command, &folder.join("prometheus.log"));
        let url = format!("http://{address}");
        until("prometheus is ready", async || {
            process.assert_running();
            let asked = curl(&["--fail", &format!("{url}/-/ready")]).await;
            asked.status.success().then_some(())
        })
        .await;
        Self {
            _process: process,
            url,
        }
    }

    /// What `/api/v1/{path}` answers, with these parameters, as long as that is
    /// no error.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut arguments = vec![format!("{}/api/v1/{path}", self.url)];
        for (name, value) in parameters {
            arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = curl(&arguments).await;
        let read = serde_json::from_slice(&answer.stdout);
        let mut answer: Value = read.unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer:#}");
        answer["data"].take()
    }

    /// What a query gives now.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let mut answer = self.ask("query", &[("query", query)]).await;
        match answer["result"].take() {
            Value::Array(series) => series,
            other => panic!("{query}: {other}"),
        }
    }
}

async fn curl(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new("curl");
    let command = command
        .args(["--silent", "--show-error", "--get"])
        .args(arguments);
    command.output().await.expect("curl runs")
}
