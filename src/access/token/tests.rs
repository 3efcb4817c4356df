//! What counts as a token, and what does not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::denied::Denied;
use super::super::key::{Algorithm, KeyPair};
use super::super::keys::Keys;
use super::*;

mod hostile;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// A folder with one key of each kind: `ed` and `hs`.
struct Ring {
    keys: Keys,
    ed_public: String,
    _dir: tempfile::TempDir,
}

impl Ring {
    fn new(signer: Algorithm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ed = KeyPair::generate(Algorithm::Ed25519).unwrap();
        let hs = KeyPair::generate(Algorithm::Hs256).unwrap();
        for (name, text, algorithm) in [
            ("ed.pem", &ed.private, Algorithm::Ed25519),
            ("hs.secret", &hs.private, Algorithm::Hs256),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let age = if algorithm == signer { 10 } else { 20 };
            let written = std::time::SystemTime::now() - Duration::from_secs(age);
            file.set_modified(written).unwrap();
        }
        Self {
            keys: Keys::open(dir.path()).unwrap(),
            ed_public: ed.public.unwrap(),
            _dir: dir,
        }
    }

    fn mint(&self, new: &NewToken) -> String {
        let minted = self.keys.mint(new, at(0)).unwrap();
        minted.token.expose().to_owned()
    }

    fn denied(&self, token: &str) -> Denied {
        self.keys.verify(token, at(0)).unwrap_err()
    }
}

fn new_token() -> NewToken {
    NewToken {
        subject: "ci".to_owned(),
        project: "acme/shop".parse().unwrap(),
        read: vec!["feat/x".parse().unwrap(), "main".parse().unwrap()],
        write: vec!["feat/x".parse().unwrap()],
        lifetime: Duration::from_secs(3600),
    }
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_minted_token_grants_what_was_asked_for_and_nothing_more() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Hs256] {
        let ring = Ring::new(algorithm);
        let new = new_token();
        let minted = ring.keys.mint(&new, at(0)).unwrap();
        assert_eq!(
            minted.kid,
            if algorithm == Algorithm::Hs256 {
                "hs"
            } else {
                "ed"
            }
        );
        let grant = ring.keys.verify(minted.token.expose(), at(5)).unwrap();
        assert_eq!(grant.project(), Some(&new.project));
        assert_eq!((grant.read(), grant.write()), (&*new.read, &*new.write));
        assert_eq!((grant.id(), grant.subject()), (minted.id.as_str(), "ci"));
        assert_eq!(grant.expires(), Some(at(3600)));
        assert_eq!(minted.expires, at(3600));
    }
}

#[test]
fn the_claims_are_those_that_clients_of_gha_read() {
    let claims = claims_of(&Ring::new(Algorithm::Ed25519).mint(&new_token()));
    assert_eq!(claims["nbf"], json!(NOW));
    assert_eq!(claims["exp"], json!(NOW + 3600));
    assert_eq!(
        claims["ac"],
        json!(
            r#"[{"Scope":"refs/heads/feat/x","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#
        )
    );
}

#[test]
fn one_ref_is_writable_to_clients_of_gha_and_patterns_are_left_out() {
    let ring = Ring::new(Algorithm::Ed25519);
    let ac = |read: &[&str], write: &[&str]| {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let new = NewToken {
            read: parsed(read),
            write: parsed(write),
            ..new_token()
        };
        let ac = claims_of(&ring.mint(&new))["ac"]
            .as_str()
            .unwrap()
            .to_owned();
        let scopes: Vec<Value> = serde_json::from_str(&ac).unwrap();
        let scopes = scopes.into_iter().map(|scope| {
            let permission = scope["Permission"].as_u64().unwrap();
            (
                scope["Scope"].as_str().unwrap().replace("refs/heads/", ""),
                permission,
            )
        });
        scopes.collect::<Vec<_>>()
    };
    let is = |list: &[(&str, u64)]| {
        list.iter()
            .map(|(s, p)| ((*s).to_owned(), *p))
            .collect::<Vec<_>>()
    };
    assert_eq!(ac(&["**"], &["*", "a", "b"]), is(&[("a", 3)]));
    assert_eq!(
        ac(&["b", "c"], &["a", "b"]),
        is(&[("a", 2), ("b", 1), ("c", 1)])
    );
    assert_eq!(ac(&["**"], &["*"]), is(&[]));
}

