//! Why a configuration is refused, with the place of the fault.

use std::path::PathBuf;

use super::layer::Origin;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{place}: unknown key {key:?}")]
    UnknownKey { place: Origin, key: String, suggestion: Option<String> },
    #[error("unknown environment variable {name}")]
    UnknownVariable { name: String, suggestion: Option<String> },
    #[error("environment variable {name} is not UTF-8")]
    NotText { name: String },
    #[error("{place}: {key} = {given:?} is not {expected}")]
    BadValue { place: Origin, key: &'static str, given: String, expected: String },
    #[error("{path}:{line}: {message}", path = path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("reading {path}: {cause}", path = path.display())]
    ReadFile { path: PathBuf, cause: std::io::Error },
    #[error("{path} has more than {limit_bytes} bytes", path = path.display())]
    FileTooLarge { path: PathBuf, limit_bytes: u64 },
    #[error("data directory {path}: {cause}", path = path.display())]
    DataDir { path: PathBuf, cause: std::io::Error },
    #[error("no data directory: neither --data nor LEMNOS_DATA nor HOME is set")]
    NoDataDir,
    #[error("setting {0} was read by nobody")]
    Unread(&'static str),
}
