//! Uploads: their blocks, how much there is of them, and how they end.

use super::entries::{block, name, reserved, upload};
use super::*;
use crate::catalog::entries::{
    AppendedEntry, Became, Block, MAX_ENTRY, Put, Unfinished, Upload, UploadId,
};
use crate::catalog::ledger::Origin as Whence;
use crate::catalog::ledger::{Actor, NewFlush};

async fn names(catalog: &dyn Catalog, id: UploadId) -> Vec<String> {
    let blocks = catalog.blocks(id).await.unwrap();
    blocks.into_iter().map(|block| block.name).collect()
}

pub(in crate::catalog) async fn blocks_come_in_any_order_and_a_list_orders_them(
    catalog: &dyn Catalog,
) {
    let new = upload("p", "main", "k", true);
    let id = reserved(catalog, &new).await;
    let put = async |block: &Block, alone| catalog.put_block(id, block, alone).await.unwrap();
    for (name, content) in [("c", "ccc"), ("a", "a"), ("b", "bb"), ("a", "aaaa")] {
        assert_eq!(put(&block(name, content), false).await, Put::Done);
    }
    let counted = |upload: Upload| (upload.blocks, upload.bytes);
    let row = async || counted(catalog.upload(id).await.unwrap().unwrap());
    assert_eq!(row().await, (3, 9));
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let unknown = catalog.order_blocks(id, &list(&["c", "x", "a"])).await;
    assert_eq!(unknown.unwrap().as_deref(), Some("x"));
    assert_eq!(names(catalog, id).await, ["a", "b", "c"]);
    let known = catalog.order_blocks(id, &list(&["c", "a"])).await;
    assert_eq!(known.unwrap(), None);
    assert_eq!(names(catalog, id).await, ["c", "a"]);
    assert_eq!(row().await, (2, 7));
    // The same again keeps its place; something else does not.
    put(&block("c", "ccc"), false).await;
    let blocks = catalog.blocks(id).await.unwrap();
    assert!(blocks.iter().all(|block| block.position.is_some()));
    put(&block("c", "other"), false).await;
    let blocks = catalog.blocks(id).await.unwrap();
    assert_eq!(
        blocks
            .iter()
            .filter(|block| block.position.is_none())
            .count(),
        1
    );
    // Chunks are in the order of where they begin.
    let chunk = |start: u64, content| Block {
        start: Some(start),
        ..block(&format!("{start:020}"), content)
    };
    let chunks = reserved(catalog, &upload("p", "main", "chunks", true)).await;
    for start in [20, 0, 100] {
        let put = catalog.put_block(chunks, &chunk(start, "x"), false).await;
        assert_eq!(put.unwrap(), Put::Done);
    }
    let starts = catalog.blocks(chunks).await.unwrap();
    let starts: Vec<_> = starts.iter().map(|block| block.start).collect();
    assert_eq!(starts, [Some(0), Some(20), Some(100)]);
    // One that is alone replaces all.
    let whole = Block {
        position: Some(0),
        ..block("whole", "all")
    };
    assert_eq!(put(&whole, true).await, Put::Done);
    assert_eq!(catalog.blocks(id).await.unwrap(), [whole]);
    assert_eq!(row().await, (1, 3));
    let large = Block {
        size: MAX_ENTRY,
        ..block("large", "x")
    };
    assert_eq!(put(&large, false).await, Put::TooLarge);
    assert_eq!(put(&large, true).await, Put::Done);
    // What has become something takes no more.
    catalog.close_upload(id, Became::Blob, 3).await.unwrap();
    assert_eq!(put(&block("d", "d"), false).await, Put::Closed);
    assert_eq!(catalog.blocks(id).await.unwrap(), []);
    let closed = catalog.upload(id).await.unwrap().unwrap();
    assert_eq!(closed.became, Some((Became::Blob, 3)));
    let none = catalog.order_blocks(id, &list(&["c"])).await.unwrap();
    assert_eq!(none.as_deref(), Some("c"));
    assert_eq!(
        catalog
            .put_block(UploadId(1), &block("d", "d"), false)
            .await
            .unwrap(),
        Put::Closed
    );
}

