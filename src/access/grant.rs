//! What the bearer of a token may.

use std::time::Duration;

use jiff::Timestamp;

use super::denied::Denied;
use super::pattern::RefPattern;
use crate::catalog::ledger::Actor;
use crate::place::{GitRef, ProjectId};

/// By how much clocks may differ.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// What somebody may read and write. Writing does not include reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// None: every project.
    pub(super) project: Option<ProjectId>,
    pub(super) read: Vec<RefPattern>,
    pub(super) write: Vec<RefPattern>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    pub(super) id: String,
    pub(super) subject: String,
}

/// What a grant does not include. It names the bearer's own rights and what was
/// asked for, and nothing else: whether that exists is not said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for another project.
    #[error("the token is for project {granted}, not for {asked}")]
    Project {
        /// The token's project.
        granted: ProjectId,
        /// The one that was asked for.
        asked: ProjectId,
    },
    /// The ref is not among those that may be read.
    #[error("the token may not read {asked}; {}", told("read", .granted))]
    Read {
        /// What was asked for.
        asked: GitRef,
        /// What may be read.
        granted: Vec<RefPattern>,
    },
    /// The ref is not among those that may be written.
    #[error("the token may not write {asked}; {}", told("write", .granted))]
    Write {
        /// What was asked for.
        asked: GitRef,
        /// What may be written.
        granted: Vec<RefPattern>,
    },
}

impl Refusal {
    /// A short name, for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Project { .. } => "project",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
        }
    }
}

/// So much of a list of patterns as a message can take.
fn told(verb: &str, granted: &[RefPattern]) -> String {
    const SHOWN: usize = 5;
    if granted.is_empty() {
        return format!("it may {verb} no ref at all");
    }
    let shown: Vec<_> = granted.iter().take(SHOWN).map(RefPattern::as_str).collect();
    let more = match granted.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("it may {verb} {}{more}", shown.join(", "))
}

impl Grant {
    /// Every project and every ref, for ever: what a hub that asks for no token
    /// grants.
    pub fn everything() -> Self {
        Self {
            project: None,
            read: vec![RefPattern::every()],
            write: vec![RefPattern::every()],
            not_before: None,
            expires: None,
            id: String::new(),
            subject: String::new(),
        }
    }

    /// The project; none if it is every one.
    pub fn project(&self) -> Option<&ProjectId> {
        self.project.as_ref()
    }

    /// The refs of the project that may be read.
    pub fn read(&self) -> &[RefPattern] {
        &self.read
    }

    /// The refs of the project that may be written.
    pub fn write(&self) -> &[RefPattern] {
        &self.write
    }

    /// When it ends; none if never.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// The token's own id (`jti`), by which it can be revoked; empty where
    /// there was no token.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who it was made for (`sub`); empty where there was no token.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether a ref of the granted project may be read.
    pub fn may_read(&self, git_ref: &GitRef) -> bool {
        self.read.iter().any(|pattern| pattern.matches(git_ref))
    }

    /// Whether a ref of the granted project may be written.
    pub fn may_write(&self, git_ref: &GitRef) -> bool {
        self.write.iter().any(|pattern| pattern.matches(git_ref))
    }

    /// Whether every ref of the granted project may be read, so that none needs
    /// to be asked about.
    pub fn reads_all(&self) -> bool {
        self.read.iter().any(RefPattern::is_every)
    }

    /// Refuses what concerns another project.
    pub fn check_project(&self, asked: &ProjectId) -> Result<(), Refusal> {
        match &self.project {
            Some(granted) if granted != asked => Err(Refusal::Project {
                granted: granted.clone(),
                asked: asked.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses to read what is not granted.
    pub fn check_read(&self, project: &ProjectId, asked: &GitRef) -> Result<(), Refusal> {
        self.check_project(project)?;
        if self.may_read(asked) {
            return Ok(());
        }
        Err(Refusal::Read {
            asked: asked.clone(),
            granted: self.read.clone(),
        })
    }

    /// Refuses to write what is not granted.
    pub fn check_write(&self, project: &ProjectId, asked: &GitRef) -> Result<(), Refusal> {
        self.check_project(project)?;
        if self.may_write(asked) {
            return Ok(());
        }
        Err(Refusal::Write {
            asked: asked.clone(),
            granted: self.write.clone(),
        })
    }

    /// Whoever has it, as the audit log knows them.
    pub fn actor(&self) -> Actor {
        match self.id.is_empty() {
            true => Actor::Anybody,
            false => Actor::Token {
                subject: self.subject.clone(),
                id: self.id.clone(),
            },
        }
    }

    /// Whether it counts at `now`. What lasts longer than one request asks this
    /// again from time to time: see [`Pass`](super::Pass).
    pub fn check_time(&self, now: Timestamp) -> Result<(), Denied> {
        if let Some(expires) = self.expires {
            let ago = now.duration_since(expires);
            if ago > LEEWAY.try_into().unwrap_or_default() {
                return Err(Denied::Expired(ago.unsigned_abs()));
            }
        }
        if let Some(not_before) = self.not_before {
            let to_go = not_before.duration_since(now);
            if to_go > LEEWAY.try_into().unwrap_or_default() {
                return Err(Denied::NotYet(to_go.unsigned_abs()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(read: &[&str], write: &[&str]) -> Grant {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Grant {
            project: Some("acme/shop".parse().unwrap()),
            read: patterns(read),
            write: patterns(write),
            ..Grant::everything()
        }
    }

    #[test]
    fn a_pull_request_reads_its_base_and_writes_only_its_own_ref() {
        let grant = grant(&["refs/pull/7/merge", "main"], &["refs/pull/7/merge"]);
        let [own, base] = ["refs/pull/7/merge", "main"].map(|text| text.parse().unwrap());
        assert!(grant.may_read(&own) && grant.may_read(&base));
        assert!(grant.may_write(&own) && !grant.may_write(&base));
        let project = "acme/shop".parse().unwrap();
        assert_eq!(grant.check_read(&project, &base), Ok(()));
        let refusal = grant.check_write(&project, &base).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the token may not write refs/heads/main; it may write refs/pull/7/merge"
        );
        assert!(!grant.reads_all());
    }

    #[test]
    fn nothing_crosses_projects_and_without_tokens_nothing_is_kept_back() {
        let main = GitRef::default();
        let other: ProjectId = "other".parse().unwrap();
        let refusal = grant(&["**"], &["**"]).check_read(&other, &main);
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "the token is for project acme/shop, not for other"
        );
        let everything = Grant::everything();
        assert!(everything.reads_all());
        assert_eq!(everything.check_write(&other, &main), Ok(()));
        assert_eq!(everything.check_time(Timestamp::MAX), Ok(()));
    }

    #[test]
    fn a_grant_of_nothing_and_one_of_much_are_told_in_a_line() {
        let project = "acme/shop".parse().unwrap();
        let told = |grant: &Grant| {
            let refusal = grant.check_write(&project, &"x".parse().unwrap());
            refusal.unwrap_err().to_string()
        };
        assert!(told(&grant(&[], &[])).ends_with("it may write no ref at all"));
        let many: Vec<_> = (0..8).map(|n| format!("b{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(told(&grant(&[], &many)).ends_with("refs/heads/b4 and 3 more"));
    }
}