#[test]
fn a_token_counts_in_its_time_give_or_take_a_minute() {
    let ring = Ring::new(Algorithm::Ed25519);
    let token = ring.mint(&new_token());
    for seconds in [-60, 0, 3600, 3660] {
        assert!(ring.keys.verify(&token, at(seconds)).is_ok(), "{seconds}");
    }
    let denied = |seconds| ring.keys.verify(&token, at(seconds)).unwrap_err();
    assert_eq!(denied(-61), Denied::NotYet(Duration::from_secs(61)));
    assert_eq!(
        denied(3600 + 200),
        Denied::Expired(Duration::from_secs(200))
    );
    assert_eq!(
        denied(3600 + 200).to_string(),
        "the token has expired 3 min ago: get a new one"
    );
}

#[test]
fn no_token_is_made_that_would_not_count() {
    let ring = Ring::new(Algorithm::Ed25519);
    let refused = |change: fn(&mut NewToken)| {
        let mut new = new_token();
        change(&mut new);
        ring.keys.mint(&new, at(0)).unwrap_err()
    };
    assert_eq!(
        refused(|new| new.lifetime = MAX_LIFETIME + Duration::from_secs(1)),
        MintError::Lifetime
    );
    assert_eq!(
        refused(|new| new.lifetime = Duration::from_millis(999)),
        MintError::Lifetime
    );
    assert_eq!(refused(|new| new.subject.clear()), MintError::Subject);
    assert_eq!(
        refused(|new| new.read = vec![RefPattern::every(); 101]),
        MintError::Patterns
    );
    assert_eq!(
        refused(|new| (new.read, new.write) = (Vec::new(), Vec::new())),
        MintError::Nothing
    );
    let long = |new: &mut NewToken| {
        new.read = (0..100)
            .map(|n| format!("{n}{}", "x".repeat(900)).parse().unwrap())
            .collect();
    };
    assert_eq!(refused(long), MintError::TooLong);
    let longest = NewToken {
        lifetime: MAX_LIFETIME,
        ..new_token()
    };
    ring.keys.verify(&ring.mint(&longest), at(0)).unwrap();
}

#[test]
fn a_token_can_be_read_by_whoever_has_no_key() {
    let ring = Ring::new(Algorithm::Ed25519);
    let read = read_unverified(&ring.mint(&new_token())).unwrap();
    assert_eq!(read.kid.as_deref(), Some("ed"));
    assert_eq!(read.algorithm, Some(Algorithm::Ed25519));
    assert_eq!(read.issued, at(0));
    assert_eq!(read.grant.project(), Some(&new_token().project));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_minted_is_verified(
        project in "[a-z]{1,9}(/[a-z]{1,9})?",
        read in prop::collection::vec("[a-z*]{1,2}(/[a-z]{1,5}){0,2}", 1..20),
        write in prop::collection::vec("[a-z]{1,8}", 0..5),
        subject in "\\PC{1,40}",
        seconds in 1_u64..7_776_000,
        hs in any::<bool>(),
    ) {
        let ring = Ring::new(if hs { Algorithm::Hs256 } else { Algorithm::Ed25519 });
        let parsed = |texts: &[String]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let new = NewToken {
            subject,
            project: project.parse().unwrap(),
            read: parsed(&read),
            write: parsed(&write),
            lifetime: Duration::from_secs(seconds),
        };
        let grant = ring.keys.verify(&ring.mint(&new), at(0)).unwrap();
        prop_assert_eq!(grant.project(), Some(&new.project));
        prop_assert_eq!(grant.read(), &*new.read);
        prop_assert_eq!(grant.write(), &*new.write);
        prop_assert_eq!(grant.subject(), &*new.subject);
        prop_assert_eq!(grant.expires(), Some(at(seconds as i64)));
    }
}
