//! Who does a background task.

use super::*;

pub(in crate::catalog) async fn a_task_has_one_owner_until_it_lets_go(catalog: &dyn Catalog) {
    let first = catalog.try_own("collect").await.unwrap().unwrap();
    assert!(first.holds());
    assert!(catalog.try_own("collect").await.unwrap().is_none());
    let other = catalog.try_own("other").await.unwrap();
    assert!(other.is_some(), "of another task");
    drop(first);
    assert!(owned(catalog, "collect").await.holds());
    for name in ["", "../x", "Collect", "a b", &"x".repeat(65)] {
        assert!(catalog.try_own(name).await.is_err(), "{name:?}");
    }
}
