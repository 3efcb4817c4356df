//! What nothing names, and who may remove it.

use super::*;
use crate::blobs::{StoreId, Taken};

/// Whose pins these are.
const HOLDER: PinHolder = PinHolder(7);

const LONG: Duration = Duration::from_secs(3600);

fn blob(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

fn blobs<const N: usize>(contents: [&str; N]) -> Vec<Digest> {
    contents.map(blob).to_vec()
}

async fn condemn(catalog: &dyn Catalog, contents: &[&str]) -> BTreeSet<Digest> {
    let blobs: Vec<Digest> = contents.iter().map(|content| blob(content)).collect();
    let condemned = catalog.condemn(&blobs, LONG).await.unwrap();
    condemned.into_iter().collect()
}

async fn candidates(catalog: &dyn Catalog) -> BTreeSet<Digest> {
    catalog.purge().await.unwrap();
    let found = catalog.candidates(1000).await.unwrap();
    found.into_iter().collect()
}

async fn kept(catalog: &dyn Catalog, filter: &KeptFilter) -> Vec<KeptExport> {
    catalog.kept(filter).await.unwrap()
}

const ALL: KeptFilter = KeptFilter {
    project: None,
    after: None,
    limit: 1000,
};

pub(in crate::catalog) async fn what_is_named_is_never_condemned(catalog: &dyn Catalog) {
    append(catalog, "p", "main", &["exported"]).await;
    let retired = append(catalog, "p", "main", &["retired"]).await;
    catalog.take_lease(LONG).await.unwrap();
    catalog.retire(&[retired]).await.unwrap();
    let (project, git_ref) = ("q".parse().unwrap(), GitRef::default());
    let possessed = [(blob("possessed"), 9), (blob("possessed before"), 9)];
    for (blob, ttl) in possessed.iter().zip([LONG, Duration::ZERO]) {
        catalog
            .possess(&project, &git_ref, &[*blob], ttl)
            .await
            .unwrap();
    }
    catalog.pin(HOLDER, &blobs(["pinned"]), LONG).await.unwrap();
    catalog
        .pin(HOLDER, &blobs(["pinned before"]), Duration::ZERO)
        .await
        .unwrap();
    let condemned = condemn(
        catalog,
        &[
            "exported",
            "retired",
            "possessed",
            "possessed before",
            "pinned",
            "pinned before",
            "unknown",
        ],
    )
    .await;
    let nameless = blobs(["possessed before", "pinned before", "unknown"]);
    assert_eq!(condemned, nameless.into_iter().collect());
}

pub(in crate::catalog) async fn what_loses_its_last_name_becomes_a_candidate(
    catalog: &dyn Catalog,
) {
    let gone = append(catalog, "p", "main", &["a", "b"]).await;
    append(catalog, "q", "main", &["b"]).await;
    let lease = catalog.take_lease(LONG).await.unwrap();
    catalog.retire(&[gone]).await.unwrap();
    assert_eq!(
        candidates(catalog).await,
        BTreeSet::new(),
        "a lease keeps it"
    );
    catalog.end_lease(lease).await.unwrap();
    assert!(candidates(catalog).await.contains(&blob("a")));
    let project: ProjectId = "p".parse().unwrap();
    let (git_ref, uploaded) = (GitRef::default(), [(blob("c"), 1)]);
    catalog
        .possess(&project, &git_ref, &uploaded, Duration::ZERO)
        .await
        .unwrap();
    catalog
        .pin(HOLDER, &blobs(["d"]), Duration::ZERO)
        .await
        .unwrap();
    let found: Vec<Digest> = candidates(catalog).await.into_iter().collect();
    assert!(found.contains(&blob("c")), "{found:?}");
    assert!(found.contains(&blob("d")), "{found:?}");
    let condemned = catalog.condemn(&found, LONG).await.unwrap();
    let condemned: BTreeSet<Digest> = condemned.into_iter().collect();
    assert_eq!(condemned, blobs(["a", "c", "d"]).into_iter().collect());
    let condemned: Vec<Digest> = condemned.into_iter().collect();
    catalog.acquit(&condemned).await.unwrap();
    assert_eq!(candidates(catalog).await, BTreeSet::new());
}

pub(in crate::catalog) async fn a_pin_tells_what_is_condemned_and_keeps_all_else(
    catalog: &dyn Catalog,
) {
    assert_eq!(condemn(catalog, &["a"]).await.len(), 1);
    let told = catalog.pin(HOLDER, &blobs(["a", "b"]), LONG).await.unwrap();
    assert_eq!(told, blobs(["a"]));
    assert!(condemn(catalog, &["b"]).await.is_empty());
    catalog.acquit(&blobs(["a"])).await.unwrap();
    let told = catalog
        .pin(HOLDER, &blobs(["a", "b"]), Duration::ZERO)
        .await;
    assert_eq!(told.unwrap(), []);
    assert!(
        condemn(catalog, &["a", "b"]).await.is_empty(),
        "a shorter pin shortens none"
    );
    assert_eq!(catalog.pin(HOLDER, &[], LONG).await.unwrap(), []);
    let other = PinHolder(8);
    catalog.pin(other, &blobs(["a"]), LONG).await.unwrap();
    catalog.unpin(HOLDER, &blobs(["a", "b"])).await.unwrap();
    let due = candidates(catalog).await;
    assert!(due.contains(&blob("b")), "{due:?}");
    assert_eq!(
        condemn(catalog, &["a", "b"]).await,
        BTreeSet::from([blob("b")])
    );
}

pub(in crate::catalog) async fn of_a_pin_and_a_judge_at_once_one_sees_the_other(
    catalog: &dyn Catalog,
) {
    for round in 0..40 {
        let blob = [Digest::of(format!("round {round}").as_bytes())];
        let (told, condemned) = tokio::join!(
            catalog.pin(HOLDER, &blob, LONG),
            catalog.condemn(&blob, LONG)
        );
        let (told, condemned) = (told.unwrap(), condemned.unwrap());
        assert!(condemned.is_empty() || told == condemned, "round {round}");
    }
}

pub(in crate::catalog) async fn what_is_condemned_is_so_once_and_for_a_while(
    catalog: &dyn Catalog,
) {
    let short = catalog.condemn(&blobs(["a"]), Duration::ZERO).await;
    assert_eq!(short.unwrap(), blobs(["a"]));
    assert_eq!(
        catalog
            .pin(HOLDER, &blobs(["a"]), Duration::ZERO)
            .await
            .unwrap(),
        []
    );
    assert_eq!(condemn(catalog, &["a", "b"]).await.len(), 2);
    assert!(condemn(catalog, &["a", "b"]).await.is_empty(), "once");
}

pub(in crate::catalog) async fn what_is_nominated_is_due_later_and_what_is_named_is_not_nominated(
    catalog: &dyn Catalog,
) {
    append(catalog, "p", "main", &["named"]).await;
    let asked = blobs(["named", "a", "b"]);
    let nominated = catalog.nominate(&asked, LONG).await.unwrap();
    assert_eq!(
        BTreeSet::from_iter(nominated),
        BTreeSet::from_iter(blobs(["a", "b"]))
    );
    assert_eq!(candidates(catalog).await, BTreeSet::new());
    catalog
        .nominate(&blobs(["a"]), Duration::ZERO)
        .await
        .unwrap();
    catalog.nominate(&blobs(["a"]), LONG).await.unwrap();
    assert_eq!(candidates(catalog).await, BTreeSet::from([blob("a")]));
    let put_off = blobs(["a", "named", "c"]);
    catalog.postpone(&put_off, LONG).await.unwrap();
    assert_eq!(candidates(catalog).await, BTreeSet::new(), "put off");
    catalog.postpone(&put_off, Duration::ZERO).await.unwrap();
    assert_eq!(candidates(catalog).await, BTreeSet::from([blob("a")]));
    condemn(catalog, &["a"]).await;
    assert_eq!(candidates(catalog).await, BTreeSet::new(), "condemned");
}

pub(in crate::catalog) async fn exports_are_kept_with_their_blobs_oldest_first(
    catalog: &dyn Catalog,
) {
    let first = append(catalog, "p", "main", &["a", "b", "a"]).await;
    let gone = append(catalog, "p", "main", &["c"]).await;
    let other = append(catalog, "q", "dev", &["a"]).await;
    let last = append(catalog, "p", "main", &[]).await;
    catalog.retire(&[gone]).await.unwrap();
    let all = kept(catalog, &ALL).await;
    let ids: Vec<ExportId> = all.iter().map(|export| export.id).collect();
    assert_eq!(ids, [first, other, last]);
    let named = BTreeSet::from_iter(all[0].blobs.iter().copied());
    assert_eq!(named, BTreeSet::from([(blob("a"), 1), (blob("b"), 1)]));
    assert_eq!(all[0].blobs.len(), 2, "each once");
    assert_eq!(all[1].place, place("q", "dev"));
    assert_eq!((all[0].used, all[0].last_use()), (None, all[0].time));
    let page = KeptFilter {
        project: Some("p".parse().unwrap()),
        after: Some(first),
        limit: 1,
    };
    let page: Vec<ExportId> = kept(catalog, &page)
        .await
        .iter()
        .map(|export| export.id)
        .collect();
    assert_eq!(page, [last]);
}

pub(in crate::catalog) async fn a_use_is_noted_of_the_newest_export_of_each_place_and_once_an_hour(
    catalog: &dyn Catalog,
) {
    let old = append(catalog, "p", "main", &["a"]).await;
    let new = append(catalog, "p", "main", &["a", "b"]).await;
    let dev = append(catalog, "p", "dev", &["a"]).await;
    let other = append(catalog, "q", "dev", &["a"]).await;
    let written = kept(catalog, &ALL).await[0].time;
    let later = |minutes: i64| written + jiff::SignedDuration::from_mins(minutes);
    let read = Uses {
        blobs: BTreeMap::from([(
            Some("p".parse().unwrap()),
            BTreeSet::from([blob("a"), blob("unknown")]),
        )]),
        ..Uses::default()
    };
    let used = async || -> BTreeMap<ExportId, Option<Timestamp>> {
        let all = kept(catalog, &ALL).await;
        all.iter().map(|export| (export.id, export.used)).collect()
    };
    assert!(catalog.now().await.unwrap() > later(300));
    catalog.note_use(&read, later(59)).await.unwrap();
    assert!(used().await.values().all(Option::is_none), "it is new");
    catalog.note_use(&read, later(90)).await.unwrap();
    let expected = [
        (old, None),
        (other, None),
        (new, Some(later(90))),
        (dev, Some(later(90))),
    ];
    assert_eq!(used().await, BTreeMap::from(expected));
    let hit = Uses {
        refs: BTreeSet::from([("p".parse().unwrap(), "dev".parse().unwrap())]),
        ..Uses::default()
    };
    catalog.note_use(&hit, later(140)).await.unwrap();
    catalog.note_use(&hit, later(200)).await.unwrap();
    let expected = [
        (old, None),
        (other, None),
        (new, Some(later(90))),
        (dev, Some(later(200))),
    ];
    assert_eq!(used().await, BTreeMap::from(expected));
    catalog
        .note_use(&Uses::default(), later(900))
        .await
        .unwrap();
    let anywhere = Uses {
        blobs: BTreeMap::from([(None, BTreeSet::from([blob("a")]))]),
        ..Uses::default()
    };
    let ahead = catalog.now().await.unwrap() + jiff::SignedDuration::from_hours(1000);
    catalog.note_use(&anywhere, ahead).await.unwrap();
    let used = used().await;
    assert_eq!(used[&old], None);
    for id in [new, dev, other] {
        assert!(used[&id].is_some_and(|used| used < ahead), "{used:?}");
    }
}

pub(in crate::catalog) async fn a_blob_that_very_many_name_is_noted_of_the_newest(
    catalog: &dyn Catalog,
) {
    let mut all = Vec::new();
    for number in 0..260 {
        let git_ref = if number == 5 { "old" } else { "main" };
        all.push(append(catalog, "p", git_ref, &["base"]).await);
    }
    let read = Uses {
        blobs: BTreeMap::from([(None, BTreeSet::from([blob("base")]))]),
        refs: BTreeSet::from([("p".parse().unwrap(), "main".parse().unwrap())]),
    };
    let now = catalog.now().await.unwrap();
    catalog.note_use(&read, now).await.unwrap();
    let used = kept(catalog, &ALL).await.into_iter();
    let used = used.filter(|export| export.used.is_some());
    let used: Vec<ExportId> = used.map(|export| export.id).collect();
    assert_eq!(used, [all[5], all[259]]);
}

pub(in crate::catalog) async fn however_much_has_ended_it_goes_in_one_call(catalog: &dyn Catalog) {
    let project = "p".parse().unwrap();
    let many: Vec<(Digest, u64)> = (0..1200)
        .map(|number| (blob(&number.to_string()), 1))
        .collect();
    let digests: Vec<Digest> = many.iter().map(|(digest, _)| *digest).collect();
    catalog
        .possess(&project, &GitRef::default(), &many, Duration::ZERO)
        .await
        .unwrap();
    catalog.pin(HOLDER, &digests, Duration::ZERO).await.unwrap();
    let mut exports = Vec::new();
    for number in 0..70 {
        let own = format!("of {number}");
        exports.push(append(catalog, "p", "main", &[own.as_str()]).await);
    }
    catalog.retire(&exports).await.unwrap();
    catalog.purge().await.unwrap();
    let found = catalog.candidates(10_000).await.unwrap();
    assert_eq!(found.len(), 1270);
}

pub(in crate::catalog) async fn sizes_of_projects_count_each_blob_once(catalog: &dyn Catalog) {
    assert_eq!(catalog.project_sizes().await.unwrap(), []);
    append(catalog, "p", "main", &["four", "a"]).await;
    append(catalog, "p", "dev", &["four", "five!"]).await;
    append(catalog, "a", "dev", &["four"]).await;
    let sizes = catalog.project_sizes().await.unwrap();
    let sizes: Vec<_> = sizes
        .iter()
        .map(|size| (size.project.as_str(), size.exports, size.bytes))
        .collect();
    assert_eq!(sizes, [("a", 1, 4), ("p", 2, 10)]);
}

pub(in crate::catalog) async fn what_only_a_lease_keeps_is_told_apart_and_is_no_projects_any_more(
    catalog: &dyn Catalog,
) {
    let lease = catalog.take_lease(Duration::from_secs(60)).await.unwrap();
    let gone = append(catalog, "p", "main", &["gone", "both", "kept"]).await;
    let left = append(catalog, "p", "dev", &["both"]).await;
    let all = ["gone", "both", "kept", "uploaded", "never"].map(|name| Digest::of(name.as_bytes()));
    let [of_gone, both, kept, uploaded, _] = all;
    let project = "p".parse().unwrap();
    let uploads = [(kept, 4), (uploaded, 8)];
    catalog
        .possess(
            &project,
            &GitRef::default(),
            &uploads,
            Duration::from_secs(60),
        )
        .await
        .unwrap();
    let lasting = async || BTreeSet::from_iter(catalog.lasting(&all).await.unwrap());
    assert_eq!(
        lasting().await,
        BTreeSet::from([of_gone, both, kept, uploaded])
    );
    assert_eq!(catalog.leased().await.unwrap(), 0);

    catalog.retire(&[gone]).await.unwrap();
    assert_eq!(catalog.leased().await.unwrap(), 1);
    assert_eq!(lasting().await, BTreeSet::from([both, kept, uploaded]));
    assert!(referenced(catalog).await.contains(&of_gone));
    assert_eq!(catalog.naming(&both).await.unwrap(), [left]);
    assert_eq!(catalog.naming(&of_gone).await.unwrap(), []);
    let sizes = catalog.project_sizes().await.unwrap();
    assert_eq!((sizes[0].exports, sizes[0].bytes), (1, 4));

    catalog.retire(&[left]).await.unwrap();
    let sizes = catalog.project_sizes().await.unwrap();
    assert_eq!((sizes[0].exports, sizes[0].bytes), (0, 0));
    catalog.end_lease(lease).await.unwrap();
    catalog.purge().await.unwrap();
    assert_eq!(catalog.leased().await.unwrap(), 0);
    assert_eq!(catalog.lasting(&[]).await.unwrap(), []);
}

pub(in crate::catalog) async fn a_catalog_is_bound_to_one_store_unless_that_is_done_anew(
    catalog: &dyn Catalog,
) {
    assert_eq!(catalog.store().await.unwrap(), None);
    let ids: Vec<StoreId> = (0..8).map(|_| StoreId::random()).collect();
    let binding = ids.iter().map(|id| catalog.bind(*id, Taken::First));
    let bound = futures::future::try_join_all(binding).await.unwrap();
    let one = catalog.store().await.unwrap().unwrap();
    assert!(ids.contains(&one));
    assert_eq!(bound, [one; 8], "all are told the same");
    let other = StoreId::random();
    assert_eq!(catalog.bind(other, Taken::First).await.unwrap(), one);
    assert_eq!(catalog.bind(other, Taken::Anew).await.unwrap(), other);
    assert_eq!(catalog.store().await.unwrap(), Some(other));
}
