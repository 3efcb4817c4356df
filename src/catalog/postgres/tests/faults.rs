//! The server is killed, restarts, is not there, or takes no writes.

use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_costs_only_the_calls_until_it_is_back() {
    let mut server = Postgres::start();
    let url = server.database("killed");
    let options = PostgresOptions {
        patience: Duration::from_secs(1),
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(&url, options).unwrap();
    let mut kept = vec![append(&catalog).await.unwrap()];
    let lease = catalog.take_lease(Duration::from_secs(3600)).await.unwrap();
    let owned = catalog.try_own("collect").await.unwrap().unwrap();

    server.kill();
    let failed = append(&catalog).await;
    assert!(
        matches!(failed, Err(CatalogError::Unavailable { .. })),
        "{failed:?}"
    );
    let ready = catalog.ready().await;
    assert!(
        matches!(ready, Err(CatalogError::Unavailable { .. })),
        "{ready:?}"
    );
    tokio::time::timeout(Duration::from_secs(60), owned.lost())
        .await
        .expect("its session is gone");
    assert!(!owned.holds());

    server.restart();
    // Every idle connection of before is dead.
    for _ in 0..3 {
        kept.push(append(&catalog).await.unwrap());
    }
    catalog.ready().await.unwrap();
    let listed = catalog.list(&Filter::default()).await.unwrap();
    assert!(listed.iter().rev().map(|head| head.id).eq(kept));
    assert!(
        catalog
            .renew_lease(lease, Duration::from_secs(3600))
            .await
            .unwrap()
    );
    assert!(catalog.try_own("collect").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_a_server_that_restarts() {
    let mut server = Postgres::start();
    let url = server.database("restarted");
    let options = PostgresOptions {
        patience: Duration::from_secs(60),
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(&url, options).unwrap();
    let first = append(&catalog).await.unwrap();
    // Killed, it leaves a socket that refuses.
    server.kill();
    let (second, _server) = tokio::join!(append(&catalog), async {
        tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .unwrap()
    });
    assert!(second.unwrap() > first);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_in_time_and_used_when_it_is() {
    let mut server = Postgres::start();
    let url = server.database("later");
    server.stop();
    let catalog = connect(&url);
    let began = Instant::now();
    let calls = (0..20).map(|_| append(&catalog));
    for failed in futures::future::join_all(calls).await {
        assert!(
            matches!(failed, Err(CatalogError::Unavailable { .. })),
            "{failed:?}"
        );
    }
    let limit = 10 * PostgresOptions::default().patience;
    assert!(began.elapsed() < limit, "a bound, and no measure of speed");
    server.restart();
    catalog.ready().await.unwrap();
    append(&catalog).await.unwrap();

    let absent = connect(&server.url("absent")).ready().await.unwrap_err();
    assert!(
        matches!(absent, CatalogError::Unavailable { .. }),
        "{absent:?}"
    );
    assert!(absent.to_string().contains("absent"), "{absent}");
}

#[tokio::test]
async fn what_the_server_says_is_told_apart_by_what_to_do() {
    let (_, catalog) = open().await;
    let mut connection = catalog.connections.one().await.unwrap();
    for (code, kind) in [
        ("53100", "Full"),
        ("53300", "Busy"),
        ("55P03", "Busy"),
        ("57014", "Busy"),
        ("40P01", "Busy"),
        ("25006", "ReadOnly"),
        ("57P01", "Unavailable"),
        ("57P03", "Unavailable"),
        ("28P01", "Unavailable"),
        ("08006", "Unavailable"),
        ("XX001", "Corrupt"),
        ("42501", "Other"),
    ] {
        let raised = format!("DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{code}'; END $$");
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(raised))
            .execute(&mut *connection)
            .await
            .unwrap_err();
        let error = format!("{:?}", catalog.context.of(error));
        assert!(error.starts_with(kind), "{code}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_read() {
    let url = database();
    append(&connect(&url)).await.unwrap();
    let reader = connect(&format!(
        "{url}&options=-c%20default_transaction_read_only%3Don"
    ));
    assert_eq!(reader.count(&Filter::default()).await.unwrap(), 1);
    for refused in [reader.writable().await, append(&reader).await.map(drop)] {
        assert!(
            matches!(refused, Err(CatalogError::ReadOnly(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_lock_that_is_held_for_too_long_is_busy() {
    let url = database();
    let options = PostgresOptions {
        statement: Duration::from_millis(200),
        connections: 1,
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(&url, options).unwrap();
    append(&catalog).await.unwrap();
    let other = connect(&url);
    let mut holder = other.connections.one().await.unwrap();
    let mut tx = sqlx::Connection::begin(&mut *holder).await.unwrap();
    other
        .lock(&mut tx, lock!("pg_advisory_xact_lock"), "append")
        .await
        .unwrap();
    let failed = append(&catalog).await;
    assert!(matches!(failed, Err(CatalogError::Busy(_))), "{failed:?}");
    tx.rollback().await.unwrap();
    append(&catalog).await.unwrap();
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_busy_and_ready() {
    let options = PostgresOptions {
        patience: Duration::from_millis(200),
        connections: 1,
        ..PostgresOptions::default()
    };
    let url = database();
    let catalog = PostgresCatalog::connect(&url, options).unwrap();
    let held = catalog.connections.one().await.unwrap();
    let failed = append(&catalog).await;
    assert!(matches!(failed, Err(CatalogError::Busy(_))), "{failed:?}");
    catalog.ready().await.unwrap();
    drop(held);
    append(&catalog).await.unwrap();
}

#[tokio::test]
async fn a_closed_catalog_says_so() {
    let (_, catalog) = open().await;
    append(&catalog).await.unwrap();
    catalog.close().await;
    let failed = append(&catalog).await;
    assert!(
        matches!(failed, Err(CatalogError::Unavailable { .. })),
        "{failed:?}"
    );
    assert!(catalog.ready().await.is_err());
}

#[tokio::test]
async fn a_server_is_believed_by_the_certificate_that_is_named() {
    let server = Postgres::start_with_tls();
    server.database("tls");
    let url = server.tls_url("tls");
    let catalog = connect(&url);
    append(&catalog).await.unwrap();
    let mut connection = catalog.connections.one().await.unwrap();
    let encrypted: bool =
        sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    assert!(encrypted);

    let other = Postgres::start_with_tls();
    let (own, foreign) = (server.certificate(), other.certificate());
    let named = own.to_str().unwrap();
    let url = url.replace(named, foreign.to_str().unwrap());
    let failed = connect(&url).ready().await;
    assert!(
        matches!(failed, Err(CatalogError::Unavailable { .. })),
        "{failed:?}"
    );
    let plain = connect(&SERVER.url("postgres").replace("?", "?sslmode=require&"));
    let failed = plain.ready().await;
    assert!(
        matches!(failed, Err(CatalogError::Unavailable { .. })),
        "{failed:?}"
    );
}

/// A port that leads to the server, and goes silent when the token is
/// cancelled, with every connection left open.
async fn gate(silent: CancellationToken) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let silent = silent.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(SERVER.socket()).await.unwrap();
                tokio::select! {
                    biased;
                    () = silent.cancelled() => std::future::pending().await,
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_network_that_goes_silent_ends_every_call() {
    let silent = CancellationToken::new();
    let port = gate(silent.clone()).await;
    let name = database().split('?').next().unwrap().to_owned();
    let (_, name) = name.rsplit_once('/').unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
    let options = PostgresOptions {
        patience: Duration::from_millis(300),
        statement: Duration::from_millis(300),
        ..PostgresOptions::default()
    };
    let catalog = PostgresCatalog::connect(&url, options.clone()).unwrap();
    append(&catalog).await.unwrap();
    let owned = catalog.try_own("collect").await.unwrap().unwrap();
    // As under way: it has its connection already.
    let mut held = catalog.connections.one().await.unwrap();
    silent.cancel();

    let asked = sqlx::query("SELECT 1").execute(&mut *held);
    let asked = async { asked.await.map_err(|error| catalog.context.of(error)) };
    let late = PostgresCatalog::connect(&url, options).unwrap();
    for failed in [
        catalog.connections.bounded(asked).await.map(drop),
        append(&catalog).await.map(drop),
        catalog.ready().await,
        catalog.try_own("other").await.map(drop),
        late.ready().await,
    ] {
        assert!(
            matches!(failed, Err(CatalogError::Unavailable { .. })),
            "{failed:?}"
        );
    }
    tokio::time::timeout(Duration::from_secs(60), owned.lost())
        .await
        .expect("nobody answers");
}
