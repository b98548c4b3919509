//! Platforms, brought into one form as Go's containerd/platforms does.

use std::fmt;
use std::str::FromStr;

use lemnos_proto::pb;

use super::LlbError;

/// Where something runs. `linux/arm/v7` and the like; the last two are for Windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
    pub os_version: String,
    pub os_features: Vec<String>,
}

impl Platform {
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.into(), architecture: architecture.into(), ..Self::default() }
    }

    #[must_use]
    pub fn with_variant(mut self, variant: &str) -> Self {
        self.variant = variant.into();
        self
    }

    /// This process's own, which is what a graph is for unless told otherwise.
    pub fn host() -> Self {
        Self::new(host_os(), host_architecture()).normalized()
    }

    /// With one name for each thing: `x86_64` is `amd64`, `arm64/v8` is `arm64`, features sorted and named once.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_lowercase().as_str() {
            "" => host_os().into(),
            "macos" => "darwin".into(),
            other => other.into(),
        };
        (self.architecture, self.variant) =
            architecture(&self.architecture.to_lowercase(), &self.variant.to_lowercase());
        self.os_features.sort();
        self.os_features.dedup();
        self
    }

    pub(super) fn to_pb(&self) -> pb::Platform {
        pb::Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }
}

fn host_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// As Go names it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.into(), variant.into())
}

impl FromStr for Platform {
    type Err = LlbError;

    fn from_str(given: &str) -> Result<Self, LlbError> {
        let bad = || LlbError::Platform { given: given.into() };
        let mut parts = given.split('/');
        let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else { return Err(bad()) };
        let variant = parts.next();
        if parts.next().is_some() || os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(bad());
        }
        Ok(Self::new(os, architecture).with_variant(variant.unwrap_or_default()).normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}
