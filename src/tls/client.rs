//! The side that connects.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::files::{add_authorities, chain, key};
use super::{Alpn, HANDSHAKE_LIMIT, TlsError, provider};
use crate::watched::Watched;

/// Whose servers are trusted.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Those of the authorities in this file, and no other's.
    Only(PathBuf),
    /// Those that this system trusts, and those of the file if there is one.
    /// Only the file is watched.
    System(Option<PathBuf>),
}

/// What is shown to a server, and wanted from it.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Whose servers are trusted.
    pub roots: Roots,
    /// Our certificate chain and its key, where the server wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate; the host that is connected to
    /// unless told.
    pub server_name: Option<String>,
    /// What is spoken.
    pub alpn: Alpn,
}

impl Roots {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Only(file) => Some(file),
            Self::System(file) => file.as_ref(),
        }
    }

    fn store(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        if let Some(file) = self.file() {
            add_authorities(&mut store, file)?;
        }
        if let Self::System(_) = self {
            let system = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(system.certs);
            if store.is_empty() {
                let why = system
                    .errors
                    .first()
                    .map_or_else(String::new, |error| format!(": {error}"));
                return Err(TlsError::Config(format!(
                    "this system trusts no authority (its CA certificates are missing){why}"
                )));
            }
        }
        Ok(store)
    }
}

impl ClientTls {
    /// Reads the files, and goes on watching them.
    pub fn connector(&self) -> Result<Connector, TlsError> {
        let name = self.server_name.as_deref().map(server_name).transpose();
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let files: Vec<_> = self
            .roots
            .file()
            .into_iter()
            .chain(identity)
            .cloned()
            .collect();
        let tls = self.clone();
        let watched = Watched::open(files, move || tls.config())?;
        Ok(Connector {
            config: Arc::new(watched),
            name: name?,
        })
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::config)?
            .with_root_certificates(self.roots.store()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, secret)) => builder
                .with_client_auth_cert(chain(cert)?, key(secret)?)
                .map_err(TlsError::config)?,
        };
        config.alpn_protocols = self.alpn.names();
        Ok(config)
    }
}

/// The settings of a client that trusts what this system trusts, and speaks
/// HTTP.
pub fn system_client() -> Result<ClientConfig, TlsError> {
    system_client_and(None)
}

/// The same of one that trusts the authorities of a file as well.
pub fn system_client_and(authorities: Option<PathBuf>) -> Result<ClientConfig, TlsError> {
    let tls = ClientTls {
        roots: Roots::System(authorities),
        identity: None,
        server_name: None,
        alpn: Alpn::Http,
    };
    tls.config()
}

/// The settings of a client that is to speak in the clear: it trusts nobody.
pub fn no_client() -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::config)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// A host name, or an IP address with or without brackets.
fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let host = host.trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned())
        .map_err(|error| TlsError::Config(format!("{host:?}: {error}")))
}

/// Does a client's handshakes, with the files as they are by then.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Watched<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl Connector {
    /// Does the handshake with a server, whose certificate must be for `host`
    /// unless another name was told. It fails for a server that takes too long
    /// over it.
    ///
    /// A server that wants a certificate and gets none, or a wrong one, may say
    /// so only after this has succeeded (TLS 1.3): then the first read fails.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_within(HANDSHAKE_LIMIT, host, stream).await
    }

    pub(super) async fn connect_within<S>(
        &self,
        limit: Duration,
        host: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let handshake = TlsConnector::from(self.config.current()).connect(name, stream);
        tokio::time::timeout(limit, handshake).await?
    }

    /// Looks now whether the files have changed.
    pub fn look(&self) {
        self.config.look();
    }
}
