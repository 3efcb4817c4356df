//! By which name a hub is administered that asks for no token.
//!
//! Such a hub lets its own host administer it, and a browser is on that host as
//! well. The name of a stranger's page can be made to mean this host (DNS
//! rebinding): the page then asks what it likes, and reads the answers. So what
//! the hub is called has to be a name that nobody else gives away: an address,
//! `localhost`, or one that its operator has told it. Nor does a page from
//! elsewhere ask, whatever it calls the hub.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use super::told::Failure;

/// The longest name that is shown.
const SHOWN: usize = 100;

/// Refuses what may come from a stranger's page; `names` are the operator's.
pub(super) fn check(names: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
    let told = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    let asked: Vec<Option<&str>> = uri
        .authority()
        .map(|authority| Some(authority.as_str()))
        .into_iter()
        .chain(told)
        .collect();
    for host in &asked {
        let name = host.and_then(name_of);
        if !name.as_deref().is_some_and(|name| is_own(name, names)) {
            let name: String = name.unwrap_or_default().chars().take(SHOWN).collect();
            return Err(Failure::new(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                format!(
                    "this hub asks for no token, and is administered only by a name that can't be \
                     another's: call it localhost or by its address, or tell it that it is \
                     {name:?} by --public-url"
                ),
            ));
        }
    }
    let is_same = |origin: &str| {
        let (_, authority) = origin.split_once("://").unwrap_or_default();
        let same =
            |host: &Option<&str>| host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
        asked.iter().any(same)
    };
    let mut origins = headers.get_all(ORIGIN).iter();
    if origins.any(|origin| !origin.to_str().is_ok_and(is_same)) {
        return Err(Failure::forbidden(
            "this hub asks for no token, and pages from elsewhere do not administer it",
        ));
    }
    Ok(())
}

/// The name of a host with its port, without that.
fn name_of(host: &str) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    let name = authority.host().trim_end_matches('.');
    Some(name.to_ascii_lowercase())
}

fn is_own(name: &str, names: &[String]) -> bool {
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name == "localhost"
        || name.ends_with(".localhost")
        || address.unwrap_or(name).parse::<IpAddr>().is_ok()
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The status of a refusal, if it is one.
    fn asked(host: &str, origin: Option<&str>) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let names = ["cache.example.com".to_owned()];
        let checked = check(&names, &Uri::from_static("/v1/projects"), &headers);
        checked.err().map(|failure| failure.status())
    }

    #[test]
    fn a_name_that_anybody_could_have_is_none_of_the_hubs() {
        for host in [
            "localhost",
            "LOCALHOST:8700",
            "cache.localhost:1",
            "127.0.0.1:8700",
            "[::1]:8700",
            "10.0.0.7",
            "cache.example.com",
            "Cache.Example.com:8700",
            "cache.example.com.:80",
        ] {
            assert_eq!(asked(host, None), None, "{host}");
        }
        for host in [
            "evil.example.com:8700",
            "localhost.evil.example.com",
            "127.0.0.1.evil.example.com",
            "cache.example.com.evil.example.com",
            "",
            "a b",
            "user@localhost.evil.com",
            "::1",
        ] {
            assert_eq!(
                asked(host, None),
                Some(StatusCode::MISDIRECTED_REQUEST),
                "{host}"
            );
        }
    }

    #[test]
    fn what_http_2_calls_the_hub_counts_as_well() {
        let refused = |uri: &str| check(&[], &uri.parse().unwrap(), &HeaderMap::new()).is_err();
        assert!(refused("http://evil.example.com/v1/gc"));
        assert!(!refused("http://localhost:8700/v1/gc"));
        // A client that says nothing is no browser.
        assert!(!refused("/v1/gc"));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("evil.example.com"));
        assert!(check(&[], &Uri::from_static("http://localhost/v1/gc"), &headers).is_err());
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        assert_eq!(asked("localhost:8700", Some("http://localhost:8700")), None);
        for origin in [
            "http://localhost:3000",
            "https://evil.example.com",
            "null",
            "",
        ] {
            let refused = asked("localhost:8700", Some(origin));
            assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }
}
