//! BuildKit's behaviour in a few lines, slow and plain: which records are one,
//! and what a build finds in a config.

use std::collections::{BTreeSet, HashMap};

use crate::graph::Config;

/// The number of distinct records of several configs: pairs are compared
/// until nothing more is one.
pub(super) fn distinct(configs: &[Config]) -> usize {
    let mut records = Vec::new();
    for config in configs {
        let start = records.len();
        for record in &config.records {
            let inputs: Vec<Vec<(&str, usize)>> = (record.inputs.iter())
                .map(|input| {
                    let links = input.iter();
                    links
                        .map(|link| (&*link.selector, start + link.record))
                        .collect()
                })
                .collect();
            records.push((&record.digest, inputs));
        }
    }
    let mut class: Vec<usize> = (0..records.len()).collect();
    loop {
        let mut changed = false;
        for a in 0..records.len() {
            for b in 0..a {
                if class[a] == class[b] || records[a].0 != records[b].0 {
                    continue;
                }
                // Alternatives of a class are those of all its members.
                let inputs = |of: usize, input: usize| -> BTreeSet<(&str, usize)> {
                    (0..records.len())
                        .filter(|other| class[*other] == class[of])
                        .filter_map(|other| records[other].1.get(input))
                        .flatten()
                        .map(|(selector, parent)| (*selector, class[*parent]))
                        .collect()
                };
                let count = records[a].1.len();
                let same = count == records[b].1.len()
                    && (0..count).all(|input| !inputs(a, input).is_disjoint(&inputs(b, input)));
                if same {
                    let (from, to) = (class[a], class[b]);
                    class
                        .iter_mut()
                        .filter(|it| **it == from)
                        .for_each(|it| *it = to);
                    changed = true;
                }
            }
        }
        if !changed {
            return class.into_iter().collect::<BTreeSet<_>>().len();
        }
    }
}

/// For each record of a build, those of a config that the build finds for it:
/// it asks with the keys of the inputs that it found before.
pub(super) fn found(build: &Config, config: &Config) -> Vec<BTreeSet<usize>> {
    let mut by_digest: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, record) in config.records.iter().enumerate() {
        by_digest
            .entry(record.digest.as_str())
            .or_default()
            .push(at);
    }
    let mut found: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); build.records.len()];
    loop {
        let mut changed = false;
        for (at, record) in build.records.iter().enumerate() {
            for &candidate in by_digest.get(record.digest.as_str()).into_iter().flatten() {
                let other = &config.records[candidate];
                let mut inputs = record.inputs.iter().zip(&other.inputs);
                let same = record.inputs.len() == other.inputs.len()
                    && inputs.all(|(asked, known)| {
                        asked.iter().any(|asked| {
                            known.iter().any(|known| {
                                known.selector == asked.selector
                                    && found[asked.record].contains(&known.record)
                            })
                        })
                    });
                changed |= same && found[at].insert(candidate);
            }
        }
        if !changed {
            return found;
        }
    }
}

/// Whether a record has a result.
pub(super) fn has_result(config: &Config, record: usize) -> bool {
    let record = &config.records[record];
    !record.results.is_empty() || !record.chains.is_empty()
}
