//! The sum: plain values in, plain values out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::known::Had;
use crate::step::{Step, StepName};

/// The cached steps of a build and the results that its exports list, as far as
/// they belong together.
///
/// BuildKit lists more than what a build used: what else it knows that leads to
/// the same content, of another branch for example. So a result counts only for
/// a step that was cached.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    /// Results that were used and not made, each once.
    pub used: Vec<Step>,
    /// Cached steps whose results no export lists.
    pub unlisted: Vec<StepName>,
}

/// Pairs steps that came from a cache with `hits` of their name; those that are
/// left, with hits that say the same.
pub fn pair(cached: Vec<StepName>, hits: Vec<Step>) -> Paired {
    let mut left = BTreeMap::new();
    for hit in hits {
        left.insert((hit.created_at, hit.record.clone()), hit);
    }
    let mut left: Vec<Step> = left.into_values().collect();
    let mut paired = Paired {
        used: Vec::new(),
        unlisted: cached,
    };
    for form in [StepName::as_str, text] {
        // The newest of a name stands last.
        let mut listed: HashMap<String, Vec<Step>> = HashMap::new();
        for hit in left {
            let name = form(&hit.name).to_owned();
            listed.entry(name).or_default().push(hit);
        }
        paired.unlisted.retain(|name| {
            let hit = listed.get_mut(form(name)).and_then(Vec::pop);
            let is_unlisted = hit.is_none();
            paired.used.extend(hit);
            is_unlisted
        });
        left = listed.into_values().flatten().collect();
        left.sort_by_key(|hit| hit.created_at);
    }
    paired
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

/// Adds up what the daemon did not have before; `served` are the known steps of
/// what was served to the build, for those that no export lists.
pub fn reckon(paired: &Paired, served: &[Step], had: &Had<'_>) -> Saved {
    let mut saved = Saved::default();
    let mut taken = BTreeSet::new();
    for hit in &paired.used {
        taken.insert((&hit.record, hit.created_at));
        if !had.result(hit) {
            saved.recorded += hit.duration;
            saved.steps.push(hit.clone());
        }
    }
    let mut by_text: HashMap<&str, Vec<&Step>> = HashMap::new();
    for step in served {
        by_text.entry(text(&step.name)).or_default().push(step);
    }
    for name in &paired.unlisted {
        let like = by_text.get(text(name)).map_or(&[][..], Vec::as_slice);
        let Some(step) = newest_of_one(name, like) else {
            continue;
        };
        if had.name(name) || like.iter().any(|step| had.result(step)) {
            continue;
        }
        if taken.insert((&step.record, step.created_at)) {
            saved.estimated += step.duration;
            saved.steps.push(step.clone());
        }
    }
    saved
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
    let name = name.as_str();
    let inside = name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    inside.map_or(name, |(_, text)| text)
}

#[cfg(test)]
mod tests;
