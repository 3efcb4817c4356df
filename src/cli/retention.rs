//! What may be kept of a cache, as `layerd serve`, `layerd sidecar` and `layerd
//! cache gc` are told.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::access::RefPattern;
use crate::cache::quotas::Quotas;
use crate::cache::retention::{Limits, ProjectLimits};
use crate::cli::misuse;
use crate::place::ProjectId;
use crate::units::{parse_duration, parse_size};

/// The limits.
#[derive(Clone, Debug, Args)]
pub struct RetentionArgs {
    /// How many bytes all exports together may keep, such as 500GiB; 0 for any.
    /// The oldest exports of the largest project go first, the newest one of a
    /// default branch last. What running builds read or store comes on top.
    /// Unless given, any in a hub, and 50GiB in a sidecar's own store.
    #[arg(long, env = "LAYERD_MAX_BYTES", value_name = "SIZE", value_parser = parse_size)]
    max_bytes: Option<u64>,

    /// How long an export is kept that nobody uses, such as 30d; 0 for ever,
    /// which is the default. On a default branch it is kept four times as long,
    /// and its newest one as long as the project has any other.
    #[arg(long, env = "LAYERD_MAX_AGE", value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,

    /// How long the exports of a ref are kept that nothing is written to, such
    /// as 14d; 0 for ever, which is the default. Default branches stay.
    #[arg(long, env = "LAYERD_REF_IDLE", value_name = "DURATION", value_parser = parse_duration)]
    ref_idle: Option<Duration>,

    /// Which branches are default branches: refs, or patterns of them. May be
    /// given more than once.
    #[arg(
        long,
        env = "LAYERD_KEEP_BRANCHES",
        value_name = "PATTERN",
        value_delimiter = ',',
        default_value = "main,master"
    )]
    keep_branches: Vec<RefPattern>,

    /// How many bytes the exports of one project may keep: acme/shop=20GiB. An
    /// export that does not fit has older ones of the project go; one that does
    /// not fit alone is refused. May be given more than once.
    #[arg(
        long,
        env = "LAYERD_QUOTA",
        value_name = "PROJECT=SIZE",
        value_delimiter = ','
    )]
    quota: Vec<Quota>,
}

/// A project and its bytes.
#[derive(Clone, Debug)]
struct Quota(ProjectId, u64);

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (project, size) = text
            .rsplit_once('=')
            .ok_or("expected PROJECT=SIZE, such as acme/shop=20GiB")?;
        let project: ProjectId = project
            .parse()
            .map_err(|error| format!("{project:?} is no project: {error}"))?;
        Ok(Self(project, parse_size(size)?))
    }
}

impl RetentionArgs {
    /// As the engine takes them; `max_bytes` where nothing is said of that.
    pub fn limits(&self, max_bytes: Option<u64>) -> Limits {
        Limits {
            max_bytes: match self.max_bytes {
                None => max_bytes,
                Some(0) => None,
                given => given,
            },
            max_age: self.max_age.filter(|age| !age.is_zero()),
            ref_idle: self.ref_idle.filter(|idle| !idle.is_zero()),
            keep: self.keep(),
            projects: BTreeMap::new(),
        }
    }

    /// The default branches.
    pub fn keep(&self) -> Vec<RefPattern> {
        self.keep_branches.clone()
    }

    /// The quotas of projects, where the catalog has none. Fails where a project
    /// has two.
    pub fn quotas(&self) -> anyhow::Result<Quotas> {
        let mut quotas = BTreeMap::new();
        for Quota(project, bytes) in &self.quota {
            let limits = ProjectLimits {
                max_bytes: Some(*bytes),
                max_age: None,
            };
            if quotas.insert(project.clone(), limits).is_some() {
                return Err(misuse(format!(
                    "--quota is there twice for project {project}: say one size"
                )));
            }
        }
        Ok(Quotas(quotas))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: RetentionArgs,
    }

    fn limits(typed: &[&str]) -> Limits {
        let all = ["gc"].iter().chain(typed);
        Typed::try_parse_from(all).unwrap().args.limits(Some(7))
    }

    #[test]
    fn nothing_is_limited_by_a_zero() {
        assert_eq!(limits(&[]).max_bytes, Some(7));
        assert_eq!(limits(&["--max-bytes", "1GiB"]).max_bytes, Some(1 << 30));
        let none = limits(&["--max-bytes", "0", "--max-age", "0", "--ref-idle", "0"]);
        let limits = (none.max_bytes, none.max_age, none.ref_idle);
        assert_eq!(limits, (None, None, None));
    }

    #[test]
    fn main_and_master_are_default_branches_unless_others_are_named() {
        assert_eq!(limits(&[]).keep, Limits::default().keep);
        let named = limits(&["--keep-branches", "trunk,release/*"]).keep;
        let named: Vec<&str> = named.iter().map(RefPattern::as_str).collect();
        assert_eq!(named, ["refs/heads/trunk", "refs/heads/release/*"]);
    }

    #[test]
    fn a_quota_names_a_project_and_a_size() {
        for wrong in ["acme", "acme=", "acme=much", "=1GiB", "../x=1GiB"] {
            assert!(wrong.parse::<Quota>().is_err(), "{wrong}");
        }
        let typed = |quotas: &[&str]| {
            let words = ["gc"].iter().chain(quotas);
            Typed::try_parse_from(words).unwrap().args.quotas()
        };
        assert!(typed(&["--quota", "a=1", "--quota", "b=1"]).is_ok());
        for twice in [
            &["--quota", "a=1", "--quota", "a=2"][..],
            &["--quota=a=1,a=1"],
        ] {
            let error = typed(twice).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("twice for project a")));
        }
        let Quota(project, bytes) = "acme/shop=2MiB".parse().unwrap();
        assert_eq!((project.as_str(), bytes), ("acme/shop", 2 << 20));
    }
}
