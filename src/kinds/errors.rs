//! Why a tree cannot be detected or planned; what to do about each is decided in `error::kinds`.

use std::fmt;

use super::build_config::BUILD_CONFIG;
use crate::model::{Invalid, KindName, Platform, Refusal, TreeError};

/// Who said a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `lemnos apps set`.
    Settings,
    /// The line of the root `build-config.yaml`.
    Config { line: u64 },
    /// `git push -o …`.
    Push,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("the app's settings"),
            Self::Config { line } => write!(f, "{BUILD_CONFIG}:{line}"),
            Self::Push => f.write_str("the push options"),
        }
    }
}

/// `text` from the tree for a message: what would steer a terminal is replaced.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// At most this many paths are named in one message.
const NAMED_PATHS: usize = 5;

fn some_of(paths: &[String]) -> String {
    let named: Vec<String> = paths.iter().take(NAMED_PATHS).map(|path| shown(path)).collect();
    let more = paths.len().saturating_sub(NAMED_PATHS);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", named.join(", "))
}

fn dir_of(path: &str) -> String {
    if path.is_empty() { "the root".to_owned() } else { format!("{path}/") }
}

#[derive(Debug, thiserror::Error)]
pub enum KindError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Spin(#[from] super::spin::SpinError),
    #[error(transparent)]
    Ko(#[from] super::ko::KoError),
    #[error("{BUILD_CONFIG}:{line}: {problem}")]
    Yaml { line: u64, problem: String },
    #[error("{BUILD_CONFIG}:{line}: unknown key {key:?}")]
    UnknownKey { line: u64, key: String, close: Option<&'static str> },
    #[error("{BUILD_CONFIG}:{line}: {key} is recognised, but {why}")]
    KeyLater { line: u64, key: &'static str, why: &'static str },
    #[error("{by}: {key}: {:?} is not a valid {}", .problem.given, .problem.what)]
    Value { by: By, key: &'static str, problem: Invalid },
    #[error("{by}: {key}: {cause}")]
    Path { by: By, key: &'static str, cause: TreeError },
    #[error("{by}: build argument {name:?} is reserved: BUILDKIT_* arguments steer the frontend itself")]
    ReservedArg { by: By, name: String },
    #[error("{by}: no Dockerfile at {path}")]
    NoDockerfile { by: By, path: String, close: Vec<String> },
    #[error("{by}: no directory at {path} to be the build context")]
    NoContext { by: By, path: String, close: Vec<String> },
    #[error("{path} has no instructions")]
    EmptyDockerfile { path: String },
    #[error("{path}:{line}: the frontend image {image:?} of the syntax line is not allowed here")]
    Frontend { path: String, line: usize, image: String, allowed: Vec<String> },
    #[error("{path}:{line}: the frontend image {image:?} of the syntax line is not named by digest")]
    FrontendByTag { path: String, line: usize, image: String },
    #[error("{path}:{line}: the base image {image:?} is refused: {}", .refusal.policy())]
    Base { path: String, line: usize, image: String, refusal: Refusal },
    #[error("the app's settings ask for an SBOM, and no image that makes one is configured")]
    NoGenerator,
    #[error("the SBOM generator {image:?} is refused: {}", .refusal.policy())]
    Generator { image: String, refusal: Refusal },
    #[error("{what} holds a URL with a password, and provenance:max would publish it")]
    PasswordInProvenance { what: String },
    #[error("{by}: a Dockerfile build cannot make {platform}")]
    Platform { by: By, platform: String, close: Option<String> },
    #[error("{platform} is not among the app's platforms: a try may only leave some out")]
    NotNarrower { platform: Platform, planned: Vec<Platform> },
    #[error("platforms and build arguments can be given in a push with -o try only")]
    OnlyWithTry,
    #[error("the build context ({}) has submodules, whose files a push does not bring: {}", dir_of(.context), some_of(.paths))]
    Submodules { context: String, paths: Vec<String> },
    #[error("the build context ({}) has Git LFS pointers in place of files: {}", dir_of(.context), some_of(.paths))]
    LfsPointers { context: String, paths: Vec<String> },
    #[error("the build context ({}) has more than {limit} entries", dir_of(.context))]
    TooManyEntries { context: String, limit: usize },
    #[error("the build context ({}) has directories more than {limit} deep", dir_of(.context))]
    TooDeep { context: String, limit: usize },
    #[error("this is a {kind} build ({evidence}), which this version cannot make yet")]
    NotYet { kind: KindName, evidence: String },
}
