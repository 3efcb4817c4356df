//! Whom a rule lets in, and what all of those may write.
//!
//! Whoever may write a ref is trusted by all who read it. The presets have a job
//! write what it runs and only people who may push can cause (`docs/decisions/0007`);
//! of other rules it is told where they go beyond that, and how not to.

use super::super::super::glob::Glob;
use super::super::config::{Config, Issuer};
use super::super::rule::Rule;
use super::super::template::RefTemplate;
use super::forge::Forge;

/// Claims that name somebody, and of each the one that says by a number who has
/// that name now. A name that was given up can be taken by others.
const NAMES: [(&[&str], &str); 2] = [
    (&["repository", "repository_owner"], "repository_owner_id"),
    (&["project_path", "namespace_path"], "namespace_id"),
];

/// Where branches are.
const BRANCHES: &str = "refs/heads/";

/// Events that a warning names.
const NAMED: usize = 2;

/// Whether whom a rule lets in can become somebody else.
pub fn is_by_name(rule: &Rule) -> bool {
    let asks = |claim: &str| {
        let mut conditions = rule.conditions.iter();
        // Of a merge request, it is the project that runs it.
        conditions.any(|condition| {
            let own = condition.claim.strip_prefix("job_");
            own.unwrap_or(&condition.claim) == claim
        })
    };
    NAMES
        .iter()
        .any(|(names, id)| names.iter().any(|name| asks(name)) && !asks(id))
}

/// Why a rule is for everybody whom its issuer vouches for, if it is.
pub fn lets_all_in(rule: &Rule, issuer: &Issuer) -> Option<String> {
    let Some(forge) = Forge::public(issuer) else {
        let says = |glob: &Glob| !glob.prefix().is_empty();
        let mut conditions = rule.conditions.iter();
        let narrow = conditions.any(|condition| {
            let of_issuer = ["iss", "aud"].contains(&condition.claim.as_str());
            !of_issuer && condition.any.iter().all(says)
        });
        return (!narrow).then(|| {
            "it is too wide: every token of its issuer would match; say in match whose are let in"
                .to_owned()
        });
    };
    let identities = forge.identities();
    let narrow = rule.conditions.iter().any(|condition| {
        let known = identities
            .iter()
            .find(|(claim, _)| *claim == condition.claim);
        known.is_some_and(|(_, start)| condition.any.iter().all(|glob| names(glob, start)))
    });
    (!narrow).then(|| {
        let claims: Vec<_> = identities.iter().map(|(claim, _)| *claim).collect();
        format!(
            "it is too wide: {} vouches for everybody there, so match has to name an owner or a repository, by {}",
            issuer.url,
            claims.join(" or ")
        )
    })
}

/// Whether a pattern names an owner whole: `acme*` would be `acme-evil` as well.
fn names(glob: &Glob, start: &str) -> bool {
    let said = glob.prefix().strip_prefix(start);
    said.is_some_and(|said| glob.is_exact() || said.contains('/'))
}

/// Where those whom a rule lets in may write what others trust.
pub fn warnings(rule: &Rule, issuer: &Issuer, config: &Config) -> Vec<String> {
    if rule.preset.is_some() || rule.write.is_empty() {
        return Vec::new();
    }
    let forge = Forge::of_rule(rule, issuer, config);
    let one_of_many = rule.write.iter().filter(|git_ref| is_many(git_ref));
    let many: Vec<String> = one_of_many.map(RefTemplate::whole).collect();
    let mut warnings = Vec::new();
    if !many.is_empty() {
        warnings.push(format!(
            "its bearers write {}, so each is trusted by all who read any of that; name the refs \
             that they have to write, such as {}",
            many.join(" and "),
            forge.map_or("refs/heads/main".to_owned(), |forge| format!(
                "{{{}}}",
                forge.whole_ref()
            ))
        ));
    }
    warnings.extend(shares_a_project(rule, forge));
    let Some(forge) = forge else { return warnings };
    let shared = rule
        .write
        .iter()
        .filter(|git_ref| !is_of_requests(git_ref, rule, forge));
    let shared: Vec<&RefTemplate> = shared.collect();
    if shared.is_empty() {
        return warnings;
    }
    let texts: Vec<String> = shared.iter().map(|git_ref| git_ref.whole()).collect();
    let written = texts.join(" and ");
    if let Some(events) = strange_events(rule, forge) {
        let pushed: Vec<String> = forge
            .pushed()
            .iter()
            .map(|event| format!("{event:?}"))
            .collect();
        warnings.push(format!(
            "jobs that strangers can cause ({events}) write {written}, which all who read that \
             trust; say {} = [{}] in match, or preset = {:?} instead of all this",
            forge.event(),
            pushed.join(", "),
            forge.preset()
        ));
    }
    let fixed = shared
        .iter()
        .find(|git_ref| git_ref.template().claims().next().is_none());
    if let Some(fixed) = fixed.filter(|_| many.is_empty() && !says_the_branch(rule, forge)) {
        let own = forge.whole_ref();
        warnings.push(format!(
            "a job of any branch writes {fixed}, so who can push one can change what all builds \
             of that get; say {own} = {fixed:?} in match, or write = [\"{{{own}}}\"]",
            fixed = fixed.whole()
        ));
    }
    let many_read = rule.read.iter().find(|git_ref| is_many(git_ref));
    if let Some(read) = many_read {
        warnings.push(format!(
            "it reads {} and writes {written}: what a job gets from any of those refs, a pull \
             request's maybe, it can pass on; read only what {written} may trust",
            read.whole()
        ));
    }
    warnings
}

