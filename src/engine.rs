//! The engines that lemnos brings up itself when none is configured: a real buildkitd and a real registry, as children.
//!
//! Invariant: what is started here ends with the server, also when the server is killed, and takes its containers with it.
//! A RUN step reaches neither this machine's services nor a metadata address (`network`).
//! Must not: speak BuildKit's or the registry's protocol beyond asking whether they are there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub mod binfmt;
mod buildkitd;
mod child;
mod leftovers;
mod network;
mod probe;
mod reach;
mod registry;
mod supervise;

pub use child::{Keep, exec_bound_to, keep, kept_command};
pub use network::{bridge_left, has_cni_plugins};
pub use reach::{check_reachability, is_loopback_registry, is_remote_builder};
pub use supervise::{EngineState, Supervised};

/// All that the engines need to know; nothing here is read from the process's environment.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The server's data directory: state is kept under `engine/`, builds' cache under `buildkit/`, images under `registry/`.
    pub data_dir: PathBuf,
    /// For sockets: short paths (a unix socket's has 107 bytes at most).
    pub runtime_dir: PathBuf,
    /// The program to run, else the first `buildkitd` on `path`.
    pub buildkitd: Option<PathBuf>,
    /// The program to run, else the first `docker-registry` or `registry` on `path`.
    pub registry: Option<PathBuf>,
    /// Loopback only. Port 0: the one used the last time if it is free, else a free one.
    pub registry_listen: SocketAddr,
    /// Registry host -> its mirrors, each `HOST[:PORT][/PREFIX]`; those on loopback are asked over plain http.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// What RUN steps see.
    pub network: Network,
    /// Images that `# syntax=` may name as frontends, without tag; empty: the built-in frontend only.
    pub frontends: Vec<String>,
    /// How much disk the build cache may take, as buildkitd reads it: `40GB` or `60%`.
    pub cache_limit: String,
    /// This very program, to be run as `lemnos engine-child`.
    pub lemnos: PathBuf,
    /// Where programs are looked for (runc, iptables, and the engines), and the engines' own PATH.
    pub path: OsString,
    /// What else the engines find in their environment: proxies and certificate files, nothing more.
    pub environment: Vec<(OsString, OsString)>,
}

impl EngineConfig {
    /// Defaults for everything but where things are.
    pub fn new(data_dir: PathBuf, runtime_dir: PathBuf, lemnos: PathBuf, path: OsString) -> Self {
        Self {
            data_dir,
            runtime_dir,
            buildkitd: None,
            registry: None,
            registry_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)),
            mirrors: BTreeMap::new(),
            network: Network::Isolated,
            frontends: Vec::new(),
            cache_limit: "60%".to_owned(),
            lemnos,
            path,
            environment: Vec::new(),
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.data_dir.join("engine")
    }

    fn find(&self, names: &[&str]) -> Option<PathBuf> {
        names.iter().find_map(|name| find_on(&self.path, name))
    }
}

/// What a RUN step can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A bridge of its own: the outside, but no service of this machine and no metadata address.
    #[default]
    Isolated,
    /// This machine's network, its loopback services included. For those who push to themselves only.
    Host,
}

/// Starts the registry and waits until it answers. `Supervised::address` is `127.0.0.1:PORT`.
pub async fn start_registry(config: &EngineConfig) -> Result<Supervised, EngineError> {
    registry::start(config).await
}

/// Starts buildkitd and waits until it listens. `registry` (`HOST:PORT`) is one it may speak plain http to.
/// `Supervised::address` is `unix:///…`.
pub async fn start_buildkitd(
    config: &EngineConfig,
    registry: Option<&str>,
) -> Result<Supervised, EngineError> {
    buildkitd::start(config, registry).await
}

