//! How a command ended.

use std::process::Output;

use super::{Fate, Progress};

/// The end of a client's command: its status, and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What a build reported, if the command was one.
    pub progress: Progress,
}

impl Outcome {
    pub(super) fn new(command: String, output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let progress = Progress::parse(&stderr);
        Self {
            command,
            code: output.status.code(),
            stdout,
            stderr,
            progress,
        }
    }

    /// This, which must be a success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(
            self.code,
            Some(0),
            "{}\n{}\n{}",
            self.command,
            self.stdout,
            self.told()
        );
        self
    }

    /// This, which must be a failure.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert_ne!(
            self.code,
            Some(0),
            "{}\n{}\n{}",
            self.command,
            self.stdout,
            self.told()
        );
        self
    }

    /// What the client itself said at the end: standard error without the
    /// progress, and without what changes from run to run.
    pub fn verdict(&self) -> String {
        let own = self.stderr.lines().filter(|line| !line.starts_with('{'));
        own.collect::<Vec<_>>().join("\n")
    }

    /// Every step came from a cache, and there are `steps` of them.
    #[track_caller]
    pub fn assert_all_cached(&self, steps: usize) {
        let found = self.progress.steps();
        let all_cached = found.values().all(|fate| *fate == Fate::Cached);
        assert!(
            all_cached && found.len() == steps,
            "{}\n{found:#?}\n{}",
            self.command,
            self.told()
        );
    }

    /// No step came from a cache, and `steps` ran.
    #[track_caller]
    pub fn assert_all_ran(&self, steps: usize) {
        let found = self.progress.steps();
        let all_ran = found.values().all(|fate| *fate == Fate::Ran);
        assert!(
            all_ran && found.len() == steps,
            "{}\n{found:#?}\n{}",
            self.command,
            self.told()
        );
    }

    /// layerd warned, with `part` in its words.
    #[track_caller]
    pub fn assert_warned(&self, part: &str) {
        let warnings = self.progress.warnings();
        assert!(
            warnings.iter().any(|line| line.contains(part)),
            "{}\nno {part:?}\n{}",
            self.command,
            self.told()
        );
    }

    /// layerd said something with `part` in it.
    #[track_caller]
    pub fn assert_told(&self, part: &str) {
        let messages = self.progress.messages();
        assert!(
            messages.iter().any(|line| line.contains(part)),
            "{}\nno {part:?}\n{}",
            self.command,
            self.told()
        );
    }

    /// layerd had nothing to warn of.
    #[track_caller]
    pub fn assert_no_warning(&self) {
        assert!(
            self.progress.warnings().is_empty(),
            "{}
{}",
            self.command,
            self.told()
        );
    }

    pub fn told(&self) -> String {
        format!("{}\n{}", self.progress.lines().join("\n"), self.verdict())
    }
}
