//! Which directory holds the state: --data, else LEMNOS_DATA, else the platform's.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConfigError;
use super::layer::Origin;

/// The data directory, absolute. For root the platform's is /var/lib/lemnos (a server's place); for others it is
/// $XDG_DATA_HOME/lemnos or ~/.local/share/lemnos, on macOS ~/Library/Application Support/lemnos.
pub fn data_dir(flag: Option<&Path>, environment: &Environment) -> Result<(PathBuf, Origin), ConfigError> {
    let (path, origin) = match (flag, environment.get("LEMNOS_DATA")) {
        (Some(path), _) => (path.to_owned(), Origin::Flag("--data")),
        (None, Some(path)) => (PathBuf::from(path), Origin::Variable("LEMNOS_DATA".to_owned())),
        (None, None) => (platform_dir(environment)?, Origin::Default),
    };
    let absolute = std::path::absolute(&path).map_err(|cause| ConfigError::DataDir { path, cause })?;
    Ok((absolute, origin))
}

fn platform_dir(environment: &Environment) -> Result<PathBuf, ConfigError> {
    let absolute = |name| environment.get(name).map(Path::new).filter(|path| path.is_absolute());
    // the XDG specification: a relative path there is to be ignored
    if let Some(dir) = absolute("XDG_DATA_HOME") {
        return Ok(dir.join("lemnos"));
    }
    if environment.is_root {
        return Ok(PathBuf::from("/var/lib/lemnos"));
    }
    let home = absolute("HOME").ok_or(ConfigError::NoDataDir)?;
    let below = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(home.join(below).join("lemnos"))
}
