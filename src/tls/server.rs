//! The side that is connected to.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::files::{add_authorities, chain, key};
use super::{Alpn, HANDSHAKE_LIMIT, TlsError, provider};
use crate::watched::Watched;

/// What a listener shows and wants.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Its certificate chain.
    pub cert: PathBuf,
    /// The key of the first of those.
    pub key: PathBuf,
    /// Authorities whose clients may connect; none: any client may.
    pub client_ca: Option<PathBuf>,
    /// What is spoken.
    pub alpn: Alpn,
}

impl ServerTls {
    /// Reads the files, and goes on watching them.
    pub fn acceptor(&self) -> Result<Acceptor, TlsError> {
        let files = [&self.cert, &self.key].into_iter().chain(&self.client_ca);
        let files: Vec<_> = files.cloned().collect();
        let tls = self.clone();
        let watched = Watched::open(files, move || tls.config())?;
        Ok(Acceptor(Arc::new(watched)))
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::config)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut authorities = RootCertStore::empty();
                add_authorities(&mut authorities, ca)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(TlsError::config)?)
            }
        };
        let mut config = builder
            .with_single_cert(chain(&self.cert)?, key(&self.key)?)
            .map_err(|error| {
                let (cert, key) = (self.cert.display(), self.key.display());
                TlsError::config(format!("{cert} with {key}: {error}"))
            })?;
        config.alpn_protocols = self.alpn.names();
        Ok(config)
    }
}

/// Does a server's handshakes, with the files as they are by then.
#[derive(Clone)]
pub struct Acceptor(Arc<Watched<ServerConfig>>);

impl Acceptor {
    /// Does the handshake with a client that has just connected. It fails for a
    /// client that takes too long over it, speaks no TLS, or shows no
    /// certificate where one is wanted.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_within(HANDSHAKE_LIMIT, stream).await
    }

    pub(super) async fn accept_within<S>(
        &self,
        limit: Duration,
        stream: S,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = TlsAcceptor::from(self.0.current()).accept(stream);
        tokio::time::timeout(limit, handshake).await?
    }

    /// Looks now whether the files have changed.
    pub fn look(&self) {
        self.0.look();
    }
}
