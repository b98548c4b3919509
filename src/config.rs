//! The configuration: flags over environment over `lemnos.toml` over defaults, and where each value came from.
//!
//! Everything is text until `resolve`, which parses it once into `Config`; from then on values are valid. A key, a
//! `LEMNOS_…` name or a value that is not understood is an error with its place, never ignored. Only this module and
//! `cli` read the environment. Must not open sockets, start anything, or know what a stage does with a value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::policy::{is_image_pattern, is_remote_pattern};
use crate::model::{Generator, ImagePrefix, RegistryPlace, SourcePolicy};

mod builder;
mod data_dir;
mod environment;
mod error;
mod file;
mod layer;
mod reader;
mod settings;

pub use builder::{BuilderConfig, BuilderTls};
pub use data_dir::data_dir;
pub use environment::Environment;
pub use error::ConfigError;
pub use layer::{Layer, Origin};
pub use reader::{LogFormat, Network, Shown};
pub use settings::{SETTINGS, Setting, Shape};

use reader::Reader;

/// The configuration file's name in the data directory.
pub const FILE_NAME: &str = "lemnos.toml";

const IMAGE_PATTERN: &str = "a pattern of images: HOST/PATH[:TAG] with the host written out, `*` for a part of a name or all that follows, for example docker.io/library/* or gcr.io/distroless/static:nonroot; * alone is any image";
const REMOTE_PATTERN: &str = "a pattern of addresses: HOST[:PORT][/PATH] without a scheme, `*` for a part of a name or all that follows, for example files.example.com/pub/*; none allows nothing";

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Absolute; may not exist yet.
    pub data_dir: PathBuf,
    pub data_dir_origin: Origin,
    /// The configuration file that was read, when there is one.
    pub file: Option<PathBuf>,
    pub ssh: SocketAddr,
    pub http: SocketAddr,
    pub log_format: LogFormat,
    /// Empty: a buildkitd of our own.
    pub builders: Vec<BuilderConfig>,
    /// None: a registry of our own at `registry_listen`.
    pub registry: Option<ImagePrefix>,
    /// Where pushes may have images put besides their app's own name.
    pub push_destinations: Vec<RegistryPlace>,
    pub registry_listen: SocketAddr,
    /// None: `buildkitd` on PATH.
    pub buildkitd: Option<PathBuf>,
    /// None: `docker-registry` or `registry` on PATH.
    pub registry_program: Option<PathBuf>,
    /// Registry host -> what our own buildkitd, and lemnos itself for the images that builds stand on, ask first, each `HOST[:PORT][/PREFIX]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// What RUN steps of our own buildkitd reach.
    pub network: Network,
    /// How much disk our own buildkitd's cache may take: `40GB` or `60%`.
    pub build_cache_limit: String,
    /// Registries besides loopback that are spoken to in plain http.
    pub plain_http_hosts: Vec<String>,
    /// Token services outside a registry's own domain that may be sent its credentials.
    pub registry_token_hosts: Vec<String>,
    /// Credentials; read when needed, so it may appear later.
    pub docker_config: Option<PathBuf>,
    /// Public keys of the authorities whose user certificates log in.
    pub ssh_user_ca_keys: Option<PathBuf>,
    /// Keys, key ids and serials that log in no more.
    pub ssh_revoked_keys: Option<PathBuf>,
    /// Images that a Dockerfile's `# syntax=` line may name.
    pub frontends: Vec<String>,
    /// The image that makes SBOMs where an app names none.
    pub sbom_generator: Option<Generator>,
    /// Whom git's children run as when the server is root; 0: as the server. Whether that was asked for.
    pub git_uid: u32,
    pub git_uid_asked: bool,
    /// What builds may take from outside.
    pub sources: SourcePolicy,
    pub concurrent_builds: u32,
    /// Of a builder that sets no `max` of its own.
    pub solves_per_builder: u32,
    pub queued_builds: u32,
    pub queued_builds_per_app: u32,
    pub keep_builds_per_app: u32,
    pub keep_builds_days: u32,
    pub keep_logs_days: u32,
    /// What the database may hold before the oldest builds' logs go.
    pub keep_logs_bytes: u64,
    /// Objects that nothing refers to: of refused builds and forced pushes.
    pub keep_unreachable: Duration,
    /// Between two rounds of housekeeping.
    pub housekeeping: Duration,
    pub log_tail_lines: u32,
    pub heartbeat: Duration,
    pub audit: Audit,
    /// From SIGTERM to the exit.
    pub shutdown_grace: Duration,
    pub limits: Limits,
    pub ssh_limits: SshLimits,
    /// Every setting as it is in effect, in the order of `SETTINGS`.
    pub shown: Vec<Shown>,
}

