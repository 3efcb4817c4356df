//! What every [`Catalog`] promises, as functions that each implementation runs
//! on an empty catalog of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt as _;

use super::*;
use crate::step::{Origin, StepName};

/// Runs the suite as one test each; `$open` makes an empty catalog and what
/// must live as long as it.
macro_rules! catalog_conformance {
    ($open:path: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let (_keep, catalog) = $open().await;
                $crate::catalog::conformance::$promise(&catalog).await;
            }
        )*
    };
    ($open:path) => {
        catalog_conformance! {
            $open:
            an_export_is_read_back_exactly,
            the_newest_of_a_place_is_the_last_appended,
            a_list_is_filtered_and_paged_newest_first,
            a_project_holds_only_what_its_own_exports_name,
            steps_are_kept_by_record_and_date_and_for_their_project_alone,
            savings_add_up_by_project_ref_and_day,
            all_referenced_blobs_come_once_by_digest,
            concurrent_appends_are_all_kept_in_order,
            an_absent_export_is_none,
            an_empty_catalog_has_nothing,
            what_has_left_the_log_is_gone_for_readers_and_kept_for_leases,
            a_lease_ends_by_itself_unless_it_is_renewed,
            an_export_that_nobody_reads_goes_at_once,
            what_was_subsumed_is_known_as_long_as_its_heir_is_in_the_log,
        }
    };
}
pub(super) use catalog_conformance;

pub(super) fn place(project: &str, git_ref: &str) -> Place {
    Place {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        scope: Scope::default(),
    }
}

pub(super) fn layer(content: &str) -> Layer {
    Layer {
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
        diff_id: Some(Digest::of(b"uncompressed")),
        created_at: "2026-11-22T05:23:18.123456789Z".parse().ok(),
        annotations: BTreeMap::from([(
            "org.example/note".to_owned(),
            "ünïcode \" text".to_owned(),
        )]),
    }
}

pub(super) fn export(place: Place, layers: &[&str]) -> NewExport {
    NewExport {
        place,
        time: "2026-11-22T05:23:18.123456Z".parse().unwrap(),
        builder: "runner-1".to_owned(),
        records: 3,
        config: Bytes::from(format!("config of {layers:?}")),
        layers: layers.iter().map(|content| layer(content)).collect(),
        steps: Vec::new(),
    }
}

pub(super) fn step(record: &str, nanosecond: i128, name: &str) -> Step {
    Step {
        record: record.parse().unwrap(),
        created_at: Timestamp::from_nanosecond(1_795_000_000_123_456_000 + nanosecond).unwrap(),
        name: StepName::of(name),
        duration: Duration::from_millis(1234),
        origin: None,
    }
}

async fn append(catalog: &dyn Catalog, project: &str, git_ref: &str, layers: &[&str]) -> ExportId {
    catalog
        .append(export(place(project, git_ref), layers))
        .await
        .unwrap()
}

pub(super) async fn an_export_is_read_back_exactly(catalog: &dyn Catalog) {
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
        builder: "runner-1".to_owned(),
        records: 3,
        layers: 2,
        bytes: 3,
    };
    assert_eq!(read.head, head);
}

pub(super) async fn the_newest_of_a_place_is_the_last_appended(catalog: &dyn Catalog) {
    let first = append(catalog, "p", "main", &["a"]).await;
    append(catalog, "p", "other", &["a"]).await;
    append(catalog, "q", "main", &["a"]).await;
    let mut earlier_clock = export(place("p", "main"), &["b"]);
    earlier_clock.time = "2020-01-01T00:00:00Z".parse().unwrap();
    let second = catalog.append(earlier_clock).await.unwrap();
    let place = place("p", "main");
    assert_eq!(catalog.newest(&place, None).await.unwrap(), Some(second));
    assert_eq!(
        catalog.newest(&place, Some(second)).await.unwrap(),
        Some(first)
    );
    assert_eq!(catalog.newest(&place, Some(first)).await.unwrap(), None);
    let scoped = |scope: &str| Place {
        scope: scope.parse().unwrap(),
        ..place.clone()
    };
    assert_eq!(
        catalog.newest(&scoped("elsewhere"), None).await.unwrap(),
        None
    );
    let elsewhere = catalog
        .append(export(scoped("elsewhere"), &["c"]))
        .await
        .unwrap();
    assert_eq!(
        catalog.newest(&scoped("*"), None).await.unwrap(),
        Some(elsewhere)
    );
    assert_eq!(
        catalog.newest(&scoped("*"), Some(elsewhere)).await.unwrap(),
        Some(second)
    );
    assert_eq!(catalog.newest(&place, None).await.unwrap(), Some(second));
}

