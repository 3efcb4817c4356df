//! What every [`Catalog`] promises, as functions that each implementation runs
//! on an empty catalog of its own.

mod collecting;
mod entries;
mod holding;
mod leases;
mod ledger;
mod log;
mod model;
mod savings;
mod steps;
mod tasks;
mod uploads;
mod usage;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt as _;

pub(super) use self::{
    collecting::*, entries::*, holding::*, leases::*, ledger::*, log::*, model::*, savings::*,
    steps::*, tasks::*, uploads::*, usage::*,
};
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
            a_list_is_filtered_and_paged_newest_first,
            a_project_holds_only_what_its_own_exports_name,
            steps_are_kept_by_record_and_date_and_for_their_project_alone,
            savings_add_up_by_project_ref_and_day,
            sums_of_savings_stay_the_largest_there_is,
            a_day_has_so_many_refs_and_the_others_count_together,
            savings_of_long_ago_go_with_the_usage_of_then,
            all_referenced_blobs_come_once_by_digest,
            concurrent_appends_are_all_kept_in_order,
            an_absent_export_is_none,
            an_empty_catalog_has_nothing,
            what_has_left_the_log_is_gone_for_readers_and_kept_for_leases,
            a_lease_ends_by_itself_unless_it_is_renewed,
            an_export_that_nobody_reads_goes_at_once,
            what_was_subsumed_is_known_as_long_as_its_heir_is_in_the_log,
            a_reader_that_polls_misses_no_export,
            ten_thousand_layers_and_a_large_config_are_read_back,
            who_uploaded_a_blob_may_name_it_for_a_while_and_nobody_else_may,
            possession_is_extended_and_never_shortened,
            a_blob_is_seen_by_the_refs_that_hold_it_alone,
            many_blobs_are_seen_by_many_refs_at_once,
            steps_are_told_of_the_refs_that_are_asked_for_alone,
            names_of_leases_are_positive_and_not_in_order,
            a_task_has_one_owner_until_it_lets_go,
            what_was_done_is_kept_and_listed_newest_first,
            only_what_is_old_is_trimmed_from_the_audit_log,
            a_flush_takes_its_place_out_of_the_log_and_no_other,
            a_flush_is_told_until_its_place_is_exported_to,
            what_began_before_a_flush_of_its_place_is_refused,
            a_flush_leaves_nothing_of_what_is_appended_meanwhile,
            what_is_revoked_stays_so_and_is_told_once,
            what_is_settled_for_a_project_replaces_what_was,
            projects_and_refs_are_listed_by_name_in_pages,
            what_is_named_is_never_condemned,
            what_loses_its_last_name_becomes_a_candidate,
            a_pin_tells_what_is_condemned_and_keeps_all_else,
            of_a_pin_and_a_judge_at_once_one_sees_the_other,
            what_is_condemned_is_so_once_and_for_a_while,
            what_is_nominated_is_due_later_and_what_is_named_is_not_nominated,
            exports_are_kept_with_their_blobs_oldest_first,
            a_use_is_noted_of_the_newest_export_of_each_place_and_once_an_hour,
            a_blob_that_very_many_name_is_noted_of_the_newest,
            however_much_has_ended_it_goes_in_one_call,
            sizes_of_projects_count_each_blob_once,
            what_only_a_lease_keeps_is_told_apart_and_is_no_projects_any_more,
            a_catalog_is_bound_to_one_store_unless_that_is_done_anew,
            usage_is_kept_by_day_and_listed_in_pages,
            an_entry_is_an_export_of_its_own_kind,
            a_name_is_reserved_once_and_saved_once,
            of_many_who_reserve_a_name_at_once_one_gets_it,
            blocks_come_in_any_order_and_a_list_orders_them,
            uploads_are_found_by_their_name,
            what_is_unfinished_is_told_by_ref,
            an_entry_that_was_reserved_before_a_flush_is_refused,
            a_secret_is_made_once,
            a_use_of_an_entry_is_noted_of_it_alone,
            look_ups_agree_with_a_list_in_memory,
            whatever_happens_agrees_with_a_simple_model,
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
        began: None,
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

async fn referenced(catalog: &dyn Catalog) -> BTreeSet<Digest> {
    let blobs = catalog.referenced().map_ok(|(digest, _)| digest);
    blobs.try_collect().await.unwrap()
}

/// Owns the task as soon as whoever had it is gone.
pub(super) async fn owned(catalog: &dyn Catalog, task: &str) -> Ownership {
    let own = async {
        loop {
            if let Some(owned) = catalog.try_own(task).await.unwrap() {
                return owned;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), own)
        .await
        .expect("the task is free")
}
