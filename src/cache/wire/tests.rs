use proptest::prelude::*;

use super::*;
use crate::cache::{CacheError, Document, Documents, Flushed, Import, Lease};
use crate::catalog::ExportId;

fn import(documents: Documents, layers: usize) -> Import {
    let layer = |n: usize| (Digest::of(&n.to_le_bytes()), n as u64);
    Import {
        place: Place::default(),
        exports: 3,
        builders: 2,
        export: ExportId(7),
        exported_at: "2026-11-22T05:23:18.123456789Z".parse().unwrap(),
        builder: "host".to_owned(),
        records: 11,
        left_out: Default::default(),
        refused: 1,
        withdrawn: vec![Digest::of(b"gone")],
        documents,
        layers: std::sync::Arc::new((0..layers).map(layer).collect()),
        lease: Lease::default(),
    }
}

fn through(sent: Option<&Import>) -> Option<(Import, Option<i64>)> {
    let mut reader = ImportReader::default();
    for part in import_parts(sent, 5) {
        reader.take(part).unwrap();
    }
    reader.finish(Place::default()).unwrap()
}

#[test]
fn an_import_is_the_same_on_the_other_side() {
    let whole = Documents::Whole(vec![b'x'; 3 * PIECE + 1].into());
    let document = |byte| Document::new(vec![byte; PIECE].into());
    let parts = Documents::Parts {
        manifest: document(b'm'),
        config: document(b'c'),
    };
    for documents in [whole, parts] {
        let sent = import(documents, 10_000);
        let (came, lease) = through(Some(&sent)).unwrap();
        assert_eq!(lease, Some(5));
        assert_eq!(came.documents.root(), sent.documents.root());
        assert_eq!(came.layers, sent.layers);
        assert_eq!(came.withdrawn, sent.withdrawn);
        assert_eq!(came.exported_at, sent.exported_at);
    }
    assert!(through(None).is_none());
}

#[test]
fn who_has_flushed_is_told_on_the_other_side() {
    let flushed = Flushed {
        at: "2026-11-22T05:23:18.123456Z".parse().unwrap(),
        by: "alice".to_owned(),
    };
    for sent in [None, Some(flushed)] {
        let mut reader = ImportReader::default();
        for part in nothing(sent.as_ref()) {
            reader.take(part).unwrap();
        }
        assert_eq!(reader.flushed().unwrap(), sent);
        assert!(reader.finish(Place::default()).unwrap().is_none());
    }
}

#[test]
fn an_import_that_breaks_off_is_none() {
    let sent = import(Documents::Whole(vec![b'x'; 2 * PIECE].into()), 1);
    let mut parts = import_parts(Some(&sent), 0);
    parts.pop();
    let mut reader = ImportReader::default();
    for part in parts {
        reader.take(part).unwrap();
    }
    reader.finish(Place::default()).unwrap_err();
}

#[test]
fn what_is_missing_is_named_on_the_other_side() {
    let missing = vec![Digest::of(b"a"), Digest::of(b"b")];
    let status = status_of(&CacheError::Missing(missing.clone()));
    let Err(CacheError::Missing(named)) = Err::<(), _>(error_of(&status, None)) else {
        panic!("{status:?}");
    };
    assert_eq!(named, missing);
}

proptest! {
    #[test]
    fn a_want_is_the_same_on_the_other_side(narrowed: bool, old in any::<Option<i32>>(), which in 0..4) {
        let compression = [None, Some(Compression::Gzip), Some(Compression::Zstd), Some(Compression::Uncompressed)];
        let want = Want {
            place: Place::default(),
            fallbacks: vec!["dev".parse().unwrap()],
            narrowed,
            not_before: old.map(|old| Timestamp::from_second(old.into()).unwrap()),
            compression: compression[which as usize],
            readable: None,
        };
        prop_assert_eq!(Want::try_from(v1::Want::from(&want)).unwrap(), want);
    }

    #[test]
    fn a_day_is_the_same_on_the_other_side(days in -100_000..100_000_i32) {
        let report = v1::ReportRequest { project: "p".to_owned(), git_ref: "main".to_owned(), day: days, ..Default::default() };
        let saving = Saving::try_from(report).unwrap();
        prop_assert_eq!(v1::ReportRequest::from(&saving).day, days);
    }

    #[test]
    fn digests_of_any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert_eq!(digests(&bytes).is_ok(), bytes.len() % 32 == 0);
    }
}
