//! Entries, and uploads that become one.

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::catalog::entries::{AppendedEntry, Became, Block, NewUpload, Reserved, UploadId};
use crate::entry::{EntryKey, EntryName, EntryVersion};

const LONG: Duration = Duration::from_secs(3600);

pub(super) fn name(key: &str, version: &str) -> EntryName {
    EntryName {
        key: key.parse().unwrap(),
        version: version.parse().unwrap(),
    }
}

pub(super) fn upload(project: &str, git_ref: &str, key: &str, alone: bool) -> NewUpload {
    NewUpload {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        name: name(key, "v1"),
        alone,
    }
}

pub(super) async fn reserved(catalog: &dyn Catalog, upload: &NewUpload) -> UploadId {
    let reserved = catalog.reserve(upload).await.unwrap();
    reserved.upload().expect("nobody else has it")
}

pub(super) fn block(name: &str, content: &str) -> Block {
    Block {
        name: name.to_owned(),
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        start: None,
        position: None,
    }
}

/// Saves an entry, as if all of it had been uploaded.
async fn save(catalog: &dyn Catalog, upload: &NewUpload, contents: &[&str]) -> ExportId {
    let id = reserved(catalog, upload).await;
    match append_entry(catalog, id, upload, contents).await {
        AppendedEntry::Done(export) => export,
        other => panic!("{other:?}"),
    }
}

async fn append_entry(
    catalog: &dyn Catalog,
    id: UploadId,
    upload: &NewUpload,
    contents: &[&str],
) -> AppendedEntry {
    let place = Place {
        scope: "actions-cache".parse().unwrap(),
        project: upload.project.clone(),
        git_ref: upload.git_ref.clone(),
    };
    let size = contents.iter().map(|content| content.len() as u64).sum();
    let appended = catalog.append_entry(id, export(place, contents), size);
    appended.await.unwrap()
}

async fn find(catalog: &dyn Catalog, refs: &[&str], keys: &[&str]) -> Option<(ExportId, String)> {
    let refs: Vec<GitRef> = refs.iter().map(|text| text.parse().unwrap()).collect();
    let keys: Vec<EntryKey> = keys.iter().map(|text| text.parse().unwrap()).collect();
    let version: EntryVersion = "v1".parse().unwrap();
    let found = catalog
        .find_entry(&"p".parse().unwrap(), &refs, &keys, &version)
        .await
        .unwrap();
    found.map(|entry| (entry.id, entry.name.key.to_string()))
}

pub(in crate::catalog) async fn an_entry_is_an_export_of_its_own_kind(catalog: &dyn Catalog) {
    let build = append(catalog, "p", "main", &["layer"]).await;
    let new = upload("p", "main", "npm-1", true);
    let entry = save(catalog, &new, &["a", "b", "a"]).await;
    let listed = async |kind| {
        let filter = Filter {
            kind,
            ..Filter::default()
        };
        let heads = catalog.list(&filter).await.unwrap();
        assert_eq!(catalog.count(&filter).await.unwrap(), heads.len() as u64);
        heads
    };
    let heads = listed(Some(Kind::Entry)).await;
    assert_eq!(heads.len(), 1);
    assert_eq!((heads[0].id, heads[0].kind), (entry, Kind::Entry));
    assert_eq!(heads[0].entry, Some(name("npm-1", "v1")));
    assert_eq!((heads[0].layers, heads[0].bytes), (2, 2));
    let heads = listed(Some(Kind::Cache)).await;
    assert_eq!((heads[0].id, heads[0].kind), (build, Kind::Cache));
    assert_eq!((heads.len(), &heads[0].entry), (1, &None));
    assert_eq!(listed(None).await.len(), 2);
    let kept = catalog
        .kept(&KeptFilter {
            limit: 10,
            ..KeptFilter::default()
        })
        .await
        .unwrap();
    let kinds: Vec<Kind> = kept.iter().map(|export| export.kind).collect();
    assert_eq!(kinds, [Kind::Cache, Kind::Entry]);
    let read = catalog.get(entry).await.unwrap().unwrap();
    assert_eq!((read.layers.len(), read.head.kind), (3, Kind::Entry));
    // Its layers are read as long as anybody may.
    let layers = ["a", "b", "a"].map(|content| (Digest::of(content.as_bytes()), 1));
    assert_eq!(
        catalog.entry_layers(entry).await.unwrap().as_deref(),
        Some(&layers[..])
    );
    assert_eq!(catalog.entry_layers(build).await.unwrap(), None);
    let lease = catalog.take_lease(LONG).await.unwrap();
    assert_eq!(catalog.retire(&[entry]).await.unwrap(), 1);
    assert_eq!(find(catalog, &["main"], &["npm"]).await, None);
    assert!(catalog.entry_layers(entry).await.unwrap().is_some());
    catalog.end_lease(lease).await.unwrap();
    catalog.purge().await.unwrap();
    assert_eq!(catalog.entry_layers(entry).await.unwrap(), None);
    // Its name is free again.
    save(catalog, &new, &["c"]).await;
}

