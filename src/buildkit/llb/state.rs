//! A state: an output of the graph, and what a command run on it finds.
//!
//! The values (environment, directory, user …) are worked out as they are set: nothing is left to marshalling but the
//! graph itself. Source: client/llb/state.go, meta.go.

use std::net::IpAddr;
use std::sync::Arc;

use super::graph::Output;
use super::{
    Constraints, Definition, Exec, FileActions, ImageConfig, LlbError, NetMode, Platform, Run, SecurityMode,
    path,
};

/// A file system to be made. Never changes; copies are cheap.
#[derive(Clone, Default)]
pub struct State {
    pub(super) output: Option<Output>,
    pub(super) values: Arc<Values>,
}

/// What a command finds.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    /// Each name once, in the order of the last setting.
    pub(super) env: Vec<(String, String)>,
    pub(super) dir: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) user: String,
    pub(super) hostname: String,
    pub(super) extra_hosts: Vec<(String, IpAddr)>,
    pub(super) ulimits: Vec<(String, i64, i64)>,
    pub(super) cgroup_parent: String,
    pub(super) exit_codes: Vec<i32>,
    pub(super) network: NetMode,
    pub(super) security: SecurityMode,
    pub(super) platform: Option<Platform>,
}

/// One thing that is different in the next state.
#[derive(Clone)]
pub enum Change {
    Env(String, String),
    /// Relative to the directory before; an absolute one is taken as it is written.
    Dir(String),
    User(String),
    Hostname(String),
    ExtraHost(String, IpAddr),
    /// Name (`nofile`, `nproc` …), soft and hard limit.
    Ulimit(String, i64, i64),
    CgroupParent(String),
    Network(NetMode),
    Security(SecurityMode),
    Platform(Platform),
    /// All values of another state; this one's file system.
    Reset(State),
}

impl Values {
    pub(super) fn set_env(&mut self, key: &str, value: &str) {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.into(), value.into()));
    }

    pub(super) fn env(&self, key: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn dir(&self) -> &str {
        self.dir.as_deref().unwrap_or_default()
    }

    fn enter(&mut self, dir: String) {
        self.dir = Some(match (path::is_absolute(&dir), self.dir()) {
            (true, _) => dir,
            (false, "") => path::join(&["/", &dir]),
            (false, before) => path::join(&[before, &dir]),
        });
    }
}

impl State {
    /// An empty file system.
    pub fn scratch() -> Self {
        Self::fresh(None)
    }

    /// An output, entered at `/`, with no other values than its platform.
    pub(super) fn fresh(output: Option<Output>) -> Self {
        let values = Values { dir: Some("/".into()), ..Values::default() };
        Self { output: None, values: Arc::new(values) }.with_output(output)
    }

