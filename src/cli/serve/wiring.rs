//! Settings as each module wants them: `Config` in, the module's own configuration out. No decisions beyond names.

use std::path::{Path, PathBuf};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::control::OnDisk;
use super::house::Surroundings;
use crate::admin::{self, Work};
use crate::audit::Trail;
use crate::buildkit::{Address, Endpoint, Tls};
use crate::config::{self, Config};
use crate::doctor;
use crate::engine::{self, EngineConfig};
use crate::error::Report;
use crate::housekeeping;
use crate::jobs::queue::Limits;
use crate::jobs::{Capacity, Pushes};
use crate::model::{Actor, App, Build, BuildPlan, ImagePrefix};
use crate::receive::{self, ReceiveConfig, Repositories};
use crate::registry::RegistryConfig;
use crate::solve::BuilderConfig;
use crate::ssh;
use crate::tag::TaggerConfig;

/// Room for the longest socket name below it, within the 107 bytes of a unix socket's path.
const RUNTIME_DIR_BYTES: usize = 70;

/// Where sockets live: below the data directory, or, when that is too long a path, in a directory of its own.
pub fn runtime_dir(data_dir: &Path, temp_dir: &Path) -> Result<PathBuf, Report> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let inside = data_dir.join("run");
    let dir = if inside.as_os_str().len() <= RUNTIME_DIR_BYTES {
        inside
    } else {
        let digest = crate::model::Digest::of(data_dir.as_os_str().as_encoded_bytes());
        let short = digest.as_str().trim_start_matches("sha256:").get(..16).unwrap_or_default().to_owned();
        temp_dir.join(format!("lemnos-{short}"))
    };
    let failed = |e: std::io::Error| Report::internal(format!("making {}: {e}", dir.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
    let made = std::fs::symlink_metadata(&dir).map_err(failed)?;
    // a directory of that name that somebody else made would see our sockets
    if !made.is_dir() || made.uid() != rustix::process::geteuid().as_raw() || made.mode() & 0o066 != 0 {
        return Err(Report::internal(format!("{} is not a private directory of this user", dir.display()))
            .hint("remove it, or choose a shorter --data path"));
    }
    Ok(dir)
}

pub fn engines(config: &Config, around: &Surroundings, runtime_dir: &Path) -> EngineConfig {
    EngineConfig {
        buildkitd: config.buildkitd.clone(),
        registry: config.registry_program.clone(),
        registry_listen: config.registry_listen,
        mirrors: config.mirrors.clone(),
        network: match config.network {
            config::Network::Isolated => engine::Network::Isolated,
            config::Network::Host => engine::Network::Host,
        },
        cache_limit: config.build_cache_limit.clone(),
        frontends: config.frontends.clone(),
        environment: around.environment.clone(),
        ..EngineConfig::new(
            config.data_dir.clone(),
            runtime_dir.to_owned(),
            around.lemnos.clone(),
            around.path.clone(),
        )
    }
}

pub fn builders(config: &Config) -> Vec<BuilderConfig> {
    config.builders.iter().map(|b| builder(b, config.solves_per_builder)).collect()
}

pub fn builder(builder: &config::BuilderConfig, solves_per_builder: u32) -> BuilderConfig {
    BuilderConfig {
        name: builder.name.clone(),
        endpoint: Endpoint {
            address: builder.address.clone(),
            tls: builder.tls.as_ref().map(|tls| Tls {
                ca: tls.ca.clone(),
                cert: tls.client.as_ref().map(|(cert, _)| cert.clone()),
                key: tls.client.as_ref().map(|(_, key)| key.clone()),
                server_name: tls.server_name.clone(),
            }),
        },
        bound: builder.platforms.clone(),
        max: usize::try_from(builder.max.unwrap_or(solves_per_builder)).unwrap_or(usize::MAX),
    }
}

/// Refuses a builder that pushes of a server could not be built on.
pub fn check_for_server(address: &Address) -> Result<(), Report> {
    match address {
        Address::Docker(_) => Err(Report::user(format!(
            "the builder {address} is the BuildKit inside dockerd: a server's images are pushed by digest, which \
             dockerd's image store does not do, and its steps would share Docker's own networks"
        ))
        .hint("run BuildKit in a container of its own and name that: docker-container://NAME")),
        _ => Ok(()),
    }
}

/// The buildkitd that this server started.
pub fn own_builder(address: &str, solves_per_builder: u32) -> Result<BuilderConfig, Report> {
    let endpoint = Endpoint { address: address.parse::<Address>()?, tls: None };
    let max = usize::try_from(solves_per_builder).unwrap_or(usize::MAX);
    Ok(BuilderConfig { name: "embedded".to_owned(), endpoint, bound: Vec::new(), max })
}

pub fn registry(config: &Config) -> RegistryConfig {
    RegistryConfig {
        plain_http: config.plain_http_hosts.clone(),
        token_hosts: config.registry_token_hosts.clone(),
        mirrors: config.mirrors.clone(),
        docker_config: config.docker_config.clone(),
        ..RegistryConfig::default()
    }
}

pub fn tagger(around: &Surroundings) -> TaggerConfig {
    TaggerConfig { failpoints: around.failpoints.clone(), ..TaggerConfig::new(around.git.clone()) }
}

pub fn receive(
    config: &Config,
    around: &Surroundings,
    repositories: Repositories,
    runtime_dir: &Path,
    trail: Trail,
) -> ReceiveConfig {
    let limits = &config.limits;
    ReceiveConfig {
        repositories,
        runtime_dir: runtime_dir.to_owned(),
        lemnos_exe: around.lemnos.clone(),
        git: around.git.clone(),
        trail,
        limits: receive::Limits {
            max_input_bytes: limits.push_bytes,
            max_blob_bytes: limits.blob_bytes,
            max_new_bytes: limits.new_bytes,
            max_new_objects: limits.new_objects,
            max_tree_entries: limits.tree_entries,
            max_tree_depth: u32::try_from(limits.tree_depth).unwrap_or(u32::MAX),
            max_tree_bytes: limits.tree_bytes,
            max_updates: usize::try_from(limits.refs_per_push).unwrap_or(usize::MAX),
            stall_seconds: limits.stall.as_secs(),
            transfer_seconds: limits.transfer.as_secs(),
            ..receive::Limits::default()
        },
    }
}

pub fn ssh(config: &Config) -> ssh::Config {
    let limits = &config.ssh_limits;
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    ssh::Config {
        login_grace: limits.login_grace,
        max_auth_tries: count(limits.auth_tries),
        max_connections: count(limits.connections),
        max_unauthenticated_per_source: count(limits.connections_per_source),
        max_sessions_per_connection: count(limits.sessions_per_connection),
        keepalive_interval: limits.keepalive,
        keepalive_max: count(limits.keepalive_count),
        idle: limits.idle,
        output_stall: limits.output_stall,
        drain: limits.drain.min(config.shutdown_grace),
        trust: ssh::TrustFiles {
            authorities: config.ssh_user_ca_keys.clone(),
            revoked: config.ssh_revoked_keys.clone(),
        },
        ..ssh::Config::default()
    }
}

pub fn capacity(config: &Config) -> Capacity {
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Capacity {
        queue: Limits {
            running: count(config.concurrent_builds),
            waiting: count(config.queued_builds),
            waiting_per_app: count(config.queued_builds_per_app),
        },
        keep_builds_per_app: config.keep_builds_per_app,
        build: config.limits.build,
        silence: config.limits.silence,
        heartbeat: config.heartbeat,
    }
}

pub fn doctor(config: &Config, environment: &config::Environment) -> doctor::Subject {
    let platforms = ["linux/amd64", "linux/arm64"];
    doctor::Subject {
        data_dir: config.data_dir.clone(),
        temp_dir: std::env::temp_dir(),
        path: environment.get("PATH").unwrap_or(super::house::DEFAULT_PATH).into(),
        ssh: config.ssh,
        http: config.http,
        builders: builders(config).into_iter().map(|one| (one.name, one.endpoint)).collect(),
        buildkitd: config.buildkitd.clone(),
        isolated: config.network == config::Network::Isolated,
        registry: config.registry.clone(),
        registry_listen: config.registry_listen,
        registry_program: config.registry_program.clone(),
        registry_client: registry(config),
        platforms: platforms.iter().filter_map(|platform| platform.parse().ok()).collect(),
    }
}

pub fn housekeeping(config: &Config, around: &Surroundings, runtime_dir: &Path) -> housekeeping::Settings {
    housekeeping::Settings {
        every: config.housekeeping,
        thresholds: housekeeping::Thresholds {
            keep_unreachable: config.keep_unreachable,
            ..housekeeping::Thresholds::default()
        },
        kept: housekeeping::Kept {
            builds_per_app: config.keep_builds_per_app,
            builds_days: config.keep_builds_days,
            logs_days: config.keep_logs_days,
            logs_bytes: config.keep_logs_bytes,
            audit: config.audit.keep,
            audit_entries: config.audit.keep_entries,
        },
        git: housekeeping::KeptGit {
            program: around.git.clone(),
            lemnos: around.lemnos.clone(),
            lock: housekeeping::lock_path(runtime_dir),
            timeout: std::time::Duration::from_secs(3600),
        },
    }
}

/// How long builds may go on when the server is told to stop; what they have to say to their pushers takes the rest.
pub fn grace(config: &Config) -> Duration {
    let whole = config.shutdown_grace;
    whole.saturating_sub(Duration::from_secs(5).min(whole / 4))
}

pub fn admin(
    prefix: ImagePrefix,
    repositories: Repositories,
    trail: Trail,
    pushes: Pushes,
    builders: Arc<dyn admin::Builders>,
) -> admin::Context {
    let work: Option<Arc<dyn Work>> = Some(Arc::new(Builds(pushes)));
    let (repositories, builders) = (Arc::new(OnDisk(repositories)), Some(builders));
    admin::Context { prefix: Some(prefix), repositories, work, builders, trail }
}

/// The builds, as `admin` asks of them.
struct Builds(Pushes);

#[async_trait]
impl Work for Builds {
    async fn cancel(&self, build: &Build, by: &Actor) -> Result<Build, Report> {
        self.0.cancel(build, by).await
    }
    async fn retry(&self, build: &Build, by: &Actor) -> Result<Build, Report> {
        self.0.retry(build, by).await
    }
    async fn plan(&self, app: &App, what: &str) -> Result<BuildPlan, Report> {
        self.0.plan(app, what).await
    }
}
