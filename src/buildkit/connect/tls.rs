//! TLS towards a daemon, by tonic or by itself, from files that are read anew at each connection: a rotated certificate needs no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint as Transport, Identity};

use super::{Address, Error, chain};

/// Largest certificate or key file.
const PEM_LIMIT: u64 = 1 << 20;

/// TLS towards a daemon. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the daemon's certificate; the system's authorities when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate; needs `key`.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name the daemon's certificate must bear, where it is not the address's host.
    pub server_name: Option<String>,
}

impl Tls {
    /// A connection that ends right after the handshake: the daemon's alert says why, but what we send first may meet a
    /// closed connection before the alert is read.
    pub(super) fn refused(&self, seen: &str) -> String {
        let why = match &self.cert {
            None => "the daemon may want a client certificate, and none is set".to_owned(),
            Some(cert) => format!("the daemon may not take the client certificate {}", cert.display()),
        };
        format!("the connection ended right after the handshake: {why} ({seen})")
    }
}

/// What tonic must know of a TCP address: the authority, and TLS.
pub(super) async fn transport(address: &Address, tls: Option<&Tls>) -> Result<Transport, Error> {
    let authority = address.to_string().replacen("tcp://", "", 1);
    let bad = |reason: String| Error::Tls { address: address.clone(), reason };
    let Some(tls) = tls else {
        return Transport::from_shared(format!("http://{authority}"))
            .map_err(|_| Error::Address { given: address.to_string() });
    };
    let mut config = match &tls.ca {
        Some(ca) => ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem(address, ca, "CERTIFICATE").await?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => config.identity(Identity::from_pem(
            pem(address, cert, "CERTIFICATE").await?,
            pem(address, key, "PRIVATE KEY").await?,
        )),
        (None, None) => config,
        _ => return Err(bad("a client certificate and its key belong together: only one is set".into())),
    };
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Transport::from_shared(format!("https://{authority}"))
        .map_err(|_| Error::Address { given: address.to_string() })?
        .tls_config(config)
        .map_err(|e| bad(chain(&e)))
}

/// A PEM file that holds at least one block whose label ends in `label`.
async fn pem(address: &Address, path: &Path, label: &str) -> Result<Vec<u8>, Error> {
    let read = read(path, label).await;
    read.map_err(|cause| Error::Tls { address: address.clone(), reason: cause.to_string() })
}

async fn read(path: &Path, label: &str) -> io::Result<Vec<u8>> {
    let bad = |reason: String| io::Error::other(format!("{}: {reason}", path.display()));
    let size = tokio::fs::metadata(path).await.map_err(|e| bad(e.to_string()))?.len();
    if size > PEM_LIMIT {
        return Err(bad(format!("{size} bytes are too many for a {label} file")));
    }
    let text = tokio::fs::read(path).await.map_err(|e| bad(e.to_string()))?;
    let mark = format!("{label}-----");
    match text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        true => Ok(text),
        false => Err(bad(format!("holds no PEM block of the kind {label}"))),
    }
}

async fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = read(path, "CERTIFICATE").await?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}

/// TLS on `stream`, towards `host`, for what is no gRPC.
pub(super) async fn encrypted(tls: &Tls, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(ca) => {
            for certificate in certificates(ca).await? {
                roots
                    .add(certificate)
                    .map_err(|e| io::Error::other(format!("{}: {}", ca.display(), chain(&e))))?;
            }
        }
        // what of the system's authorities cannot be read trusts nobody
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let text = read(key, "PRIVATE KEY").await?;
            let parsed = PrivateKeyDer::from_pem_slice(&text);
            let bad = |e: String| io::Error::other(format!("{}: {e}", key.display()));
            let parsed = parsed.map_err(|e| bad(e.to_string()))?;
            config.with_client_auth_cert(certificates(cert).await?, parsed).map_err(|e| bad(chain(&e)))?
        }
        (None, None) => config.with_no_client_auth(),
        _ => {
            return Err(io::Error::other(
                "a client certificate and its key belong together: only one is set",
            ));
        }
    };
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
