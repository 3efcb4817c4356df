//! Sets of configs that look like those of real builds, and sets that don't.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::case::{Case, Export, Link, Outcome, Step};

/// What kind of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Several runners build branches of one Dockerfile.
    Builds,
    /// Any records that BuildKit can read.
    Wild,
    /// With records that it can't.
    Broken,
}

/// The set that a seed stands for.
pub fn case(kind: Kind, seed: u64) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let exports = match kind {
        Kind::Builds => builds(&mut random),
        Kind::Wild => wild(&mut random),
        Kind::Broken => {
            let mut exports = wild(&mut random);
            damage(&mut random, &mut exports);
            exports
        }
    };
    let mut exports: Vec<Export> = exports
        .into_iter()
        .map(|export| shuffled(&mut random, export))
        .collect();
    if random.random_ratio(1, 10) {
        exports.push(Export::default());
    }
    Case { seed, exports }
}

/// A step of the project that all its builds share, with all that it is known
/// by: alternatives are the same content under other keys.
struct Vertex {
    op: String,
    inputs: Vec<Vec<Link>>,
    depth: usize,
}

/// Bases, contexts and steps upon them: some with the same operation on
/// several parents, or twice in a row; some known by their content, too.
fn project(random: &mut StdRng) -> Vec<Vertex> {
    let mut vertices = Vec::new();
    let roots = random.random_range(1..=4);
    for root in 0..roots {
        let op = if root % 2 == 0 { "image" } else { "context" };
        vertices.push(Vertex {
            op: format!("{op} {root}"),
            inputs: Vec::new(),
            depth: 0,
        });
    }
    for at in 0..random.random_range(1..=10) {
        // The same content may come from several definitions.
        let content = vertices.len();
        vertices.push(Vertex {
            op: format!("content {}", random.random_range(0..=at)),
            inputs: Vec::new(),
            depth: 0,
        });
        let steps: Vec<usize> = (0..content)
            .filter(|&of| !vertices[of].op.starts_with("content"))
            .collect();
        let pick = |random: &mut StdRng| match random.random_ratio(1, 3) {
            true => *steps.last().expect("a root"),
            false => steps[random.random_range(0..steps.len())],
        };
        let arity = [1, 1, 1, 2, 2, 3][random.random_range(0..6)];
        let mut inputs = Vec::new();
        for input in 0..arity {
            let of = pick(random);
            let mut links = vec![link(random, of, input > 0)];
            // BuildKit looks inputs of COPY up by their content, and knows
            // them by all definitions that had it.
            if input > 0 && random.random_ratio(2, 3) {
                links.push(link(random, content, false));
            }
            if random.random_ratio(1, 8) {
                let of = pick(random);
                links.push(link(random, of, false));
            }
            inputs.push(links);
        }
        let depth = 1 + inputs
            .iter()
            .map(|links| vertices[links[0].to].depth)
            .max()
            .unwrap_or(0);
        vertices.push(Vertex {
            op: format!("{arity}-step {}", random.random_range(0..=at / 2)),
            inputs,
            depth,
        });
    }
    vertices
}

fn link(random: &mut StdRng, to: usize, selected: bool) -> Link {
    let selector = match selected && random.random_ratio(1, 2) {
        true => format!("/{}", random.random_range(0..2)),
        false => String::new(),
    };
    Link { selector, to }
}

/// Each build makes some of the project's steps, and knows each of their
/// inputs by one or more of its keys.
fn builds(random: &mut StdRng) -> Vec<Export> {
    let project = project(random);
    let writers = random.random_range(1..=5);
    (0..writers)
        .map(|writer| {
            let mut export = Export {
                chains: random.random_ratio(1, 3),
                ..Export::default()
            };
            let mut index = vec![None; project.len()];
            for _ in 0..random.random_range(1..=4) {
                let target = random.random_range(0..project.len());
                build(random, &project, target, writer, &mut export, &mut index);
            }
            export
        })
        .collect()
}

