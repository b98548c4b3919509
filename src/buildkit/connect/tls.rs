//! TLS towards a daemon, from files that are read anew at each connection: a rotated certificate needs no restart.

use std::path::{Path, PathBuf};

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
    let bad = |reason: String| Error::Tls {
        address: address.clone(),
        reason: format!("{}: {reason}", path.display()),
    };
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
