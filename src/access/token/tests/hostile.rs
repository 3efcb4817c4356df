//! Tokens that must not count.

use ring::hmac;

use super::*;

fn good_claims() -> Value {
    json!({
        "iss": "layerd", "aud": "layerd", "sub": "ci", "jti": "1",
        "iat": NOW, "nbf": NOW, "exp": NOW + 600,
        "project": "acme/shop", "read": ["main"], "write": []
    })
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": "known"})
}

/// Keys of a secret that the test knows, named `known`.
fn known_secret() -> (Keys, [u8; 32], tempfile::TempDir) {
    let secret = [7; 32];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known.hex");
    std::fs::write(&path, hex::encode(secret)).unwrap();
    (Keys::open(&path).unwrap(), secret, dir)
}

/// A token with these parts, signed by the HS256 secret of `key`.
fn signed(header: &Value, claims: &str, secret: &[u8]) -> String {
    let [header, claims] = [header.to_string().as_str(), claims].map(|part| BASE64.encode(part));
    let message = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

#[test]
fn no_token_chooses_its_algorithm() {
    let ring = Ring::new(Algorithm::Ed25519);
    let genuine = ring.mint(&new_token());
    let [_, claims, signature] = genuine.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    for alg in ["none", "None", "HS256", "HS512", "RS256", "ES256", "EdDSA "] {
        let header = BASE64.encode(json!({"alg": alg, "kid": "ed"}).to_string());
        for signature in ["", signature] {
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(ring.denied(&token), Denied::Algorithm, "{alg}");
        }
    }
    // The public key is known to everybody, in each of these forms.
    let pem = ring.ed_public.as_bytes();
    let body: String = ring
        .ed_public
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    let claims = String::from_utf8(BASE64.decode(claims).unwrap()).unwrap();
    for secret in [pem, &der, &der[12..]] {
        for kid in ["ed", "hs"] {
            let header = json!({"alg": "HS256", "kid": kid});
            let denied = ring.denied(&signed(&header, &claims, secret));
            let expected = if kid == "ed" {
                Denied::Algorithm
            } else {
                Denied::Signature
            };
            assert_eq!(denied, expected);
        }
    }
}

#[test]
fn a_header_must_name_a_known_key_and_ask_for_nothing_special() {
    let (keys, secret, _dir) = known_secret();
    let claims = good_claims().to_string();
    let denied = |header: Value| {
        keys.verify(&signed(&header, &claims, &secret), at(0))
            .unwrap_err()
    };
    assert!(
        keys.verify(&signed(&hs256(), &claims, &secret), at(0))
            .is_ok()
    );
    assert_eq!(
        denied(json!({"alg": "HS256", "kid": "other"})),
        Denied::UnknownKey("other".to_owned())
    );
    let nameless = Denied::Malformed("the name of its key");
    assert_eq!(denied(json!({"alg": "HS256"})), nameless);
    for kid in ["../../etc/passwd", "a\nb", "", &"k".repeat(1000)] {
        assert_eq!(denied(json!({"alg": "HS256", "kid": kid})), nameless);
    }
    for crit in [json!(["exp"]), json!([]), json!("b64")] {
        let header = json!({"alg": "HS256", "kid": "known", "crit": crit, "b64": false});
        assert_eq!(denied(header), Denied::Critical);
    }
    for header in [
        json!([]),
        json!({}),
        json!("x"),
        json!({"alg": 7, "kid": "known"}),
    ] {
        assert_eq!(denied(header), Denied::Malformed("its header"));
    }
}

#[test]
fn every_claim_is_needed_and_has_to_be_what_it_should() {
    let (keys, secret, _dir) = known_secret();
    let verify =
        |claims: &Value| keys.verify(&signed(&hs256(), &claims.to_string(), &secret), at(0));
    let good = good_claims();
    verify(&good).unwrap();
    for claim in good.as_object().unwrap().keys() {
        for wrong in [
            None,
            Some(Value::Null),
            Some(json!({})),
            Some(json!([[7]])),
            Some(json!(true)),
        ] {
            let mut claims = good.clone();
            match wrong {
                Some(value) => claims[claim] = value,
                None => drop(claims.as_object_mut().unwrap().remove(claim)),
            }
            let denied = verify(&claims).unwrap_err();
            let audience = claim == "aud" && denied == Denied::Audience;
            assert!(
                audience || matches!(denied, Denied::Claim(name) if name == claim),
                "{claim}: {denied:?}"
            );
        }
    }
    for (claim, value, expected) in [
        ("iss", json!("github"), Denied::Issuer),
        ("aud", json!("other"), Denied::Audience),
        ("aud", json!([]), Denied::Audience),
        ("exp", json!(NOW + 100 * 86_400), Denied::Lifetime),
        ("exp", json!(i64::MAX), Denied::Claim("exp")),
        ("exp", json!(1e300), Denied::Claim("exp")),
        ("exp", json!((NOW + 5).to_string()), Denied::Claim("exp")),
        (
            "exp",
            json!(-5),
            Denied::Expired(Duration::from_secs(NOW as u64 + 5)),
        ),
        ("project", json!("../x"), Denied::Claim("project")),
        ("project", json!("a\u{0}"), Denied::Claim("project")),
        ("read", json!(["refs/heads/../x"]), Denied::Claim("read")),
        ("write", json!(["x".repeat(2000)]), Denied::Claim("write")),
        ("write", json!(vec!["x"; 101]), Denied::Claim("write")),
        ("sub", json!("a\u{1b}[31m"), Denied::Claim("sub")),
        ("jti", json!("a b"), Denied::Claim("jti")),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        assert_eq!(verify(&claims).unwrap_err(), expected, "{claim}");
    }
    let mut claims = good.clone();
    claims["aud"] = json!(["other", "layerd"]);
    claims["exp"] = json!(NOW as f64 + 5.5);
    verify(&claims).unwrap();
}

#[test]
fn hostile_texts_are_denied_and_nothing_else_happens() {
    let (keys, secret, _dir) = known_secret();
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    for claims in [
        "",
        "7",
        "[]",
        "nonsense",
        &deep(5000),
        &format!(r#"{{"aud":{}}}"#, deep(5000)),
    ] {
        let token = signed(&hs256(), claims, &secret);
        assert!(
            matches!(keys.verify(&token, at(0)), Err(Denied::Malformed(_))),
            "{claims:.20}"
        );
    }
    for header in [deep(5000), format!(r#"{{"alg":{}}}"#, deep(5000))] {
        let token = format!("{}.e30.", BASE64.encode(header));
        assert_eq!(
            keys.verify(&token, at(0)).unwrap_err(),
            Denied::Malformed("its header")
        );
    }
    for token in [
        "", ".", "..", "...", "a.b.c", "é.é.é", "Bearer x", "\0.\0.\0",
    ] {
        let denied = keys.verify(token, at(0)).unwrap_err();
        assert!(
            matches!(denied, Denied::Malformed(_)),
            "{token:?}: {denied:?}"
        );
    }
    for huge in ["x".repeat(MAX_TOKEN + 1), ".".repeat(1 << 20)] {
        assert_eq!(keys.verify(&huge, at(0)).unwrap_err(), Denied::TooLong);
        assert!(matches!(read_unverified(&huge), Err(Denied::TooLong)));
    }
}

#[test]
fn what_is_said_of_a_denied_token_shows_nothing_of_it() {
    let (keys, secret, _dir) = known_secret();
    let mut claims = good_claims();
    for (claim, value) in [
        ("iss", "hunter2"),
        ("aud", "hunter2"),
        ("project", "hunter2 "),
        ("sub", "hunter2\n"),
    ] {
        claims[claim] = json!(value);
        let denied = keys.verify(&signed(&hs256(), &claims.to_string(), &secret), at(0));
        let denied = denied.unwrap_err();
        assert!(
            !format!("{denied} {denied:?}").contains("hunter2"),
            "{denied:?}"
        );
        claims = good_claims();
    }
}

proptest! {
    #[test]
    fn garbage_never_counts(text in "\\PC{0,60}", parts in prop::collection::vec(any::<Vec<u8>>(), 0..5)) {
        let (keys, ..) = known_secret();
        prop_assert!(keys.verify(&text, at(0)).is_err());
        let encoded: Vec<_> = parts.iter().map(|part| BASE64.encode(part)).collect();
        prop_assert!(keys.verify(&encoded.join("."), at(0)).is_err());
        prop_assert!(read_unverified(&text).is_err());
    }
}

/// Every bit, one after the other: also those of the last letter of a part that
/// decode to nothing.
#[test]
fn a_token_with_any_bit_flipped_is_denied() {
    for algorithm in [Algorithm::Ed25519, Algorithm::Hs256] {
        let ring = Ring::new(algorithm);
        let token = ring.mint(&new_token());
        for at_byte in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at_byte] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert!(ring.keys.verify(&flipped, at(0)).is_err(), "{flipped}");
            }
        }
        assert!(ring.keys.verify(&token, at(0)).is_ok());
    }
}