pub(super) async fn a_list_is_filtered_and_paged_newest_first(catalog: &dyn Catalog) {
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
    assert_eq!(
        list(Filter {
            scope: "none".parse().ok(),
            ..p
        })
        .await,
        Vec::<usize>::new()
    );
}

pub(super) async fn a_project_holds_only_what_its_own_exports_name(catalog: &dyn Catalog) {
    append(catalog, "p", "main", &["aa", "bbb"]).await;
    append(catalog, "p", "dev", &["aa"]).await;
    append(catalog, "q", "main", &["cccc"]).await;
    let (p, q) = ("p".parse().unwrap(), "q".parse().unwrap());
    let [a, b, c, d] = ["aa", "bbb", "cccc", "d"].map(|content| Digest::of(content.as_bytes()));
    assert_eq!(catalog.holds(&p, &a).await.unwrap(), Some(2));
    assert_eq!(catalog.holds(&q, &a).await.unwrap(), None);
    let held =
        async |project| BTreeSet::from_iter(catalog.held(project, &[a, b, c, d, a]).await.unwrap());
    assert_eq!(held(&p).await, BTreeSet::from([a, b]));
    assert_eq!(held(&q).await, BTreeSet::from([c]));
    assert_eq!(catalog.held(&p, &[]).await.unwrap(), []);
}

pub(super) async fn steps_are_kept_by_record_and_date_and_for_their_project_alone(
    catalog: &dyn Catalog,
) {
    let by = |builder: &str, daemon: Option<&str>| {
        Some(Origin {
            builder: builder.to_owned(),
            daemon: daemon.map(str::to_owned),
        })
    };
    let one = Step {
        origin: by("runner-7", Some("x1")),
        ..step("sha256:a", 1, "one")
    };
    let unsaid = step("sha256:a", 2, "other");
    let elsewhere = Step {
        origin: by("runner-8", None),
        ..step("sha256:b", 1, "elsewhere")
    };
    for (project, steps) in [
        ("p", vec![one.clone(), unsaid.clone()]),
        ("p", vec![one.clone()]),
        ("q", vec![elsewhere.clone()]),
    ] {
        let mut export = export(place(project, "main"), &["a"]);
        export.steps = steps;
        catalog.append(export).await.unwrap();
    }
    // Where nobody says who ran a step, whoever exported it did.
    let other = Step {
        origin: by("runner-1", None),
        ..unsaid
    };
    let result = |step: &Step| (step.record.clone(), step.created_at);
    let nobody = result(&step("sha256:a", 3, ""));
    let asked = [
        result(&other),
        nobody.clone(),
        result(&elsewhere),
        result(&one),
    ];
    let kept = async |project: &str, asked: &[_]| {
        let project = project.parse().unwrap();
        let mut kept = catalog.steps(&project, asked).await.unwrap();
        kept.sort_by_key(|step| step.created_at);
        kept
    };
    assert_eq!(kept("p", &asked).await, [one.clone(), other]);
    assert_eq!(kept("q", &asked).await, [elsewhere]);
    assert_eq!(kept("absent", &asked).await, []);
    // More than one question of them.
    let mut many = vec![nobody; 2500];
    many.push(result(&one));
    assert_eq!(kept("p", &many).await, [one]);
}