/// What the audit record keeps: no entry longer than this, and not more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub keep: Duration,
    pub keep_entries: u64,
}

/// What one push may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that git may receive in one push.
    pub push_bytes: u64,
    pub blob_bytes: u64,
    /// All objects that one push brings, inflated, and their number.
    pub new_bytes: u64,
    pub new_objects: u64,
    /// Entries of one commit's tree, directories included.
    pub tree_entries: u64,
    pub tree_depth: u64,
    /// All blobs of one commit's tree together, inflated.
    pub tree_bytes: u64,
    pub refs_per_push: u64,
    /// A request in which no byte moved for this long is ended.
    pub stall: Duration,
    /// From the start of a request until all objects have moved.
    pub transfer: Duration,
    pub build: Duration,
    /// A build of which nothing comes for this long is ended.
    pub silence: Duration,
}

/// What strangers and clients may cost at the SSH door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshLimits {
    pub login_grace: Duration,
    pub auth_tries: u64,
    pub connections: u64,
    /// Not logged in, of one address.
    pub connections_per_source: u64,
    pub sessions_per_connection: u64,
    pub keepalive: Duration,
    pub keepalive_count: u64,
    /// A logged-in connection without a session.
    pub idle: Duration,
    pub output_stall: Duration,
    /// At shutdown, how long sessions may take to end.
    pub drain: Duration,
}

fn limits(r: &mut Reader) -> Result<Limits, ConfigError> {
    Ok(Limits {
        push_bytes: r.number("limits.push_bytes")?,
        blob_bytes: r.number("limits.blob_bytes")?,
        new_bytes: r.number("limits.new_bytes")?,
        new_objects: r.number("limits.new_objects")?,
        tree_entries: r.number("limits.tree_entries")?,
        tree_depth: r.number("limits.tree_depth")?,
        tree_bytes: r.number("limits.tree_bytes")?,
        refs_per_push: r.number("limits.refs_per_push")?,
        stall: r.seconds("limits.stall_seconds")?,
        transfer: r.seconds("limits.transfer_seconds")?,
        build: r.seconds("limits.build_seconds")?,
        silence: r.seconds("limits.silence_seconds")?,
    })
}

