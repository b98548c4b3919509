//! Image names, tags, digests, platforms.

use std::str::FromStr;

use super::{Invalid, text_newtype};

/// A content digest, `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);
text_newtype!(Digest);

impl FromStr for Digest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(rest) if rest.len() == 64 && rest.bytes().all(hex) => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new("digest", text, "sha256: and 64 lower-case hexadecimal digits")),
        }
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::of_hash(&sha2::Sha256::digest(bytes).into())
    }

    /// What follows the algorithm, which is sha256 in all of them.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The digest whose SHA-256 has been computed piece by piece.
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }
}

/// A registry tag: 1 to 128 of `[A-Za-z0-9_.-]`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);
text_newtype!(Tag);

impl FromStr for Tag {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let ok = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "image tag",
                text,
                "1 to 128 letters, digits, '_', '.' or '-', not beginning with '.' or '-'",
            ))
        }
    }
}

/// A repository in a registry, host always explicit: `localhost:5000/team/shop`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);
text_newtype!(ImageName);

const IMAGE_RULE: &str = "HOST[:PORT]/PATH with a lower-case path and no tag, the host written out (docker.io/…, localhost:5000/…)";

impl FromStr for ImageName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("image name", text, IMAGE_RULE);
        let (host, path) = text.split_once('/').ok_or_else(refuse)?;
        let host_ok = is_registry_host(host);
        let component = |c: &str| {
            let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let bytes = c.as_bytes();
            bytes.first().copied().is_some_and(alnum)
                && bytes.last().copied().is_some_and(alnum)
                && bytes.iter().all(|&b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
                && !c.contains("..")
        };
        if text.len() <= 255 && host_ok && path.split('/').all(component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(refuse())
        }
    }
}

/// Whether `host` is a registry's host: `localhost`, a name with a dot, an address in brackets, each with an optional port.
pub fn is_registry_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok());
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
                && !name.starts_with(['-', '.'])
        }
    };
    name_ok
        && port_ok
        && (name == "localhost" || name.contains('.') || port.is_some() || name.starts_with('['))
}

impl ImageName {
    /// `localhost:5000`
    pub fn host(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(host, _)| host)
    }
    /// `team/shop`
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }
    /// Whether both names mean one repository: hosts have no case, and a registry on this machine has several names.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.path() == other.path() && canonical_host(self.host()) == canonical_host(other.host())
    }
    /// The one spelling for all names of this repository.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self(format!("{}/{}", canonical_host(self.host()), self.path()))
    }
    /// Whether it is `above` or lies below it.
    pub fn lies_at(&self, above: &Self) -> bool {
        let rest = self.path().strip_prefix(above.path());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && canonical_host(self.host()) == canonical_host(above.host())
    }
}

/// One spelling for all names of one registry: hosts have no case, this machine and Docker Hub have several names.
pub fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host.as_str(), None),
    };
    let name = match name {
        "127.0.0.1" | "[::1]" | "localhost" => "localhost",
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        name => name,
    };
    port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// Where the images of apps go that have no image name of their own: `HOST[:PORT][/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePrefix(String);
text_newtype!(ImagePrefix);

impl FromStr for ImagePrefix {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // an app's name takes up to 63 bytes and a slash of an image name's 255
        let fits = text.len() <= 191 && format!("{text}/app").parse::<ImageName>().is_ok();
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "registry",
                text,
                "HOST[:PORT][/PREFIX] without a scheme, the prefix in lower case, for example localhost:5000 or registry.example.com/team",
            ))
        }
    }
}

impl ImagePrefix {
    /// `localhost:5000`
    pub fn host(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(host, _)| host)
    }
    /// `PREFIX/APP`
    pub fn image(&self, app: &super::AppName) -> ImageName {
        ImageName(format!("{}/{app}", self.0))
    }
}

/// An OCI platform, `os/arch[/variant]`, in its normal form (`arm64` has no variant, `arm` defaults to v7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse =
            || Invalid::new("platform", text, "OS/ARCH[/VARIANT], for example linux/amd64 or linux/arm/v7");
        let word = |p: &str| {
            // the one name with more than letters and digits in it
            p == "x86_64" || !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let mut parts = text.split('/');
        let (Some(os), Some(arch), variant, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        if !word(os) || !word(arch) || !variant.is_none_or(word) {
            return Err(refuse());
        }
        // the normal forms of containerd/platforms
        let (arch, variant) = match (arch, variant) {
            ("x86_64", v) => ("amd64", v),
            ("aarch64", None | Some("v8" | "8")) | ("arm64", Some("v8" | "8")) => ("arm64", None),
            ("arm", None) | ("armhf", _) => ("arm", Some("v7")),
            ("amd64", Some("v1")) => ("amd64", None),
            (arch, variant) => (arch, variant),
        };
        Ok(Self { os: os.to_owned(), arch: arch.to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl serde::Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
