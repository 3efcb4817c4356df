//! What is appended, listed, counted and read back.

use std::collections::BTreeSet;

use super::*;

pub(in crate::catalog) async fn an_export_is_read_back_exactly(catalog: &dyn Catalog) {
    let mut written = export(place("acme/shop", "main"), &["b", "aa", "b"]);
    written.layers[1] = Layer {
        diff_id: None,
        created_at: None,
        annotations: BTreeMap::new(),
        ..layer("aa")
    };
    written.config = Bytes::from(vec![b'x'; 300_000]);
    written.steps = vec![
        step("sha256:b", 7, "RUN ü"),
        step("sha256:a", 0, "COPY \" ' ."),
    ];
    let id = catalog.append(written.clone()).await.unwrap();
    let read = catalog.get(id).await.unwrap().unwrap();
    assert_eq!(read.config, written.config);
    assert_eq!(read.config_digest, Digest::of(&written.config));
    assert_eq!(read.layers, written.layers);
    assert_eq!(read.steps, written.steps);
    let head = ExportHead {
        id,
        time: written.time,
        place: written.place,
        kind: Kind::Cache,
        entry: None,
        builder: "runner-1".to_owned(),
        records: 3,
        layers: 2,
        bytes: 3,
    };
    assert_eq!(read.head, head);
}

pub(in crate::catalog) async fn a_list_is_filtered_and_paged_newest_first(catalog: &dyn Catalog) {
    let mut ids = Vec::new();
    for (project, git_ref) in [
        ("p", "main"),
        ("p", "dev"),
        ("q", "main"),
        ("p", "main"),
        ("p", "main"),
    ] {
        ids.push(append(catalog, project, git_ref, &["a"]).await);
    }
    let list = async |filter: Filter| {
        let heads = catalog.list(&filter).await.unwrap();
        heads
            .iter()
            .map(|head| ids.iter().position(|id| *id == head.id).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(Filter::default()).await, [4, 3, 2, 1, 0]);
    let p = Filter {
        project: "p".parse().ok(),
        ..Filter::default()
    };
    let two = Filter {
        limit: Some(2),
        ..p.clone()
    };
    assert_eq!(catalog.count(&Filter::default()).await.unwrap(), 5);
    assert_eq!(catalog.count(&two).await.unwrap(), 4);
    assert_eq!(list(p.clone()).await, [4, 3, 1, 0]);
    assert_eq!(list(two).await, [4, 3]);
    assert_eq!(
        list(Filter {
            before: Some(ids[3]),
            ..p.clone()
        })
        .await,
        [1, 0]
    );
    assert_eq!(
        list(Filter {
            git_ref: "dev".parse().ok(),
            ..p.clone()
        })
        .await,
        [1]
    );
    let of_main = Filter {
        git_ref: "main".parse().ok(),
        scope: Some(Scope::default()),
        after: Some(ids[0]),
        ..p.clone()
    };
    assert_eq!(list(of_main).await, [4, 3]);
    assert_eq!(
        list(Filter {
            scope: "none".parse().ok(),
            ..p
        })
        .await,
        Vec::<usize>::new()
    );
}

pub(in crate::catalog) async fn concurrent_appends_are_all_kept_in_order(catalog: &dyn Catalog) {
    let appends = (0..40).map(|_| append(catalog, "p", "main", &["a", "b"]));
    let ids = BTreeSet::from_iter(futures::future::join_all(appends).await);
    assert_eq!(ids.len(), 40);
    let listed = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(
        listed.iter().map(|head| head.id).collect::<Vec<_>>(),
        Vec::from_iter(ids.into_iter().rev())
    );
}

pub(in crate::catalog) async fn an_absent_export_is_none(catalog: &dyn Catalog) {
    let id = append(catalog, "p", "main", &["a"]).await;
    assert!(catalog.get(ExportId(id.0 + 1)).await.unwrap().is_none());
    assert!(catalog.get(ExportId(-1)).await.unwrap().is_none());
}

pub(in crate::catalog) async fn an_empty_catalog_has_nothing(catalog: &dyn Catalog) {
    catalog.writable().await.unwrap();
    catalog.ready().await.unwrap();
    assert!(catalog.refusal().is_none());
    assert_eq!(catalog.list(&Filter::default()).await.unwrap(), []);
    assert_eq!(
        catalog.referenced().try_collect::<Vec<_>>().await.unwrap(),
        []
    );
}

pub(in crate::catalog) async fn a_reader_that_polls_misses_no_export(catalog: &dyn Catalog) {
    const WRITERS: usize = 4;
    const EACH: usize = 10;
    let (left, seen) = (
        std::sync::atomic::AtomicUsize::new(WRITERS),
        BTreeSet::new(),
    );
    let writers = futures::future::join_all((0..WRITERS).map(|_| async {
        let mut ids = Vec::new();
        for _ in 0..EACH {
            ids.push(append(catalog, "p", "main", &["a", "b"]).await);
        }
        left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        ids
    }));
    let reader = async {
        let (mut seen, mut after) = (seen, None);
        loop {
            let last = left.load(std::sync::atomic::Ordering::SeqCst) == 0;
            let filter = Filter {
                after,
                ..Filter::default()
            };
            let heads = catalog.list(&filter).await.unwrap();
            after = heads.first().map(|head| head.id).or(after);
            seen.extend(heads.into_iter().map(|head| head.id));
            if last {
                return seen;
            }
        }
    };
    let (written, seen) = futures::future::join(writers, reader).await;
    assert_eq!(seen, written.into_iter().flatten().collect());
}

pub(in crate::catalog) async fn ten_thousand_layers_and_a_large_config_are_read_back(
    catalog: &dyn Catalog,
) {
    let contents: Vec<String> = (0..10_000).map(|at| format!("layer {at}")).collect();
    let layers: Vec<&str> = contents.iter().map(String::as_str).collect();
    let mut written = export(place("p", "main"), &layers);
    // Noise, so that it stays large.
    written.config = (0..200_000_u32)
        .flat_map(|at| *Digest::of(&at.to_le_bytes()).as_bytes())
        .collect();
    written.steps = (0..10_000)
        .map(|at| step(&format!("sha256:{at}"), at, "RUN"))
        .collect();
    let id = catalog.append(written.clone()).await.unwrap();
    let read = catalog.get(id).await.unwrap().unwrap();
    assert!(read.config == written.config);
    assert!(read.layers == written.layers);
    assert!(read.steps == written.steps);
    assert_eq!(read.head.layers, 10_000);
    let digests: Vec<Digest> = written.layers.iter().map(|layer| layer.digest).collect();
    let held = catalog
        .held(&written.place.project, &digests)
        .await
        .unwrap();
    assert_eq!(held.len(), 10_000);
    let results: Vec<_> = written
        .steps
        .iter()
        .map(|step| (step.record.clone(), step.created_at))
        .collect();
    let kept = catalog
        .steps(&written.place.project, None, &results)
        .await
        .unwrap();
    assert_eq!(kept.len(), 10_000);
}
