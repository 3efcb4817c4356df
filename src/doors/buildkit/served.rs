//! Imports that are being served, shared by builds that see the same.
//!
//! Builds that run at once on one daemon share vertices, and a vertex that gets
//! a second import loses hits at random, as a build with two imports does. To
//! buildkitd an import is its attributes, so builds which import the same at
//! the same time are given the very same ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Door;
use super::attributes::Attributes;
use super::build::Build;
use super::cache_id::vertex_name;
use super::content::{ImportStore, Store};
use super::pull::{Pull, PullImport, Terms};
use super::rewrite::Entry;
use super::stores::Stores;
use crate::cache::backends::Backend;
use crate::cache::{Documents, Flushed, Import, Want};
use crate::digest::Digest;
use crate::units::{Age, ByteSize, counted};

/// An import under the name that buildkitd knows it by. Its store is retired
/// when the last build that shares it is forgotten.
pub struct ServedImport {
    /// What buildkitd gets in place of the user's entries.
    pub entry: Entry,
    store: String,
    stores: Arc<Stores>,
}

impl ServedImport {
    /// The host and port that buildkitd pulls it from, if it does.
    pub fn address(&self) -> Option<&str> {
        let url = self.entry.attributes.get("endpoint_url")?;
        url.strip_prefix("http://")
    }
}

impl Drop for ServedImport {
    fn drop(&mut self) {
        self.stores
            .retire(std::mem::take(&mut self.store), Instant::now());
    }
}

/// Imports whose titles are kept: the progress of a build can be asked for long
/// after its end.
const MAX_TITLES: usize = 1000;

/// Every import that a running build has.
pub struct ServedImports {
    stores: Arc<Stores>,
    served: Mutex<HashMap<Sight, Weak<ServedImport>>>,
    /// What the vertices of imports are to be called, by the name that buildkitd
    /// has for them, the latest last.
    titles: Mutex<VecDeque<(String, String)>>,
}

/// What a build sees, of which cache, by carrier, and what its user wrote to get it, which
/// stands in the attributes for the build history.
type Sight = (Backend, Seen, Vec<Entry>);

#[derive(PartialEq, Eq, Hash)]
enum Seen {
    /// Over the session: this manifest.
    Manifest(Digest),
    /// By pull: whatever these give when it is asked for.
    Wants(Vec<Want>),
}

impl ServedImports {
    /// Serves through `stores`.
    pub fn new(stores: Arc<Stores>) -> Self {
        Self {
            stores,
            served: Mutex::default(),
            titles: Mutex::default(),
        }
    }

    /// What the user reads in place of the name of a vertex, if it is the one
    /// of an import served here.
    pub fn title(&self, vertex: &str) -> Option<String> {
        let titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        let known = titles.iter().rev().find(|(name, _)| name == vertex);
        known.map(|(_, title)| title.clone())
    }

    fn entitle(&self, entry: &Entry, title: String) {
        let mut titles = self.titles.lock().unwrap_or_else(PoisonError::into_inner);
        if titles.len() == MAX_TITLES {
            titles.pop_front();
        }
        titles.push_back((vertex_name(entry), title));
    }

    /// Serves `import`, which `written` asked for, to `build`, over its session.
    pub fn by_session(
        &self,
        import: Import,
        written: &[Entry],
        backend: &Backend,
        build: &Arc<Build>,
        now: Timestamp,
    ) -> Arc<ServedImport> {
        let title = format!("layerd: importing cache of {}", describe(&import, now));
        let digest = import.documents.root();
        let sight = (backend.clone(), Seen::Manifest(digest), written.to_vec());
        self.shared(sight, build, || {
            let store = self.stores.open(Store::Import(ImportStore::new(
                import,
                backend.cache().clone(),
            )));
            let attributes = [("src", store.clone()), ("digest", digest.to_string())];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
            let entry = Entry {
                kind: "local".to_owned(),
                attributes: Attributes::from(attributes),
            };
            (store, entry, title)
        })
    }

    /// Serves what `wants` give of a cache, for which `written` asked, to
    /// `build`, by pull.
    pub fn by_pull(
        &self,
        pull: &Pull,
        (backend, wants): (&Backend, Vec<Want>),
        timeout: Option<Duration>,
        written: &[Entry],
        door: &Door,
        build: &Arc<Build>,
    ) -> Arc<ServedImport> {
        let place = wants
            .first()
            .map(|want| want.place.to_string())
            .unwrap_or_default();
        self.shared(
            (
                backend.clone(),
                Seen::Wants(wants.clone()),
                written.to_vec(),
            ),
            build,
            || {
                let store = self.stores.open(Store::Pull(PullImport::new(
                    wants,
                    Terms {
                        timeout,
                        patience: pull.patience,
                        max_records: door.max_graph_records,
                    },
                    backend.cache().clone(),
                    door.metrics.imports.clone(),
                )));
                let entry = pull.entry(&store);
                (store, entry, format!("layerd: importing cache of {place}"))
            },
        )
    }

