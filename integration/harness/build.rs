//! One build, said once for both clients.

use std::path::{Path, PathBuf};

use prost::Message as _;

use super::control::Definition;

/// What to build, and with which options.
#[derive(Clone, Debug, Default)]
pub struct Build {
    context: PathBuf,
    target: Option<String>,
    cache_to: Vec<String>,
    cache_from: Vec<String>,
    outputs: Vec<String>,
    secrets: Vec<String>,
    ssh: Vec<String>,
    arguments: Vec<String>,
    definition: Option<Vec<u8>>,
}

impl Build {
    /// The Dockerfile of a context.
    pub fn of(context: &Path) -> Self {
        Self {
            context: context.to_owned(),
            ..Self::default()
        }
    }

    /// A graph of operations instead of a Dockerfile; buildctl only.
    pub fn of_definition(definition: &Definition) -> Self {
        Self {
            definition: Some(definition.encode_to_vec()),
            ..Self::default()
        }
    }

    /// What the client reads from standard input.
    pub(super) fn input(&self) -> Option<&[u8]> {
        self.definition.as_deref()
    }

    /// One stage of it.
    pub fn target(mut self, stage: &str) -> Self {
        self.target = Some(stage.to_owned());
        self
    }

    /// One more `--cache-to`.
    pub fn cache_to(mut self, entry: &str) -> Self {
        self.cache_to.push(entry.to_owned());
        self
    }

    /// One more `--cache-from`.
    pub fn cache_from(mut self, entry: &str) -> Self {
        self.cache_from.push(entry.to_owned());
        self
    }

    /// One more `--output`.
    pub fn output(mut self, entry: &str) -> Self {
        self.outputs.push(entry.to_owned());
        self
    }

    /// The result as files in a folder.
    pub fn output_folder(self, folder: &Path) -> Self {
        self.output(&format!("type=local,dest={}", folder.display()))
    }

    /// One more `--secret`.
    pub fn secret(mut self, entry: &str) -> Self {
        self.secrets.push(entry.to_owned());
        self
    }

    /// One more `--ssh`.
    pub fn ssh(mut self, entry: &str) -> Self {
        self.ssh.push(entry.to_owned());
        self
    }

    /// Any other option, in the client's own words.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(super) fn for_buildx(&self) -> Vec<String> {
        let mut arguments = vec!["build".to_owned(), "--progress=rawjson".to_owned()];
        arguments.extend(self.target.iter().map(|stage| format!("--target={stage}")));
        arguments.extend(self.options("--cache-to", "--cache-from"));
        arguments.push(self.context.display().to_string());
        arguments
    }

    pub(super) fn for_buildctl(&self) -> Vec<String> {
        let mut arguments = vec!["build".to_owned(), "--progress=rawjson".to_owned()];
        if self.definition.is_none() {
            arguments.push("--frontend=dockerfile.v0".to_owned());
            let folder = self.context.display();
            arguments
                .extend(["context", "dockerfile"].map(|name| format!("--local={name}={folder}")));
        }
        arguments.extend(
            self.target
                .iter()
                .map(|stage| format!("--opt=target={stage}")),
        );
        arguments.extend(self.options("--export-cache", "--import-cache"));
        arguments
    }

    fn options(&self, export: &str, import: &str) -> Vec<String> {
        let lists = [
            (export, &self.cache_to),
            (import, &self.cache_from),
            ("--output", &self.outputs),
            ("--secret", &self.secrets),
            ("--ssh", &self.ssh),
        ];
        let named = lists
            .into_iter()
            .flat_map(|(flag, list)| list.iter().map(move |entry| format!("{flag}={entry}")));
        named.chain(self.arguments.iter().cloned()).collect()
    }
}
