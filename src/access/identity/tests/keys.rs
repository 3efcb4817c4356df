//! Keys, and whether tokens that they signed count.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

use super::super::jwks::{MAX_KEYS, PublicKeys};
use super::super::presented::Presented;
use super::super::{Explained, Rejected};
use super::{TABLES, config};
use crate::access::identity::Issuer;

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn set(keys: Value) -> Result<PublicKeys, String> {
    PublicKeys::parse(json!({ "keys": keys }).to_string().as_bytes())
}

/// An issuer that takes all the usual ways to sign.
fn issuer() -> Issuer {
    config(TABLES).issuer("github").unwrap().clone()
}

struct Ed(Ed25519KeyPair);

impl Ed {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn jwk(&self) -> Value {
        let x = text(self.0.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x, "use": "sig", "alg": "EdDSA"})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = text(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn good(now: Timestamp) -> Value {
    let now = now.as_second();
    json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "https://cache.example.com",
        "iat": now, "nbf": now - 5, "exp": now + 300, "sub": "repo:acme/shop:x",
        "repository": "acme/shop", "repository_owner": "acme", "event_name": "push",
        "ref": "refs/heads/main",
    })
}

/// RFC 7515, A.2 and A.3.
#[test]
fn the_examples_of_the_standard_are_verified() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let keys = set(json!([
        {
            "kty": "RSA", "kid": "rsa", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        },
        {
            "kty": "EC", "kid": "ec", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
    ])).unwrap();
    for (kid, header, signature) in [
        (
            "rsa",
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "ec",
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let message = format!("{header}.{payload}");
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = keys.get(kid).unwrap();
        assert!(key.verifies(message.as_bytes(), &signature), "{kid}");
        assert!(!key.verifies(&message.as_bytes()[1..], &signature), "{kid}");
        for other in ["rsa", "ec"] {
            let right = keys
                .get(other)
                .unwrap()
                .verifies(message.as_bytes(), &signature);
            assert_eq!(right, other == kid);
        }
    }
}

#[test]
fn a_set_gives_what_can_be_used_and_passes_over_the_rest() {
    let ed = Ed::new(1).jwk();
    let with = |name: &str, value: Value| {
        let mut key = ed.clone();
        key[name] = value;
        key
    };
    for other in [
        json!({"kty": "oct", "kid": "ed", "k": text([7; 32]), "alg": "HS256"}),
        json!({"kty": "RSA", "kid": "ed", "e": "AQAB", "n": text([0xff; 128])}),
        json!({"kty": "RSA", "kid": "ed", "e": "AQAB", "n": text([0xff; 256]), "alg": "HS256"}),
        with("use", "enc".into()),
        with("key_ops", json!(["sign"])),
        with("alg", "RS256".into()),
        with("alg", "none".into()),
        with("x", text([1; 31]).into()),
        with("kid", Value::Null),
        with("kid", "k".repeat(600).into()),
        json!("nonsense"),
    ] {
        assert!(set(json!([other])).is_err(), "{other}");
        assert_eq!(set(json!([other, ed])).unwrap().count(), 1, "{other}");
    }
    assert!(set(json!([])).is_err());
    assert!(set(json!(vec![ed.clone(); MAX_KEYS + 1])).is_err());
    assert!(PublicKeys::parse(b"{}").is_err());
    assert!(PublicKeys::parse(b"<html>").is_err());
}

#[test]
fn only_what_its_key_signed_in_its_way_counts() {
    let now = Timestamp::now();
    let (ed, other) = (Ed::new(1), Ed::new(2));
    let keys = set(json!([ed.jwk()])).unwrap();
    let key = keys.get("ed").unwrap();
    let header = json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"});
    let check = |token: &str| Presented::read(token)?.check_signature(key, &issuer());
    assert_eq!(check(&ed.sign(&header, &good(now))), Ok(()));
    assert_eq!(
        check(&other.sign(&header, &good(now))),
        Err(Rejected::Signature)
    );
    let confused = |alg: &str| ed.sign(&json!({"alg": alg, "kid": "ed"}), &good(now));
    for alg in ["none", "None", "HS256", "RS256", "ES256", "PS256", ""] {
        assert_eq!(check(&confused(alg)), Err(Rejected::Algorithm), "{alg}");
    }
    let genuine = ed.sign(&header, &good(now));
    let (message, _) = genuine.rsplit_once('.').unwrap();
    assert_eq!(check(&format!("{message}.")), Err(Rejected::Signature));
    // An issuer that is not to use the key's way.
    let mut strict = issuer();
    strict.algorithms.clear();
    let read = Presented::read(&genuine).unwrap();
    assert_eq!(read.check_signature(key, &strict), Err(Rejected::Algorithm));
    for (header, told) in [
        (json!({"alg": "EdDSA"}), "name of its key"),
        (
            json!({"alg": "EdDSA", "kid": "ed", "crit": ["x"]}),
            "not known",
        ),
        (json!({"kid": "ed"}), "header"),
    ] {
        let error = Presented::read(&ed.sign(&header, &good(now))).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    for nonsense in [
        "",
        "a",
        "a.b.c",
        "e30.e30",
        "e30.e30.e30.e30",
        "e30.e30.e30",
    ] {
        assert!(
            matches!(Presented::read(nonsense), Err(Rejected::Malformed(_))),
            "{nonsense}"
        );
    }
    assert!(matches!(
        Presented::read(&"x".repeat(20_000)),
        Err(Rejected::TooLong)
    ));
}

#[test]
fn a_key_on_a_curve_signs_for_its_own_curve() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "ec", "x": text(&point[1..33]), "y": text(&point[33..]),
    });
    let keys = set(json!([jwk])).unwrap();
    let signature = pair.sign(&random, b"message").unwrap();
    assert!(
        keys.get("ec")
            .unwrap()
            .verifies(b"message", signature.as_ref())
    );
    let mut other = jwk.clone();
    other["crv"] = "P-384".into();
    assert!(set(json!([other])).is_err());
}

