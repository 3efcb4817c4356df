//! What a server grants to whom.

use std::time::Duration;

use super::*;
use crate::catalog::SqliteCatalog;

#[tokio::test]
async fn an_open_server_grants_everything_whatever_is_shown_to_it() {
    for token in [None, Some("nonsense")] {
        let grant = Access::Open.grant(token, Timestamp::now()).await.unwrap();
        assert_eq!(*grant, Grant::everything());
    }
}

#[tokio::test]
async fn a_server_that_asks_for_tokens_takes_no_client_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let pair = KeyPair::generate(Algorithm::Ed25519).unwrap();
    std::fs::write(&path, pair.private).unwrap();
    let keys = Keys::open(&path).unwrap();
    let new = NewToken {
        subject: "ci".to_owned(),
        project: Default::default(),
        read: vec![RefPattern::every()],
        write: Vec::new(),
        lifetime: Duration::from_secs(60),
    };
    let now = Timestamp::now();
    let minted = keys.mint(&new, now).unwrap();
    let catalog = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
    let access = Arc::new(Access::Token(keys, Revoked::new(catalog)));
    let granted = async |token: Option<&str>| access.grant(token, now).await;
    assert_eq!(granted(None).await, Err(Denied::NoToken));
    assert!(granted(Some("nonsense")).await.is_err());
    let token = Some(minted.token.expose());
    let grant = granted(token).await.unwrap();
    assert!(grant.reads_all() && grant.write().is_empty());
    let again = granted(token).await.unwrap();
    assert!(Arc::ptr_eq(&grant, &again), "it was verified once");
    let later = now + Duration::from_secs(3600);
    let expired = access.check(&grant, later).await.unwrap_err();
    assert_eq!(expired.reason(), "expired");
}