pub(in crate::catalog) async fn a_name_is_reserved_once_and_saved_once(catalog: &dyn Catalog) {
    let main = upload("p", "main", "k", true);
    let id = reserved(catalog, &main).await;
    assert!(id.0 > 0 && id.0 < 1 << 53);
    assert_eq!(catalog.reserve(&main).await.unwrap(), Reserved::Exists);
    // Elsewhere it is another name.
    for other in [
        upload("p", "dev", "k", true),
        upload("q", "main", "k", true),
        upload("p", "main", "K", true),
        NewUpload {
            name: name("k", "v2"),
            ..main.clone()
        },
    ] {
        reserved(catalog, &other).await;
    }
    // Who need not be alone is in nobody's way.
    let beside = upload("p", "main", "k", false);
    let second = reserved(catalog, &beside).await;
    let AppendedEntry::Done(export) = append_entry(catalog, id, &main, &["a"]).await else {
        panic!("the first is saved")
    };
    let again = append_entry(catalog, id, &main, &["a"]).await;
    assert_eq!(again, AppendedEntry::Already(Became::Entry(export)));
    let late = append_entry(catalog, second, &beside, &["b"]).await;
    assert_eq!(late, AppendedEntry::Exists);
    let unknown = append_entry(catalog, UploadId(1), &main, &["b"]).await;
    assert_eq!(unknown, AppendedEntry::Gone);
    assert_eq!(catalog.reserve(&main).await.unwrap(), Reserved::Exists);
    let heads = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(heads.len(), 1);
    let kept = catalog.upload(id).await.unwrap().unwrap();
    assert_eq!(kept.became, Some((Became::Entry(export), 1)));
    // What is dropped leaves its name to others.
    let dropped = reserved(catalog, &upload("p", "main", "d", true)).await;
    catalog.drop_upload(dropped).await.unwrap();
    assert_eq!(catalog.upload(dropped).await.unwrap(), None);
    reserved(catalog, &upload("p", "main", "d", true)).await;
}

pub(in crate::catalog) async fn of_many_who_reserve_a_name_at_once_one_gets_it(
    catalog: &dyn Catalog,
) {
    for round in 0..4 {
        let new = upload("p", "main", &format!("k{round}"), true);
        let all = join_all((0..16).map(|_| catalog.reserve(&new))).await;
        let won = all.into_iter().map(Result::unwrap);
        let won: Vec<UploadId> = won.filter_map(Reserved::upload).collect();
        assert_eq!(won.len(), 1, "{won:?}");
    }
    // And of many who save under one name at once.
    let new = upload("p", "main", "saved", false);
    let ids = join_all((0..8).map(|_| reserved(catalog, &new))).await;
    let saved = join_all(
        ids.iter()
            .map(|id| append_entry(catalog, *id, &new, &["a"])),
    );
    let saved = saved.await;
    let done = |appended: &&AppendedEntry| matches!(appended, AppendedEntry::Done(_));
    let exists = |appended: &&AppendedEntry| matches!(appended, AppendedEntry::Exists);
    assert_eq!(saved.iter().filter(done).count(), 1, "{saved:?}");
    assert_eq!(saved.iter().filter(exists).count(), 7, "{saved:?}");
}

pub(in crate::catalog) async fn a_secret_is_made_once(catalog: &dyn Catalog) {
    let made = join_all((0..4u8).map(|byte| async move {
        let fresh = [byte; 32];
        catalog.secret("s", &fresh).await.unwrap()
    }));
    let made = made.await;
    assert!(made.iter().all(|secret| *secret == made[0]), "{made:?}");
    assert_eq!(catalog.secret("t", &[9; 32]).await.unwrap(), [9; 32]);
}

