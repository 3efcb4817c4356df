//! What is saved under a key is found again, whole, and by one who saved it.

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

#[tokio::test]
async fn of_two_savers_of_one_key_one_wins() {
    let lab = Lab::new();
    let (one, other) = (lab.hub(), lab.hub());
    let guard = one.open().await;
    let id = reserved(&guard, "main", &name("npm-1")).await;
    let late = other.open().await;
    let second = late
        .reserve(&project(), &git_ref("main"), &name("npm-1"))
        .await;
    assert_eq!(second.unwrap(), Reserved::Exists, "it is being uploaded");
    assert!(find(&one, "main", "npm-1").await.is_none());
    // Its blocks may come to any hub.
    one.put(id, Piece::Block("b"), b"world").await.unwrap();
    other.put(id, Piece::Block("a"), b"hello ").await.unwrap();
    let list = ["a".to_owned(), "b".to_owned()];
    other.entries.put_list(id, &list).await.unwrap();
    let saved = finalized(&late, id, 11).await.unwrap();
    let Became::Entry(export) = saved.became else {
        panic!("{saved:?}")
    };
    let Some(Found::Entry(found)) = find(&one, "main", "npm-").await else {
        panic!("it is found by how it begins")
    };
    assert_eq!((found.id, found.size), (export, 11));
    assert_eq!(
        (found.name, found.git_ref),
        (name("npm-1"), git_ref("main"))
    );
    let found = find(&other, "main", "npm-1").await.unwrap();
    assert_eq!(other.read(&found).await, b"hello world");
    let third = late
        .reserve(&project(), &git_ref("main"), &name("npm-1"))
        .await;
    assert_eq!(third.unwrap(), Reserved::Exists, "it is there");
    assert!(find(&one, "dev", "npm-1").await.is_none());
}

#[tokio::test]
async fn finalizing_twice_is_finalizing_once() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    hub.put(id, Piece::Whole, b"content").await.unwrap();
    let by_name = Which::Named(name("k"));
    let project = project();
    let all = join_all((0..4).map(|_| guard.finalize(&project, &by_name, Some(7)))).await;
    let first = all[0].as_ref().unwrap().clone();
    for finalized in all {
        assert_eq!(finalized.unwrap(), first);
    }
    assert_eq!(finalized(&guard, id, 7).await.unwrap(), first);
    assert_eq!(lab.listed().await.len(), 1);
    let late = hub.put(id, Piece::Whole, b"content").await;
    assert!(matches!(late, Err(EntryError::Closed)), "{late:?}");
}

#[tokio::test]
async fn a_crash_before_finalizing_leaves_nothing_visible() {
    let lab = Lab::new();
    let hub = lab.hub();
    let id = reserved(&hub.open().await, "main", &name("k")).await;
    hub.put(id, Piece::At(0), b"first ").await.unwrap();
    hub.put(id, Piece::At(6), b"second").await.unwrap();
    drop(hub);
    let hub = lab.hub();
    assert!(find(&hub, "main", "k").await.is_none());
    assert!(lab.listed().await.is_empty());
    // Nobody has to begin anew.
    finalized(&hub.open().await, id, 12).await.unwrap();
    let found = find(&hub, "main", "k").await.unwrap();
    assert_eq!(hub.read(&found).await, b"first second");
}

#[tokio::test]
async fn chunks_that_overlap_or_leave_a_gap_are_refused() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    for (at, chunks) in [
        &[(0, "first"), (6, "x")][..],
        &[(0, "first"), (4, "x")],
        &[(1, "first")],
    ]
    .into_iter()
    .enumerate()
    {
        let id = reserved(&guard, "main", &name(&format!("k{at}"))).await;
        let size = chunks.iter().map(|(_, content)| content.len()).sum();
        for (start, content) in chunks {
            hub.put(id, Piece::At(*start), content.as_bytes())
                .await
                .unwrap();
        }
        let refused = finalized(&guard, id, size).await;
        assert!(
            matches!(refused, Err(EntryError::Invalid(_))),
            "{refused:?}"
        );
    }
    let id = reserved(&guard, "main", &name("short")).await;
    hub.put(id, Piece::At(0), b"first").await.unwrap();
    let refused = finalized(&guard, id, 6).await;
    let wrong = matches!(
        refused,
        Err(EntryError::WrongSize {
            expected: 6,
            actual: 5
        })
    );
    assert!(wrong, "{refused:?}");
    // A chunk that is sent again replaces itself.
    hub.put(id, Piece::At(0), b"second").await.unwrap();
    finalized(&guard, id, 6).await.unwrap();
    assert_eq!(lab.listed().await.len(), 1);
}

