//! Makes a failing set of configs as small as it stays failing.

use super::case::{Case, Export};

/// How many smaller sets are tried at most.
const PATIENCE: usize = 5_000;

/// The smallest set found for which `fails` still says why.
pub fn smallest(case: Case, mut fails: impl FnMut(&Case) -> Option<String>) -> (Case, String) {
    let mut why = fails(&case).expect("it failed before");
    let mut case = case;
    let mut tried = 0;
    loop {
        let smaller = smaller(&case).into_iter().find_map(|smaller| {
            tried += 1;
            if tried > PATIENCE {
                return None;
            }
            fails(&smaller).map(|why| (smaller, why))
        });
        match smaller {
            Some(found) => (case, why) = found,
            None => return (case, why),
        }
    }
}

/// All sets with one thing less.
fn smaller(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    for at in 0..case.exports.len() {
        let mut exports = case.exports.clone();
        exports.remove(at);
        cases.push(exports);
    }
    for (at, export) in case.exports.iter().enumerate() {
        for smaller in smaller_exports(export) {
            let mut exports = case.exports.clone();
            exports[at] = smaller;
            cases.push(exports);
        }
    }
    cases
        .into_iter()
        .map(|exports| Case { exports, ..*case })
        .collect()
}

fn smaller_exports(export: &Export) -> Vec<Export> {
    let mut exports: Vec<Export> = (0..export.steps.len())
        .map(|at| without(export, at))
        .collect();
    let mut changed = |change: &dyn Fn(&mut Export)| {
        let mut smaller = export.clone();
        change(&mut smaller);
        exports.push(smaller);
    };
    for (at, step) in export.steps.iter().enumerate() {
        for result in 0..step.results.len() {
            changed(&|export| {
                export.steps[at].results.remove(result);
            });
            if step.results[result].layers.len() > 1 {
                changed(&|export| {
                    export.steps[at].results[result].layers.remove(0);
                });
            }
        }
        for (input, links) in step.inputs.iter().enumerate() {
            for link in 0..links.len() {
                if links.len() > 1 {
                    changed(&|export| {
                        export.steps[at].inputs[input].remove(link);
                    });
                }
                if !links[link].selector.is_empty() {
                    changed(&|export| export.steps[at].inputs[input][link].selector.clear());
                }
            }
        }
    }
    exports
}

/// Without a step, and without those that can't stand without it.
fn without(export: &Export, at: usize) -> Export {
    let mut gone = vec![false; export.steps.len()];
    gone[at] = true;
    let is_gone = |gone: &[bool], to: usize| gone.get(to).copied().unwrap_or(false);
    let mut smaller = export.clone();
    loop {
        let falls = (0..gone.len()).find(|&at| {
            let mut inputs = export.steps[at].inputs.iter();
            !gone[at]
                && inputs.any(|links| {
                    !links.is_empty() && links.iter().all(|link| is_gone(&gone, link.to))
                })
        });
        match falls {
            Some(at) => gone[at] = true,
            None => break,
        }
    }
    let place = |to: usize| to - gone.iter().take(to).filter(|gone| **gone).count();
    for links in smaller.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        links.retain(|link| !is_gone(&gone, link.to));
        for link in links {
            link.to = place(link.to);
        }
    }
    let mut at = 0;
    smaller.steps.retain(|_| {
        at += 1;
        !gone[at - 1]
    });
    smaller
}