    fn shared(
        &self,
        sight: Sight,
        build: &Arc<Build>,
        open: impl FnOnce() -> (String, Entry, String),
    ) -> Arc<ServedImport> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = served.get(&sight).and_then(Weak::upgrade)
            && self.tell(&shared.store, build)
        {
            return shared;
        }
        served.retain(|_, import| import.strong_count() > 0);
        let (store, mut entry, title) = open();
        self.tell(&store, build);
        entry.remember(&sight.2);
        self.entitle(&entry, title);
        let import = Arc::new(ServedImport {
            entry,
            store,
            stores: self.stores.clone(),
        });
        served.insert(sight, Arc::downgrade(&import));
        import
    }

    /// Has a store tell `build` too how it does; false where it takes no more
    /// builds.
    fn tell(&self, store: &str, build: &Arc<Build>) -> bool {
        match self.stores.get(store).as_deref() {
            Some(Store::Import(store)) => store.audience().admit(build),
            Some(Store::Pull(store)) if !store.is_worn() => store.audience().admit(build),
            Some(Store::Pull(_) | Store::Export(_)) | None => return false,
        }
        true
    }
}

/// An import in one line.
pub fn describe(import: &Import, now: Timestamp) -> String {
    let age = Duration::try_from(now.duration_since(import.exported_at)).unwrap_or_default();
    let number = import.export.map(|id| format!(" (export {id})"));
    format!(
        "{}: {} and {} ({}) out of {} by {}, newest {} by {}{}",
        import.place,
        counted(import.records, "record"),
        counted(import.layers.len(), "layer"),
        ByteSize(import.layers.values().sum()),
        counted(import.exports, "export"),
        counted(import.builders, "builder"),
        Age(age),
        import.builder,
        number.unwrap_or_default(),
    )
}

/// What of an import is not there any more, if anything.
pub fn missing(import: &Import) -> Option<String> {
    let first = import.withdrawn.first()?;
    let layers = match import.withdrawn.len() {
        1 => "1 layer that exports name is".to_owned(),
        count => format!("{count} layers that exports name are"),
    };
    Some(format!(
        "{layers} missing from the store, first {first}; steps that need them run again (see: layerd cache fsck)"
    ))
}

/// Who has flushed what could be in an import as well, if anybody has.
pub fn flushed(import: &Import, now: Timestamp) -> Option<String> {
    let Flushed { at, by } = import.flushed.as_ref()?;
    let ago = Duration::try_from(now.duration_since(*at)).unwrap_or_default();
    Some(format!(
        "cache flushed {} by {by}: what went is not in it, and nothing was exported there since",
        Age(ago)
    ))
}

/// What of an import was too much, if anything.
pub fn cut(import: &Import) -> Option<String> {
    let limit = match import.documents {
        Documents::Whole(_) => "--max-graph-records",
        Documents::Parts { .. } => "--max-graph-records, and 1 MiB over a session",
    };
    (import.left_out.cut > 0).then(|| {
        format!(
            "{} left out, the oldest of other refs first, to stay within {limit}",
            match import.left_out.cut {
                1 => "1 cache record is".to_owned(),
                count => format!("{count} cache records are"),
            }
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Lease;
    use crate::catalog::ExportId;
    use crate::place::Place;

    #[test]
    fn one_is_told_as_one() {
        let mut import = Import {
            place: Place {
                project: "p".parse().unwrap(),
                git_ref: "main".parse().unwrap(),
                scope: "s".parse().unwrap(),
            },
            exports: 1,
            builders: 1,
            export: Some(ExportId(1)),
            exported_at: Timestamp::UNIX_EPOCH,
            builder: "host".to_owned(),
            records: 1,
            left_out: Default::default(),
            refused: 0,
            withdrawn: vec![Digest::of(b"a")],
            flushed: Some(Flushed {
                at: Timestamp::UNIX_EPOCH,
                by: "alice".to_owned(),
            }),
            documents: Documents::Whole("{}".into()),
            layers: Arc::default(),
            lease: Lease::default(),
        };
        import.left_out.cut = 1;
        let told = [describe(&import, Timestamp::UNIX_EPOCH)];
        let told = told.into_iter().chain(missing(&import)).chain(cut(&import));
        let told = told.chain(flushed(&import, Timestamp::UNIX_EPOCH));
        let told: Vec<String> = told.collect();
        for (told, starts) in told.iter().zip([
            "project p, ref refs/heads/main, scope s: 1 record and 0 layers (0 B) out of 1 export by 1 builder",
            "1 layer that exports name is missing from the store",
            "1 cache record is left out",
            "cache flushed just now by alice: ",
        ]) {
            assert!(told.starts_with(starts), "{told}");
        }
        assert_eq!(told.len(), 4);
    }
}
