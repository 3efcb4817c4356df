//! Addresses that whoever has them may use: signed, for one thing, and for a
//! while.
//!
//! `BASE/gha/up/WHAT?se=UNTIL&sig=SIGNATURE` takes an upload, `/gha/down/…`
//! gives bytes. `WHAT` says all that a hub has to know, so that any of them can
//! answer. It has three segments, since Azure's clients read an account, a
//! container and a blob into it; they also sort the query, write it anew and
//! add to it, so that the values are signed and not how they are written. The
//! signature is called as Azure calls its own: GitHub's client masks that in
//! its logs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::hmac;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

/// How long an address can be used: as long as what it is about is kept for
/// whoever was given it.
pub const LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// The longest that is looked at, in bytes.
const MAX_WHAT: usize = 24 << 10;

/// What an address is for: one is never good for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Bytes come in.
    Up,
    /// Bytes go out.
    Down,
}

impl Way {
    fn segment(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Why an address is not followed. Which of them it was is not for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Its time is over.
    #[error("the address has expired: ask for another one")]
    Expired,
    /// It was not made here, or it was changed.
    #[error("the signature of the address is wrong or missing")]
    Signature,
}

/// Signs addresses, and knows them again.
pub struct Signer(hmac::Key);

impl Signer {
    /// By a secret that all hubs of one catalog have.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The address of `what`, below `base`.
    pub fn address(&self, base: &str, way: Way, what: &impl Serialize, now: Timestamp) -> String {
        // Names and numbers always become JSON.
        let what = BASE64.encode(serde_json::to_vec(what).unwrap_or_default());
        let until = now.as_second().saturating_add_unsigned(LIFETIME.as_secs());
        let signature = hmac::sign(&self.0, &signed(way, &what, until));
        let signature = hex::encode(signature);
        let way = way.segment();
        format!("{base}/gha/{way}/{what}?se={until}&sig={signature}")
    }

    /// What an address is about, if it counts at `now`, and how long ago it was
    /// given, to a second.
    pub fn read<T: DeserializeOwned>(
        &self,
        way: Way,
        what: &str,
        query: &str,
        now: Timestamp,
    ) -> Result<(T, Duration), BadAddress> {
        if what.len() > MAX_WHAT {
            return Err(BadAddress::Signature);
        }
        let value = |name| {
            let value = single(query, name).ok().flatten();
            value.ok_or(BadAddress::Signature)
        };
        let until: i64 = value("se")?.parse().map_err(|_| BadAddress::Signature)?;
        let signature = hex::decode(value("sig")?).map_err(|_| BadAddress::Signature)?;
        hmac::verify(&self.0, &signed(way, what, until), &signature)
            .map_err(|_| BadAddress::Signature)?;
        let left = until.saturating_sub(now.as_second());
        let left = u64::try_from(left).map_err(|_| BadAddress::Expired)?;
        let what = BASE64.decode(what).map_err(|_| BadAddress::Signature)?;
        let what = serde_json::from_slice(&what).map_err(|_| BadAddress::Signature)?;
        Ok((what, LIFETIME.saturating_sub(Duration::from_secs(left))))
    }
}

/// What the signature is of. No part has a line break.
fn signed(way: Way, what: &str, until: i64) -> Vec<u8> {
    let way = way.segment();
    format!("layerd gha 1\n{way}\n{what}\n{until}").into_bytes()
}

/// A parameter that is there more than once: which of them counts, nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is there more than once")]
pub struct Twice(String);

/// The value of a parameter, if it is there.
pub fn single(query: &str, name: &str) -> Result<Option<String>, Twice> {
    let values = form_urlencoded::parse(query.as_bytes());
    let mut values = values.filter(|(other, _)| other == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Twice(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn taken(address: &str) -> (&str, &str) {
        let (path, query) = address.split_once('?').unwrap();
        (path.rsplit('/').next().unwrap(), query)
    }

    fn read(signer: &Signer, way: Way, address: &str) -> Result<String, BadAddress> {
        let (what, query) = taken(address);
        signer.read(way, what, query, NOW).map(|(what, _)| what)
    }

    #[test]
    fn an_address_is_good_for_what_it_was_made_for_however_its_query_is_written() {
        let signer = Signer::new(&[7; 32]);
        let address = signer.address("http://hub", Way::Up, &"thing", NOW);
        assert!(address.starts_with("http://hub/gha/up/"), "{address}");
        assert_eq!(read(&signer, Way::Up, &address).unwrap(), "thing");
        let (what, query) = taken(&address);
        let (until, signature) = query.split_once('&').unwrap();
        for query in [
            format!("blockid=YQ%3D%3D&comp=block&{signature}&{until}"),
            format!("{until}&{signature}&timeout=30"),
            query.replace("se=", "%73e="),
        ] {
            let found: Result<(String, _), _> = signer.read(Way::Up, what, &query, NOW);
            assert_eq!(found.unwrap().0, "thing", "{query}");
        }
    }

    #[test]
    fn what_was_changed_or_made_elsewhere_is_not_followed() {
        let signer = Signer::new(&[7; 32]);
        let address = signer.address("http://hub", Way::Up, &"thing", NOW);
        assert_eq!(
            read(&signer, Way::Down, &address),
            Err(BadAddress::Signature)
        );
        let other = Signer::new(&[8; 32]);
        assert_eq!(read(&other, Way::Up, &address), Err(BadAddress::Signature));
        let (what, query) = taken(&address);
        let elsewhere = BASE64.encode("\"other\"");
        let later = query.replace("se=7200", "se=7201");
        assert_ne!(later, query);
        let twice = format!("{query}&sig=00");
        let cut = &query[..query.len() - 2];
        for (what, query) in [
            (elsewhere.as_str(), query),
            (what, later.as_str()),
            (what, &twice),
            (what, cut),
            (what, "se=7200"),
            (what, "se=7200&sig="),
            (what, "se=7200&sig=zz"),
            (what, "sig=00&se=x"),
            (what, ""),
            ("", query),
        ] {
            let found: Result<(String, _), _> = signer.read(Way::Up, what, query, NOW);
            assert_eq!(found, Err(BadAddress::Signature), "{what} {query}");
        }
    }

    #[test]
    fn a_parameter_that_is_there_twice_is_not_one_that_is_absent() {
        assert_eq!(single("a=1&b=2", "b"), Ok(Some("2".to_owned())));
        assert_eq!(single("a=1&b=2", "c"), Ok(None));
        for query in ["a=1&a=1", "a=1&b=2&%61=3", "a&a"] {
            assert!(single(query, "a").is_err(), "{query}");
        }
    }

    #[test]
    fn it_ends() {
        let signer = Signer::new(&[7; 32]);
        let address = signer.address("http://hub", Way::Down, &1, NOW);
        let (what, query) = taken(&address);
        let at = |seconds| -> Result<(u8, Duration), _> {
            let now = Timestamp::from_second(seconds).unwrap();
            signer.read(Way::Down, what, query, now)
        };
        for age in [0_i64, 4, 7200] {
            let aged = Duration::from_secs(age.unsigned_abs());
            assert_eq!(at(age), Ok((1, aged)), "{age}");
        }
        assert_eq!(at(7201), Err(BadAddress::Expired));
    }
}
