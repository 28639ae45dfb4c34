//! The admin port's certificate: PEM files to what accepts TLS connections. Not here: who is let in after
//! the handshake (`guard.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::valid::Tls;

/// Why the certificate is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("host.admin.tls: {path} cannot be read: {why}; it has to be a PEM file with {what}")]
    Unreadable {
        path: PathBuf,
        what: &'static str,
        why: pem::Error,
    },
    #[error("host.admin.tls: {certificate} and {key} do not make a server: {why}")]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        why: rustls::Error,
    },
}

/// Reads both files.
pub(super) fn acceptor(files: &Tls) -> Result<TlsAcceptor, Error> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| match chain.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(chain),
        })
        .map_err(|why| unreadable(&files.certificate, "a certificate", why))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|why| unreadable(&files.key, "a private key", why))?;
    let unusable = |why| Error::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why,
    };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unreadable(path: &Path, what: &'static str, why: pem::Error) -> Error {
    Error::Unreadable {
        path: path.to_owned(),
        what,
        why,
    }
}
