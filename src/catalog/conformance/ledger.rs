//! What is kept beside the log of exports.

use std::net::SocketAddr;

use super::*;
use crate::catalog::ledger::{
    Action, Actor, AuditEntry, AuditFilter, Details, NewAudit, NewFlush, NewRevocation, Origin,
    ProjectSettings, REMEMBERED, Revision,
};

pub(in crate::catalog) fn by_token(subject: &str) -> Origin {
    Origin {
        actor: Actor::Token {
            subject: subject.to_owned(),
            id: format!("id-of-{subject}"),
        },
        peer: Some(SocketAddr::from(([10, 0, 0, 7], 4711))),
        request: Some("r-1".to_owned()),
    }
}

fn flush(project: &str, git_ref: Option<&str>, scope: Option<&str>) -> NewFlush {
    NewFlush {
        project: project.parse().unwrap(),
        git_ref: git_ref.map(|git_ref| git_ref.parse().unwrap()),
        scope: scope.map(|scope| scope.parse().unwrap()),
        origin: by_token("alice"),
    }
}

async fn all(catalog: &dyn Catalog) -> Vec<AuditEntry> {
    catalog.audit(&AuditFilter::default()).await.unwrap()
}

pub(in crate::catalog) async fn what_was_done_is_kept_and_listed_newest_first(
    catalog: &dyn Catalog,
) {
    let mut noted = Vec::new();
    for (subject, action, project) in [
        ("ci", Action::Export, Some("p")),
        ("ci", Action::Export, Some("q")),
        ("alice", Action::Mint, None),
        ("ci", Action::Export, Some("p")),
    ] {
        let mut entry = NewAudit::new(&by_token(subject), action);
        entry.project = project.map(|project| project.parse().unwrap());
        entry.git_ref = project.map(|_| GitRef::default());
        entry.details = Details::default().with("bytes", 17).with("why", "ünïcode");
        noted.push((catalog.note(&entry).await.unwrap(), entry));
    }
    let here = NewAudit::new(
        &Origin::here(Actor::User {
            name: "root@host".to_owned(),
        }),
        Action::Flush,
    );
    noted.push((catalog.note(&here).await.unwrap(), here));

    let listed = all(catalog).await;
    let expected: Vec<_> = noted.iter().rev().cloned().collect();
    let seen: Vec<_> = listed
        .iter()
        .map(|entry| {
            let noted = NewAudit {
                origin: entry.origin.clone(),
                action: entry.action,
                project: entry.project.clone(),
                git_ref: entry.git_ref.clone(),
                scope: entry.scope.clone(),
                details: entry.details.clone(),
            };
            (entry.id, noted)
        })
        .collect();
    assert_eq!(seen, expected);
    let distance = listed[0].at.duration_since(Timestamp::now()).as_secs();
    assert!(distance.abs() < 60, "{listed:?}");

    let ids = async |filter: AuditFilter| {
        let listed = catalog.audit(&filter).await.unwrap();
        listed.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    let id = |at: usize| noted[at].0;
    let of_p = AuditFilter {
        project: "p".parse().ok(),
        ..AuditFilter::default()
    };
    assert_eq!(ids(of_p).await, [id(3), id(0)]);
    let exports = AuditFilter {
        action: Some(Action::Export),
        limit: Some(2),
        ..AuditFilter::default()
    };
    assert_eq!(ids(exports.clone()).await, [id(3), id(1)]);
    let next = AuditFilter {
        before: Some(id(1)),
        ..exports
    };
    assert_eq!(ids(next).await, [id(0)]);
    let at = listed[1].at;
    let since = AuditFilter {
        since: Some(at),
        ..AuditFilter::default()
    };
    let until = AuditFilter {
        until: Some(at),
        ..AuditFilter::default()
    };
    let (since, until) = (ids(since).await, ids(until).await);
    assert!(
        since.contains(&id(3)) && since.contains(&id(4)),
        "{since:?}"
    );
    assert!(
        !until.contains(&id(3)) && !until.contains(&id(4)),
        "{until:?}"
    );
    assert_eq!(since.len() + until.len(), noted.len());
}

pub(in crate::catalog) async fn only_what_is_old_is_trimmed_from_the_audit_log(
    catalog: &dyn Catalog,
) {
    let entry = NewAudit::new(&by_token("ci"), Action::Export);
    for _ in 0..3 {
        catalog.note(&entry).await.unwrap();
    }
    let first = all(catalog).await.last().unwrap().at;
    assert_eq!(catalog.trim_audit(first).await.unwrap(), 0);
    let later = Timestamp::now() + Duration::from_secs(60);
    assert_eq!(catalog.trim_audit(later).await.unwrap(), 3);
    assert_eq!(all(catalog).await, []);
}

pub(in crate::catalog) async fn a_flush_takes_its_place_out_of_the_log_and_no_other(
    catalog: &dyn Catalog,
) {
    let kept = append(catalog, "p", "dev", &["a"]).await;
    let gone = append(catalog, "p", "main", &["b"]).await;
    let mut other = export(place("p", "main"), &["c"]);
    other.place.scope = "other".parse().unwrap();
    let other = catalog.append(other).await.unwrap();
    let foreign = append(catalog, "q", "main", &["b"]).await;
    let left = async || {
        let heads = catalog.list(&Filter::default()).await.unwrap();
        heads.iter().map(|head| head.id).collect::<Vec<_>>()
    };
    let lease = catalog.take_lease(Duration::from_secs(3600)).await.unwrap();
    let narrow = flush("p", Some("main"), Some("buildkit"));
    assert_eq!(catalog.flush(&narrow).await.unwrap(), 1);
    assert_eq!(left().await, [foreign, other, kept]);
    assert!(catalog.get(gone).await.unwrap().is_none());
    assert_eq!(referenced(catalog).await.len(), 3, "kept for the lease");
    assert_eq!(catalog.flush(&flush("p", None, None)).await.unwrap(), 2);
    assert_eq!(left().await, [foreign]);
    catalog.end_lease(lease).await.unwrap();
    assert_eq!(referenced(catalog).await.len(), 1);
    assert_eq!(catalog.flush(&flush("none", None, None)).await.unwrap(), 0);

    let audited = all(catalog).await;
    let exports: Vec<_> = audited
        .iter()
        .map(|entry| (entry.action, entry.details.get("exports").unwrap().as_u64()))
        .collect();
    let flushed = |exports| (Action::Flush, Some(exports));
    assert_eq!(exports, [flushed(0), flushed(2), flushed(1)]);
    assert_eq!(audited[2].origin, by_token("alice"));
    assert_eq!(audited[2].git_ref, Some(GitRef::default()));
}

pub(in crate::catalog) async fn a_flush_is_told_until_its_place_is_exported_to(
    catalog: &dyn Catalog,
) {
    let told = async |git_ref: &str, scope: &str| {
        let mut place = place("p", git_ref);
        place.scope = scope.parse().unwrap();
        let notes = catalog.flushes(&place).await.unwrap();
        notes.iter().map(|note| note.exports).collect::<Vec<_>>()
    };
    assert!(told("main", "buildkit").await.is_empty());
    append(catalog, "p", "main", &["a"]).await;
    append(catalog, "p", "dev", &["a"]).await;
    append(catalog, "p", "dev", &["b"]).await;
    catalog.flush(&flush("q", None, None)).await.unwrap();
    catalog
        .flush(&flush("p", Some("main"), None))
        .await
        .unwrap();
    catalog.flush(&flush("p", None, None)).await.unwrap();
    for scope in ["buildkit", "*", "other"] {
        assert_eq!(told("main", scope).await, [2, 1], "newest first");
    }
    let notes = catalog.flushes(&place("p", "x")).await.unwrap();
    assert_eq!((notes[0].by.as_str(), &notes[0].git_ref), ("alice", &None));
    assert_eq!(notes[1].git_ref, Some(GitRef::default()));

    append(catalog, "p", "dev", &["c"]).await;
    assert_eq!(told("dev", "buildkit").await, [1], "main is as it was");
    assert_eq!(told("dev", "*").await, [1]);
    assert_eq!(told("dev", "other").await, [2, 1]);
    assert_eq!(told("main", "buildkit").await, [2, 1]);
    append(catalog, "p", "main", &["c"]).await;
    assert!(told("main", "buildkit").await.is_empty());
    assert!(told("dev", "buildkit").await.is_empty());
    catalog.flush(&flush("p", None, None)).await.unwrap();
    assert_eq!(told("main", "buildkit").await, [2], "anew");
}

/// An export of a build that began then.
fn began(git_ref: &str, began: Moment) -> NewExport {
    NewExport {
        began: Some(began),
        ..export(place("p", git_ref), &["a"])
    }
}

pub(in crate::catalog) async fn what_began_before_a_flush_of_its_place_is_refused(
    catalog: &dyn Catalog,
) {
    let before = Moment::now();
    let append = async |git_ref, moment| catalog.append(began(git_ref, moment)).await;
    catalog.flush(&flush("q", None, None)).await.unwrap();
    catalog.flush(&flush("p", Some("dev"), None)).await.unwrap();
    catalog
        .flush(&flush("p", Some("main"), Some("other")))
        .await
        .unwrap();
    append("main", before).await.unwrap();
    let refused = append("dev", before).await.unwrap_err();
    let CatalogError::Flushed { what, by, ago } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((&*what, &*by), ("refs/heads/dev of project p", "alice"));
    assert!(ago <= before.elapsed(), "{ago:?}");
    append("dev", Moment::now()).await.unwrap();
    let mut unknown = began("dev", before);
    unknown.began = None;
    catalog.append(unknown).await.unwrap();
    catalog.flush(&flush("p", None, None)).await.unwrap();
    let refused = append("main", before).await;
    assert!(matches!(refused, Err(CatalogError::Flushed { .. })));
    let heads = catalog.list(&Filter::default()).await.unwrap();
    assert_eq!(heads, []);
}

pub(in crate::catalog) async fn a_flush_leaves_nothing_of_what_is_appended_meanwhile(
    catalog: &dyn Catalog,
) {
    for _ in 0..5 {
        let before = Moment::now();
        let appends = (0..20).map(|_| catalog.append(began("main", before)));
        let whole = flush("p", None, None);
        let (appended, flushed) =
            futures::join!(futures::future::join_all(appends), catalog.flush(&whole));
        let (mut done, mut refused) = (0, 0);
        for appended in appended {
            match appended {
                Ok(_) => done += 1,
                Err(CatalogError::Flushed { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(done + refused, 20);
        assert_eq!(
            flushed.unwrap(),
            done,
            "all that was there, and no more came"
        );
        let heads = catalog.list(&Filter::default()).await.unwrap();
        assert_eq!(heads, []);
    }
}

pub(in crate::catalog) async fn what_is_revoked_stays_so_and_is_told_once(catalog: &dyn Catalog) {
    let revoke = |id: &str, expires| NewRevocation {
        id: id.to_owned(),
        expires,
        why: "it was in a log".to_owned(),
        origin: by_token("alice"),
    };
    let now = Timestamp::now();
    let hour = now + Duration::from_secs(3600);
    catalog.revoke(&revoke("one", Some(hour))).await.unwrap();
    catalog.revoke(&revoke("two", None)).await.unwrap();
    let told = async |after| catalog.revocations(after).await.unwrap();
    let first = told(Revision::default()).await;
    let ids: Vec<_> = first.iter().map(|revoked| revoked.id.as_str()).collect();
    assert_eq!(ids, ["one", "two"]);
    assert_eq!(
        (&*first[0].by, &*first[0].why),
        ("alice", "it was in a log")
    );
    assert!(first[0].until > hour && first[0].until < now + REMEMBERED);
    assert!(first[1].until > now + REMEMBERED);
    assert!(first[0].revision < first[1].revision);
    assert_eq!(told(first[1].revision).await, []);

    catalog.revoke(&revoke("two", Some(hour))).await.unwrap();
    let again = told(first[1].revision).await;
    assert_eq!(again.len(), 1, "whoever knows the first two is told");
    assert_eq!(again[0].until, first[1].until, "never shortened");
    assert_eq!(told(Revision::default()).await.len(), 2);

    let long_ago = now - Duration::from_secs(3 * 24 * 3600);
    catalog
        .revoke(&revoke("old", Some(long_ago)))
        .await
        .unwrap();
    assert_eq!(told(again[0].revision).await, [], "it has expired");
    let audited = all(catalog).await;
    assert_eq!(audited.len(), 4);
    assert_eq!(audited[3].action, Action::Revoke);
    assert_eq!(audited[3].details.get("token").unwrap(), "one");
}

pub(in crate::catalog) async fn what_is_settled_for_a_project_replaces_what_was(
    catalog: &dyn Catalog,
) {
    let [p, q]: [ProjectId; 2] = ["p", "q"].map(|name| name.parse().unwrap());
    assert_eq!(catalog.settings(&p).await.unwrap(), None);
    let small = ProjectSettings {
        max_bytes: Some(1 << 40),
        max_age: Some(Duration::from_secs(3600)),
        note: "as agreed".to_owned(),
    };
    let none = ProjectSettings::default();
    let origin = by_token("alice");
    catalog.settle(&q, &small, &origin).await.unwrap();
    catalog.settle(&p, &none, &origin).await.unwrap();
    catalog.settle(&p, &small, &origin).await.unwrap();
    let settled = catalog.settings(&p).await.unwrap().unwrap();
    assert_eq!((&settled.settings, &*settled.by), (&small, "alice"));
    catalog.settle(&p, &none, &origin).await.unwrap();
    let names = async |after, limit| {
        let page = catalog.all_settings(after, limit).await.unwrap();
        page.into_iter()
            .map(|settled| settled.project)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(None, 1).await, std::slice::from_ref(&p));
    assert_eq!(names(Some(&p), 10).await, [q]);
    assert_eq!(catalog.settings(&p).await.unwrap().unwrap().settings, none);
    let audited = all(catalog).await;
    assert_eq!((audited.len(), audited[1].action), (4, Action::Quota));
    assert_eq!(
        audited[1].details.get("max_bytes").unwrap().as_u64(),
        Some(1 << 40)
    );
    assert_eq!(audited[1].project, Some(p));
}

pub(in crate::catalog) async fn projects_and_refs_are_listed_by_name_in_pages(
    catalog: &dyn Catalog,
) {
    let page = catalog.projects(None, 10).await.unwrap();
    assert_eq!(page, []);
    append(catalog, "q", "main", &["a"]).await;
    let gone = append(catalog, "p", "old", &["a"]).await;
    append(catalog, "p", "main", &["a"]).await;
    let dev = append(catalog, "p", "dev", &["a"]).await;
    let newest = append(catalog, "p", "main", &["b"]).await;
    let empty = append(catalog, "z", "main", &["b"]).await;
    catalog.retire(&[gone, empty]).await.unwrap();
    let written = export(place("p", "main"), &[]).time;

    let projects = catalog.projects(None, 10).await.unwrap();
    let counted: Vec<_> = projects
        .iter()
        .map(|head| (head.project.as_str(), head.exports))
        .collect();
    assert_eq!(counted, [("p", 3), ("q", 1), ("z", 0)]);
    assert_eq!(projects[0].newest, Some(newest));
    assert_eq!(projects[0].written, Some(written));
    assert_eq!((projects[2].newest, projects[2].written), (None, None));
    let first = catalog.projects(None, 1).await.unwrap();
    assert_eq!(first, projects[..1]);
    let rest = catalog.projects(Some(&first[0].project), 10).await.unwrap();
    assert_eq!(rest, projects[1..]);

    let p = "p".parse().unwrap();
    let refs = catalog.refs(&p, None, 10).await.unwrap();
    let counted: Vec<_> = refs
        .iter()
        .map(|head| (head.git_ref.as_str(), head.exports, head.newest))
        .collect();
    let expected = [("refs/heads/dev", 1, dev), ("refs/heads/main", 2, newest)];
    assert_eq!(counted, expected);
    assert_eq!(refs[1].written, written);
    let first = catalog.refs(&p, None, 1).await.unwrap();
    assert_eq!(first, refs[..1]);
    let rest = catalog.refs(&p, Some(&first[0].git_ref), 10).await.unwrap();
    assert_eq!(rest, refs[1..]);
    let absent = "absent".parse().unwrap();
    assert_eq!(catalog.refs(&absent, None, 10).await.unwrap(), []);
}