pub(super) async fn savings_add_up_by_project_ref_and_day(catalog: &dyn Catalog) {
    let saving = |project: &str, git_ref: &str, day: &str, builds| Saving {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        day: day.parse().unwrap(),
        builds,
        steps: 16 * builds,
        cached: 14 * builds,
        saved_ms: 212_345 * builds,
        estimated_ms: 45 * builds,
    };
    for (project, git_ref, day) in [
        ("p", "main", "2026-11-21"),
        ("p", "main", "2026-11-22"),
        ("p", "main", "2026-11-21"),
        ("p", "dev", "2026-11-21"),
        ("a", "main", "2026-11-21"),
    ] {
        let one = saving(project, git_ref, day, 1);
        catalog.add_saving(&one).await.unwrap();
    }
    let all = [
        saving("p", "main", "2026-11-22", 1),
        saving("a", "main", "2026-11-21", 1),
        saving("p", "dev", "2026-11-21", 1),
        saving("p", "main", "2026-11-21", 2),
    ];
    let listed = async |filter: SavingFilter| catalog.savings(&filter).await.unwrap();
    assert_eq!(listed(SavingFilter::default()).await, all);
    let since = SavingFilter {
        since: "2026-11-22".parse().ok(),
        ..SavingFilter::default()
    };
    assert_eq!(listed(since).await, all[..1]);
    let of_main = SavingFilter {
        project: "p".parse().ok(),
        git_ref: "main".parse().ok(),
        since: None,
    };
    assert_eq!(listed(of_main).await, [all[0].clone(), all[3].clone()]);
}

pub(super) async fn all_referenced_blobs_come_once_by_digest(catalog: &dyn Catalog) {
    // More than a page of them.
    let contents: Vec<String> = (0..5_000).map(|at| format!("layer {at}")).collect();
    let layers: Vec<&str> = contents.iter().map(String::as_str).collect();
    let first = append(catalog, "p", "main", &layers).await;
    let second = append(catalog, "q", "main", &layers[..10]).await;
    let referenced: Vec<(Digest, u64)> = catalog.referenced().try_collect().await.unwrap();
    let expected = BTreeMap::from_iter(
        contents
            .iter()
            .map(|content| (Digest::of(content.as_bytes()), content.len() as u64)),
    );
    assert_eq!(referenced, Vec::from_iter(expected));
    assert_eq!(
        catalog.naming(&Digest::of(b"layer 3")).await.unwrap(),
        [first, second]
    );
    assert_eq!(
        catalog.naming(&Digest::of(b"layer 3000")).await.unwrap(),
        [first]
    );
}

pub(super) async fn concurrent_appends_are_all_kept_in_order(catalog: &dyn Catalog) {
    let appends = (0..40).map(|_| append(catalog, "p", "main", &["a", "b"]));
    let ids = BTreeSet::from_iter(futures::future::join_all(appends).await);
    assert_eq!(ids.len(), 40);
    let listed = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(
        listed.iter().map(|head| head.id).collect::<Vec<_>>(),
        Vec::from_iter(ids.into_iter().rev())
    );
}

pub(super) async fn an_absent_export_is_none(catalog: &dyn Catalog) {
    let id = append(catalog, "p", "main", &["a"]).await;
    assert!(catalog.get(ExportId(id.0 + 1)).await.unwrap().is_none());
    assert!(catalog.get(ExportId(-1)).await.unwrap().is_none());
}

pub(super) async fn an_empty_catalog_has_nothing(catalog: &dyn Catalog) {
    catalog.writable().await.unwrap();
    assert_eq!(
        catalog.newest(&place("p", "main"), None).await.unwrap(),
        None
    );
    assert_eq!(catalog.list(&Filter::default()).await.unwrap(), []);
    assert_eq!(
        catalog.referenced().try_collect::<Vec<_>>().await.unwrap(),
        []
    );
}

async fn referenced(catalog: &dyn Catalog) -> BTreeSet<Digest> {
    let blobs = catalog.referenced().map_ok(|(digest, _)| digest);
    blobs.try_collect().await.unwrap()
}

