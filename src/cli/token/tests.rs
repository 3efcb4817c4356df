//! The commands as they are typed, on real files.

use std::os::unix::fs::PermissionsExt as _;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::access::{Keys, NewToken};

#[derive(Debug, Parser)]
struct Typed {
    #[command(flatten)]
    args: TokenArgs,
}

/// Runs a command in which @ stands for the folder.
fn typed(dir: &TempDir, command: &str) -> anyhow::Result<ExitCode> {
    let dir = dir.path().to_str().unwrap();
    let words = command.split(' ').map(|word| word.replace('@', dir));
    let args = Typed::try_parse_from(["token".to_owned()].into_iter().chain(words))?.args;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build()?.block_on(run(args))
}

fn token(dir: &TempDir, key: &str, seconds_ago: i64) -> String {
    let new = NewToken {
        subject: "test".to_owned(),
        project: "acme/shop".parse().unwrap(),
        read: vec!["**".parse().unwrap()],
        write: Vec::new(),
        lifetime: std::time::Duration::from_secs(60),
    };
    let keys = Keys::open(&dir.path().join(key)).unwrap();
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds_ago);
    keys.mint(&new, now).unwrap().token.expose().to_owned()
}

#[test]
fn a_key_is_made_for_its_owner_alone_and_never_over_another_file() {
    let dir = TempDir::new().unwrap();
    for command in [
        "key -o @/one.pem",
        "key -o @/two.key --algorithm hs256",
        "key -o @/three.pem --public @/three.pub",
    ] {
        assert_eq!(typed(&dir, command).unwrap(), ExitCode::SUCCESS);
        let again = format!("{:#}", typed(&dir, command).unwrap_err());
        assert!(again.contains("File exists"), "{again}");
    }
    for name in ["one.pem", "two.key", "three.pem"] {
        let path = dir.path().join(name);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        assert!(Keys::open(&path).unwrap().signer().is_some());
    }
    assert_eq!(
        Keys::open(&dir.path().join("three.pub")).unwrap().signer(),
        None
    );
    assert_eq!(
        Keys::open(dir.path()).unwrap().names(),
        ["one", "three", "two"]
    );
}

#[test]
fn a_pair_that_could_not_be_used_is_not_made() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("taken.pub"), "").unwrap();
    for command in [
        "key -o @/a.pem --public @/b.pub",
        "key -o @/a.key --public @/a.pub --algorithm hs256",
        "key -o @/taken.pem --public @/taken.pub",
        "key -o @/a+b.pem",
        "key -o @/absent/a.pem",
    ] {
        typed(&dir, command).unwrap_err();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_token_is_made_with_what_was_asked_for() {
    let dir = TempDir::new().unwrap();
    typed(&dir, "key -o @/ci.pem --public @/ci.pub").unwrap();
    for command in [
        "mint --token-key-file @/ci.pem --project p --read main",
        "mint --token-key-file @ --project p --read main feat/* --write a,b --ttl 90d --json",
        "mint --token-key-file @/ci.pem --project p --write ** --subject job-7",
    ] {
        assert_eq!(typed(&dir, command).unwrap(), ExitCode::SUCCESS);
    }
    for (command, told) in [
        ("mint --token-key-file @/ci.pem --project p", "--read"),
        ("mint --token-key-file @/ci.pem --read main", "--project"),
        (
            "mint --token-key-file @/ci.pem --project p --read ../x",
            "no ref",
        ),
        (
            "mint --token-key-file @/ci.pem --project p --read x --ttl 91d",
            "90d",
        ),
        (
            "mint --token-key-file @/ci.pem --project p --read x --ttl 0",
            "90d",
        ),
        (
            "mint --token-key-file @/ci.pub --project p --read x",
            "public keys only",
        ),
        ("mint --token-key-file @/none --project p --read x", "none"),
    ] {
        let error = format!("{:#}", typed(&dir, command).unwrap_err());
        assert!(error.contains(told), "{command}: {error}");
    }
}

#[test]
fn explain_ends_as_a_hub_would_decide() {
    let dir = TempDir::new().unwrap();
    typed(&dir, "key -o @/ci.pem --public @/ci.pub").unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    typed(&dir, "key -o @/other/ci.pem").unwrap();
    typed(&dir, "key -o @/other/else.pem").unwrap();
    let [good, old] = [0, 1000].map(|ago| token(&dir, "ci.pem", ago));
    let forged = token(&dir, "other/ci.pem", 0);
    for (token, key, code) in [
        (&good, "", ExitCode::SUCCESS),
        (&good, "--token-key-file @/ci.pub ", ExitCode::SUCCESS),
        (&forged, "", ExitCode::SUCCESS),
        (&forged, "--token-key-file @/ci.pub ", ExitCode::FAILURE),
        (
            &good,
            "--token-key-file @/other/else.pem ",
            ExitCode::FAILURE,
        ),
        (&old, "", ExitCode::FAILURE),
        (&old, "--token-key-file @/ci.pub ", ExitCode::FAILURE),
    ] {
        for json in ["", "--json "] {
            let command = format!("explain {key}{json}{token}");
            assert_eq!(typed(&dir, &command).unwrap(), code, "{command}");
        }
    }
    for nonsense in ["x", "a.b.c", "e30.e30.e30"] {
        let error = typed(&dir, &format!("explain {nonsense}")).unwrap_err();
        assert!(error.to_string().contains("token"), "{error}");
    }
}
