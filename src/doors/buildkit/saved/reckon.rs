//! The sum: plain values in, plain values out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::known::Had;
use crate::step::{Step, StepName};

/// What is known of a build at its end.
pub struct Reckoning<'a, 'b> {
    /// The names of its steps that came from a cache.
    pub cached: &'a [StepName],
    /// How many of them there are: a name may be missing.
    pub most: usize,
    /// Results that its exports list and that it did not make.
    pub hits: &'a [Step],
    /// The known steps of what was served to it, for steps that no export lists.
    pub served: &'a [Step],
    /// What its daemon had before.
    pub had: &'a Had<'b>,
}

/// What a build was saved.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// How long the steps ran whose results it certainly used.
    pub recorded: Duration,
    /// How long others ran, that have the names of steps which it was saved.
    pub estimated: Duration,
    /// All of them.
    pub steps: Vec<Step>,
}

impl Saved {
    /// How many builders ran those.
    pub fn builders(&self) -> usize {
        let origins = self.steps.iter().filter_map(|step| step.origin.as_ref());
        let builders: BTreeSet<&str> = origins.map(|origin| origin.builder.as_str()).collect();
        builders.len()
    }
}

/// Adds up what the daemon did not have before, each result once.
pub fn reckon(of: &Reckoning<'_, '_>) -> Saved {
    let mut saved = Saved::default();
    let mut taken = BTreeSet::new();
    for hit in of.hits {
        if taken.insert((hit.record.clone(), hit.created_at)) && !of.had.result(hit) {
            saved.recorded += hit.duration;
            saved.steps.push(hit.clone());
        }
    }
    let room = of.most.saturating_sub(taken.len());
    let mut by_text: HashMap<&str, Vec<&Step>> = HashMap::new();
    for step in of.served {
        by_text.entry(text(&step.name)).or_default().push(step);
    }
    for name in unlisted(of.cached, of.hits).into_iter().take(room) {
        let like = by_text.get(text(name)).map(Vec::as_slice);
        let newest = like.and_then(|like| newest_of_one(name, like));
        let Some(step) = newest.filter(|_| !of.had.name(name)) else {
            continue;
        };
        let mut like = like.unwrap_or_default().iter();
        if like.any(|step| of.had.result(step)) {
            continue;
        }
        if taken.insert((step.record.clone(), step.created_at)) {
            saved.estimated += step.duration;
            saved.steps.push(step.clone());
        }
    }
    saved
}

/// The names for which there is no listed hit: first those that are equal have
/// each other, then those that say the same.
fn unlisted<'a>(cached: &'a [StepName], hits: &[Step]) -> Vec<&'a StepName> {
    let mut left: Vec<&str> = hits.iter().map(|hit| hit.name.as_str()).collect();
    let mut names: Vec<&StepName> = cached.iter().collect();
    for form in [
        |name: &'_ str| name.to_owned(),
        |name: &'_ str| shown(name).to_owned(),
    ] {
        let mut listed: HashMap<String, Vec<&str>> = HashMap::new();
        for name in left {
            listed.entry(form(name)).or_default().push(name);
        }
        names.retain(|name| {
            let found = listed.get_mut(&form(name.as_str()));
            found.and_then(Vec::pop).is_none()
        });
        left = listed.into_values().flatten().collect();
    }
    names
}

/// The newest of the steps of that name, or if there is none of those that say
/// the same; none where they are of more than one record, since it can't be told
/// then which one was used.
fn newest_of_one<'a>(name: &StepName, like: &[&'a Step]) -> Option<&'a Step> {
    let exact: Vec<&Step> = like
        .iter()
        .copied()
        .filter(|step| step.name == *name)
        .collect();
    let like = if exact.is_empty() { like } else { &exact };
    let newest = like.iter().copied().max_by_key(|step| step.created_at)?;
    let one = like.iter().all(|step| step.record == newest.record);
    one.then_some(newest)
}

/// What a step does, without its place: `[build 3/5] RUN make` is `[build 3/6]
/// RUN make` once the Dockerfile has another line.
pub fn text(name: &StepName) -> &str {
    shown(name.as_str())
}

fn shown(name: &str) -> &str {
    let inside = name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    inside.map_or(name, |(_, text)| text)
}

#[cfg(test)]
mod tests;