fn build(
    random: &mut StdRng,
    project: &[Vertex],
    target: usize,
    writer: usize,
    export: &mut Export,
    index: &mut Vec<Option<usize>>,
) -> usize {
    if let Some(at) = index[target] {
        return at;
    }
    let vertex = &project[target];
    let mut inputs = Vec::new();
    for links in &vertex.inputs {
        let only = random.random_range(0..links.len());
        let all = random.random_ratio(1, 3);
        let known = links
            .iter()
            .enumerate()
            .filter(|(at, _)| all || *at == only);
        inputs.push(
            known
                .map(|(_, of)| Link {
                    selector: of.selector.clone(),
                    to: build(random, project, of.to, writer, export, index),
                })
                .collect(),
        );
    }
    let mut results = Vec::new();
    // Roots have results only now and then; a step that was hit, but whose
    // layers were not there, is a key only.
    let chance = if vertex.depth == 0 { 8 } else { 2 };
    for _ in 0..2 {
        if random.random_ratio(1, chance) {
            results.push(outcome(random, target, vertex.depth, writer));
        }
    }
    let at = export.steps.len();
    export.steps.push(Step {
        op: vertex.op.clone(),
        inputs,
        results,
    });
    index[target] = Some(at);
    at
}

/// Mostly what other runs gave, too; sometimes with other bytes.
fn outcome(random: &mut StdRng, target: usize, depth: usize, writer: usize) -> Outcome {
    let own = random.random_ratio(1, 3);
    let layers = (0..=depth).map(|at| match own && at == depth {
        true => format!("layer {target}.{at} of {writer}"),
        false => format!("layer {target}.{at}"),
    });
    Outcome {
        layers: layers.collect(),
        at: Some(random.random_range(0..40)),
    }
}

/// Records with any links to those before: few operations, so that many are
/// the same or nearly, and some make each other's ancestors.
fn wild(random: &mut StdRng) -> Vec<Export> {
    let ops = random.random_range(1..=4);
    let selectors = random.random_range(1..=2);
    (0..random.random_range(1..=4))
        .map(|writer| {
            let mut export = Export {
                chains: random.random_ratio(1, 2),
                ..Export::default()
            };
            for at in 0..random.random_range(1..=8) {
                let arity = match at {
                    0 => 0,
                    _ => random.random_range(0..=2),
                };
                let inputs = (0..arity)
                    .map(|_| {
                        let many = random.random_range(1..=3);
                        (0..many)
                            .map(|_| Link {
                                selector: ["", "/a"][random.random_range(0..selectors)].to_owned(),
                                to: random.random_range(0..at),
                            })
                            .collect()
                    })
                    .collect();
                let results = (0..random.random_range(0..=2))
                    .map(|_| Outcome {
                        layers: (0..random.random_range(1..=3))
                            .map(|at| format!("layer {at} of {}", (writer + at) % 3))
                            .collect(),
                        at: random
                            .random_ratio(9, 10)
                            .then(|| random.random_range(0..20)),
                    })
                    .collect();
                export.steps.push(Step {
                    op: format!("{arity}-op {}", random.random_range(0..ops)),
                    inputs,
                    results,
                });
            }
            export
        })
        .collect()
}

/// Links to nowhere, to oneself and in circles, inputs that nothing can
/// satisfy, operations that are never cached.
fn damage(random: &mut StdRng, exports: &mut [Export]) {
    for export in exports {
        let count = export.steps.len();
        for at in 0..count {
            let step = &mut export.steps[at];
            match random.random_range(0..12) {
                0 => step.op = format!("random:{}", step.op),
                1 => step.inputs.push(Vec::new()),
                2 => {
                    for links in &mut step.inputs {
                        links.push(Link {
                            selector: String::new(),
                            to: random.random_range(0..count + 2),
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

/// The same in another order: nothing may depend on it.
fn shuffled(random: &mut StdRng, export: Export) -> Export {
    let mut place: Vec<usize> = (0..export.steps.len()).collect();
    for at in (1..place.len()).rev() {
        place.swap(at, random.random_range(0..=at));
    }
    let mut steps: Vec<(usize, Step)> = place.iter().copied().zip(export.steps).collect();
    for link in steps
        .iter_mut()
        .flat_map(|(_, step)| step.inputs.iter_mut().flatten())
    {
        link.to = place.get(link.to).copied().unwrap_or(link.to);
    }
    steps.sort_by_key(|(at, _)| *at);
    Export {
        steps: steps.into_iter().map(|(_, step)| step).collect(),
        ..export
    }
}