    /// Another file system under the same values; the platform becomes the output's, if that has one.
    pub(super) fn with_output(&self, output: Option<Output>) -> Self {
        let platform = output.as_ref().and_then(|output| output.platform.clone());
        let state = Self { output, values: self.values.clone() };
        match platform {
            Some(platform) => state.platform(platform),
            None => state,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_scratch(&self) -> bool {
        self.output.is_none()
    }

    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        changes.into_iter().fold(self.clone(), Self::changed)
    }

    fn changed(mut self, change: Change) -> Self {
        let values = Arc::make_mut(&mut self.values);
        match change {
            Change::Env(key, value) => values.set_env(&key, &value),
            Change::Dir(dir) => values.enter(dir),
            Change::User(user) => values.user = user,
            Change::Hostname(name) => values.hostname = name,
            Change::ExtraHost(host, ip) => values.extra_hosts.push((host, ip)),
            Change::Ulimit(name, soft, hard) => values.ulimits.push((name, soft, hard)),
            Change::CgroupParent(parent) => values.cgroup_parent = parent,
            Change::Network(mode) => values.network = mode,
            Change::Security(mode) => values.security = mode,
            Change::Platform(platform) => values.platform = Some(platform.normalized()),
            Change::Reset(other) => {
                *values = (*other.values).clone();
                // the output's own platform if it has one, else `/`: what Go's chain of values leaves standing
                match self.output.as_ref().and_then(|output| output.platform.clone()) {
                    Some(platform) => values.platform = Some(platform.normalized()),
                    None => values.dir = Some("/".into()),
                }
            }
        }
        self
    }

    #[must_use]
    pub fn env(&self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with([Change::Env(key.into(), value.into())])
    }

    /// See [`Change::Dir`].
    #[must_use]
    pub fn dir(&self, dir: impl Into<String>) -> Self {
        self.with([Change::Dir(dir.into())])
    }

    #[must_use]
    pub fn user(&self, user: impl Into<String>) -> Self {
        self.with([Change::User(user.into())])
    }

    #[must_use]
    pub fn hostname(&self, name: impl Into<String>) -> Self {
        self.with([Change::Hostname(name.into())])
    }

    #[must_use]
    pub fn extra_host(&self, host: impl Into<String>, ip: IpAddr) -> Self {
        self.with([Change::ExtraHost(host.into(), ip)])
    }

    /// See [`Change::Ulimit`].
    #[must_use]
    pub fn ulimit(&self, name: impl Into<String>, soft: i64, hard: i64) -> Self {
        self.with([Change::Ulimit(name.into(), soft, hard)])
    }

    #[must_use]
    pub fn cgroup_parent(&self, parent: impl Into<String>) -> Self {
        self.with([Change::CgroupParent(parent.into())])
    }

    #[must_use]
    pub fn network(&self, mode: NetMode) -> Self {
        self.with([Change::Network(mode)])
    }

    #[must_use]
    pub fn security(&self, mode: SecurityMode) -> Self {
        self.with([Change::Security(mode)])
    }

    #[must_use]
    pub fn platform(&self, platform: Platform) -> Self {
        self.with([Change::Platform(platform)])
    }

    /// See [`Change::Reset`].
    #[must_use]
    pub fn reset(&self, other: &Self) -> Self {
        self.with([Change::Reset(other.clone())])
    }

    /// With environment, directory and platform of an image. Its user is left to the caller, as Go's client leaves it.
    #[must_use]
    pub fn with_image_config(&self, config: &ImageConfig) -> Self {
        let mut state = self.clone();
        for (key, value) in config.env_pairs() {
            state = state.env(key, value);
        }
        state = state.dir(&config.working_dir);
        match &config.platform {
            Some(platform) => state.platform(platform.clone()),
            None => state,
        }
    }

    pub fn env_value(&self, key: &str) -> Option<&str> {
        self.values.env(key)
    }

    pub fn current_dir(&self) -> &str {
        self.values.dir()
    }

    pub fn current_platform(&self) -> Option<&Platform> {
        self.values.platform.as_ref()
    }

    /// A command with this state as its root file system.
    pub fn run(&self, run: Run) -> Exec {
        Exec::new(self, run)
    }

    /// File actions on this state, as one operation.
    #[must_use]
    pub fn file(&self, actions: FileActions, constraints: Constraints) -> Self {
        self.with_output(Some(super::file::output(self, actions, constraints)))
    }

    /// This state, once `others` are made too. `id` is part of the digest.
    #[must_use]
    pub fn requires(&self, id: &str, others: &[Self]) -> Self {
        super::combine::requires(self, id, others)
    }

    /// The graph under this state. `constraints` are what every operation stands on.
    pub fn marshal(&self, constraints: &Constraints) -> Result<Definition, LlbError> {
        super::marshal::definition(self, constraints, 0)
    }

    /// The state that a definition ends in, its operations unchanged.
    pub fn from_definition(definition: &Definition) -> Result<Self, LlbError> {
        super::import::state(definition)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("scratch", &self.is_scratch()).field("values", &self.values).finish()
    }
}
