//! Which files are keys, and which of them count.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::super::key::{Algorithm, KeyPair};
use super::*;
use crate::place::GitRef;

const SEED: [u8; 32] = [9; 32];

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn new_token() -> NewToken {
    NewToken {
        subject: "ci".to_owned(),
        project: Default::default(),
        read: vec![GitRef::default().into()],
        write: Vec::new(),
        lifetime: Duration::from_secs(60),
    }
}

fn pair() -> KeyPair {
    KeyPair::generate(Algorithm::Ed25519).unwrap()
}

/// A folder with these files, each written a second after the one before it.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (at, (name, content)) in files.iter().enumerate() {
        put(&dir, name, content, at as u64);
    }
    dir
}

fn put(dir: &TempDir, name: &str, content: &str, second: u64) {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second);
    file.set_modified(written).unwrap();
}

fn verifies(keys: &Keys, minted: &Minted) -> bool {
    keys.verify(minted.token.expose(), now()).is_ok()
}

#[test]
fn every_form_of_a_key_is_read() {
    let public = {
        use ring::signature::{Ed25519KeyPair, KeyPair as _};
        let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
        pair.public_key().as_ref().to_vec()
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let [d, x, k] = [&SEED[..], &public, &[7; 40]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let ed = pair();
    let raw = String::from_utf8(vec![b'!'; 64]).unwrap();
    let ed_public = ed.public.clone().unwrap();
    for (content, names, signs) in [
        (ed.private.clone(), vec!["name"], true),
        (ed_public, vec!["name"], false),
        (hex::encode([7; 32]) + "\n", vec!["name"], true),
        (STANDARD.encode([255; 33]) + "\n", vec!["name"], true),
        (URL_SAFE_NO_PAD.encode([255; 34]), vec!["name"], true),
        (raw, vec!["name"], true),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": x}).to_string(), vec!["name"], false),
        (
            json!({"keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": x, "d": d, "kid": "one", "alg": "EdDSA", "use": "sig"},
                {"kty": "oct", "k": k, "kid": "two", "alg": "HS256"}
            ]})
            .to_string(),
            vec!["one", "two"],
            true,
        ),
    ] {
        let dir = folder(&[("name.key", &content)]);
        let keys = Keys::open(&dir.path().join("name.key")).unwrap();
        assert_eq!(keys.names(), names, "{content}");
        assert_eq!(keys.signer().is_some(), signs, "{content}");
        match keys.mint(&new_token(), now()) {
            Ok(minted) => assert!(verifies(&keys, &minted)),
            Err(error) => assert_eq!((error, signs), (MintError::NoKey, false)),
        }
    }
}

#[test]
fn what_is_no_key_is_told_by_its_path_and_nothing_of_it_is_shown() {
    let short = hex::encode([7; 31]);
    let two = pair().private + &pair().private;
    let public_der = {
        use base64::Engine as _;
        let der = [
            &b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..],
            &SEED,
        ]
        .concat();
        base64::engine::general_purpose::STANDARD.encode(der)
    };
    for content in [
        "",
        "hunter2hunter2hunter2hunter2hunter2hunter2 hunter2",
        &short,
        &two,
        &public_der,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBp hunter2@example",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"kty":"RSA","n":"hunter2","e":"AQAB"}"#,
        r#"{"kty":"oct","k":"hunter2"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#,
        r#"{"keys":[{"kty":"oct","k":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk"},{"kty":"oct","k":"CAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk"}]}"#,
        r#"{"kty":"oct","alg":"HS512","k":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk"}"#,
    ] {
        let dir = folder(&[("name.key", content)]);
        let path = dir.path().join("name.key");
        let Err(error) = Keys::open(&path) else {
            panic!("{content:?} is no key")
        };
        let error = error.to_string();
        assert!(
            error.contains("name.key") && !error.contains("hunter2"),
            "{error}"
        );
    }
    let dir = folder(&[("a name.key", &pair().private)]);
    assert!(Keys::open(&dir.path().join("a name.key")).is_err());
    assert!(Keys::open(&dir.path().join("absent")).is_err());
    let empty = folder(&[(".hidden", &pair().private)]);
    assert!(Keys::open(empty.path()).is_err());
}

#[test]
fn keys_are_rotated_by_a_new_file_beside_the_old_one() {
    let dir = folder(&[("2026-11.pem", &pair().private)]);
    let keys = Keys::open(dir.path()).unwrap();
    let old = keys.mint(&new_token(), now()).unwrap();
    assert_eq!(old.kid, "2026-11");

    put(&dir, "2026-12.pem", &pair().private, 9);
    keys.look();
    let new = keys.mint(&new_token(), now()).unwrap();
    assert_eq!(new.kid, "2026-12");
    assert!(verifies(&keys, &old) && verifies(&keys, &new));

    std::fs::remove_file(dir.path().join("2026-11.pem")).unwrap();
    keys.look();
    assert!(
        !verifies(&keys, &old),
        "what was found good went with its key"
    );
    assert!(verifies(&keys, &new));
}

#[test]
fn a_broken_new_file_leaves_the_keys_as_they_were() {
    let dir = folder(&[("one.pem", &pair().private)]);
    let keys = Keys::open(dir.path()).unwrap();
    let minted = keys.mint(&new_token(), now()).unwrap();
    std::fs::write(dir.path().join("two.pem"), "-----BEGIN").unwrap();
    keys.look();
    assert_eq!(keys.names(), ["one"]);
    assert!(verifies(&keys, &minted));
    std::fs::write(dir.path().join("two.pem"), pair().private).unwrap();
    keys.look();
    assert_eq!(keys.names(), ["one", "two"]);
}

#[test]
fn the_file_that_was_changed_last_signs_and_among_equals_the_last_name() {
    let [a, b, c] = [(); 3].map(|()| pair().private);
    let dir = folder(&[("c.pem", &c), ("a.pem", &a), ("b.pem", &b)]);
    assert_eq!(Keys::open(dir.path()).unwrap().signer().unwrap(), "b");
    put(&dir, "a.pem", &a, 2);
    assert_eq!(Keys::open(dir.path()).unwrap().signer().unwrap(), "b");
    put(&dir, "c.pem", &c, 2);
    assert_eq!(Keys::open(dir.path()).unwrap().signer().unwrap(), "c");
}

#[test]
fn a_hub_with_the_public_key_verifies_what_the_private_one_signed() {
    let pair = pair();
    let public = pair.public.unwrap();
    let signer = folder(&[("ci.pem", &pair.private)]);
    let hub = folder(&[("ci.pub", &public)]);
    let minted = Keys::open(signer.path()).unwrap().mint(&new_token(), now());
    let keys = Keys::open(hub.path()).unwrap();
    assert!(verifies(&keys, &minted.unwrap()));
    assert_eq!(
        keys.mint(&new_token(), now()).unwrap_err(),
        MintError::NoKey
    );

    let both = folder(&[("ci.pem", &pair.private), ("ci.pub", &public)]);
    assert_eq!(Keys::open(both.path()).unwrap().signer().unwrap(), "ci");
}

#[test]
fn two_keys_of_one_name_are_an_error() {
    let dir = folder(&[("ci.pem", &pair().private), ("ci.old", &pair().private)]);
    let Err(error) = Keys::open(dir.path()) else {
        panic!("which one would count?")
    };
    assert!(error.to_string().contains("\"ci\""), "{error}");
}