#[test]
fn audience_and_time_have_to_be_right() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let ed = Ed::new(1);
    let check = |changes: Value| {
        let mut claims = good(now);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let token = ed.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &claims);
        Presented::read(&token)?.check_claims(&issuer(), now)
    };
    let at = |seconds: i64| now.as_second() + seconds;
    for fine in [
        json!({}),
        json!({"aud": ["x", "https://cache.example.com"]}),
        json!({"exp": at(-59)}),
        json!({"nbf": at(59), "iat": at(59)}),
        json!({"exp": at(24 * 3600)}),
        json!({"exp": at(300) as f64 + 0.5}),
    ] {
        assert_eq!(check(fine.clone()), Ok(()), "{fine}");
    }
    for (wrong, told) in [
        (
            json!({"aud": "https://github.com/acme"}),
            "have the CI make one for that audience",
        ),
        (json!({"aud": null}), "no audience"),
        (json!({"aud": []}), "no audience"),
        (json!({"exp": at(-61)}), "expired 1 min ago"),
        (json!({"exp": null}), "exp"),
        (json!({"exp": "soon"}), "exp"),
        (json!({"exp": 1e300}), "exp"),
        (json!({"nbf": at(90)}), "counts only in"),
        (json!({"iat": at(3600)}), "counts only in"),
        (json!({"exp": at(365 * 24 * 3600)}), "good for more than"),
    ] {
        let error = check(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}

#[test]
fn what_a_hub_would_say_is_explained_without_asking_anybody() {
    let now = Timestamp::now();
    let ed = Ed::new(1);
    let config = config(TABLES);
    let explain = |claims: &Value| {
        let token = ed.sign(&json!({"alg": "EdDSA", "kid": "ed"}), claims);
        Explained::of(&token, &config, now).unwrap()
    };
    let explained = explain(&good(now));
    assert_eq!(explained.refused(), None);
    let (rule, granted) = explained.matched.as_ref().unwrap();
    assert_eq!(rule, "github/branch");
    assert_eq!(granted.as_ref().unwrap().project.as_str(), "acme/shop");
    let (passed, why) = &explained.passed[0];
    assert_eq!(passed, "github/pull-request");
    assert_eq!(
        why.to_string(),
        "claim \"event_name\" is \"push\", not \"pull_request\""
    );
    let mut elsewhere = good(now);
    elsewhere["repository_owner"] = "evil".into();
    let explained = explain(&elsewhere);
    assert!(matches!(explained.refused(), Some(Rejected::NoRule(_))));
    assert_eq!(explained.passed.len(), 7);
    elsewhere["iss"] = "https://evil.example.com".into();
    assert!(matches!(
        explain(&elsewhere).refused(),
        Some(Rejected::Issuer(_))
    ));
}
