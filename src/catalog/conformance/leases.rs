//! What leaves the log, and for whom it is kept.

use std::collections::BTreeSet;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

pub(in crate::catalog) async fn what_has_left_the_log_is_gone_for_readers_and_kept_for_leases(
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
    let project = "p".parse().unwrap();
    let heads = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(catalog.count(&Filter::default()).await.unwrap(), 1);
    assert!(catalog.get(gone).await.unwrap().is_none());
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

pub(in crate::catalog) async fn a_lease_ends_by_itself_unless_it_is_renewed(catalog: &dyn Catalog) {
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

pub(in crate::catalog) async fn an_export_that_nobody_reads_goes_at_once(catalog: &dyn Catalog) {
    let gone = append(catalog, "p", "main", &["a"]).await;
    assert_eq!(catalog.retire(&[gone]).await.unwrap(), 1);
    assert!(referenced(catalog).await.is_empty());
    let next = append(catalog, "p", "main", &["a"]).await;
    assert!(next > gone, "no number is used twice");
}

pub(in crate::catalog) async fn what_was_subsumed_is_known_as_long_as_its_heir_is_in_the_log(
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

pub(in crate::catalog) async fn names_of_leases_are_positive_and_not_in_order(
    catalog: &dyn Catalog,
) {
    let mut leases = Vec::new();
    for _ in 0..16 {
        leases.push(catalog.take_lease(LONG).await.unwrap());
    }
    assert!(leases.iter().all(|lease| lease.0 > 0), "{leases:?}");
    assert!(!leases.is_sorted(), "{leases:?}");
    // Near each other means guessable.
    leases.sort_unstable();
    let apart = leases
        .windows(2)
        .all(|pair| pair[1].0 - pair[0].0 > 1 << 20);
    assert!(apart, "{leases:?}");
}
