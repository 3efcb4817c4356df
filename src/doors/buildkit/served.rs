//! Imports that are being served, shared by builds that see the same.
//!
//! Builds that run at once on one daemon share vertices, and a vertex that gets
//! a second import loses hits at random, as a build with two imports does. To
//! buildkitd an import is its attributes, so builds which import the same at
//! the same time are given the very same ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::attributes::Attributes;
use super::build::Build;
use super::content::{ImportStore, Store};
use super::rewrite::Entry;
use super::stores::Stores;
use crate::cache::{Cache, Import};
use crate::digest::Digest;
use crate::units::{Age, ByteSize};

/// An import under the name that buildkitd knows it by. Its store is retired
/// when the last build that shares it is forgotten.
pub struct ServedImport {
    /// What buildkitd gets in place of the user's entries.
    pub entry: Entry,
    /// What the user reads where buildkitd shows that name.
    pub title: String,
    store: String,
    stores: Arc<Stores>,
}

impl Drop for ServedImport {
    fn drop(&mut self) {
        self.stores
            .retire(std::mem::take(&mut self.store), Instant::now());
    }
}

/// Every import that a running build has.
pub struct ServedImports {
    stores: Arc<Stores>,
    served: Mutex<HashMap<Sight, Weak<ServedImport>>>,
}

/// What a build sees: the manifest, and what its user wrote to get it, which
/// stands in the attributes for the build history.
type Sight = (Digest, Vec<Entry>);

impl ServedImports {
    /// Serves through `stores`.
    pub fn new(stores: Arc<Stores>) -> Self {
        Self {
            stores,
            served: Mutex::default(),
        }
    }

    /// Serves `import`, which `written` asked for, to `build`.
    pub fn serve(
        &self,
        import: Import,
        written: &[Entry],
        cache: &Arc<dyn Cache>,
        build: &Arc<Build>,
        now: Timestamp,
    ) -> Arc<ServedImport> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let sight = (import.manifest.digest, written.to_vec());
        if let Some(shared) = served.get(&sight).and_then(Weak::upgrade) {
            if let Some(Store::Import(store)) = self.stores.get(&shared.store).as_deref() {
                store.told_to(build);
            }
            return shared;
        }
        served.retain(|_, import| import.strong_count() > 0);

        let title = title(&import, now);
        let digest = import.manifest.digest.to_string();
        let store = ImportStore::new(import, cache.clone());
        store.told_to(build);
        let store = self.stores.open(Store::Import(store));
        let attributes = Attributes::from([
            ("src".to_owned(), store.clone()),
            ("digest".to_owned(), digest),
        ]);
        let mut entry = Entry {
            kind: "local".to_owned(),
            attributes,
        };
        entry.remember(written);
        let import = Arc::new(ServedImport {
            entry,
            title,
            store,
            stores: self.stores.clone(),
        });
        served.insert(sight, Arc::downgrade(&import));
        import
    }
}

fn title(import: &Import, now: Timestamp) -> String {
    let age = Duration::try_from(now.duration_since(import.exported_at)).unwrap_or_default();
    format!(
        "layerd: importing cache of {}: {} records, {} layers ({}), exported {} by {} (export {})",
        import.place,
        import.records,
        import.layers.len(),
        ByteSize(import.layers.values().sum()),
        Age(age),
        import.builder,
        import.export,
    )
}
