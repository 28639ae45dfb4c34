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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::Console;
    use crate::admin::error::Code;
    use crate::admin::ports::{self, Ports};
    use crate::admin::remote::{Remote, Trust};
    use crate::admin::tests::{loopback, raw};
    use crate::admin::token::Token;
    use crate::connector::embedded::{Log, Options};
    use crate::telemetry::metrics::Metrics;
    use std::net::SocketAddr;

    /// A certificate for this name, written as PEM files.
    fn certificate(dir: &std::path::Path, name: &str) -> Tls {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = Tls {
            certificate: dir.join("certificate.pem"),
            key: dir.join("key.pem"),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn with_tls_the_admin_port_leaves_loopback_and_wants_its_token_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
        let console = Arc::new(Console::new(log, Vec::new));
        let files = certificate(dir.path(), "localhost");
        let admin = ports::Admin {
            listen: "0.0.0.0:0".parse().unwrap(),
            tls: Some(files.clone()),
            token: Some(Token::from_secret("a-token-of-my-own").unwrap()),
        };
        let ports = Ports::open(
            dir.path(),
            admin,
            loopback(),
            console,
            Metrics::new().unwrap(),
        )
        .unwrap();
        assert!(ports.address().tls);
        let url = format!("https://localhost:{}", ports.address().admin.port());
        let ask = |token: &str, trust| {
            Remote::trusting(&url, Token::from_text(token).unwrap(), trust)
                .unwrap()
                .status()
                .map(|_| ())
                .map_err(|error| error.code)
        };
        let own = Trust::Authorities(std::fs::read(&files.certificate).unwrap());
        assert_eq!(ask("a-token-of-my-own", own.clone()), Ok(()));
        assert_eq!(ask("a-token-of-another", own), Err(Code::Unauthorized));
        assert_eq!(ask("wrong", Trust::OwnMachine), Err(Code::Unauthorized));
        // A certificate that nobody vouches for is not believed, and the token not sent.
        assert_eq!(ask("wrong", Trust::WebRoots), Err(Code::Unreachable));
        let (status, _) = raw(
            SocketAddr::from(([127, 0, 0, 1], ports.address().admin.port())),
            "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        assert_eq!(status, 0, "plain HTTP is no handshake");
        ports.close();
    }

    #[test]
    fn a_certificate_that_is_none_keeps_the_host_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
        let console = Arc::new(Console::new(log, Vec::new));
        let mut files = certificate(dir.path(), "localhost");
        std::mem::swap(&mut files.certificate, &mut files.key);
        let admin = ports::Admin {
            listen: loopback(),
            tls: Some(files),
            token: None,
        };
        let opened = Ports::open(
            dir.path(),
            admin,
            loopback(),
            console,
            Metrics::new().unwrap(),
        );
        let error = opened.err().unwrap().to_string();
        assert!(
            error.contains("host.admin.tls") && error.contains("key.pem"),
            "{error}"
        );
    }
}