/// Why an engine cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("there is no buildkitd on PATH, and no builder is configured")]
    NoBuildkitd,
    #[error("there is no docker-registry or registry on PATH, and no registry is configured")]
    NoRegistry,
    #[error("buildkitd needs `{0}`, which is not on PATH")]
    NoTool(&'static str),
    #[error("there are no CNI plugins (bridge, host-local, loopback) in {}", .0.join(", "))]
    NoCni(Vec<&'static str>),
    #[error("an embedded buildkitd needs root, and this is another user")]
    NotRoot,
    #[error("{program} is not a program that can be run: {cause}")]
    NotRunnable { program: PathBuf, cause: std::io::Error },
    #[error("{what} {}: {cause}", path.display())]
    Io { what: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("the socket path {} is longer than the 107 bytes that a unix socket may have", .0.display())]
    SocketPath(PathBuf),
    #[error(
        "the registry would listen on {0}, which is not a loopback address: the embedded one asks nobody who they are"
    )]
    NotLoopback(SocketAddr),
    #[error("the registry cannot listen on {addr}: {cause}")]
    Listen { addr: SocketAddr, cause: std::io::Error },
    #[error("{name} ended while it was starting ({status}){}", tail(.log))]
    Ended { name: &'static str, status: String, log: Vec<String> },
    #[error("{name} was not ready after {seconds} s{}", tail(.log))]
    NotReady { name: &'static str, seconds: u64, log: Vec<String> },
    #[error("another lemnos runs its engines in this data directory (it holds {})", .0.display())]
    InUse(PathBuf),
    #[error("setting up the builds' network: `{command}` failed: {output}")]
    NetworkSetup { command: String, output: String },
    #[error("no free /24 network for the builds' bridge between 10.192.0.0 and 10.223.255.0")]
    NoSubnet,
    #[error(
        "the builder {builder} is on another machine or in a container, and cannot push to {registry}, which is this one's loopback"
    )]
    Unreachable { builder: String, registry: String },
}

impl EngineError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { what, path, cause }
    }
}

/// The last lines of a log, as the end of a message.
fn tail(log: &[String]) -> String {
    if log.is_empty() { String::new() } else { format!("; it said:\n  {}", log.join("\n  ")) }
}

/// The first executable file called `name` in the directories of `path`.
fn find_on(path: &OsString, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|p| executable(p))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The program to run: the configured one, checked, or one of `names` on PATH.
fn program(
    config: &EngineConfig,
    configured: Option<&PathBuf>,
    names: &[&str],
    absent: EngineError,
) -> Result<PathBuf, EngineError> {
    match configured {
        None => config.find(names).ok_or(absent),
        Some(path) if executable(path) => Ok(path.clone()),
        Some(path) => {
            let cause = match path.metadata() {
                Ok(_) => std::io::Error::from(std::io::ErrorKind::PermissionDenied),
                Err(cause) => cause,
            };
            Err(EngineError::NotRunnable { program: path.clone(), cause })
        }
    }
}

/// Takes a lock for as long as the file is held: two servers on one data directory would end each other's builds.
fn hold(path: &Path) -> Result<std::fs::File, EngineError> {
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(EngineError::io("opening the lock", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(EngineError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(cause)) => Err(EngineError::io("locking", path)(cause)),
    }
}

/// What an engine finds in its environment.
fn environment(config: &EngineConfig) -> Vec<(OsString, OsString)> {
    let own = [("PATH".into(), config.path.clone()), ("HOME".into(), config.state_dir().into_os_string())];
    config.environment.iter().cloned().chain(own).collect()
}

/// A directory that only this user may look into.
fn private_dir(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(EngineError::io("making the directory", path))
}

fn write(path: &Path, text: &str) -> Result<(), EngineError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(EngineError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_handed_in_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = EngineConfig::new("/d".into(), "/r".into(), "/l".into(), dir.path().into());
        let find = |config: &EngineConfig| program(config, None, &["sh", "other"], EngineError::NoRegistry);
        assert!(matches!(find(&config), Err(EngineError::NoRegistry)));
        std::fs::write(dir.path().join("other"), "").unwrap();
        assert!(
            matches!(find(&config), Err(EngineError::NoRegistry)),
            "a file that may not be run is no program"
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path().join("other"), mode).unwrap();
        assert_eq!(find(&config).unwrap(), dir.path().join("other"));
    }

    #[test]
    fn a_configured_program_that_cannot_run_is_named() {
        let config = EngineConfig::new("/d".into(), "/r".into(), "/l".into(), "/bin".into());
        let error = program(&config, Some(&"/nowhere/buildkitd".into()), &["sh"], EngineError::NoBuildkitd);
        let text = error.unwrap_err().to_string();
        assert!(
            text.starts_with("/nowhere/buildkitd is not a program that can be run: No such file"),
            "{text}"
        );
    }
}