#[tokio::test]
async fn a_list_of_unknown_blocks_is_refused_and_one_is_needed() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    hub.put(id, Piece::Block("a"), b"a").await.unwrap();
    hub.put(id, Piece::Block("b"), b"b").await.unwrap();
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let unknown = hub.entries.put_list(id, &list(&["a", "c"])).await;
    assert!(matches!(unknown, Err(EntryError::UnknownBlock(name)) if name == "c"));
    let twice = hub.entries.put_list(id, &list(&["a", "a"])).await;
    assert!(matches!(twice, Err(EntryError::Invalid(_))));
    let unlisted = finalized(&guard, id, 2).await;
    assert!(matches!(unlisted, Err(EntryError::Invalid(_))));
    for name in ["", "a\nb", &"x".repeat(MAX_BLOCK_NAME + 1)] {
        let refused = hub.put(id, Piece::Block(name), b"x").await;
        assert!(matches!(refused, Err(EntryError::Invalid(_))));
    }
    // What the list leaves out is no part of it.
    hub.entries.put_list(id, &list(&["b"])).await.unwrap();
    finalized(&guard, id, 1).await.unwrap();
    let found = find(&hub, "main", "k").await.unwrap();
    assert_eq!(hub.read(&found).await, b"b");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_of_another_length_is_not_stored() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("k")).await;
    let broken = stream::iter([
        Ok(Bytes::from_static(b"some")),
        Err(io::Error::other("the client went away")),
    ]);
    let put = hub.entries.put(id, Piece::Whole, None, broken).await;
    assert!(matches!(put, Err(EntryError::Body(_))), "{put:?}");
    for (length, content) in [(5, &b"four"[..]), (3, b"four")] {
        let put = hub
            .entries
            .put(id, Piece::Whole, Some(length), body(content));
        let put = put.await;
        assert!(matches!(put, Err(EntryError::WrongSize { .. })), "{put:?}");
    }
    let put = hub
        .entries
        .put(id, Piece::Whole, Some(MAX_ENTRY + 1), body(b""));
    assert!(matches!(put.await, Err(EntryError::TooLarge)));
    assert!(lab.stored().is_empty());
    let refused = finalized(&guard, id, 4).await;
    assert!(
        matches!(refused, Err(EntryError::Invalid(_))),
        "{refused:?}"
    );
    // Without a length, as chunks come.
    let put = hub.entries.put(id, Piece::Whole, None, body(b"four"));
    put.await.unwrap();
    finalized(&guard, id, 4).await.unwrap();
    let unknown = hub.put(UploadId(1), Piece::Whole, b"x").await;
    assert!(matches!(unknown, Err(EntryError::NoUpload)));
}

#[tokio::test]
async fn blocks_in_random_order_are_read_back_by_ranges() {
    const BLOCK: usize = 96 << 10;
    const BLOCKS: usize = 48;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    // Most of it is empty, as in many an archive: the same block many times.
    let mut content = vec![0u8; BLOCK * BLOCKS - 1234];
    for at in (0..content.len()).step_by(BLOCK * 5) {
        random.fill(&mut content[at..at + 777]);
    }
    let id = reserved(&guard, "main", &name("large")).await;
    let blocks: Vec<(usize, &[u8])> = content.chunks(BLOCK).enumerate().collect();
    let mut turned = blocks.clone();
    turned.shuffle(&mut random);
    let put = turned.chunks(8).map(|some| {
        let put = some.iter().map(|(at, block)| {
            let name = format!("block {at}");
            let hub = &hub;
            async move { hub.put(id, Piece::Block(&name), block).await.unwrap() }
        });
        join_all(put)
    });
    for some in put {
        some.await;
    }
    let list: Vec<String> = blocks.iter().map(|(at, _)| format!("block {at}")).collect();
    hub.entries.put_list(id, &list).await.unwrap();
    let Became::Entry(export) = finalized(&guard, id, content.len()).await.unwrap().became else {
        panic!("it is an entry")
    };
    let reader = hub.entries.open(export).await.unwrap().unwrap();
    assert_eq!(reader.size(), content.len() as u64);
    assert!(read(&reader, 0, u64::MAX).await == content);
    for _ in 0..100 {
        let from = random.random_range(0..content.len() + 10);
        let length = match random.random_bool(0.5) {
            true => random.random_range(0..100),
            false => random.random_range(0..BLOCK * 4),
        };
        let end = content.len().min(from + length);
        let expected = content.get(from..end).unwrap_or_default();
        let found = read(&reader, from as u64, length as u64).await;
        assert!(found == expected, "{length} from {from}");
    }
    assert!(reader.locate().await.unwrap().is_none());
}

