use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::cache::{
    Document, Documents, Flushed, Import, Lease, MAX_DOCUMENTS, MAX_STEPS, Publication, Published,
};
use crate::catalog::ExportId;
use crate::moment::Moment;

fn import(documents: Documents, layers: usize) -> Import {
    let layer = |n: usize| (Digest::of(&n.to_le_bytes()), n as u64);
    Import {
        place: Place::default(),
        exports: 3,
        builders: 2,
        export: Some(ExportId(7)),
        exported_at: "2026-11-22T05:23:18.123456789Z".parse().unwrap(),
        builder: "host".to_owned(),
        records: 11,
        left_out: Default::default(),
        refused: 1,
        withdrawn: (0..10_000_u32)
            .map(|n| Digest::of(&n.to_le_bytes()))
            .collect(),
        flushed: Some(Flushed {
            at: "2026-11-22T04:00:00Z".parse().unwrap(),
            by: "alice".to_owned(),
        }),
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
        assert_eq!(came.export, sent.export);
        assert_eq!(came.flushed, sent.flushed);
    }
    let untold = Import {
        export: None,
        flushed: None,
        ..import(Documents::Whole(Default::default()), 0)
    };
    let (came, _) = through(Some(&untold)).unwrap();
    assert_eq!((came.export, came.flushed), (None, None));
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

fn step(n: usize) -> Step {
    Step {
        record: format!("sha256:{n}").parse().unwrap(),
        created_at: Timestamp::from_second(n as i64).unwrap(),
        name: StepName::of(&"RUN make ".repeat(40)),
        duration: Duration::from_millis(n as u64),
        origin: Some(Origin {
            builder: "runner".to_owned(),
            daemon: None,
        }),
    }
}

fn publication(steps: usize) -> Publication {
    Publication {
        place: Place::default(),
        builder: "host".to_owned(),
        manifest: Document::new(vec![b'm'; 5 * PIECE + 7].into()),
        config: Document::new(vec![b'c'; 6 << 20].into()),
        uploaded: Default::default(),
        steps: (0..steps).map(step).collect(),
        readable: None,
        began: Some(Moment::ago(Duration::from_secs(3))),
    }
}

fn put_together(parts: Vec<v1::PublishRequest>) -> Result<Publication, Malformed> {
    let mut parts = parts.into_iter();
    let mut reader = PublicationReader::begin(parts.next())?;
    parts.try_for_each(|part| reader.take(part))?;
    reader.finish()
}

#[test]
fn an_export_is_the_same_on_the_other_side_and_no_message_is_too_large() {
    let sent = publication(MAX_STEPS + 5);
    let parts = publication_parts(&sent);
    assert!(parts.iter().all(|part| part.encoded_len() <= MAX_MESSAGE));
    let came = put_together(parts).unwrap();
    assert_eq!(came.manifest.digest, sent.manifest.digest);
    assert_eq!(came.config.digest, sent.config.digest);
    assert_eq!(came.steps, sent.steps[..MAX_STEPS]);
    assert_eq!((came.place, came.builder), (sent.place, sent.builder));
}

#[test]
fn an_export_that_is_not_what_it_announces_is_none() {
    use v1::publish_request::{Export, Part};
    type Change = fn(&mut Export);
    let changes: [Change; 9] = [
        |head| head.manifest_bytes += 1,
        |head| head.manifest_bytes -= 1,
        |head| head.config_bytes += 1,
        |head| head.config_bytes -= 1,
        |head| head.config_bytes = MAX_DOCUMENTS,
        |head| head.manifest_bytes = u64::MAX,
        |head| head.steps += 1,
        |head| head.steps -= 1,
        |head| head.steps = MAX_STEPS as u64 + 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut parts = publication_parts(&publication(3000));
        let Some(Part::Export(head)) = &mut parts[0].part else {
            panic!("it begins with what it is");
        };
        change(head);
        assert!(put_together(parts).is_err(), "{at}");
    }
    let good = publication_parts(&publication(3000));
    put_together(good.clone()).unwrap();
    for cut in 0..good.len() {
        assert!(put_together(good[..cut].to_vec()).is_err(), "{cut}");
    }
    let twice = good.iter().chain(&good).cloned().collect();
    assert!(put_together(twice).is_err());
}

#[test]
fn what_became_of_an_export_is_told_in_pieces() {
    let published = Published {
        id: Some(ExportId(7)),
        queued: false,
        records: 1,
        layers: 2,
        bytes: 3,
        steps: (0..MAX_STEPS).map(step).collect(),
    };
    let parts = published_parts(&published);
    assert!(parts.iter().all(|part| part.encoded_len() <= MAX_MESSAGE));
    let mut reader = PublishedReader::default();
    for part in parts {
        reader.take(part).unwrap();
    }
    let came = reader.finish().unwrap();
    assert_eq!((came.id, came.records, came.layers), (published.id, 1, 2));
    assert_eq!(came.steps, published.steps);

    let missing: Vec<Digest> = (0..10_000_u32)
        .map(|n| Digest::of(&n.to_le_bytes()))
        .collect();
    let mut reader = PublishedReader::default();
    for part in missing_parts(&missing) {
        reader.take(part).unwrap();
    }
    assert_eq!(reader.missing(), missing);
    assert!(PublishedReader::default().finish().is_err());
}

#[test]
fn a_report_beyond_all_builds_is_refused_and_one_of_a_build_is_not() {
    let one = v1::ReportRequest {
        project: "p".to_owned(),
        git_ref: "main".to_owned(),
        day: 20_778,
        builds: 1,
        steps: 16,
        cached: 14,
        saved_ms: 212_345,
        estimated_ms: 45,
    };
    assert!(Saving::try_from(one.clone()).is_ok());
    type Change = fn(&mut v1::ReportRequest, u64);
    let changes: [Change; 5] = [
        |report, most| report.builds = most,
        |report, most| (report.steps, report.cached) = (most, 14),
        |report, most| report.cached = most,
        |report, most| report.saved_ms = most,
        |report, most| report.estimated_ms = most,
    ];
    for most in [i64::MAX as u64, u64::MAX] {
        for change in changes {
            let mut report = one.clone();
            change(&mut report, most);
            Saving::try_from(report).unwrap_err();
        }
    }
}

#[test]
fn a_step_is_not_longer_than_any_that_ran() {
    let mut step = v1::Step::from(&step(1));
    step.duration_ms = u64::MAX;
    assert_eq!(Step::try_from(step).unwrap().duration, MAX_RUN[0]);
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
    fn a_report_is_of_no_more_than_a_build_can_have(
        builds in 0..2 * MAX_BUILDS, steps in 0..2 * MAX_BUILT, cached: u16, saved_ms: u64, estimated_ms: u64,
    ) {
        let report = v1::ReportRequest {
            project: "p".to_owned(),
            git_ref: "main".to_owned(),
            builds,
            steps,
            cached: cached.into(),
            saved_ms: saved_ms >> (steps % 64),
            estimated_ms: estimated_ms >> (steps % 64),
            day: 20_000,
        };
        if let Ok(saving) = Saving::try_from(report) {
            prop_assert!(saving.builds <= MAX_BUILDS && saving.steps <= MAX_BUILT);
            prop_assert!(saving.cached <= saving.steps && saving.estimated_ms <= saving.saved_ms);
            prop_assert!(saving.saved_ms <= builds * 366 * 24 * 3_600_000);
        }
    }

    #[test]
    fn digests_of_any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert_eq!(digests(&bytes).is_ok(), bytes.len() % 32 == 0);
    }
}
