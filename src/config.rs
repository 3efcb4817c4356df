//! Values that the command line, the environment and a file can set.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A socket address to listen on or to connect to: `unix:///path` or
/// `tcp://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port; an IPv6 host stands in brackets.
    Tcp(String),
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Another scheme, or none.
    #[error("expected unix:///path/to.sock or tcp://host:port")]
    Scheme,
    /// A unix path that is empty or relative.
    #[error("a unix socket needs an absolute path: unix:///path/to.sock")]
    Path,
    /// No port, or no number.
    #[error("a TCP address needs a host and a port: tcp://127.0.0.1:1234")]
    Port,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(InvalidEndpoint::Path)
            };
        }
        let address = text.strip_prefix("tcp://").ok_or(InvalidEndpoint::Scheme)?;
        let (host, port) = address.rsplit_once(':').ok_or(InvalidEndpoint::Port)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(InvalidEndpoint::Port);
        }
        Ok(Self::Tcp(address.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Where metrics are shown: `host:port` as numbers, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// There; port 0 is any free one.
    At(SocketAddr),
}

/// A text that is no [`MetricsAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address and a port, 127.0.0.1:9464, or off")]
pub struct InvalidMetricsAddress;

impl FromStr for MetricsAddress {
    type Err = InvalidMetricsAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMetricsAddress> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| InvalidMetricsAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shown_as_they_are_written() {
        for text in [
            "unix:///run/buildkit/buildkitd.sock",
            "tcp://127.0.0.1:0",
            "tcp://[::1]:1234",
            "tcp://builder.internal:1234",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn metrics_are_shown_at_an_address_or_not_at_all() {
        assert_eq!("off".parse(), Ok(MetricsAddress::Off));
        for address in ["127.0.0.1:0", "[::]:9464"] {
            let expected = MetricsAddress::At(address.parse().unwrap());
            assert_eq!(address.parse(), Ok(expected));
        }
        assert_eq!(
            "localhost".parse::<MetricsAddress>(),
            Err(InvalidMetricsAddress)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            "/run/x.sock".parse::<Endpoint>(),
            Err(InvalidEndpoint::Scheme)
        );
        assert_eq!(
            "unix://x.sock".parse::<Endpoint>(),
            Err(InvalidEndpoint::Path)
        );
        assert_eq!(
            "tcp://localhost".parse::<Endpoint>(),
            Err(InvalidEndpoint::Port)
        );
        assert_eq!(
            "tcp://localhost:http".parse::<Endpoint>(),
            Err(InvalidEndpoint::Port)
        );
    }
}
