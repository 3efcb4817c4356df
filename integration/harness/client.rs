//! Stock clients: buildx with a remote builder, and buildctl.

use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::wait::DEADLINE;
use super::{Build, BuildKit, Outcome, Tls, tools, until};

/// A client that speaks to one address, with a configuration of its own.
#[derive(Clone)]
pub struct Client {
    kind: Kind,
    folder: PathBuf,
    commands: Option<PathBuf>,
}

#[derive(Clone)]
enum Kind {
    Buildx { builder: String },
    Buildctl { global: Vec<String> },
}

impl Client {
    /// buildx, with a builder at `address`.
    pub async fn buildx(folder: &Path, address: &str, tls: Option<&Tls>) -> Self {
        static BUILDERS: AtomicUsize = AtomicUsize::new(0);
        let builder = format!("builder-{}", BUILDERS.fetch_add(1, Ordering::Relaxed));
        let mut arguments = vec![
            "create".to_owned(),
            "--driver=remote".to_owned(),
            format!("--name={builder}"),
        ];
        if let Some(tls) = tls {
            let options = [
                ("cacert", tls.ca()),
                ("cert", tls.client_cert()),
                ("key", tls.client_key()),
            ];
            let option =
                |(key, path): (_, PathBuf)| format!("--driver-opt={key}={}", path.display());
            arguments.extend(options.map(option));
        }
        arguments.push(address.to_owned());
        let client = Self {
            kind: Kind::Buildx { builder },
            folder: folder.to_owned(),
            commands: None,
        };
        finish(client.command(&arguments)).await.ok();
        client
    }

    /// buildctl at `address`.
    pub fn buildctl(folder: &Path, address: &str, tls: Option<&Tls>) -> Self {
        let mut global = vec![format!("--addr={address}")];
        if let Some(tls) = tls {
            let options = [
                ("tlscacert", tls.ca()),
                ("tlscert", tls.client_cert()),
                ("tlskey", tls.client_key()),
            ];
            global.extend(options.map(|(key, path)| format!("--{key}={}", path.display())));
        }
        Self {
            kind: Kind::Buildctl { global },
            folder: folder.to_owned(),
            commands: None,
        }
    }

    /// With a folder of commands that it finds before all others.
    pub fn commands(mut self, folder: &Path) -> Self {
        self.commands = Some(folder.to_owned());
        self
    }

    /// Runs a command of this client to its end.
    pub async fn run<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command(&self.arguments(arguments))).await
    }

    /// Builds.
    pub async fn build(&self, build: &Build) -> Outcome {
        let arguments = self.arguments(self.build_arguments(build));
        let mut command = self.command(&arguments);
        if let Some(input) = build.input() {
            let mut file = tempfile::tempfile_in(&self.folder).expect("a file");
            file.write_all(input)
                .and_then(|()| file.rewind())
                .expect("the file takes it");
            command.stdin(file);
        }
        finish(command).await
    }

    /// Builds, and interrupts the client as Ctrl-C does once a step has
    /// printed `line`.
    pub async fn build_interrupted(&self, build: &Build, line: &str) -> Outcome {
        let arguments = self.arguments(self.build_arguments(build));
        let log = tempfile::NamedTempFile::new_in(&self.folder).expect("a file");
        let mut command = self.command(&arguments);
        command
            .stdout(Stdio::null())
            .stderr(log.reopen().expect("the file"));
        let child = command.spawn().expect("the client starts");
        let read = || std::fs::read_to_string(log.path()).unwrap_or_default();
        until("the step prints its line", async || {
            super::Progress::parse(&read())
                .lines()
                .contains(&line)
                .then_some(())
        })
        .await;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .expect("it is running");
        kill_process(pid, Signal::INT).expect("it takes signals");
        let waited = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let mut output = waited
            .expect("an interrupted client ends")
            .expect("a child can be waited for");
        output.stderr = read().into_bytes();
        Outcome::new(format!("{:?}", command.as_std()), &output)
    }

    fn build_arguments(&self, build: &Build) -> Vec<String> {
        match self.kind {
            Kind::Buildx { .. } => build.for_buildx(),
            Kind::Buildctl { .. } => build.for_buildctl(),
        }
    }

    fn arguments<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<String> {
        let own: Vec<String> = match &self.kind {
            Kind::Buildx { builder } => vec!["--builder".to_owned(), builder.clone()],
            Kind::Buildctl { global } => global.clone(),
        };
        own.into_iter()
            .chain(
                arguments
                    .into_iter()
                    .map(|argument| argument.as_ref().to_owned()),
            )
            .collect()
    }

    fn command(&self, arguments: &[String]) -> Command {
        let program = match self.kind {
            Kind::Buildx { .. } => tools::buildx(),
            Kind::Buildctl { .. } => BuildKit::Current.command("buildctl"),
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("BUILDX_CONFIG", self.folder.join("buildx"))
            .env("DOCKER_CONFIG", self.folder.join("docker"))
            .env_remove("BUILDKIT_HOST")
            .env_remove("BUILDX_BUILDER")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(folder) = &self.commands {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", folder.display()));
        }
        command
    }
}

async fn finish(mut command: Command) -> Outcome {
    let line = format!("{:?}", command.as_std());
    match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(output) => Outcome::new(line, &output.expect("the client runs")),
        Err(_) => panic!("still running after {DEADLINE:?}: {line}"),
    }
}
