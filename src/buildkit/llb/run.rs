//! What a command is to be given: words, mounts, secrets, agents, devices. Data only; `exec` makes the operation of it.
//!
//! Source: client/llb/exec.go.

use std::net::IpAddr;

use super::state::Change;
use super::{CacheSharing, Constraints, ContentCache, LlbError, NetMode, SecurityMode, State, words};

/// A command to run on a state.
#[derive(Clone, Default)]
#[must_use]
pub struct Run {
    pub(super) args: Vec<String>,
    pub(super) exit_codes: Vec<i32>,
    /// For this command only.
    pub(super) changes: Vec<Change>,
    pub(super) mounts: Vec<Mount>,
    pub(super) secrets: Vec<Secret>,
    pub(super) ssh: Vec<Ssh>,
    pub(super) devices: Vec<Device>,
    pub(super) readonly_root: bool,
    pub(super) proxy: Option<Proxy>,
    pub(super) constraints: Constraints,
}

/// The proxy variables that a command sees, and that are no part of its cache key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    pub http: String,
    pub https: String,
    pub ftp: String,
    pub no: String,
    pub all: String,
}

impl Run {
    pub fn args<A: Into<String>>(args: impl IntoIterator<Item = A>) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A line split into words: quotes and backslashes count, nothing is expanded.
    pub fn shell_words(line: &str) -> Result<Self, LlbError> {
        Ok(Self { args: words::split(line)?, ..Self::default() })
    }

    /// Values for this command only, besides those of the state.
    pub fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    pub fn env(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(Change::Env(key.into(), value.into()))
    }

    pub fn dir(self, dir: impl Into<String>) -> Self {
        self.with(Change::Dir(dir.into()))
    }

    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(Change::User(user.into()))
    }

    pub fn hostname(self, name: impl Into<String>) -> Self {
        self.with(Change::Hostname(name.into()))
    }

    pub fn network(self, mode: NetMode) -> Self {
        self.with(Change::Network(mode))
    }

    pub fn security(self, mode: SecurityMode) -> Self {
        self.with(Change::Security(mode))
    }

    pub fn extra_host(self, host: impl Into<String>, ip: IpAddr) -> Self {
        self.with(Change::ExtraHost(host.into(), ip))
    }

    pub fn ulimit(self, name: impl Into<String>, soft: i64, hard: i64) -> Self {
        self.with(Change::Ulimit(name.into(), soft, hard))
    }

    pub fn cgroup_parent(self, parent: impl Into<String>) -> Self {
        self.with(Change::CgroupParent(parent.into()))
    }

    /// The exit codes that are no failure; 0 only, unless given.
    pub fn valid_exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.exit_codes = codes.into_iter().collect();
        self
    }

    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    pub fn ssh(mut self, ssh: Ssh) -> Self {
        self.ssh.push(ssh);
        self
    }

    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// The command cannot write to its root, which so stays the state before.
    pub fn readonly_root(mut self) -> Self {
        self.readonly_root = true;
        self
    }

    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }
}

/// A file system within a command's own.
#[derive(Clone)]
#[must_use]
pub struct Mount {
    pub(super) target: String,
    pub(super) source: State,
    pub(super) selector: String,
    pub(super) readonly: bool,
    pub(super) no_output: bool,
    pub(super) cache_id: String,
    pub(super) sharing: CacheSharing,
    pub(super) tmpfs: Option<i64>,
    pub(super) content_cache: ContentCache,
}

impl Mount {
    /// A state; what the command writes there can be built on: see [`Exec::mount`](super::Exec::mount).
    pub fn bind(target: impl Into<String>, source: &State) -> Self {
        Self {
            target: target.into(),
            source: source.clone(),
            selector: String::new(),
            readonly: false,
            no_output: false,
            cache_id: String::new(),
            sharing: CacheSharing::Shared,
            tmpfs: None,
            content_cache: ContentCache::Default,
        }
    }

    /// A directory that outlives the build, under an id.
    pub fn cache(target: impl Into<String>, id: impl Into<String>, sharing: CacheSharing) -> Self {
        Self { cache_id: id.into(), sharing, ..Self::bind(target, &State::scratch()) }
    }

    /// What a cache starts with.
    pub fn from(mut self, source: &State) -> Self {
        self.source = source.clone();
        self
    }

    /// Memory; 0 bytes is no bound.
    pub fn tmpfs(target: impl Into<String>, bytes: i64) -> Self {
        Self { tmpfs: Some(bytes), ..Self::bind(target, &State::scratch()) }
    }

    /// Only this path of the source.
    pub fn source_path(mut self, path: impl Into<String>) -> Self {
        self.selector = path.into();
        self
    }

    pub fn readonly(mut self) -> Self {
        self.readonly = true;
        self
    }

    /// What is written there is thrown away.
    pub fn no_output(mut self) -> Self {
        self.no_output = true;
        self
    }

    /// Whether the cache key may be of the mount's content.
    pub fn content_cache(mut self, mode: ContentCache) -> Self {
        self.content_cache = mode;
        self
    }
}

/// A secret, as a file, as a variable, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Secret {
    pub(super) id: String,
    pub(super) target: Option<String>,
    pub(super) env: Option<String>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) optional: bool,
}

impl Secret {
    /// As the file `target`, read by root only; its id is the path unless given.
    pub fn file(target: impl Into<String>) -> Self {
        let target = target.into();
        Self { target: Some(target.clone()), ..Self::plain(target) }
    }

    /// As the variable `name`; its id is the name unless given.
    pub fn variable(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { env: Some(name.clone()), ..Self::plain(name) }
    }

    fn plain(id: String) -> Self {
        Self { id, target: None, env: None, uid: 0, gid: 0, mode: 0o400, optional: false }
    }

    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Also as the variable `name`.
    pub fn and_variable(mut self, name: impl Into<String>) -> Self {
        self.env = Some(name.into());
        self
    }

    pub fn file_mode(mut self, uid: u32, gid: u32, mode: u32) -> Self {
        (self.uid, self.gid, self.mode) = (uid, gid, mode);
        self
    }

    /// The command also runs without it.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// The socket of an SSH agent. Without a target the variable SSH_AUTH_SOCK names where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Ssh {
    pub(super) id: String,
    pub(super) target: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) optional: bool,
}

impl Default for Ssh {
    fn default() -> Self {
        let (id, target) = (String::new(), String::new());
        Self { id, target, uid: 0, gid: 0, mode: 0o600, optional: false }
    }
}

impl Ssh {
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    pub fn socket_mode(mut self, uid: u32, gid: u32, mode: u32) -> Self {
        (self.uid, self.gid, self.mode) = (uid, gid, mode);
        self
    }

    /// The command also runs without it.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// A device by its CDI name, such as `vendor.com/gpu=0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    /// The command also runs without it.
    pub optional: bool,
}
