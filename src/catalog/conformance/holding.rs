//! Which blobs a project holds, and which are held at all.

use std::collections::BTreeSet;

use super::*;

pub(in crate::catalog) async fn a_project_holds_only_what_its_own_exports_name(
    catalog: &dyn Catalog,
) {
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

pub(in crate::catalog) async fn all_referenced_blobs_come_once_by_digest(catalog: &dyn Catalog) {
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

pub(in crate::catalog) async fn who_uploaded_a_blob_may_name_it_for_a_while_and_nobody_else_may(
    catalog: &dyn Catalog,
) {
    append(catalog, "p", "main", &["exported"]).await;
    let (p, q): (ProjectId, ProjectId) = ("p".parse().unwrap(), "q".parse().unwrap());
    let [exported, mine, past] =
        ["exported", "mine", "past"].map(|content| Digest::of(content.as_bytes()));
    let hour = Duration::from_secs(3600);
    // Said twice in one call, too.
    let uploads = [(mine, 4), (mine, 4)];
    catalog
        .possess(&p, &GitRef::default(), &uploads, hour)
        .await
        .unwrap();
    catalog
        .possess(&p, &GitRef::default(), &[(past, 4)], Duration::ZERO)
        .await
        .unwrap();
    catalog
        .possess(&p, &GitRef::default(), &[], hour)
        .await
        .unwrap();

    assert_eq!(catalog.holds(&p, &mine).await.unwrap(), Some(4));
    assert_eq!(catalog.holds(&q, &mine).await.unwrap(), None);
    assert_eq!(catalog.holds(&p, &past).await.unwrap(), None);
    let held = async |project: &ProjectId| {
        let asked = [mine, past, exported, mine];
        BTreeSet::from_iter(catalog.held(project, &asked).await.unwrap())
    };
    assert_eq!(held(&p).await, BTreeSet::from([exported, mine]));
    assert_eq!(held(&q).await, BTreeSet::new());
    assert_eq!(referenced(catalog).await, BTreeSet::from([exported, mine]));
    assert_eq!(catalog.naming(&mine).await.unwrap(), []);
    // A blob that is both comes once.
    catalog
        .possess(&q, &GitRef::default(), &[(exported, 8)], hour)
        .await
        .unwrap();
    assert_eq!(held(&q).await, BTreeSet::from([exported]));
    let all: Vec<_> = catalog.referenced().try_collect().await.unwrap();
    assert_eq!(BTreeSet::from_iter(all.clone()).len(), all.len());
    assert_eq!(all.len(), 2);
}

pub(in crate::catalog) async fn possession_is_extended_and_never_shortened(catalog: &dyn Catalog) {
    let project: ProjectId = "p".parse().unwrap();
    let blob = Digest::of(b"blob");
    let hour = Duration::from_secs(3600);
    for (ttl, kept) in [
        (Duration::ZERO, None),
        (hour, Some(9)),
        (Duration::ZERO, Some(9)),
        (Duration::MAX, Some(9)),
    ] {
        catalog
            .possess(&project, &GitRef::default(), &[(blob, 9)], ttl)
            .await
            .unwrap();
        assert_eq!(
            catalog.holds(&project, &blob).await.unwrap(),
            kept,
            "{ttl:?}"
        );
    }
    // More than a page, many at a time.
    let many: Vec<_> = (0..5_000_u32)
        .map(|at| (Digest::of(&at.to_le_bytes()), 4))
        .collect();
    catalog
        .possess(&project, &GitRef::default(), &many, hour)
        .await
        .unwrap();
    assert_eq!(referenced(catalog).await.len(), 5_001);
}

pub(in crate::catalog) async fn a_blob_is_seen_by_the_refs_that_hold_it_alone(
    catalog: &dyn Catalog,
) {
    let mut gone = None;
    for git_ref in ["one", "two", "gone", "one"] {
        let id = append(catalog, "p", git_ref, &["a", "b"]).await;
        gone = gone.or((git_ref == "gone").then_some(id));
    }
    append(catalog, "p", "other", &["c"]).await;
    append(catalog, "q", "foreign", &["a"]).await;
    // It has left the log, and yet a lease keeps its blobs.
    catalog.take_lease(Duration::from_secs(60)).await.unwrap();
    catalog.retire(&[gone.unwrap()]).await.unwrap();
    let (p, up) = ("p".parse().unwrap(), "up".parse().unwrap());
    let uploaded = [(Digest::of(b"d"), 1)];
    let hour = Duration::from_secs(3600);
    catalog.possess(&p, &up, &uploaded, hour).await.unwrap();
    let past = "past".parse().unwrap();
    let ended = catalog.possess(&p, &past, &uploaded, Duration::ZERO);
    ended.await.unwrap();

    let refs = async |project: &str| {
        let refs = catalog
            .holding_refs(&project.parse().unwrap())
            .await
            .unwrap();
        let names = refs
            .iter()
            .map(|git_ref| git_ref.as_str().replace("refs/heads/", ""));
        BTreeSet::from_iter(names)
    };
    let all = ["gone", "one", "other", "two", "up"];
    assert_eq!(refs("p").await, all.map(str::to_owned).into());
    assert_eq!(refs("q").await, BTreeSet::from(["foreign".to_owned()]));
    assert!(refs("absent").await.is_empty());

    let visible = async |project: &str, refs: &[&str], contents: &[&str]| {
        let refs: Vec<GitRef> = refs.iter().map(|text| text.parse().unwrap()).collect();
        let digests = contents
            .iter()
            .map(|content| Digest::of(content.as_bytes()));
        let digests: Vec<Digest> = digests.collect();
        let project = project.parse().unwrap();
        let found = catalog.visible(&project, &refs, &digests);
        let found = found.await.unwrap();
        assert_eq!(found.len(), BTreeSet::from_iter(&found).len());
        let seen = |content: &&&str| found.contains(&Digest::of(content.as_bytes()));
        contents
            .iter()
            .filter(seen)
            .map(|content| (*content).to_owned())
            .collect::<Vec<_>>()
    };
    let contents = ["a", "b", "c", "d", "e"];
    for (refs, expected) in [
        (&["one"][..], &["a", "b"][..]),
        (&["gone"], &["a", "b"]),
        (&["other", "absent"], &["c"]),
        (&["up", "other", "two"], &["a", "b", "c", "d"]),
        (&["foreign", "past"], &[]),
        (&[], &[]),
    ] {
        assert_eq!(visible("p", refs, &contents).await, expected, "{refs:?}");
    }
    assert_eq!(visible("q", &["foreign"], &contents).await, ["a"]);
    assert!(visible("absent", &["one"], &contents).await.is_empty());
    assert!(visible("p", &["one"], &[]).await.is_empty());
}

pub(in crate::catalog) async fn many_blobs_are_seen_by_many_refs_at_once(catalog: &dyn Catalog) {
    let contents: Vec<String> = (0..10_000).map(|at| format!("layer {at}")).collect();
    let layers: Vec<&str> = contents.iter().map(String::as_str).collect();
    append(catalog, "p", "secret", &layers).await;
    append(catalog, "p", "open", &layers[..5_000]).await;
    let digests = contents
        .iter()
        .map(|content| Digest::of(content.as_bytes()));
    let digests: Vec<Digest> = digests.collect();
    let mut refs: Vec<GitRef> = (0..1_000)
        .map(|at| format!("r{at}").parse().unwrap())
        .collect();
    refs.push("open".parse().unwrap());
    let project = "p".parse().unwrap();
    let found = catalog.visible(&project, &refs, &digests);
    let expected = BTreeSet::from_iter(digests[..5_000].iter().copied());
    assert_eq!(BTreeSet::from_iter(found.await.unwrap()), expected);
}
