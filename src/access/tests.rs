//! What a server grants to whom.

use std::time::Duration;

use super::*;

#[test]
fn an_open_server_grants_everything_whatever_is_shown_to_it() {
    for token in [None, Some("nonsense")] {
        let grant = Access::Open.grant(token, Timestamp::now()).unwrap();
        assert_eq!(*grant, Grant::everything());
    }
}

#[test]
fn a_server_that_asks_for_tokens_takes_no_client_without_one() {
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
    let access = Access::Token(keys);
    assert_eq!(access.grant(None, now), Err(Denied::NoToken));
    assert!(access.grant(Some("nonsense"), now).is_err());
    let grant = access.grant(Some(minted.token.expose()), now).unwrap();
    assert!(grant.reads_all() && grant.write().is_empty());
    let again = access.grant(Some(minted.token.expose()), now).unwrap();
    assert!(Arc::ptr_eq(&grant, &again), "it was verified once");
}
