//! Which keys count when, with an issuer that changes them and fails.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use serde_json::json;

#[path = "../../../../integration/harness/oidc.rs"]
#[allow(dead_code, reason = "the harness needs more of it")]
mod oidc;

use self::oidc::{Answers, Issuer};
use super::super::keyring::Keyring;
use super::super::{Config, Rejected};

/// Its keys, as a hub with a file of this issuer has them.
fn keyring(issuer: &Issuer, more: &str) -> Keyring {
    let toml = format!(
        "[[issuer]]\nname = 'ci'\nurl = '{}'\naudience = 'hub'\n{more}\n[[rule]]\nname = 'r'\n\
         issuer = 'ci'\nmatch = {{ sub = 'a' }}\nproject = 'p'\nread = ['main']",
        issuer.url()
    );
    let config = Config::parse(&toml).unwrap();
    Keyring::open(config.issuer("ci").unwrap()).unwrap()
}

fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_a_new_name_but_not_for_every_one() {
    let issuer = Issuer::start().await;
    let keys = keyring(&issuer, "");
    let start = Instant::now();
    for _ in 0..10 {
        keys.key("first", start).await.unwrap();
    }
    assert_eq!(issuer.asked(), 1);
    issuer.publish("second");
    for name in ["second", "third", "fourth"] {
        let unknown = keys.key(name, start).await;
        assert_eq!(unknown.unwrap_err(), Rejected::UnknownKey(name.to_owned()));
    }
    assert_eq!(issuer.asked(), 1, "asked for a stranger's sake");
    let after = start + Duration::from_secs(31);
    keys.key("second", after).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    for name in ["third", "fourth"] {
        keys.key(name, after).await.unwrap_err();
    }
    assert_eq!(issuer.asked(), 2);
    // After an hour they are fetched anew, and what was withdrawn is gone.
    issuer.withdraw("first");
    keys.key("first", after).await.unwrap();
    let hours = start + Duration::from_secs(3700);
    keys.key("first", hours).await.unwrap_err();
    keys.key("second", hours).await.unwrap();
}

#[tokio::test]
async fn while_an_issuer_is_down_its_keys_count_for_a_day() {
    let issuer = Issuer::start().await;
    let keys = keyring(&issuer, "");
    keys.key("first", Instant::now()).await.unwrap();
    issuer.answer(Answers::Failing);
    keys.key("first", later(2 * 3600)).await.unwrap();
    let unavailable = keys.key("second", later(2 * 3600 + 40)).await;
    assert!(matches!(unavailable, Err(Rejected::Unavailable(..))));
    keys.key("first", later(23 * 3600)).await.unwrap();
    let stale = keys.key("first", later(25 * 3600)).await;
    assert!(matches!(stale, Err(Rejected::Unavailable(_, why)) if why.contains("500")));
    issuer.answer(Answers::Well);
    keys.key("first", later(26 * 3600)).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_none_costs_little_and_is_told() {
    let issuer = Issuer::start().await;
    for (answers, told) in [
        (Answers::Huge, "longer than"),
        (Answers::Failing, "500"),
        (Answers::Elsewhere, "302"),
        (Answers::Never, "no answer within"),
    ] {
        issuer.answer(answers);
        let keys = keyring(&issuer, "");
        let error = keys.key("first", Instant::now()).await.unwrap_err();
        let Rejected::Unavailable(_, why) = &error else {
            panic!("{answers:?}: {error}");
        };
        assert!(why.contains(told), "{answers:?}: {why}");
        // That is for the log: strangers are not told where the hub asks.
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
        assert!(!error.to_string().contains(told), "{error}");
        let looked = keys.look().await.unwrap_err();
        assert!(looked.contains(told), "{answers:?}: {looked}");
    }
    // Another issuer's document, and one that is not there.
    issuer.answer(Answers::Well);
    let other = issuer.url().replace("127.0.0.1", "localhost");
    let toml = |more: &str| format!("{more}\njwks-url = '{other}/nothing'");
    let error = keyring(&issuer, &toml("")).look().await.unwrap_err();
    assert!(error.contains("404"), "{error}");
    let direct = format!("jwks-url = '{}/keys'", issuer.url());
    assert_eq!(keyring(&issuer, &direct).look().await, Ok(1));
}

#[tokio::test]
async fn only_so_many_wait_for_a_fetch_and_who_needs_none_is_not_among_them() {
    let issuer = Issuer::start().await;
    let keys = keyring(&issuer, "");
    let now = Instant::now();
    let all = (0..80).map(|_| keys.key("first", now));
    let all = futures::future::join_all(all).await;
    let busy = |one: &&Result<_, Rejected>| matches!(one, Err(Rejected::Busy));
    assert_eq!(all.iter().filter(busy).count(), 16);
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 64);
    assert_eq!(issuer.asked(), 1);
    let hour = now + Duration::from_secs(3700);
    let all = (0..80).map(|_| keys.key("first", hour));
    for one in futures::future::join_all(all).await {
        one.unwrap();
    }
}

#[tokio::test]
async fn whoever_goes_away_does_not_end_a_fetch_for_the_others() {
    let issuer = Issuer::start().await;
    let keys = keyring(&issuer, "");
    let now = Instant::now();
    // Dropped as soon as it waits.
    assert!(keys.key("first", now).now_or_never().is_none());
    keys.key("first", later(3)).await.unwrap();
}

#[tokio::test]
async fn keys_of_a_file_are_read_again_when_it_changes() {
    let issuer = Issuer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let jwk = |kid: &str| {
        let x = oidc::text(oidc::public(kid));
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}]}).to_string()
    };
    std::fs::write(&path, jwk("one")).unwrap();
    let keys = keyring(&issuer, &format!("jwks-file = '{}'", path.display()));
    keys.key("one", Instant::now()).await.unwrap();
    keys.key("two", Instant::now()).await.unwrap_err();
    assert_eq!((keys.look().await, issuer.asked()), (Ok(1), 0));
}
