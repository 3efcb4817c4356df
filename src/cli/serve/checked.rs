//! `layerd serve --check-config`: what a hub would say that starts with this.
//!
//! Nothing is written, here or elsewhere: a data directory that is not there is
//! not made, and no table is brought up to date.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use rustix::fs::access;

use super::args::{ServeArgs, Storage};
use super::backends::{bucket, database};
use super::identity::Identities;
use super::{BINDING, access_by};
use crate::access::Keys;
use crate::blobs::{BlobStore, DiskStore};
use crate::cache::{CacheError, would_bind};
use crate::catalog::{Catalog, SqliteCatalog, Tables};

/// What is looked at, and what is wrong with it.
struct Found {
    what: &'static str,
    at: String,
    wrong: Option<String>,
}

/// Says what is well and what is not.
pub(super) async fn check(args: &ServeArgs, keys: Option<Keys>) -> anyhow::Result<ExitCode> {
    let storage = args.storage();
    let (catalog, found_catalog, owned) = catalog(&storage).await?;
    let (blobs, mut found_blobs) = blobs(&storage).await?;
    if owned && found_catalog.wrong.is_none() && found_blobs.wrong.is_none() {
        let asked = tokio::time::timeout(BINDING, would_bind(&*catalog, &*blobs));
        if let Ok(Err(foreign @ CacheError::Foreign(_))) = asked.await {
            found_blobs.wrong = Some(foreign.to_string());
        }
    }
    if !owned && found_catalog.wrong.is_none() {
        println!(
            "note: whose the layers are is not known before a hub has brought the tables up to date"
        );
    }
    let access = access_by(keys, &catalog);
    let identities = Identities::open(args, &access, &catalog, &mut Registry::default())?;
    let mut well = identities.check().await;
    let listen = tokio::net::lookup_host(&args.listen).await.err();
    let listen = Found {
        what: "listen",
        at: args.listen.clone(),
        wrong: listen.map(|why| why.to_string()),
    };
    for Found { what, at, wrong } in [listen, found_catalog, found_blobs] {
        well &= wrong.is_none();
        println!("{what} {at}: {}", wrong.as_deref().unwrap_or("ok"));
    }
    catalog.close().await;
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The catalog, or an empty one in place of one that is still to be made; and
/// whether it can say which store is its own.
async fn catalog(storage: &Storage<'_>) -> anyhow::Result<(Arc<dyn Catalog>, Found, bool)> {
    let found = |at, wrong: Option<String>| Found {
        what: "catalog",
        at,
        wrong,
    };
    let none: Arc<dyn Catalog> = Arc::new(SqliteCatalog::nowhere().await?);
    let Some(url) = storage.catalog else {
        let file = SqliteCatalog::path(storage.data_dir);
        let at = file.display().to_string();
        let wrong = unwritable(storage.data_dir).or_else(|| unwritable(&file));
        return Ok(match SqliteCatalog::peek(storage.data_dir).await {
            Ok(Some(catalog)) => (Arc::new(catalog), found(at, wrong), true),
            Ok(None) => (none, found(at, wrong), true),
            Err(error) => (none, found(at, Some(error.to_string())), false),
        });
    };
    let database = database(storage, url)?;
    let at = database.name();
    Ok(match database.tables().await {
        Ok(Tables::Current) => (Arc::new(database), found(at, None), true),
        Ok(Tables::Absent) => (none, found(at, None), true),
        Ok(Tables::Older) => (none, found(at, None), false),
        Err(error) => (none, found(at, Some(error.to_string())), false),
    })
}

async fn blobs(storage: &Storage<'_>) -> anyhow::Result<(Arc<dyn BlobStore>, Found)> {
    let dir = storage.data_dir;
    let found = |at, wrong| Found {
        what: "blobs",
        at,
        wrong,
    };
    let Some(url) = storage.blobs else {
        let at = dir.display().to_string();
        let disk = Arc::new(DiskStore::at(dir));
        return Ok((disk, found(at, unwritable(dir))));
    };
    let bucket = bucket(storage, url)?;
    let at = bucket.place().to_owned();
    let reached = bucket.ready().await.err().map(|error| error.to_string());
    let wrong = reached.or_else(|| match storage.disk_cache {
        0 => None,
        _ => unwritable(dir),
    });
    Ok((Arc::new(bucket), found(at, wrong)))
}

/// Why nothing could be written there, or in the nearest folder above that is
/// there.
fn unwritable(path: &Path) -> Option<String> {
    let there = path.ancestors().find(|above| above.exists())?;
    let why = access(there, rustix::fs::Access::WRITE_OK).err()?;
    Some(format!("{} can't be written to: {why}", there.display()))
}