/// Computes the effective configuration. `data` and `file` are the flags --data and --config.
pub fn resolve(
    data: Option<&Path>,
    file: Option<&Path>,
    flags: Layer,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let (data_dir, data_dir_origin) = data_dir(data, environment)?;
    let file = file::find(file, environment, &data_dir)?;
    let mut layers = vec![flags, environment.layer()?];
    if let Some(path) = &file {
        layers.push(file::read(path)?);
    }
    layers.push(environment.of_other_tools());
    layers.push(Layer::defaults());
    let mut reader = Reader::new(Layer::merge(layers));
    let r = &mut reader;
    let (limits, ssh_limits) = (limits(r)?, ssh_limits(r)?);
    let day = Duration::from_secs(86_400);
    let audit = Audit {
        keep: day.saturating_mul(r.count("audit.keep_days")?),
        keep_entries: r.number("audit.keep_entries")?,
    };
    let config = Config {
        data_dir,
        data_dir_origin,
        file,
        ssh: r.listen("ssh")?,
        http: r.listen("http")?,
        log_format: r.log_format("log_format")?,
        builders: r.builders("builders")?,
        registry: r.registry("registry")?,
        push_destinations: r.places("push_destinations")?,
        registry_listen: r.listen("registry_listen")?,
        buildkitd: r.path("buildkitd")?,
        registry_program: r.path("registry_program")?,
        mirrors: r.mirrors("mirrors")?,
        network: r.network("network")?,
        build_cache_limit: r.disk_share("build_cache_limit")?,
        plain_http_hosts: r.hosts("plain_http_hosts")?,
        registry_token_hosts: r.hosts("registry_token_hosts")?,
        docker_config: r.path("docker_config")?,
        ssh_user_ca_keys: r.path("ssh_user_ca_keys")?,
        ssh_revoked_keys: r.path("ssh_revoked_keys")?,
        frontends: r.list("frontends")?,
        sbom_generator: r.generator("sbom_generator")?,
        git_uid: r.count("git_uid")?,
        git_uid_asked: false,
        sources: sources(r)?,
        concurrent_builds: r.count("concurrent_builds")?,
        solves_per_builder: r.count("solves_per_builder")?,
        queued_builds: r.count("queued_builds")?,
        queued_builds_per_app: r.count("queued_builds_per_app")?,
        keep_builds_per_app: r.count("keep_builds_per_app")?,
        keep_builds_days: r.count("keep_builds_days")?,
        keep_logs_days: r.count("keep_logs_days")?,
        keep_logs_bytes: r.number("keep_logs_bytes")?,
        keep_unreachable: r.days("keep_unreachable_days")?,
        housekeeping: r.seconds("housekeeping_seconds")?,
        log_tail_lines: r.count("log_tail_lines")?,
        heartbeat: r.seconds("heartbeat_seconds")?,
        audit,
        shutdown_grace: r.seconds("shutdown_grace_seconds")?,
        limits,
        ssh_limits,
        shown: Vec::new(),
    };
    let shown = reader.finish()?;
    let git_uid_asked = shown.iter().any(|one| one.key == "git_uid" && one.origin != Origin::Default);
    Ok(Config { shown, git_uid_asked, ..config })
}

fn sources(r: &mut Reader) -> Result<SourcePolicy, ConfigError> {
    Ok(SourcePolicy {
        base_images: r.patterns("base_images", IMAGE_PATTERN, is_image_pattern)?,
        by_digest: r.required_or_off("base_images_by_digest")?,
        frontends_by_digest: r.required_or_off("frontends_by_digest")?,
        remote_sources: r.patterns("remote_sources", REMOTE_PATTERN, is_remote_pattern)?,
    })
}

fn ssh_limits(r: &mut Reader) -> Result<SshLimits, ConfigError> {
    Ok(SshLimits {
        login_grace: r.seconds("ssh_limits.login_grace_seconds")?,
        auth_tries: r.number("ssh_limits.auth_tries")?,
        connections: r.number("ssh_limits.connections")?,
        connections_per_source: r.number("ssh_limits.connections_per_source")?,
        sessions_per_connection: r.number("ssh_limits.sessions_per_connection")?,
        keepalive: r.seconds("ssh_limits.keepalive_seconds")?,
        keepalive_count: r.number("ssh_limits.keepalive_count")?,
        idle: r.seconds("ssh_limits.idle_seconds")?,
        output_stall: r.seconds("ssh_limits.output_stall_seconds")?,
        drain: r.seconds("ssh_limits.drain_seconds")?,
    })
}

impl Config {
    /// Where apps without an image name of their own go, as far as it is known before the server runs: with a
    /// registry of our own on port 0 it is not.
    pub fn image_prefix(&self) -> Option<ImagePrefix> {
        match &self.registry {
            Some(prefix) => Some(prefix.clone()),
            None if self.registry_listen.port() == 0 => None,
            None => self.registry_listen.to_string().parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests;
