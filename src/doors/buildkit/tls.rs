//! TLS for both sides of the proxy: client certificates wanted from clients,
//! shown to buildkitd.
//!
//! The files are PEM. ALPN is `h2`, as gRPC demands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What a listener shows and wants.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Its certificate chain.
    pub cert: PathBuf,
    /// The key of the first of those.
    pub key: PathBuf,
    /// Authorities whose clients may connect; none: any client may.
    pub client_ca: Option<PathBuf>,
}

/// What is shown to buildkitd, and wanted from it.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Authorities that may have signed buildkitd's certificate.
    pub ca: PathBuf,
    /// Our certificate chain and its key, where buildkitd wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in buildkitd's certificate; the host of its address unless told.
    pub server_name: Option<String>,
}

/// What is wrong with a TLS file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read, or holds no PEM of the wanted kind.
    #[error("{path}: {source}", path = .0.display(), source = .1)]
    Pem(PathBuf, rustls_pki_types::pem::Error),
    /// Certificate, key and authorities don't make a configuration.
    #[error("TLS: {0}")]
    Config(String),
}

impl ServerTls {
    /// Reads the files.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let builder = ServerConfig::builder();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(authorities(ca)?))
                    .build()
                    .map_err(config)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder
            .with_single_cert(chain(&self.cert)?, key(&self.key)?)
            .map_err(config)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(server)))
    }
}

impl ClientTls {
    /// Reads the files; `host` is what buildkitd's address names.
    pub fn connector(&self, host: &str) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
        let builder = ClientConfig::builder().with_root_certificates(authorities(&self.ca)?);
        let mut client = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, secret)) => builder
                .with_client_auth_cert(chain(cert)?, key(secret)?)
                .map_err(config)?,
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        let name = self
            .server_name
            .as_deref()
            .unwrap_or(host)
            .trim_matches(['[', ']'])
            .to_owned();
        let name = ServerName::try_from(name).map_err(config)?;
        Ok((TlsConnector::from(Arc::new(client)), name))
    }
}

fn config(error: impl std::fmt::Display) -> TlsError {
    TlsError::Config(error.to_string())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| TlsError::Pem(path.to_owned(), error))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::Pem(path.to_owned(), error))
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(path)? {
        roots.add(authority).map_err(config)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Config(format!(
            "{} holds no certificate",
            path.display()
        )));
    }
    Ok(roots)
}
