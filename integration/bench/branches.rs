//! A project in which five branches are worked on: `testdata/branches`, and
//! what CI builds of it.

use std::collections::HashSet;
use std::path::Path;

use crate::harness::{Build, Fate, Lab, Outcome};

/// What one of them changes.
struct Branch {
    name: &'static str,
    /// Stages with another source.
    parts: &'static [&'static str],
    /// Bytes of what all stages stand on.
    toolchain: u32,
}

/// The branch that the others come from.
pub const MAIN: &str = "main";

/// All that CI builds, and what comes of merging two of them.
const BRANCHES: [Branch; 6] = [
    Branch::new(MAIN, &[], 50_000),
    Branch::new("one", &["api"], 50_000),
    Branch::new("two", &["web"], 50_000),
    Branch::new("three", &["docs"], 50_000),
    Branch::new("four", &[], 50_001),
    Branch::new("merge", &["api", "web"], 50_000),
];

impl Branch {
    const fn new(name: &'static str, parts: &'static [&'static str], toolchain: u32) -> Self {
        Self {
            name,
            parts,
            toolchain,
        }
    }

    fn of(name: &str) -> &'static Self {
        let found = BRANCHES.iter().find(|branch| branch.name == name);
        found.expect("a branch")
    }

    /// The source of a part.
    fn source(&self, part: &str) -> String {
        let from = match (self.parts.contains(&part), self.name, part) {
            (false, ..) => MAIN,
            (true, "merge", "api") => "one",
            (true, "merge", _) => "two",
            (true, name, _) => name,
        };
        format!("{part} of {from}\n")
    }
}

/// A CI job: it builds a target of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The branch.
    pub branch: &'static str,
    target: &'static str,
}

/// Five branches, two of which have a second target.
pub const JOBS: [Job; 7] = [
    Job::new(MAIN, "final"),
    Job::new(MAIN, "twice"),
    Job::new("one", "final"),
    Job::new("two", "final"),
    Job::new("three", "final"),
    Job::new("four", "final"),
    Job::new("four", "twice"),
];

/// Branches one and two, merged.
pub const MERGE: Job = Job::new("merge", "final");

impl Job {
    const fn new(branch: &'static str, target: &'static str) -> Self {
        Self { branch, target }
    }

    /// It, in a context of its own.
    pub fn build(self, lab: &Lab) -> Build {
        let context = lab.path(&format!("on-{}", self.branch));
        if !context.exists() {
            checkout(lab, Branch::of(self.branch), &context);
        }
        Build::of(&context).target(self.target)
    }

    /// What its result has, and the stage whose last step made that.
    fn files(self) -> &'static [&'static str] {
        match self.target {
            "final" => &["api", "web", "docs"],
            _ => &["twice"],
        }
    }

    /// How many steps it has.
    pub fn steps(self) -> usize {
        match self.target {
            "final" => 12,
            _ => 4,
        }
    }

    /// How many of its steps came from a cache, of those that any job runs.
    /// Panics unless all of its steps are there.
    pub fn hits(self, outcome: &Outcome) -> Hits {
        let steps = outcome.progress.steps();
        assert_eq!(steps.len(), self.steps(), "{self:?}: {steps:#?}");
        // No job copied the web of branch two onto the api of branch one.
        let new = ["COPY --from=web", "COPY --from=docs", "sha256sum"];
        let counts = |step: &str| self != MERGE || !new.iter().any(|part| step.contains(part));
        let ran_before = steps.iter().filter(|(step, _)| counts(step));
        let fates: Vec<Fate> = ran_before.map(|(_, fate)| *fate).collect();
        Hits {
            cached: fates.iter().filter(|fate| **fate == Fate::Cached).count(),
            of: fates.len(),
        }
    }
}

/// Steps that came from a cache, and steps that could have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hits {
    cached: usize,
    of: usize,
}

impl Hits {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            cached: self.cached + other.cached,
            of: self.of + other.of,
        }
    }

    /// As a part of 1.
    pub fn rate(self) -> f64 {
        self.cached as f64 / self.of as f64
    }
}

fn checkout(lab: &Lab, branch: &Branch, context: &Path) {
    std::fs::rename(lab.context("branches"), context).unwrap();
    for part in ["api", "web", "docs"] {
        let source = context.join(format!("{part}.txt"));
        std::fs::write(source, branch.source(part)).unwrap();
    }
    let dockerfile = context.join("Dockerfile");
    let text = std::fs::read_to_string(&dockerfile).unwrap();
    let ours = text.replace("head -c 50000 ", &format!("head -c {} ", branch.toolchain));
    std::fs::write(dockerfile, ours).unwrap();
}

/// What the jobs have made, each file random: of which sources, and the bytes.
#[derive(Default)]
pub struct Made(HashSet<(&'static str, String, Vec<u8>)>);

impl Made {
    /// Takes in the result of a job.
    pub fn by(&mut self, job: Job, out: &Path) {
        for file in job.files() {
            self.0.insert(read(job, file, out));
        }
    }

    /// Panics unless a result is of its own sources, and each file that came
    /// from a cache is one that a job made of the same.
    pub fn assert_is(&self, job: Job, out: &Path, outcome: &Outcome) {
        for file in job.files() {
            let found = read(job, file, out);
            let hit = outcome.progress.fate(&format!("[{file} 2/2]")) == Fate::Cached;
            assert!(!hit || self.0.contains(&found), "{file} of {job:?}");
        }
    }
}

fn read(job: Job, file: &'static str, out: &Path) -> (&'static str, String, Vec<u8>) {
    let branch = Branch::of(job.branch);
    let bytes = std::fs::read(out.join(file)).unwrap();
    let source = match file {
        "twice" => String::new(),
        part => branch.source(part),
    };
    assert!(bytes.starts_with(source.as_bytes()), "{file} of {job:?}");
    (file, format!("{source}{}", branch.toolchain), bytes)
}
