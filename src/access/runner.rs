//! What a runner of GitHub Actions may, by the runtime token of its job.
//!
//! Clients of that cache read their scopes out of the token themselves (`ac`,
//! see [`token`](super::token)), in an order that counts: what is asked for is
//! looked for in the first one first. A token of a hub says them as its grant
//! does. Where no token is asked for, one that nobody here has signed is taken
//! at its word: it tells which refs a job is about, and proves nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::Access;
use super::denied::Denied;
use super::grant::Grant;
use super::pass::Pass;
use super::pattern::RefPattern;
use super::token::{MAX_PATTERNS, bounded};
use crate::place::{GitRef, ProjectId};

/// Base64 as in tokens; some of those who make them pad it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const READ: u64 = 1;
const WRITE: u64 = 2;

/// A ref that a runner may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerScope {
    /// The ref.
    pub git_ref: GitRef,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
}

impl RunnerScope {
    fn of(git_ref: GitRef, read: bool, write: bool) -> Self {
        Self {
            git_ref,
            read,
            write,
        }
    }
}

/// A runner, and what it may.
#[derive(Clone)]
pub struct Runner {
    /// Its grant, for as long as its request lasts.
    pub pass: Pass,
    /// Its project.
    pub project: ProjectId,
    /// Its refs, those that count more first.
    pub scopes: Vec<RunnerScope>,
}

impl Runner {
    /// The bearer of `token`, if that counts.
    pub async fn new(access: &Arc<Access>, token: Option<&str>) -> Result<Self, Denied> {
        if access.is_open() {
            let claims = token.map_or(Ok(None), unsigned)?.unwrap_or_default();
            let (scopes, project) = (claims.scopes()?, claims.project()?);
            let grant = Grant {
                project: Some(project.clone()),
                read: patterns(&scopes, |scope| scope.read),
                write: patterns(&scopes, |scope| scope.write),
                ..Grant::everything()
            };
            return Ok(Self {
                pass: Pass::of(access, Arc::new(grant)),
                project,
                scopes,
            });
        }
        let pass = Pass::new(access, token).await?;
        Ok(Self {
            project: pass.grant().project().cloned().unwrap_or_default(),
            scopes: granted(pass.grant()),
            pass,
        })
    }

    /// The refs that are looked at, in their order.
    pub fn readable(&self) -> Vec<GitRef> {
        let readable = self.scopes.iter().filter(|scope| scope.read);
        readable.map(|scope| scope.git_ref.clone()).collect()
    }

    /// The ref that is written.
    pub fn written(&self) -> Option<&GitRef> {
        let scope = self.scopes.iter().find(|scope| scope.write);
        scope.map(|scope| &scope.git_ref)
    }
}

fn patterns(scopes: &[RunnerScope], which: impl Fn(&RunnerScope) -> bool) -> Vec<RefPattern> {
    let scopes = scopes.iter().filter(|scope| which(scope));
    scopes.map(|scope| scope.git_ref.clone().into()).collect()
}

/// The scopes of a grant, in the order of the claim `ac`. One of patterns alone
/// has the default ref, where they match it.
fn granted(grant: &Grant) -> Vec<RunnerScope> {
    let own = grant.write().iter().find_map(RefPattern::exact);
    let scope = |git_ref: GitRef| {
        let (read, write) = (grant.may_read(&git_ref), grant.may_write(&git_ref));
        RunnerScope::of(git_ref, read, write)
    };
    let others = grant.read().iter().filter_map(RefPattern::exact);
    let others = others.filter(|other| own.as_ref() != Some(other));
    let others = others.map(|other| RunnerScope {
        write: false,
        ..scope(other)
    });
    let mut scopes: Vec<_> = own.clone().map(scope).into_iter().chain(others).collect();
    if scopes.is_empty() {
        scopes.push(scope(GitRef::default()));
        scopes.retain(|scope| scope.read || scope.write);
    }
    scopes
}

/// What matters of a token that nobody here has signed.
#[derive(Default, Deserialize)]
struct Claims {
    ac: Option<String>,
    project: Option<String>,
}

/// As go-actions-cache reads it (`Scope` in `cache.go`).
#[derive(Deserialize)]
struct Scope {
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "Permission")]
    permission: u64,
}

/// The claims of a token; none where it is no JWT, but a word that some runner
/// or other sends because there has to be one.
fn unsigned(token: &str) -> Result<Option<Claims>, Denied> {
    bounded(token)?;
    let mut parts = token.split('.');
    let [Some(_), Some(payload), Some(_), None] = [(); 4].map(|()| parts.next()) else {
        return Ok(None);
    };
    let claims = BASE64.decode(payload).ok();
    let claims = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    claims.map(Some).ok_or(Denied::Malformed("its claims"))
}

impl Claims {
    /// Where it names none, there is one for all such.
    fn project(&self) -> Result<ProjectId, Denied> {
        let project = self.project.as_deref().map(str::parse).transpose();
        let project = project.map_err(|_| Denied::Claim("project"))?;
        Ok(project.unwrap_or_default())
    }

