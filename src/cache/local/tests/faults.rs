//! What is told when the directory is broken, and what still works.

use super::*;
use crate::catalog::CatalogError;

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_told_and_works_once_it_is_mended() {
    let (dir, cache) = cache();
    let data = dir.path().join("data");
    fs::write(&data, "a file in its place").unwrap();
    let Err(CacheError::Unavailable(text)) = cache.writable(&Place::default()).await else {
        panic!("it must not open")
    };
    assert!(
        text.contains(&data.display().to_string()) && text.contains("--data-dir"),
        "{text}"
    );
    assert!(matches!(
        cache.look_up(&[want("main", &[])], &ALL).await,
        Err(CacheError::Unavailable(_))
    ));
    fs::remove_file(&data).unwrap();
    cache.writable(&Place::default()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_catalog_is_told_and_works_once_it_is_moved_away() {
    let (dir, cache) = cache();
    let file = SqliteCatalog::path(&dir.path().join("data"));
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(&file, [b'x'; 8192]).unwrap();
    let Err(CacheError::Unavailable(text)) = cache.look_up(&[want("main", &[])], &ALL).await else {
        panic!("it must not open")
    };
    assert!(text.contains("damaged"), "{text}");
    fs::remove_file(file).unwrap();
    assert_eq!(found(&cache, &[want("main", &[])]).await, None);
}

#[tokio::test]
async fn a_directory_that_was_removed_under_us_is_made_anew() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    assert_eq!(found(&cache, &[want("main", &[])]).await, None);
    let id = publish(&cache, place("p", "main"), &["base"]).await;
    let other = LocalCache::new(dir.path().join("data"));
    assert_eq!(found(&other, &[want("main", &[])]).await, Some(id));
}

#[tokio::test]
async fn a_locked_catalog_costs_only_the_export() {
    let (dir, cache) = cache();
    let id = publish(&cache, place("p", "main"), &["base"]).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(SqliteCatalog::path(&dir.path().join("data")));
    let other = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let _lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert!(matches!(
        cache.writable(&Place::default()).await,
        Err(CacheError::Catalog(CatalogError::Busy(_)))
    ));
    assert_eq!(found(&cache, &[want("main", &[])]).await, Some(id));
}

#[tokio::test]
async fn a_promised_blob_is_read_also_when_the_catalog_is_damaged_since() {
    let (dir, cache) = cache();
    publish(&cache, place("p", "main"), &["base"]).await;
    let import = cache
        .look_up(&[want("main", &[])], &ALL)
        .await
        .unwrap()
        .import()
        .unwrap();
    let file = SqliteCatalog::path(&dir.path().join("data"));
    // With its log, which would mend it.
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", file.display())).unwrap();
    }
    fs::write(&file, [b'x'; 8192]).unwrap();
    assert!(cache.look_up(&[want("main", &[])], &ALL).await.is_err());
    for (digest, size) in import.layers.iter() {
        let stream = cache.read(digest, 0, *size).await.unwrap();
        let read = stream.try_collect::<BytesMut>().await.unwrap();
        assert_eq!(Digest::of(&read), *digest);
    }
}
