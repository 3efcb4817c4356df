//! What the claims of GitHub and GitLab say, whatever the rule.

use super::super::super::glob::Glob;
use super::super::config::{Config, Issuer};
use super::super::presets::{GITHUB_PUSHED, GITLAB_PUSHED};
use super::super::rule::{Condition, Rule};

/// Where code is kept, and strangers can ask for theirs to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forge {
    /// GitHub, or a server of its kind.
    Github,
    /// GitLab.
    Gitlab,
}

/// A name that has another one in front: the claim of the whole, and that of
/// all before its last slash.
const WITHIN: [(&str, &str); 3] = [
    ("repository", "repository_owner"),
    ("project_path", "namespace_path"),
    ("job_project_path", "job_namespace_path"),
];

impl Forge {
    const ALL: [Self; 2] = [Self::Github, Self::Gitlab];

    /// The one that everybody can be at.
    pub fn public(issuer: &Issuer) -> Option<Self> {
        let is_within = |known: &str| {
            let rest = issuer.url.strip_prefix(known);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Self::ALL.into_iter().find(|forge| is_within(forge.url()))
    }

    /// The one that vouches, as far as its URL or a preset says so.
    pub fn of_issuer(issuer: &Issuer, config: &Config) -> Option<Self> {
        Self::public(issuer).or_else(|| {
            let mut rules = config
                .rules
                .iter()
                .filter(|rule| rule.issuer == issuer.name);
            rules
                .find(|rule| rule.preset.is_some())
                .and_then(Self::told)
        })
    }

    /// The one that a rule is about.
    pub fn of_rule(rule: &Rule, issuer: &Issuer, config: &Config) -> Option<Self> {
        Self::of_issuer(issuer, config).or_else(|| Self::told(rule))
    }

    /// The one whose claims a rule names.
    fn told(rule: &Rule) -> Option<Self> {
        let asked = rule
            .conditions
            .iter()
            .map(|condition| condition.claim.as_str());
        let refs = rule.read.iter().chain(&rule.write);
        let filled = refs.flat_map(|git_ref| git_ref.template().claims());
        let named: Vec<&str> = asked
            .chain(filled)
            .chain(rule.project.template().claims())
            .collect();
        let own = |forge: &Self| {
            let mut identities = forge.identities().iter();
            let is_named = |claim: &str| claim != "sub" && named.contains(&claim);
            named.contains(&forge.event()) || identities.any(|(claim, _)| is_named(claim))
        };
        Self::ALL.into_iter().find(own)
    }

    /// Where it is, for everybody.
    fn url(self) -> &'static str {
        match self {
            Self::Github => "https://token.actions.githubusercontent.com",
            Self::Gitlab => "https://gitlab.com",
        }
    }

    /// The claims that say whose a job is, and what every one of such starts
    /// with, which does not say it.
    pub fn identities(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Github => &[
                ("repository", ""),
                ("repository_id", ""),
                ("repository_owner", ""),
                ("repository_owner_id", ""),
                ("sub", "repo:"),
            ],
            Self::Gitlab => &[
                ("project_path", ""),
                ("project_id", ""),
                ("namespace_path", ""),
                ("namespace_id", ""),
                ("job_project_path", ""),
                ("job_project_id", ""),
                ("job_namespace_path", ""),
                ("job_namespace_id", ""),
                ("sub", "project_path:"),
            ],
        }
    }

    /// Those of them that say which repository.
    pub fn repositories(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["repository", "repository_id"],
            Self::Gitlab => &[
                "project_path",
                "project_id",
                "job_project_path",
                "job_project_id",
            ],
        }
    }

    /// The claim that says why a job runs.
    pub fn event(self) -> &'static str {
        match self {
            Self::Github => "event_name",
            Self::Gitlab => "pipeline_source",
        }
    }

    /// What is caused only by who may push, and runs what was pushed.
    pub fn pushed(self) -> &'static [&'static str] {
        match self {
            Self::Github => &GITHUB_PUSHED,
            Self::Gitlab => &GITLAB_PUSHED,
        }
    }

    /// What strangers can cause, or what may run what they wrote; the best known
    /// first.
    pub fn strange(self) -> &'static [&'static str] {
        match self {
            Self::Github => &[
                "pull_request_target",
                "pull_request",
                "workflow_run",
                "issue_comment",
                "issues",
                "pull_request_review",
                "pull_request_review_comment",
                "repository_dispatch",
                "check_run",
                "check_suite",
                "discussion",
                "discussion_comment",
                "fork",
                "status",
                "watch",
                "dynamic",
            ],
            Self::Gitlab => &[
                "merge_request_event",
                "external_pull_request_event",
                "parent_pipeline",
            ],
        }
    }

    /// The claim that is the whole ref of a job.
    pub fn whole_ref(self) -> &'static str {
        match self {
            Self::Github => "ref",
            Self::Gitlab => "ref_path",
        }
    }

    /// What the refs begin with under which nothing but requests of strangers
    /// is.
    pub fn requests(self) -> &'static str {
        match self {
            Self::Github => "refs/pull/",
            Self::Gitlab => "refs/merge-requests/",
        }
    }

    /// The preset for it.
    pub fn preset(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
        }
    }

    /// What follows from a condition about one of two names that are one inside
    /// of the other: no less than that.
    pub fn implied(condition: &Condition) -> Option<Condition> {
        let about = |claim: &str| claim == condition.claim;
        let (claim, any): (_, Option<Vec<Glob>>) =
            match WITHIN.iter().find(|(whole, _)| about(whole)) {
                Some((_, before)) => {
                    let before_slash = condition.any.iter().map(|glob| {
                        let (before, last) = glob.as_str().rsplit_once('/')?;
                        (!last.contains("**")).then(|| before.parse().ok())?
                    });
                    (before, before_slash.collect())
                }
                None => {
                    let (whole, _) = WITHIN.iter().find(|(_, before)| about(before))?;
                    let inside = condition
                        .any
                        .iter()
                        .map(|glob| format!("{glob}/*").parse().ok());
                    (whole, inside.collect())
                }
            };
        Some(Condition {
            claim: (*claim).to_owned(),
            any: any?,
        })
    }
}
