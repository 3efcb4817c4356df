//! Random histories, against what a list in memory says of them.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// An export of the history.
struct Written {
    id: ExportId,
    place: Place,
    layers: BTreeSet<Digest>,
    /// Those who may still read it, since it left the log.
    retired: Option<BTreeSet<LeaseId>>,
}

/// What has happened.
#[derive(Default)]
struct Model {
    exports: Vec<Written>,
    leases: BTreeSet<LeaseId>,
    possessed: BTreeSet<(ProjectId, Digest)>,
}

impl Model {
    fn in_log(&self) -> impl DoubleEndedIterator<Item = &Written> {
        self.exports
            .iter()
            .filter(|export| export.retired.is_none())
    }

    /// Exports whose blobs are kept.
    fn kept(&self) -> impl Iterator<Item = &Written> {
        let read = |leases: &BTreeSet<_>| !leases.is_disjoint(&self.leases);
        self.exports
            .iter()
            .filter(move |export| export.retired.as_ref().is_none_or(read))
    }
}

const PROJECTS: [&str; 2] = ["p", "q"];
const REFS: [&str; 3] = ["main", "dev", "old"];
const CONTENTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

pub(in crate::catalog) async fn whatever_happens_agrees_with_a_simple_model(catalog: &dyn Catalog) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    for _ in 0..120 {
        happen(catalog, &mut model, &mut random).await;
        agree(catalog, &model).await;
    }
}

async fn happen(catalog: &dyn Catalog, model: &mut Model, random: &mut StdRng) {
    let hour = Duration::from_secs(3600);
    let mut any = |from: &[&'static str]| from[random.random_range(0..from.len())];
    let (project, git_ref) = (any(&PROJECTS), any(&REFS));
    let contents = [any(&CONTENTS), any(&CONTENTS)];
    let layers = BTreeSet::from(contents.map(|content| Digest::of(content.as_bytes())));
    match random.random_range(0..10) {
        0..4 => {
            let place = place(project, git_ref);
            let id = catalog
                .append(export(place.clone(), &contents))
                .await
                .unwrap();
            let newest = model.exports.last().map(|export| export.id);
            assert!(Some(id) > newest);
            if place.git_ref == GitRef::default() {
                for digest in &layers {
                    let named = (place.project.clone(), *digest);
                    model.possessed.remove(&named);
                }
            }
            model.exports.push(Written {
                id,
                place,
                layers,
                retired: None,
            });
        }
        4..6 => {
            model.leases.insert(catalog.take_lease(hour).await.unwrap());
        }
        6 => {
            if let Some(lease) = model.leases.pop_first() {
                assert!(catalog.renew_lease(lease, hour).await.unwrap());
                catalog.end_lease(lease).await.unwrap();
                assert!(!catalog.renew_lease(lease, hour).await.unwrap());
            }
        }
        7..9 => {
            let gone: Vec<ExportId> = model
                .in_log()
                .filter(|export| export.place.git_ref.as_str().ends_with(git_ref))
                .take(2)
                .map(|export| export.id)
                .collect();
            let retired = catalog.retire(&gone).await.unwrap();
            assert_eq!(retired, gone.len() as u64);
            let leases = model.leases.clone();
            for export in &mut model.exports {
                if gone.contains(&export.id) {
                    export.retired = Some(leases.clone());
                }
            }
        }
        _ => {
            let project: ProjectId = project.parse().unwrap();
            let blobs: Vec<_> = layers.iter().map(|digest| (*digest, 1)).collect();
            catalog
                .possess(&project, &GitRef::default(), &blobs, hour)
                .await
                .unwrap();
            let possessed = layers.into_iter().map(|digest| (project.clone(), digest));
            model.possessed.extend(possessed);
        }
    }
}

async fn agree(catalog: &dyn Catalog, model: &Model) {
    let heads = catalog.list(&Filter::default()).await.unwrap();
    let listed = heads.iter().map(|head| (head.id, &head.place));
    assert!(
        listed.eq(model
            .in_log()
            .rev()
            .map(|export| (export.id, &export.place)))
    );

    let kept = model.kept().flat_map(|export| &export.layers);
    let possessed = model.possessed.iter().map(|(_, digest)| digest);
    assert_eq!(
        referenced(catalog).await,
        kept.chain(possessed).copied().collect()
    );

    let digests = CONTENTS.map(|content| Digest::of(content.as_bytes()));
    for project in PROJECTS {
        let project: ProjectId = project.parse().unwrap();
        let own = |export: &&Written| export.place.project == project;
        let possessed = |digest: &Digest| model.possessed.contains(&(project.clone(), *digest));
        let held = catalog.held(&project, &digests).await.unwrap();
        let expected: BTreeSet<Digest> = digests
            .into_iter()
            .filter(|digest| {
                possessed(digest)
                    || model
                        .kept()
                        .filter(own)
                        .any(|export| export.layers.contains(digest))
            })
            .collect();
        assert_eq!(BTreeSet::from_iter(held), expected);
        for digest in &digests {
            let naming = || {
                model
                    .in_log()
                    .filter(own)
                    .filter(|export| export.layers.contains(digest))
            };
            let holds = catalog.holds(&project, digest).await.unwrap().is_some();
            assert_eq!(holds, possessed(digest) || naming().next().is_some());
            for git_ref in REFS {
                let git_ref: GitRef = git_ref.parse().unwrap();
                let names = |export: &&Written| {
                    export.place.git_ref == git_ref && export.layers.contains(digest)
                };
                let expected = model.kept().filter(own).any(|export| names(&export))
                    || (possessed(digest) && git_ref == GitRef::default());
                let (refs, blobs) = ([git_ref.clone()], [*digest]);
                let visible = catalog.visible(&project, &refs, &blobs).await;
                assert_eq!(!visible.unwrap().is_empty(), expected);
            }
        }
    }
}
