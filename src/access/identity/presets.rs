//! The rules that come with layerd, for GitHub and GitLab.
//!
//! Each preset is a few rules, of which the last grants reading alone. Whoever
//! may write a ref is trusted by all who read it, so a ref is written only by
//! jobs that are known to run what stands under it. `docs/decisions/0007` says
//! why each event is where it is.

use std::time::Duration;

use serde::Deserialize;

use super::super::glob::Glob;
use super::rule::{Condition, Rule};
use super::template::{ProjectTemplate, RefTemplate, SubjectTemplate};

/// A set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Jobs of GitHub Actions.
    Github,
    /// Jobs of GitLab.
    Gitlab,
}

/// What a preset needs to be told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The name of the rule in the file.
    pub name: String,
    /// The issuer.
    pub issuer: String,
    /// Who is let in: claims and what they may be.
    pub who: Vec<Condition>,
    /// The branch that every job reads.
    pub default_branch: String,
    /// More that every job reads.
    pub also_read: Vec<RefTemplate>,
    /// How long tokens are good for.
    pub lifetime: Duration,
}

/// Events that run what stands under the ref that GitHub names, and that only
/// people who may push can cause.
pub const GITHUB_PUSHED: [&str; 5] = [
    "push",
    "schedule",
    "workflow_dispatch",
    "merge_group",
    "release",
];

/// The same of GitLab.
pub const GITLAB_PUSHED: [&str; 6] = ["push", "web", "schedule", "api", "trigger", "pipeline"];

/// One rule of a preset.
struct Row<'a> {
    name: &'a str,
    conditions: &'a [(&'a str, &'a [&'a str])],
    project: &'a str,
    read: &'a [&'a str],
    write: &'a [&'a str],
}

impl Preset {
    /// The claims that say whose repository it is: a list in the file, and the
    /// claim that it is about.
    pub fn who(self) -> [(&'static str, &'static str); 3] {
        match self {
            Self::Github => [
                ("repositories", "repository"),
                ("owners", "repository_owner"),
                ("owner-ids", "repository_owner_id"),
            ],
            Self::Gitlab => [
                ("repositories", "project_path"),
                ("owners", "namespace_path"),
                ("owner-ids", "namespace_id"),
            ],
        }
    }

    /// Its rules. Fails where what was told makes no refs.
    pub fn rules(self, told: &Told) -> Result<Vec<Rule>, String> {
        let rows: &[Row<'_>] = match self {
            Self::Github => &[
                Row {
                    name: "pull-request",
                    conditions: &[
                        ("event_name", &["pull_request"]),
                        ("ref", &["refs/pull/*/merge"]),
                    ],
                    project: "{repository}",
                    read: &["{ref}", "refs/heads/{base_ref}"],
                    write: &["{ref}"],
                },
                Row {
                    name: "branch",
                    conditions: &[
                        ("event_name", &GITHUB_PUSHED),
                        ("ref", &["refs/heads/**", "refs/tags/**"]),
                    ],
                    project: "{repository}",
                    read: &["{ref}", "refs/heads/{base_ref}"],
                    write: &["{ref}"],
                },
                Row {
                    name: "other",
                    conditions: &[],
                    project: "{repository}",
                    read: &["refs/heads/{base_ref}"],
                    write: &[],
                },
            ],
            Self::Gitlab => &[
                Row {
                    name: "merge-request",
                    conditions: &[
                        ("pipeline_source", &["merge_request_event"]),
                        ("job_project_path", &["**"]),
                        ("project_id", &["*"]),
                    ],
                    project: "{job_project_path}",
                    read: &[
                        "refs/merge-requests/{project_id}/{ref}",
                        // Only a GitLab of late says it.
                        "refs/heads/{target_ref}",
                    ],
                    write: &["refs/merge-requests/{project_id}/{ref}"],
                },
                Row {
                    name: "branch",
                    conditions: &[
                        ("pipeline_source", &GITLAB_PUSHED),
                        ("ref_path", &["refs/heads/**", "refs/tags/**"]),
                    ],
                    project: "{project_path}",
                    read: &["{ref_path}"],
                    write: &["{ref_path}"],
                },
                Row {
                    name: "child",
                    conditions: &[
                        ("pipeline_source", &["parent_pipeline"]),
                        ("job_project_path", &["**"]),
                        ("ref_path", &["refs/heads/**", "refs/tags/**"]),
                    ],
                    project: "{project_path}",
                    read: &["{ref_path}"],
                    write: &["{ref_path}"],
                },
                Row {
                    name: "other",
                    conditions: &[],
                    project: "{project_path}",
                    read: &[],
                    write: &[],
                },
            ],
        };
        rows.iter().map(|row| self.rule(row, told)).collect()
    }

    /// What whose repository it is says of its name, so that nobody gets in as
    /// one owner and into the project of another.
    fn within(self, owners: &Condition) -> Option<Result<Condition, String>> {
        let [(_, whole), (_, owner), _] = self.who();
        (owners.claim == owner).then(|| {
            let inside = owners.any.iter().map(|glob| format!("{glob}/*").parse());
            let any: Result<Vec<Glob>, String> = inside.collect();
            Ok(Condition {
                claim: whole.to_owned(),
                any: any.map_err(|why| format!("owners: {why}"))?,
            })
        })
    }

    fn rule(self, row: &Row<'_>, told: &Told) -> Result<Rule, String> {
        let own = row.conditions.iter().map(|(claim, any)| {
            let any: Result<Vec<Glob>, String> = any.iter().map(|text| text.parse()).collect();
            Ok(Condition {
                claim: (*claim).to_owned(),
                any: any?,
            })
        });
        let own: Result<Vec<Condition>, String> = own.collect();
        // A merge request runs in the project that is let in; the other claims
        // are about the one that it comes from, a fork maybe.
        let merging = row.project == "{job_project_path}";
        let within = told
            .who
            .iter()
            .filter_map(|condition| self.within(condition));
        let within: Vec<Condition> = within.collect::<Result<_, _>>()?;
        let who = told.who.iter().cloned().chain(within).map(|mut condition| {
            if merging {
                condition.claim = format!("job_{}", condition.claim);
            }
            condition
        });
        let refs = |texts: &[&str]| {
            let each = texts.iter().map(|text| RefTemplate::parse(text));
            each.collect::<Result<Vec<_>, _>>()
        };
        let mut read = refs(row.read)?;
        read.push(default_branch(&told.default_branch)?);
        read.extend(told.also_read.iter().cloned());
        Ok(Rule {
            name: format!("{}/{}", told.name, row.name),
            issuer: told.issuer.clone(),
            preset: Some(told.name.clone()),
            conditions: who.chain(own?).collect(),
            project: ProjectTemplate::parse(row.project)?,
            read,
            write: refs(row.write)?,
            lifetime: told.lifetime,
            subject: SubjectTemplate::parse("{sub}")?,
        })
    }
}

/// One branch, by its name.
fn default_branch(name: &str) -> Result<RefTemplate, String> {
    let named = |why: String| format!("default-branch: {why}");
    if name.contains(['*', '{', '}']) || name.starts_with("refs/") {
        return Err(named(
            "the name of one branch is expected, such as main".to_owned(),
        ));
    }
    RefTemplate::parse(name).map_err(named)
}
