//! What an import is made of, and how it follows the log.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn an_import_is_the_union_of_all_that_is_wanted() {
    let (_dir, cache) = cache();
    let contents = ["a", "b", "c"];
    publish(&cache, place("p", "main"), &["a"]).await;
    assert_eq!(seen(&cache, &[want("topic", &[])], &contents).await, "a");
    publish(&cache, place("p", "dev"), &["b"]).await;
    publish(&cache, place("p", "main"), &["c"]).await;
    assert_eq!(seen(&cache, &[want("topic", &[])], &contents).await, "abc");
    let narrowed = |git_ref, fallbacks| Want {
        narrowed: true,
        ..want(git_ref, fallbacks)
    };
    let own = narrowed("topic", &[]);
    assert_eq!(seen(&cache, &[own], &contents).await, "");
    let dev = narrowed("topic", &["dev"]);
    assert_eq!(
        seen(&cache, std::slice::from_ref(&dev), &contents).await,
        "b"
    );
    let both = [narrowed("main", &[]), dev];
    assert_eq!(seen(&cache, &both, &contents).await, "abc");
    let foreign = Want {
        place: place("q", "main"),
        ..want("main", &[])
    };
    assert_eq!(seen(&cache, &[foreign], &contents).await, "");
}

#[tokio::test]
async fn an_import_follows_the_log_wherever_it_was_written() {
    let (dir, cache) = cache();
    let other = LocalCache::new(dir.path().join("data"));
    let wants = [want("main", &[])];
    for written in 1..=3 {
        let name = format!("layer {written}");
        let id = publish(&other, place("p", "main"), &[&name]).await;
        let import = cache.look_up(&wants, &ALL).await.unwrap().import().unwrap();
        assert_eq!((import.export, import.exports), (Some(id), written));
        let again = cache.look_up(&wants, &ALL).await.unwrap().import().unwrap();
        assert_eq!(again.layers, import.layers);
    }
    let catalog = SqliteCatalog::open(&dir.path().join("data")).await.unwrap();
    catalog.retire(&[ExportId(2)]).await.unwrap();
    let import = cache.look_up(&wants, &ALL).await.unwrap().import().unwrap();
    assert_eq!(import.exports, 2);
    assert!(!import.layers.contains_key(&Digest::of(b"layer 2")));
}

#[tokio::test]
async fn what_an_import_names_stays_referenced_as_long_as_it_is_held() {
    let (dir, cache) = cache();
    let id = publish(&cache, place("p", "main"), &["a"]).await;
    let import = cache
        .look_up(&[want("main", &[])], &ALL)
        .await
        .unwrap()
        .import();
    let catalog = SqliteCatalog::open(&dir.path().join("data")).await.unwrap();
    catalog.retire(&[id]).await.unwrap();
    let referenced = async || catalog.referenced().count().await;
    assert_eq!(referenced().await, 1);
    drop(import);
    let deadline = Instant::now() + Duration::from_secs(60);
    while referenced().await > 0 {
        assert!(Instant::now() < deadline, "the lease has not ended");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn any_scope_and_the_greatest_age_are_respected() {
    let (_dir, cache) = cache();
    let scoped = |scope: &str| Place {
        scope: scope.parse().unwrap(),
        ..place("p", "main")
    };
    publish(&cache, scoped("first"), &["a"]).await;
    let newest = publish(&cache, scoped("second"), &["b"]).await;
    let any = Want {
        place: scoped("*"),
        ..want("main", &[])
    };
    assert_eq!(
        found(&cache, std::slice::from_ref(&any)).await,
        Some(newest)
    );
    let later = Want {
        not_before: "2999-01-01T00:00:00Z".parse().ok(),
        ..any
    };
    assert_eq!(found(&cache, &[later]).await, None);
}

#[tokio::test]
async fn what_is_too_much_is_cut_and_counted() {
    let (_dir, cache) = cache();
    publish(&cache, place("p", "other"), &["a", "b", "c", "d"]).await;
    publish(&cache, place("p", "main"), &["x"]).await;
    let wants = [want("main", &[])];
    let all = cache.look_up(&wants, &ALL).await.unwrap().import().unwrap();
    assert_eq!((all.records, all.left_out.cut), (5, 0));
    let documents = |import: &Import| match &import.documents {
        Documents::Parts { manifest, config } => manifest.bytes.len().max(config.bytes.len()),
        Documents::Whole(config) => config.len(),
    };
    let max_bytes = documents(&all);
    for limits in [
        Limits {
            records: 1,
            form: Form::Whole,
        },
        Limits {
            records: u64::MAX,
            form: Form::Parts { max_bytes },
        },
    ] {
        let small = cache
            .look_up(&wants, &limits)
            .await
            .unwrap()
            .import()
            .unwrap();
        assert!(small.layers.contains_key(&Digest::of(b"x")), "own first");
        assert_eq!(small.records as u64 + small.left_out.cut, 5);
        if limits.form != Form::Whole {
            assert!(documents(&small) <= max_bytes);
        }
    }
}

#[tokio::test]
async fn an_export_for_which_there_is_no_room_keeps_no_other_out() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["a"]).await;
    let catalog = SqliteCatalog::open(&dir.path().join("data")).await.unwrap();
    let small = catalog.get(ExportId(1)).await.unwrap().unwrap();
    let large = crate::catalog::NewExport {
        place: place("p", "other"),
        time: small.head.time,
        builder: small.head.builder,
        records: 5_000_000,
        config: small.config,
        layers: small.layers,
        steps: Vec::new(),
        began: None,
    };
    catalog.append(large).await.unwrap();
    for exports in [1, 2] {
        let import = cache
            .look_up(&[want("main", &[])], &ALL)
            .await
            .unwrap()
            .import();
        let import = import.unwrap();
        assert!(import.layers.contains_key(&Digest::of(b"a")));
        assert_eq!(import.exports, exports);
        assert_eq!(import.left_out.cut, 5_000_000);
        publish(&cache, place("p", "third"), &["b"]).await;
    }
}