pub(in crate::catalog) async fn a_use_of_an_entry_is_noted_of_it_alone(catalog: &dyn Catalog) {
    // Both were written in 2026, or earlier than now in any case.
    let old = save(catalog, &upload("p", "main", "old", true), &["a"]).await;
    save(catalog, &upload("p", "main", "new", true), &["a"]).await;
    catalog.note_entry_use(old).await.unwrap();
    let filter = KeptFilter {
        limit: 10,
        ..KeptFilter::default()
    };
    let kept = catalog.kept(&filter).await.unwrap();
    let (first, second) = (&kept[0], &kept[1]);
    assert_eq!((first.id, second.used), (old, None));
    let long_ago = catalog.now().await.unwrap() > second.time + LONG;
    assert_eq!(first.used.is_some(), long_ago);
}

/// An entry of the history.
struct Saved {
    id: ExportId,
    git_ref: &'static str,
    key: String,
    version: &'static str,
}

/// What a list in memory says of a look-up: of the first ref that has any, by
/// the first key that finds any, the one of that very key or else the newest.
fn expected(saved: &[Saved], refs: &[&str], keys: &[String], version: &str) -> Option<ExportId> {
    for git_ref in refs {
        for key in keys {
            let own = |one: &&Saved| one.git_ref == *git_ref && one.version == version;
            let exact = saved.iter().filter(own).find(|one| one.key == *key);
            let begins = saved
                .iter()
                .filter(own)
                .filter(|one| one.key.starts_with(key))
                .max_by_key(|one| one.id);
            if let Some(found) = exact.or(begins) {
                return Some(found.id);
            }
        }
    }
    None
}

pub(in crate::catalog) async fn look_ups_agree_with_a_list_in_memory(catalog: &dyn Catalog) {
    const REFS: [&str; 3] = ["refs/heads/main", "refs/heads/dev", "refs/pull/1/merge"];
    const VERSIONS: [&str; 2] = ["v1", "v2"];
    // Of the ends of what bytes may be, and what looks alike to a LIKE.
    const PARTS: [&str; 8] = ["a", "A", "-", "_", "%", "é", "\u{10fffe}", "#1"];
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut saved: Vec<Saved> = Vec::new();
    let some_key = |random: &mut StdRng| -> String {
        let parts = random.random_range(1..=4);
        let some = (0..parts).map(|_| PARTS[random.random_range(0..PARTS.len())]);
        some.collect()
    };
    for _ in 0..250 {
        let version = VERSIONS[random.random_range(0..2)];
        match random.random_range(0..10) {
            0..4 => {
                let git_ref = REFS[random.random_range(0..REFS.len())];
                let key = some_key(&mut random);
                let new = NewUpload {
                    project: "p".parse().unwrap(),
                    git_ref: git_ref.parse().unwrap(),
                    name: name(&key, version),
                    alone: true,
                };
                let is_taken = |one: &Saved| {
                    (one.git_ref, &*one.key, one.version) == (git_ref, &*key, version)
                };
                let taken = saved.iter().any(is_taken);
                let reserved = catalog.reserve(&new).await.unwrap().upload();
                assert_eq!(reserved.is_none(), taken, "{key:?} of {git_ref}");
                let Some(id) = reserved else { continue };
                let AppendedEntry::Done(id) = append_entry(catalog, id, &new, &["x"]).await else {
                    panic!("nobody else saves")
                };
                saved.push(Saved {
                    id,
                    git_ref,
                    key,
                    version,
                });
            }
            4 if !saved.is_empty() => {
                let gone = saved.swap_remove(random.random_range(0..saved.len()));
                assert_eq!(catalog.retire(&[gone.id]).await.unwrap(), 1);
            }
            _ => {
                let from = random.random_range(0..REFS.len());
                let mut refs: Vec<&str> = REFS[from..].to_vec();
                if random.random_bool(0.5) {
                    refs.reverse();
                }
                let count = random.random_range(1..=3);
                let keys: Vec<String> = (0..count).map(|_| some_key(&mut random)).collect();
                let asked_refs: Vec<GitRef> =
                    refs.iter().map(|text| text.parse().unwrap()).collect();
                let asked: Vec<EntryKey> = keys.iter().map(|text| text.parse().unwrap()).collect();
                let found = catalog
                    .find_entry(
                        &"p".parse().unwrap(),
                        &asked_refs,
                        &asked,
                        &version.parse().unwrap(),
                    )
                    .await
                    .unwrap();
                assert_eq!(
                    found.as_ref().map(|entry| entry.id),
                    expected(&saved, &refs, &keys, version),
                    "{keys:?} of {refs:?} in {version}: {found:?}"
                );
                let other = catalog
                    .find_entry(
                        &"q".parse().unwrap(),
                        &asked_refs,
                        &asked,
                        &version.parse().unwrap(),
                    )
                    .await
                    .unwrap();
                assert_eq!(other, None, "nothing crosses projects");
            }
        }
    }
}