const LONG: Duration = Duration::from_secs(3600);

pub(super) async fn what_has_left_the_log_is_gone_for_readers_and_kept_for_leases(
    catalog: &dyn Catalog,
) {
    let gone = append(catalog, "p", "main", &["a", "b"]).await;
    let kept = append(catalog, "p", "main", &["b"]).await;
    let lease = catalog.take_lease(LONG).await.unwrap();
    assert_eq!(catalog.retire(&[gone]).await.unwrap(), 1);
    assert_eq!(catalog.retire(&[gone]).await.unwrap(), 0, "once");
    // Taken too late to need it.
    let late = catalog.take_lease(LONG).await.unwrap();

    let [a, b] = ["a", "b"].map(|content| Digest::of(content.as_bytes()));
    let (main, project) = (place("p", "main"), "p".parse().unwrap());
    let heads = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(catalog.count(&Filter::default()).await.unwrap(), 1);
    assert!(catalog.get(gone).await.unwrap().is_none());
    assert_eq!(catalog.newest(&main, None).await.unwrap(), Some(kept));
    assert_eq!(catalog.newest(&main, Some(kept)).await.unwrap(), None);
    assert_eq!(catalog.holds(&project, &a).await.unwrap(), None);
    let held = async || BTreeSet::from_iter(catalog.held(&project, &[a, b]).await.unwrap());
    assert_eq!(held().await, BTreeSet::from([a, b]), "of a running export");
    assert_eq!(referenced(catalog).await, BTreeSet::from([a, b]));

    catalog.end_lease(lease).await.unwrap();
    assert_eq!(referenced(catalog).await, BTreeSet::from([b]));
    assert_eq!(held().await, BTreeSet::from([b]));
    assert!(catalog.renew_lease(late, LONG).await.unwrap());
    assert!(!catalog.renew_lease(lease, LONG).await.unwrap());
}

pub(super) async fn a_lease_ends_by_itself_unless_it_is_renewed(catalog: &dyn Catalog) {
    let gone = append(catalog, "p", "main", &["a"]).await;
    let short = catalog.take_lease(Duration::ZERO).await.unwrap();
    let renewed = catalog.take_lease(LONG).await.unwrap();
    assert!(catalog.renew_lease(renewed, LONG).await.unwrap());
    assert!(!catalog.renew_lease(short, LONG).await.unwrap(), "too late");
    catalog.retire(&[gone]).await.unwrap();
    assert_eq!(referenced(catalog).await.len(), 1);
    assert!(catalog.renew_lease(renewed, Duration::ZERO).await.unwrap());
    let other = catalog.take_lease(LONG).await.unwrap();
    assert!(catalog.renew_lease(other, LONG).await.unwrap());
    assert!(referenced(catalog).await.is_empty());
}

pub(super) async fn an_export_that_nobody_reads_goes_at_once(catalog: &dyn Catalog) {
    let gone = append(catalog, "p", "main", &["a"]).await;
    assert_eq!(catalog.retire(&[gone]).await.unwrap(), 1);
    assert!(referenced(catalog).await.is_empty());
    let next = append(catalog, "p", "main", &["a"]).await;
    assert!(next > gone, "no number is used twice");
}

pub(super) async fn what_was_subsumed_is_known_as_long_as_its_heir_is_in_the_log(
    catalog: &dyn Catalog,
) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(append(catalog, "p", "main", &["a"]).await);
    }
    assert_eq!(catalog.subsume(&ids[..1], ids[1]).await.unwrap(), 1);
    assert_eq!(catalog.subsumed(&ids).await.unwrap(), ids[..1]);
    assert_eq!(catalog.subsume(&ids[1..2], ids[2]).await.unwrap(), 1);
    assert_eq!(catalog.subsumed(&ids).await.unwrap(), ids[..2]);
    assert!(catalog.get(ids[0]).await.unwrap().is_none());
    catalog.retire(&ids[2..3]).await.unwrap();
    assert!(catalog.subsumed(&ids).await.unwrap().is_empty());
}
