use proptest::prelude::*;

use super::*;
use crate::cache::Want;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn an_import_of_an_export_has_the_same_places_configs_layers_and_steps(
        exports in proptest::collection::vec(
            (0..3_u8, 0..3_u8, proptest::collection::vec(0..12_u8, 1..6)),
            1..7,
        ),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (from, to) = (Store::new().await, Store::new().await);
            for (number, (project, git_ref, layers)) in exports.iter().enumerate() {
                let distinct: BTreeSet<u8> = layers.iter().copied().collect();
                // Empty, tiny, and larger than a chunk.
                let layer = |at: u8| noise(at.into(), usize::from(at) * usize::from(at) * 3000);
                let layers: Vec<Vec<u8>> = distinct.into_iter().map(layer).collect();
                let place = place(&format!("p/{project}"), &format!("branch-{git_ref}"));
                from.publish(place, &format!("export {number}"), &layers).await;
            }
            let (archive, exported) = from.exported(Filter::default()).await.unwrap();
            assert_eq!(exported.exports, exports.len());
            let again = from.archive().await;
            assert_eq!(bytes(archive.try_clone().unwrap()), bytes(again), "the same, the same bytes");
            let (imported, read) = to.import(archive.try_clone().unwrap()).await;
            read.unwrap();
            assert_eq!((imported.exports, imported.refused.len()), (exports.len(), 0));
            assert_eq!(imported.layers, exported.layers);
            assert_eq!(imported.bytes, exported.bytes);
            assert_eq!(from.seen().await, to.seen().await);
            to.assert_sound().await;

            let (twice, read) = to.import(archive).await;
            read.unwrap();
            assert_eq!((twice.exports, twice.known), (0, exports.len()));
            assert_eq!((twice.layers, twice.held), (0, exported.layers));
            assert_eq!(from.seen().await, to.seen().await);
        });
    }
}

fn bytes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names_and_nothing_to_export_is_an_error() {
    let store = Store::new().await;
    for (project, git_ref) in [("a", "main"), ("a", "dev"), ("b", "main")] {
        let name = format!("{project} {git_ref}");
        let layers = [noise(1, 10), name.clone().into_bytes()];
        store.publish(place(project, git_ref), &name, &layers).await;
    }
    let filter = Filter {
        project: "a".parse().ok(),
        git_ref: "dev".parse().ok(),
        ..Filter::default()
    };
    let (archive, exported) = store.exported(filter).await.unwrap();
    assert_eq!((exported.exports, exported.layers), (1, 2));
    let to = Store::new().await;
    let (imported, read) = to.import(archive).await;
    read.unwrap();
    assert_eq!(imported.exports, 1);
    assert_eq!(to.seen().await[0].place.1, "refs/heads/dev");
    let nothing = Filter {
        project: "c".parse().ok(),
        ..Filter::default()
    };
    let error = store.exported(nothing).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Empty(_)), "{error}");
}

#[tokio::test]
async fn an_import_may_have_all_of_it_stand_elsewhere() {
    let (from, to) = (Store::new().await, Store::new().await);
    from.publish(place("laptop", "mine"), "one", &[noise(1, 100)])
        .await;
    // The same content at two places is one export where both go to one.
    from.publish(place("laptop", "other"), "one", &[noise(1, 100)])
        .await;
    let rehome = Rehome {
        project: "acme/shop".parse().ok(),
        git_ref: "main".parse().ok(),
        scope: "linux".parse().ok(),
    };
    let (imported, read) = to.import_to(from.archive().await, &rehome).await;
    read.unwrap();
    assert_eq!((imported.exports, imported.known), (1, 1));
    let seen = to.seen().await;
    let at = ("acme/shop", "refs/heads/main", "linux");
    assert_eq!(seen.len(), 1);
    let place = &seen[0].place;
    assert_eq!((&*place.0, &*place.1, &*place.2), at);
}

#[tokio::test]
async fn what_is_written_keeps_what_is_missing_out_and_stops_at_what_has_rotted() {
    let store = Store::new().await;
    store
        .publish(place("p", "main"), "one", &[noise(1, 1000)])
        .await;
    store
        .publish(place("p", "main"), "two", &[noise(2, 1000)])
        .await;
    let file = |layer: &[u8]| {
        let folder = store.dir.path().join("blobs/sha256");
        folder.join(Digest::of(layer).hex())
    };
    std::fs::remove_file(file(&noise(1, 1000))).unwrap();
    let (_, exported) = store.exported(Filter::default()).await.unwrap();
    assert_eq!(exported.exports, 1);
    assert_eq!(exported.omitted.len(), 1);
    assert!(exported.omitted[0].why.contains("missing"), "{exported:?}");
    std::fs::remove_file(file(&noise(2, 1000))).unwrap();
    std::fs::write(file(&noise(2, 1000)), noise(3, 1000)).unwrap();
    let error = store.exported(Filter::default()).await.unwrap_err();
    assert!(error.to_string().contains("unexpected digest"), "{error}");
}

#[tokio::test]
async fn an_export_that_takes_the_place_of_another_meanwhile_comes_along() {
    let store = Store::new().await;
    for name in ["one", "two"] {
        store
            .publish(place("p", "main"), name, &[name.as_bytes().to_vec()])
            .await;
    }
    let (catalog, blobs) = (Arc::clone(&store.catalog), Arc::clone(&store.blobs));
    let mut exports = Exports::open(catalog, blobs, Filter::default())
        .await
        .unwrap();
    let old = store.catalog.list(&Filter::default()).await.unwrap();
    store
        .publish(place("p", "main"), "three", &[b"three".to_vec()])
        .await;
    store.catalog.retire(&[old[0].id]).await.unwrap();
    let mut names = Vec::new();
    while let Some(snapshot) = exports.next().await.unwrap() {
        names.push(snapshot.builder);
    }
    assert_eq!(names, ["builder-of-one", "builder-of-three"]);
}

#[tokio::test]
async fn the_union_of_a_cache_travels_as_one_export() {
    let (from, to) = (Store::new().await, Store::new().await);
    for name in ["one", "two", "three"] {
        let layers = [noise(1, 100), name.as_bytes().to_vec()];
        from.publish(place("p", name), name, &layers).await;
    }
    let cache = Arc::clone(&from.cache) as Arc<dyn crate::cache::Cache>;
    let want = Want::all_of(place("p", "main"));
    let united = United::look(cache, want.clone(), place("p", "main")).await;
    let mut united = united.unwrap().unwrap();
    assert_eq!((united.exports(), united.cut()), (3, 0));
    let (archive, exported) = written(&mut united).await.unwrap();
    assert_eq!((exported.exports, exported.layers), (1, 4));
    let (imported, read) = to.import(archive.try_clone().unwrap()).await;
    read.unwrap();
    assert_eq!((imported.exports, imported.layers), (1, 4));
    assert_eq!(to.seen().await[0].steps.len(), 6);
    let mut found = Vec::new();
    for store in [&from, &to] {
        let limits = united::ALL;
        let import = store
            .cache
            .look_up(std::slice::from_ref(&want), &limits)
            .await;
        let import = import.unwrap().import().unwrap();
        found.push((import.records, import.layers));
    }
    assert_eq!(found[0], found[1], "builds get the same of both");
    // What stands at several refs there adds nothing where it came from, either.
    let (again, read) = to.import(archive).await;
    read.unwrap();
    assert_eq!((again.exports, again.known), (0, 1));
}
