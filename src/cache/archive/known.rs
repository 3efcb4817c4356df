//! Whether an export would add nothing to what a cache serves at its place.

use crate::cache::{Cache, Document, Documents, Import, Want};
use crate::graph::{ExportSource, GraphError, Manifest, Newer, Parsed, Serving, Union};
use crate::place::Place;

use super::united::ALL;

/// What is served at a place by itself; none where that is nothing, or can't
/// be told: then an export is not known.
pub(super) async fn look(cache: &dyn Cache, place: &Place) -> Option<Import> {
    let want = Want {
        narrowed: true,
        ..Want::all_of(place.clone())
    };
    cache.look_up(&[want], &ALL).await.ok()?.import()
}

/// Whether `import` has all that builds would get of the export.
pub(super) async fn is_known(import: Import, manifest: Document, config: Document) -> bool {
    let known = tokio::task::spawn_blocking(move || subsumes(&import, &manifest, &config));
    matches!(known.await, Ok(Ok(true)))
}

fn subsumes(import: &Import, manifest: &Document, config: &Document) -> Result<bool, GraphError> {
    let Documents::Parts {
        manifest: of_import,
        config: served,
    } = &import.documents
    else {
        return Ok(false);
    };
    let newer = Newer::new(&ExportSource {
        id: 2,
        time: Some(import.exported_at),
        config: &Parsed::read(&served.bytes)?,
        layers: &Manifest::parse(&of_import.bytes)?.layers,
    });
    // An import has nothing that leads to no result, nor two results of a
    // record: what is compared is what would be served of the export.
    let layers = Manifest::parse(&manifest.bytes)?.layers;
    let mut alone = Union::default();
    alone.add(&ExportSource {
        id: 1,
        time: None,
        config: &Parsed::read(&config.bytes)?,
        layers: &layers,
    });
    let served = alone.serve(&Serving::of(&|_| true));
    Ok(served.records > 0
        && newer.subsumes(&ExportSource {
            id: 1,
            time: None,
            config: &Parsed::read(&served.json)?,
            layers: &served.layers,
        }))
}