#[tokio::test]
async fn an_entry_may_be_empty() {
    let lab = Lab::new();
    let hub = lab.hub();
    let guard = hub.open().await;
    let id = reserved(&guard, "main", &name("empty")).await;
    finalized(&guard, id, 0).await.unwrap();
    let found = find(&hub, "main", "empty").await.unwrap();
    assert_eq!(hub.read(&found).await, b"");
    let id = reserved(&guard, "main", &name("blank")).await;
    hub.put(id, Piece::Whole, b"").await.unwrap();
    finalized(&guard, id, 0).await.unwrap();
    let found = find(&hub, "main", "blank").await.unwrap();
    assert_eq!(hub.read(&found).await, b"");
}

#[tokio::test]
async fn nobody_finds_or_writes_what_is_not_theirs() {
    let lab = Lab::new();
    let hub = lab.hub();
    save(&hub, "main", "k", b"base").await;
    save(&hub, "other", "k", b"secret").await;
    let pull = ["refs/pull/7/merge", "main"];
    let guard = hub.to(&lab, &pull, &pull[..1]).await;
    let found = find_as(&guard, &["refs/pull/7/merge", "other", "main"], &name("k")).await;
    assert_eq!(hub.read(&found.unwrap()).await, b"base");
    assert!(find_as(&guard, &["other"], &name("k")).await.is_none());
    let denied = guard
        .reserve(&project(), &git_ref("main"), &name("k2"))
        .await;
    assert!(matches!(denied, Err(CacheError::Denied(_))), "{denied:?}");
    let elsewhere = "q".parse().unwrap();
    let denied = guard
        .reserve(&elsewhere, &git_ref("main"), &name("k2"))
        .await;
    assert!(matches!(denied, Err(CacheError::Denied(_))), "{denied:?}");
    // Another's upload is none of theirs, by its number or by its name.
    let id = reserved(&hub.open().await, "main", &name("k2")).await;
    hub.put(id, Piece::Whole, b"x").await.unwrap();
    assert!(finalized(&guard, id, 1).await.is_err());
    let unknown = guard.upload(&project(), id).await;
    assert!(matches!(unknown, Err(EntryError::NoUpload)), "{unknown:?}");
    let named = Which::Named(name("k2"));
    let unknown = guard.finalize(&project(), &named, Some(1)).await;
    assert!(matches!(unknown, Err(EntryError::NoUpload)), "{unknown:?}");
    let open = hub.open().await;
    open.upload(&project(), id).await.unwrap();
    let unknown = open.upload(&elsewhere, id).await;
    assert!(matches!(unknown, Err(EntryError::NoUpload)), "{unknown:?}");
    let unknown = open.finalize(&elsewhere, &Which::Upload(id), Some(1)).await;
    assert!(matches!(unknown, Err(EntryError::NoUpload)), "{unknown:?}");
}

#[tokio::test]
async fn of_32_savers_of_8_keys_one_of_each_wins() {
    let lab = Lab::new();
    let hubs = [lab.hub(), lab.hub()];
    let savers = (0..32).map(|saver| {
        let hub = &hubs[saver % 2];
        async move {
            let (guard, key) = (hub.open().await, format!("key {}", saver % 8));
            let content = format!("content of {saver}");
            let reserved = guard
                .reserve(&project(), &git_ref("main"), &name(&key))
                .await;
            let Reserved::Upload(id) = reserved.unwrap() else {
                return None;
            };
            let (begin, end) = content.as_bytes().split_at(5);
            hub.put(id, Piece::At(5), end).await.unwrap();
            hub.put(id, Piece::At(0), begin).await.unwrap();
            finalized(&guard, id, content.len()).await.unwrap();
            Some((key, content))
        }
    });
    let saved = join_all(savers).await.into_iter().flatten();
    let saved: Vec<(String, String)> = saved.collect();
    assert_eq!(saved.len(), 8, "{saved:?}");
    for (key, content) in saved {
        let found = find(&hubs[0], "main", &key).await.unwrap();
        assert_eq!(hubs[0].read(&found).await, content.as_bytes());
    }
}

#[tokio::test]
async fn every_hub_signs_with_the_same_secret() {
    let lab = Lab::new();
    let (one, other) = (lab.hub(), lab.hub());
    let secret = one.entries.secret().await.unwrap();
    assert_eq!(other.entries.secret().await.unwrap(), secret);
    assert_ne!(Lab::new().hub().entries.secret().await.unwrap(), secret);
}
