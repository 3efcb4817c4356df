//! What stands in PEM files.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::RootCertStore;

use super::TlsError;

/// Every certificate of a file.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| TlsError::Pem(path.to_owned(), error))
}

/// The private key of a file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::Pem(path.to_owned(), error))
}

/// Adds every certificate of a file, of which there must be one.
pub fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let authorities = chain(path)?;
    if authorities.is_empty() {
        return Err(TlsError::Config(format!(
            "{} holds no certificate",
            path.display()
        )));
    }
    for authority in authorities {
        roots.add(authority).map_err(TlsError::config)?;
    }
    Ok(())
}
