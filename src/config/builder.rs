//! One builder: where its BuildKit answers, which platforms it takes, and with which certificates.

use std::path::PathBuf;

use crate::buildkit::{Address, DockerHost};
use crate::model::Platform;
use crate::model::closest::closest;

/// A builder as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderConfig {
    /// Names it in messages; the address unless one was given.
    pub name: String,
    pub address: Address,
    /// Empty: what the builder itself says it can do.
    pub platforms: Vec<Platform>,
    pub tls: Option<BuilderTls>,
    /// Solves at once; none: `solves_per_builder`.
    pub max: Option<u32>,
}

/// Files of PEM blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuilderTls {
    /// None: the system's authorities.
    pub ca: Option<PathBuf>,
    /// Certificate and key that show who we are.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name in the builder's certificate, when it is not the host of the address.
    pub server_name: Option<String>,
}

/// The named parts of `ADDR[,name=value]…`; the address's name is `address`.
pub(super) fn parts(spec: &str) -> Vec<(String, String)> {
    let mut parts = spec.split(',').map(str::trim);
    let address = parts.next().unwrap_or_default();
    std::iter::once(("address".to_owned(), address.to_owned()))
        .chain(parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (name.to_owned(), value.to_owned())
        }))
        .collect()
}

const NAMES: [&str; 8] = ["address", "platform", "name", "max", "ca", "cert", "key", "servername"];
/// What an address looks like, as "… is not EXPECTED".
const ADDRESSES: &str = "a builder's address: unix:///PATH, tcp://HOST:PORT, docker-container://NAME, \
                         podman-container://NAME, kube-pod://NAME, ssh://[USER@]HOST or docker://";
/// Most solves that one builder may be given at once.
const MOST_SOLVES: u32 = 1_000;

/// Reads a builder from its parts; the error is what was expected, as "… is not EXPECTED".
pub(super) fn from_parts(parts: &[(String, String)]) -> Result<BuilderConfig, String> {
    let mut address = None;
    let mut name = None;
    let mut max = None;
    let mut platforms = Vec::new();
    let (mut ca, mut cert, mut key, mut server_name) = (None, None, None, None);
    for (part, value) in parts {
        if value.is_empty() && part != "address" {
            return Err(format!("a builder: {part:?} has no value; write {part}=VALUE"));
        }
        match part.as_str() {
            "address" => address = Some(value.parse::<Address>().map_err(|_| ADDRESSES)?),
            "name" => name = Some(value.clone()),
            "platform" => {
                let platform: Platform = value.parse().map_err(|e| format!("a builder: {e}"))?;
                if !platforms.contains(&platform) {
                    platforms.push(platform);
                }
            }
            "max" => {
                let number = value.parse().ok().filter(|n| (1..=MOST_SOLVES).contains(n));
                max =
                    Some(number.ok_or_else(|| {
                        format!("a builder: max is a whole number from 1 to {MOST_SOLVES}")
                    })?);
            }
            "ca" => ca = Some(absolute(value)?),
            "cert" => cert = Some(absolute(value)?),
            "key" => key = Some(absolute(value)?),
            "servername" => server_name = Some(value.clone()),
            other => {
                let suggestion = closest(other, NAMES).map(|near| format!("; did you mean {near:?}?"));
                let known = NAMES.get(1..).unwrap_or_default().join("=, ");
                return Err(format!(
                    "a builder: unknown part {other:?}{}",
                    suggestion.unwrap_or_else(|| format!("; known parts: {known}="))
                ));
            }
        }
    }
    let address = address.ok_or("a builder: the address is missing")?;
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("a builder: cert and key go together".to_owned()),
    };
    let secured = ca.is_some() || client.is_some() || server_name.is_some();
    if secured && !matches!(address, Address::Tcp { .. } | Address::Docker(DockerHost::Tcp { .. })) {
        return Err("a builder: ca, cert, key and servername are for TLS, which goes with tcp:// and \
                    docker+tcp:// alone"
            .to_owned());
    }
    Ok(BuilderConfig {
        name: name.unwrap_or_else(|| address.to_string()),
        address,
        platforms,
        tls: secured.then_some(BuilderTls { ca, client, server_name }),
        max,
    })
}

impl std::str::FromStr for BuilderConfig {
    type Err = String;

    /// Reads what the flag takes, `ADDR[,name=value]…`; the error says what is expected.
    fn from_str(spec: &str) -> Result<Self, String> {
        from_parts(&parts(spec))
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|cause| format!("a builder: {text:?}: {cause}"))
}

/// The builder as the flag would spell it.
impl std::fmt::Display for BuilderConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.address)?;
        if self.name != self.address.to_string() {
            write!(f, ",name={}", self.name)?;
        }
        for platform in &self.platforms {
            write!(f, ",platform={platform}")?;
        }
        if let Some(max) = self.max {
            write!(f, ",max={max}")?;
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        if let Some(ca) = &tls.ca {
            write!(f, ",ca={}", ca.display())?;
        }
        if let Some((cert, key)) = &tls.client {
            write!(f, ",cert={},key={}", cert.display(), key.display())?;
        }
        tls.server_name.as_ref().map_or(Ok(()), |name| write!(f, ",servername={name}"))
    }
}
