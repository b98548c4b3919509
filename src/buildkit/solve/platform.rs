//! A platform by the names that BuildKit's clients take: `linux/amd64`, `arm64`, `linux/arm/v7`.
//!
//! Other spellings (`x86_64`, `aarch64`, `armhf`) become the one that daemons and images use.

use std::fmt;
use std::str::FromStr;

use lemnos_proto::pb;

const SYSTEMS: [&str; 16] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    /// Of Windows mostly, as in `windows(10.0.17763)/amd64`.
    pub os_version: String,
    pub architecture: String,
    pub variant: String,
}

/// Why a platform is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error("{0:?} is no platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64")]
    Shape(String),
    #[error(
        "{0:?} is neither an operating system nor an architecture that is known: write both, as in linux/arm64"
    )]
    Unknown(String),
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normal(architecture, variant);
        Self { os: normal_os(os), os_version: String::new(), architecture, variant }
    }

    /// The platform that this program runs on.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, "")
    }

    /// With the version of the operating system, which `Display` leaves out.
    pub fn with_version(&self) -> String {
        match self.os_version.is_empty() {
            true => self.to_string(),
            false => self.to_string().replacen(&self.os, &format!("{}({})", self.os, self.os_version), 1),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.is_empty() {
            true => Ok(()),
            false => write!(f, "/{}", self.variant),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let shape = || PlatformError::Shape(text.to_owned());
        let (system, rest) = match text.split_once('/') {
            Some((system, rest)) => (system, Some(rest)),
            None => (text, None),
        };
        let (system, os_version) = match system.strip_suffix(')') {
            Some(versioned) => versioned.split_once('(').ok_or_else(shape)?,
            None => (system, ""),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let (architecture, variant) = match rest {
            None => ("", ""),
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        };
        let parts = [system, os_version, architecture, variant];
        if system.is_empty() || !parts.iter().all(|part| part.chars().all(word)) {
            return Err(shape());
        }
        if rest.is_some_and(|rest| rest.split('/').any(str::is_empty)) {
            return Err(shape());
        }
        let mut platform = Self::new(system, architecture, variant);
        os_version.clone_into(&mut platform.os_version);
        if rest.is_none() {
            if SYSTEMS.contains(&platform.os.as_str()) {
                return Ok(Self { architecture: Self::host().architecture, ..platform });
            }
            let (architecture, variant) = normal(system, "");
            if !os_version.is_empty() || !ARCHITECTURES.contains(&architecture.as_str()) {
                return Err(PlatformError::Unknown(text.to_owned()));
            }
            return Ok(Self { os: Self::host().os, architecture, variant, ..Self::default() });
        }
        Ok(platform)
    }
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normal(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (a, v) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (a, v) => (a, v),
    };
    (a.to_owned(), v.to_owned())
}

impl From<&Platform> for pb::Platform {
    fn from(platform: &Platform) -> Self {
        Self {
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os_features: Vec::new(),
        }
    }
}

impl From<&pb::Platform> for Platform {
    fn from(platform: &pb::Platform) -> Self {
        Self {
            os_version: platform.os_version.clone(),
            ..Self::new(&platform.os, &platform.architecture, &platform.variant)
        }
    }
}
