//! What a listener shows over TLS: options that both daemons have.

use std::path::PathBuf;

use clap::Args;

use crate::tls::{Acceptor, Alpn, ServerTls, TlsError};

/// The certificate of a listener, and whom it lets in.
#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Speak TLS: the certificate chain to show, PEM; read again when it
    /// changes.
    #[arg(
        long = "tls-cert",
        id = "tls_cert",
        env = "LAYERD_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    cert: Option<PathBuf>,

    /// The key of --tls-cert, PEM.
    #[arg(
        long = "tls-key",
        id = "tls_key",
        env = "LAYERD_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    key: Option<PathBuf>,

    /// Only clients with a certificate of these authorities may connect, PEM.
    #[arg(
        long = "tls-client-ca",
        id = "tls_client_ca",
        env = "LAYERD_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    client_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// Whether clients have to show a certificate.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.client_ca.is_some()
    }

    /// What accepts connections, where TLS is asked for.
    pub(super) fn acceptor(&self, alpn: Alpn) -> Result<Option<Acceptor>, TlsError> {
        let identity = self.cert.clone().zip(self.key.clone());
        let tls = identity.map(|(cert, key)| ServerTls {
            cert,
            key,
            client_ca: self.client_ca.clone(),
            alpn,
        });
        tls.map(|tls| tls.acceptor()).transpose()
    }
}
