//! Where a client reaches this hub: what the addresses that it is given begin
//! with.
//!
//! That is what it has called the hub itself, unless an operator says otherwise:
//! behind a proxy that changes the host, or ends TLS, only they know. What a
//! proxy may say of it (`X-Forwarded-…`) anybody could say as well, and is not
//! looked at.

use std::str::FromStr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};
use url::Url;

/// The longest name of a host with its port, in bytes.
const MAX_HOST: usize = 300;

/// What an operator says: `https://cache.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| "expected https://HOST[:PORT]")?;
        let fits = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        match fits {
            true => Ok(Self(url.origin().ascii_serialization())),
            // Clients of the second version drop a path.
            false => Err("expected https://HOST[:PORT], with no path and nothing else"),
        }
    }
}

impl PublicUrl {
    /// The name of its host.
    pub fn host(&self) -> Option<String> {
        let url = Url::parse(&self.0).ok()?;
        url.host_str().map(str::to_owned)
    }
}

/// What addresses begin with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What is said instead.
    pub public: Option<PublicUrl>,
    /// Whether clients speak TLS to this process.
    pub tls: bool,
}

impl Base {
    /// For whoever sent this; none where it does not say whom it was sent to.
    pub fn of(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        if let Some(PublicUrl(url)) = &self.public {
            return Some(url.clone());
        }
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(Authority::as_str).or(named)?;
        let authority: Authority = host.parse().ok()?;
        let fits = host.len() <= MAX_HOST && !host.contains('@') && !authority.host().is_empty();
        let scheme = if self.tls { "https" } else { "http" };
        fits.then(|| format!("{scheme}://{authority}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(tls: bool) -> Base {
        Base { public: None, tls }
    }

    fn told(base: &Base, uri: &str, host: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        headers.insert("x-forwarded-host", "elsewhere".parse().unwrap());
        base.of(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn it_is_what_the_client_has_called_the_hub() {
        let plain = told(&base(false), "/twirp", Some("cache:8700"));
        assert_eq!(plain.unwrap(), "http://cache:8700");
        let six = told(&base(true), "/twirp", Some("[::1]:8700"));
        assert_eq!(six.unwrap(), "https://[::1]:8700");
        let two = told(&base(true), "https://cache/twirp", None);
        assert_eq!(two.unwrap(), "https://cache");
    }

    #[test]
    fn what_is_no_host_is_none() {
        for host in [
            None,
            Some(""),
            Some("a/b"),
            Some("user@host"),
            Some("a b"),
            Some("a?b"),
        ] {
            assert_eq!(told(&base(false), "/", host), None, "{host:?}");
        }
        let long = format!("{}.example", "x".repeat(MAX_HOST));
        assert_eq!(told(&base(false), "/", Some(&long)), None);
    }

    #[test]
    fn an_operator_knows_better() {
        let public = Some("https://cache.example.com/".parse().unwrap());
        let base = Base { public, tls: false };
        let found = told(&base, "/", Some("inside:8700")).unwrap();
        assert_eq!(found, "https://cache.example.com");
        for text in [
            "cache.example.com",
            "ftp://cache",
            "https://cache/path",
            "https://a:b@cache",
            "https://cache?x",
            "https://cache#x",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
