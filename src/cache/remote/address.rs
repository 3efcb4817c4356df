//! Where a hub is: an origin, `http://host:port` or `https://host:port`.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The origin of a hub. Two texts that mean the same one are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubAddress {
    tls: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// A text that is no [`HubAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHubAddress {
    /// Not a URL of these.
    #[error("expected http://HOST:PORT or https://HOST:PORT")]
    Form,
    /// A user or a password.
    #[error("a hub's address holds no user and no password: give a token")]
    User,
    /// More than an origin.
    #[error("a hub's address has no path and no query: http://HOST:PORT")]
    Path,
}

impl HubAddress {
    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What is connected to.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for HubAddress {
    type Err = InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, InvalidHubAddress> {
        let uri: Uri = text.parse().map_err(|_| InvalidHubAddress::Form)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidHubAddress::Form),
        };
        let authority = uri.authority().ok_or(InvalidHubAddress::Form)?;
        if authority.as_str().contains('@') {
            return Err(InvalidHubAddress::User);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(InvalidHubAddress::Path);
        }
        let host = authority.host();
        let rest = &authority.as_str()[host.len()..];
        // A port that is none reads as if there were none.
        if host.is_empty() || (!rest.is_empty() && authority.port_u16().is_none()) {
            return Err(InvalidHubAddress::Form);
        }
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        })
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_mean_one_origin_are_equal() {
        let same = |a: &str, b: &str| {
            assert_eq!(
                a.parse::<HubAddress>().unwrap(),
                b.parse::<HubAddress>().unwrap(),
                "{a} {b}"
            );
        };
        same("http://Cache:8700", "http://cache:8700/");
        same("https://cache", "https://cache:443");
        same("http://[::1]:80", "http://[::1]");
        for text in ["http://cache:8700", "https://hub.example", "http://[::1]:1"] {
            assert_eq!(text.parse::<HubAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for (text, why) in [
            ("cache:8700", InvalidHubAddress::Form),
            ("ftp://cache", InvalidHubAddress::Form),
            ("http://", InvalidHubAddress::Form),
            ("http://cache:port", InvalidHubAddress::Form),
            ("http://cache:99999", InvalidHubAddress::Form),
            ("http://user:secret@cache", InvalidHubAddress::User),
            ("http://cache/path", InvalidHubAddress::Path),
            ("http://cache?x=1", InvalidHubAddress::Path),
        ] {
            assert_eq!(text.parse::<HubAddress>(), Err(why), "{text}");
        }
    }
}