/// Whether a pattern is of refs of several people: of branches or of more,
/// without a claim that says whose.
fn is_many(git_ref: &RefTemplate) -> bool {
    let text = git_ref.template().as_str();
    let is_bound = git_ref.template().claims().next().is_some();
    text.contains('*')
        && !is_bound
        && (text.contains("**") || BRANCHES.starts_with(git_ref.prefix()))
}

/// Whether nothing but a request's own ref can be meant.
fn is_of_requests(git_ref: &RefTemplate, rule: &Rule, forge: Forge) -> bool {
    let requests = forge.requests();
    if git_ref.prefix().starts_with(requests) {
        return true;
    }
    let first = git_ref.template().claims().next();
    git_ref.prefix().is_empty()
        && rule.conditions.iter().any(|condition| {
            Some(condition.claim.as_str()) == first
                && condition
                    .any
                    .iter()
                    .all(|glob| glob.prefix().starts_with(requests))
        })
}

/// The events that a rule lets in and that not only those cause who may push.
fn strange_events(rule: &Rule, forge: Forge) -> Option<String> {
    let mut asked = rule
        .conditions
        .iter()
        .filter(|condition| condition.claim == forge.event());
    let asked = asked.next();
    let is_let_in = |event: &&&str| asked.is_none_or(|condition| condition.takes(event));
    let events = forge.strange().iter().filter(is_let_in);
    let events: Vec<String> = events.map(|event| format!("{event:?}")).collect();
    let named = events.get(..NAMED).unwrap_or(&events).join(", ");
    (!events.is_empty()).then(|| match events.len() > NAMED {
        true => format!("{} {named} and others", forge.event()),
        false => format!("{} {named}", forge.event()),
    })
}

/// Whether a rule says which branch a job has to run.
fn says_the_branch(rule: &Rule, forge: Forge) -> bool {
    let is_one = |glob: &Glob, start: &str| {
        let said = glob.prefix().strip_prefix(start);
        glob.is_exact() || said.is_some_and(|said| !said.is_empty())
    };
    rule.conditions.iter().any(|condition| {
        let all = |fits: &dyn Fn(&Glob) -> bool| condition.any.iter().all(fits);
        match condition.claim.as_str() {
            "ref_protected" => all(&|glob| glob.as_str() == "true"),
            "environment" => all(&Glob::is_exact),
            "ref" if forge == Forge::Gitlab => all(&|glob| is_one(glob, "")),
            "sub" => all(&|glob| {
                let said = glob.prefix().split_once(":ref:");
                said.is_some_and(|(_, said)| !said.is_empty() && !BRANCHES.starts_with(said))
            }),
            claim => claim == forge.whole_ref() && all(&|glob| is_one(glob, BRANCHES)),
        }
    })
}

/// Whether whoever matches writes the same refs of one project, and nothing says
/// who that is.
fn shares_a_project(rule: &Rule, forge: Option<Forge>) -> Option<String> {
    let bound = |mut claims: Box<dyn Iterator<Item = &str> + '_>| claims.next().is_some();
    let is_of_claims = bound(Box::new(rule.project.template().claims()));
    let names_one = rule.conditions.iter().any(|condition| {
        let is_one = |glob: &Glob| match condition.claim.as_str() {
            // One repository, and any of its branches.
            "sub" if forge.is_some() => glob.prefix().matches(':').count() > 1,
            _ => glob.is_exact(),
        };
        let claim = condition.claim.as_str();
        let says_who = match forge {
            Some(forge) => claim == "sub" || forge.repositories().contains(&claim),
            None => !["iss", "aud"].contains(&claim),
        };
        says_who && condition.any.iter().all(is_one)
    });
    let fixed = rule.write.iter().find(|git_ref| match forge {
        // A name of a ref is one in each repository.
        Some(forge) => {
            let identities = forge.identities();
            let mut claims = git_ref.template().claims();
            !claims.any(|claim| identities.iter().any(|(known, _)| *known == claim))
        }
        None => git_ref.template().claims().next().is_none(),
    })?;
    (!is_of_claims && !names_one).then(|| {
        let whose = match forge {
            Some(Forge::Github) => "{repository}",
            Some(Forge::Gitlab) => "{project_path}",
            None => "a claim in braces",
        };
        format!(
            "all whom it lets in write {} of one project, {}, so each is trusted by all others; \
             put {whose} into project, or name one in match",
            fixed.whole(),
            rule.project.template().as_str()
        )
    })
}