pub(in crate::catalog) async fn uploads_are_found_by_their_name(catalog: &dyn Catalog) {
    let first = reserved(catalog, &upload("p", "main", "k", false)).await;
    let second = reserved(catalog, &upload("p", "dev", "k", false)).await;
    reserved(catalog, &upload("q", "main", "k", false)).await;
    reserved(catalog, &upload("p", "main", "kk", false)).await;
    let put = catalog.put_block(first, &block("a", "a"), false).await;
    assert_eq!(put.unwrap(), Put::Done);
    let found = catalog
        .uploads(&"p".parse().unwrap(), &name("k", "v1"))
        .await
        .unwrap();
    let found: Vec<_> = found.iter().map(|upload| upload.id).collect();
    assert_eq!(found, [first, second], "the last touched comes first");
}

pub(in crate::catalog) async fn what_is_unfinished_is_told_by_ref(catalog: &dyn Catalog) {
    assert_eq!(catalog.unfinished().await.unwrap(), []);
    let mut ids = Vec::new();
    for (project, git_ref, key) in [("p", "main", "a"), ("p", "main", "b"), ("q", "dev", "a")] {
        let id = reserved(catalog, &upload(project, git_ref, key, true)).await;
        for (name, content) in [("one", "1"), ("two", "22")] {
            let put = catalog.put_block(id, &block(name, content), false).await;
            assert_eq!(put.unwrap(), Put::Done);
        }
        ids.push(id);
    }
    let of = |project: &str, git_ref: &str, bytes| Unfinished {
        project: project.parse().unwrap(),
        git_ref: git_ref.parse().unwrap(),
        bytes,
        alive: bytes,
    };
    let told = async || {
        let mut told = catalog.unfinished().await.unwrap();
        told.sort_by(|a, b| a.project.cmp(&b.project));
        told
    };
    assert_eq!(told().await, [of("p", "main", 6), of("q", "dev", 3)]);
    // What a block takes the place of, and what one that is alone does.
    let one = (Digest::of(b"1"), 1);
    let replaced = async |name: &str, alone| {
        let mut replaced = catalog.replaced(ids[0], name, alone).await.unwrap();
        replaced.sort_by_key(|(_, size)| *size);
        replaced
    };
    assert_eq!(replaced("one", false).await, [one]);
    assert_eq!(replaced("three", false).await, []);
    assert_eq!(replaced("three", true).await, [one, (Digest::of(b"22"), 2)]);
    assert!(catalog.touch_upload(ids[0]).await.unwrap());
    let closed = catalog.close_upload(ids[0], Became::Flushed, 3).await;
    closed.unwrap();
    let closed = catalog.upload(ids[0]).await.unwrap().unwrap();
    assert_eq!(closed.became, Some((Became::Flushed, 3)));
    assert!(!catalog.touch_upload(ids[0]).await.unwrap());
    assert!(!catalog.touch_upload(UploadId(1)).await.unwrap());
    catalog.drop_upload(ids[2]).await.unwrap();
    assert_eq!(told().await, [of("p", "main", 3)]);
}

pub(in crate::catalog) async fn an_entry_that_was_reserved_before_a_flush_is_refused(
    catalog: &dyn Catalog,
) {
    let new = upload("p", "main", "k", true);
    let (late, beside) = (
        reserved(catalog, &new).await,
        reserved(catalog, &upload("p", "dev", "k", true)).await,
    );
    let flush = NewFlush {
        project: "p".parse().unwrap(),
        git_ref: Some("main".parse().unwrap()),
        scope: None,
        origin: Whence::here(Actor::Anybody),
    };
    catalog.flush(&flush).await.unwrap();
    let append = async |id, git_ref: &str| {
        let began = catalog.upload(id).await.unwrap().unwrap().began;
        let export = NewExport {
            began: Some(began),
            ..export(place("p", git_ref), &["a"])
        };
        catalog.append_entry(id, export, 1).await
    };
    let refused = append(late, "main").await;
    assert!(
        matches!(refused, Err(CatalogError::Flushed { .. })),
        "{refused:?}"
    );
    let open = catalog.upload(late).await.unwrap().unwrap();
    assert_eq!(open.became, None);
    append(beside, "dev").await.unwrap();
    catalog.drop_upload(late).await.unwrap();
    let anew = reserved(catalog, &new).await;
    let appended = append(anew, "main").await.unwrap();
    assert!(matches!(appended, AppendedEntry::Done(_)), "{appended:?}");
}
