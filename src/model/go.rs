//! Go programs to be compiled and put into images, as data: what the ko kind plans, and what `solve` and `assemble` do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Attestations, ImageName, Platform, Sha};

/// What a debugger's file is called, in results of compiles and in images.
pub const DEBUGGER: &str = "dlv";

/// One image of a Go program, as ko would make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KoImage {
    pub compile: GoCompile,
    /// The image that the program is put on, Docker Hub and `latest` written out.
    pub base: String,
    /// Directories of the image are named after it: `/ko-app/NAME`.
    pub program: String,
    /// The directory of the tree whose files are beside the program, with its id; none where there is none.
    pub kodata: Option<KoData>,
    /// As setcap takes them.
    pub capabilities: Vec<String>,
    /// Beyond ko: what its users ask for.
    #[serde(default, skip_serializing_if = "KoExtras::is_empty")]
    pub extras: KoExtras,
    /// What the builder is to say of the compile; an SBOM is made here.
    #[serde(default, skip_serializing_if = "Attestations::is_none")]
    pub attest: Attestations,
}

/// A `kodata` directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KoData {
    pub path: String,
    pub tree: Option<Sha>,
}

/// What stands in an image's configuration beside what ko puts there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KoExtras {
    /// `8080/tcp`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Default arguments of the program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `NAME=VALUE`, after the base's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Further names under which the image is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<ImageName>,
    /// SBOMs are found by ko's tag, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sbom_tags: bool,
}

impl KoExtras {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One program, compiled for several platforms by one toolchain on the builder's own platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoCompile {
    /// The image that has `go` and `git`.
    pub toolchain: String,
    pub import_path: String,
    /// The directory of the tree in which `go` runs.
    pub dir: String,
    pub targets: Vec<GoTarget>,
    /// Cache mounts of different apps, or of different refs of one, never meet.
    pub cache_namespace: String,
    /// Secrets that fetch private modules, where the app has them.
    #[serde(default)]
    pub netrc: bool,
    #[serde(default)]
    pub ssh: bool,
    pub no_cache: bool,
    /// The toolchain is looked up again.
    pub pull: bool,
}

/// One run of `go build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoTarget {
    pub platform: Platform,
    /// The whole environment, in order, each name once.
    pub env: Vec<(String, String)>,
    /// Between `go` and the output's name: `build`, flags, `-ldflags=…`.
    pub args: Vec<String>,
    /// What is compiled beside the program, which is started under it: a package with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debugger: Option<String>,
}

impl GoTarget {
    /// The directory of the result that holds this target's program: `linux_arm_v7`.
    pub fn directory(&self) -> String {
        self.platform.to_string().replace('/', "_")
    }

    /// The file of the result that is this target's debugger. No target's directory has such a name.
    pub fn debugger_file(&self) -> String {
        format!("debugger_{}/{DEBUGGER}", self.directory())
    }
}