    /// In their order; those that are no refs are left out. Whoever may write
    /// may read: Gitea and act give their jobs a scope without a name, to write.
    fn scopes(&self) -> Result<Vec<RunnerScope>, Denied> {
        let Some(ac) = &self.ac else {
            return Ok(vec![RunnerScope::of(GitRef::default(), true, true)]);
        };
        let scopes: Vec<Scope> = serde_json::from_str(ac).map_err(|_| Denied::Claim("ac"))?;
        if scopes.len() > MAX_PATTERNS {
            return Err(Denied::Claim("ac"));
        }
        let scopes = scopes
            .into_iter()
            .filter_map(|Scope { scope, permission }| {
                let git_ref = match scope.as_str() {
                    "" => GitRef::default(),
                    name => name.parse().ok()?,
                };
                let write = permission & WRITE != 0;
                let read = write || permission & READ != 0;
                Some(RunnerScope::of(git_ref, read, write))
            });
        Ok(scopes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &serde_json::Value) -> String {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("eyJhbGciOiJub25lIn0.{payload}.")
    }

    async fn open(token: Option<&str>) -> Result<Runner, Denied> {
        Runner::new(&Arc::new(Access::Open), token).await
    }

    fn shown(runner: &Runner) -> Vec<(&str, bool, bool)> {
        let scopes = runner.scopes.iter();
        scopes
            .map(|scope| (scope.git_ref.as_str(), scope.read, scope.write))
            .collect()
    }

    #[tokio::test]
    async fn an_unsigned_token_is_taken_at_its_word_and_in_its_order() {
        let ac = r#"[{"Scope":"refs/pull/7/merge","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;
        let token = token(&serde_json::json!({"ac": ac, "project": "acme/shop"}));
        let runner = open(Some(&token)).await.unwrap();
        assert_eq!(runner.project.as_str(), "acme/shop");
        let expected = [
            ("refs/pull/7/merge", true, true),
            ("refs/heads/main", true, false),
        ];
        assert_eq!(shown(&runner), expected);
        assert_eq!(runner.readable().len(), 2);
        let grant = runner.pass.grant();
        let main = GitRef::default();
        assert!(grant.may_read(&main) && !grant.may_write(&main));
        assert!(!grant.reads_all());
    }

    #[tokio::test]
    async fn a_scope_without_a_name_is_the_default_ref_and_writing_it_is_reading_it() {
        let token = token(&serde_json::json!({"ac": r#"[{"Scope":"","Permission":2}]"#}));
        let runner = open(Some(&token)).await.unwrap();
        assert_eq!(shown(&runner), [("refs/heads/main", true, true)]);
        assert_eq!(runner.written(), Some(&GitRef::default()));
    }

    #[tokio::test]
    async fn without_scopes_there_is_the_default_ref_and_without_any_there_is_none() {
        for given in [
            None,
            Some("no-jwt"),
            Some(token(&serde_json::json!({})).as_str()),
        ] {
            let runner = open(given).await.unwrap();
            assert_eq!(
                shown(&runner),
                [("refs/heads/main", true, true)],
                "{given:?}"
            );
            assert_eq!(runner.project, ProjectId::default());
        }
        let none = token(&serde_json::json!({"ac": "[]"}));
        let none = open(Some(&none)).await.unwrap();
        assert!(none.scopes.is_empty() && none.written().is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused() {
        for ac in [
            "{}",
            "x",
            r#"[{"Scope":1,"Permission":3}]"#,
            r#"[{"Scope":"a"}]"#,
        ] {
            let token = token(&serde_json::json!({ "ac": ac }));
            let denied = open(Some(&token)).await.err();
            assert_eq!(denied, Some(Denied::Claim("ac")), "{ac}");
        }
        for project in ["", "a b", "../q", &"x".repeat(300)] {
            let token = token(&serde_json::json!({ "project": project }));
            let denied = open(Some(&token)).await.err();
            assert_eq!(denied, Some(Denied::Claim("project")), "{project:?}");
        }
        for text in ["a.!.c", "a.bnVsbA.c", "a.W10.c"] {
            assert!(open(Some(text)).await.is_err(), "{text}");
        }
        let long = "x".repeat(20_000);
        assert_eq!(open(Some(&long)).await.err(), Some(Denied::TooLong));
    }

    #[test]
    fn of_a_grant_the_own_ref_comes_first_and_others_are_only_read() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let grant = Grant {
            project: Some(ProjectId::default()),
            read: patterns(&["main", "pr", "release/*"]),
            write: patterns(&["x/*", "pr", "main"]),
            ..Grant::everything()
        };
        let scopes = granted(&grant);
        let found: Vec<_> = scopes
            .iter()
            .map(|scope| (scope.git_ref.as_str(), scope.read, scope.write))
            .collect();
        let expected = [
            ("refs/heads/pr", true, true),
            ("refs/heads/main", true, false),
        ];
        assert_eq!(found, expected);
        let all = Grant {
            read: vec![RefPattern::every()],
            write: Vec::new(),
            ..grant
        };
        assert_eq!(
            granted(&all),
            [RunnerScope::of(GitRef::default(), true, false)]
        );
    }
}
