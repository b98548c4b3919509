//! The composition root: opens the store, brings up the engines, wires the stages, opens the doors, and closes all again
//! in the opposite order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::git_user;
use super::health::{self, Health};
use super::host::Host;
use super::logins::KeptLogins;
use super::wiring;
use crate::admin::{self, DataLock, Ready, ReadyFile};
use crate::audit::Trail;
use crate::config::{Config, Environment};
use crate::engine::{self, Supervised};
use crate::error::{Kind, Report};
use crate::failpoint::Failpoints;
use crate::housekeeping::Housekeeper;
use crate::jobs::Pushes;
use crate::model::{BuildState, Destinations, ImagePrefix, Platform};
use crate::pipeline::{Pipeline, Settings};
use crate::receive::{Receiver, Repositories, refs};
use crate::registry::Registry;
use crate::solve::{BuilderConfig, Pool};
use crate::ssh;
use crate::store::Store;
use crate::tag::{Tagger, TaggerConfig, clear_stale_locks};

/// Where programs are when the environment does not say.
pub(in crate::cli) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What reaches the engines of the environment.
const PASSED_ON: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// What the process knows of its surroundings, read once by `cli`.
pub struct Surroundings {
    /// This very program.
    pub lemnos: PathBuf,
    pub git: PathBuf,
    pub path: OsString,
    /// Proxies and certificate files that engines need.
    pub environment: Vec<(OsString, OsString)>,
    pub failpoints: Failpoints,
    /// For sockets, when the data directory's path is too long for one.
    pub temp_dir: PathBuf,
}

impl Surroundings {
    pub fn of_process(environment: &Environment) -> Result<Self, Report> {
        let lemnos = std::env::current_exe()
            .map_err(|e| Report::internal(format!("finding this program's own path: {e}")))?;
        let path = environment.get("PATH").unwrap_or(DEFAULT_PATH);
        let git = find_git(environment).ok_or_else(|| {
            Report::new(Kind::NotFound, "there is no git on PATH")
                .hint("install the package git (2.38 or newer)")
        })?;
        let failpoints = match environment.get("LEMNOS_FAILPOINT") {
            Some(setting) => Failpoints::parse(setting).map_err(|e| Report::user(e.to_string()))?,
            None => Failpoints::default(),
        };
        let passed =
            PASSED_ON.iter().filter_map(|name| Some(((*name).into(), environment.get(name)?.into())));
        Ok(Self {
            lemnos,
            git,
            path: path.into(),
            environment: passed.collect(),
            failpoints,
            temp_dir: environment.get("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
        })
    }
}

/// The git on PATH, by its absolute path.
pub fn find_git(environment: &Environment) -> Option<PathBuf> {
    let path = environment.get("PATH").unwrap_or(DEFAULT_PATH);
    let git = std::env::split_paths(path).map(|dir| dir.join("git")).find(|git| git.is_file())?;
    std::path::absolute(git).ok()
}

/// The engines in use, and those of them that are this server's own.
pub(super) struct Engines {
    pub(super) prefix: ImagePrefix,
    pub(super) builders: Vec<BuilderConfig>,
    own: Vec<Supervised>,
}

impl Engines {
    async fn up(config: &Config, around: &Surroundings, runtime_dir: &Path) -> Result<Self, Report> {
        let settings = wiring::engines(config, around, runtime_dir);
        let mut own = Vec::new();
        let mut builders = wiring::builders(config);
        // before anything is started: a registry of our own is on this machine's loopback
        let target =
            config.image_prefix().map_or_else(|| "localhost".to_owned(), |prefix| prefix.to_string());
        builders.iter().try_for_each(|builder| wiring::check_for_server(&builder.endpoint.address))?;
        let addresses: Vec<String> = builders.iter().map(|b| b.endpoint.address.to_string()).collect();
        engine::check_reachability(addresses.iter().map(String::as_str), &target)?;
        let prefix = match &config.registry {
            Some(prefix) => prefix.clone(),
            None => {
                let registry = engine::start_registry(&settings).await?;
                // `localhost` is what people type, and what every builder on this machine takes for plain http
                let port = registry.address.rsplit(':').next().unwrap_or_default().to_owned();
                own.push(registry);
                format!("localhost:{port}").parse()?
            }
        };
        if builders.is_empty() {
            match engine::start_buildkitd(&settings, Some(prefix.host())).await {
                Ok(buildkitd) => {
                    let started = wiring::own_builder(&buildkitd.address, config.solves_per_builder);
                    own.push(buildkitd);
                    builders.push(started?);
                }
                Err(error) => {
                    stop_all(own).await;
                    return Err(error.into());
                }
            }
        }
        Ok(Self { prefix, builders, own })
    }
}

async fn stop_all(own: Vec<Supervised>) {
    // the builder before the registry it pushes to
    for engine in own.into_iter().rev() {
        engine.stop().await;
    }
}

/// Serves until `stop`, then takes nothing new and lets running pushes finish.
pub async fn serve(config: Config, around: Surroundings, stop: CancellationToken) -> Result<(), Report> {
    let lock = DataLock::for_server(&config.data_dir).await?;
    ReadyFile::clear(&config.data_dir, &lock)?;
    clear_scratch(&config);
    let runtime_dir = wiring::runtime_dir(&config.data_dir, &around.temp_dir)?;
    git_user::settle(&config, &around, &runtime_dir).await?;
    let store = Store::open(&config.data_dir).await?;
    let engines = Engines::up(&config, &around, &runtime_dir).await?;
    let served = doors(&config, &around, &store, &runtime_dir, &engines, &lock, stop).await;
    stop_all(engines.own).await;
    store.close().await;
    served
}

fn pipeline_settings(config: &Config, around: &Surroundings, engines: &Engines) -> Settings {
    Settings {
        image_prefix: engines.prefix.clone(),
        // a prefix is such a place, whatever it is
        destinations: Destinations::new(
            config.push_destinations.clone(),
            engines.prefix.as_str().parse().ok(),
        ),
        frontends: config.frontends.clone(),
        policy: config.sources.clone(),
        sbom_generator: config.sbom_generator.clone(),
        plain_http: config.plain_http_hosts.clone(),
        scratch: scratch(config),
        git: around.git.clone(),
        log_tail_lines: usize::try_from(config.log_tail_lines).unwrap_or(usize::MAX),
    }
}

async fn doors(
    config: &Config,
    around: &Surroundings,
    store: &Store,
    runtime_dir: &Path,
    engines: &Engines,
    lock: &DataLock,
    stop: CancellationToken,
) -> Result<(), Report> {
    let logins = Arc::new(KeptLogins::new(store, &engines.prefix));
    let registry = Registry::with_logins(wiring::registry(config), Some(logins))?;
    let fleet = Fleet::gather(&engines.builders, store, &engines.prefix, config.solves_per_builder).await?;
    look_at_builders(fleet.pool()).await;
    let fleet = fleet.checking();
    let repositories = Repositories::new(config.data_dir.join("repositories"));
    let tagger = Tagger::new(store.clone(), registry.clone(), wiring::tagger(around));
    let repository_of = {
        let repositories = repositories.clone();
        move |app_id: &str| repositories.path(app_id)
    };
    clear_leftovers(store, &repositories, &wiring::tagger(around)).await;
    for recovered in tagger.recover(&repository_of).await? {
        tracing::warn!(?recovered, "a push that was at its commit point is settled");
    }
    let pool = fleet.pool().clone();
    let readiness = health::readiness(store, engines, fleet.pool(), &registry, &stop);
    let pipeline = pipeline(config, around, store, registry, fleet.pool().clone(), engines);
    let pushes = Pushes::new(
        store.clone(),
        Arc::new(pipeline),
        tagger.clone(),
        wiring::capacity(config),
        repository_of.clone(),
        around.failpoints.clone(),
    );
    let trail = Trail::start(store.clone());
    let receive = wiring::receive(config, around, repositories.clone(), runtime_dir, trail.clone());
    let receiver = Arc::new(Receiver::new(receive, Arc::new(pushes.clone()))?);

    // before the doors open: nobody moves a ref yet
    pushes.recover().await?;
    let (ssh_config, ssh) = ssh_door(config).await?;
    let http = listen(config.http).await?;
    let http_address = http.local_addr().map_err(|e| Report::internal(format!("the HTTP listener: {e}")))?;
    let host_keys = ssh::host_keys(&config.data_dir.join("ssh"))?;
    let control = admin::socket::Listener::bind(&config.data_dir, lock)?;
    let context = wiring::admin(
        engines.prefix.clone(),
        repositories.clone(),
        trail.clone(),
        pushes.clone(),
        Arc::new(fleet),
    );
    let control = tokio::spawn(admin::socket::serve(control, store.clone(), context.clone()));
    let ready = in_use(ssh.local_addr().to_string(), http_address.to_string(), engines);
    let ready = ReadyFile::write(&config.data_dir, &ready, lock)?;

    let housekeeper =
        Housekeeper::new(store.clone(), repositories, wiring::housekeeping(config, around, runtime_dir));
    let housekeeping = tokio::spawn(housekeeper.run(stop.clone()));
    let completing = tokio::spawn(async move { tagger.keep_completing(repository_of).await });
    let host = Arc::new(Host { store: store.clone(), receiver: receiver.clone(), context });
    let closing = stop.clone();
    let levels = health::levels(pushes.queue().clone(), pool);
    let http = Health::open(http, store, readiness, levels, closing.clone());
    let (grace, stopping) = (wiring::grace(config), stop.clone());
    let (ssh, ()) = tokio::join!(
        async {
            let ended = ssh.run(ssh_config, host_keys, host, trail.clone(), closing.clone()).await;
            // a door that fails closes the house: half a server helps nobody
            closing.cancel();
            ended
        },
        stopping.cancelled().then(|()| pushes.shutdown(grace)),
    );
    drop(ready);
    receiver.finish().await;
    // its child ends within a second of `stop`
    let _ = housekeeping.await;
    end_record(&trail).await;
    completing.abort();
    control.abort();
    ssh?;
    http.close().await
}

/// What is in use, for those who ask and for the log.
fn in_use(ssh: String, http: String, engines: &Engines) -> Ready {
    let ready = Ready {
        ssh,
        http,
        registry: engines.prefix.to_string(),
        builders: engines.builders.iter().map(|b| b.endpoint.address.to_string()).collect(),
        pid: std::process::id(),
    };
    tracing::info!(ssh = %ready.ssh, http = %ready.http, registry = %ready.registry, builders = ?ready.builders, "ready");
    ready
}

async fn end_record(trail: &Trail) {
    if let Err(error) = trail.flush().await {
        tracing::error!(%error, "the last entries of the audit record are lost");
    }
}

fn pipeline(
    config: &Config,
    around: &Surroundings,
    store: &Store,
    registry: Registry,
    pool: Pool,
    engines: &Engines,
) -> Pipeline {
    Pipeline {
        store: store.clone(),
        registry,
        builders: pool,
        settings: pipeline_settings(config, around, engines),
        failpoints: around.failpoints.clone(),
    }
}

/// Binds the SSH door, when its files of trust can be read: found out now, not at the first login.
async fn ssh_door(config: &Config) -> Result<(ssh::Config, ssh::Listener), Report> {
    let settings = wiring::ssh(config);
    settings.trust.check().await?;
    Ok((settings, ssh::listen(config.ssh).await?))
}

/// Where builds keep files for their own time.
fn scratch(config: &Config) -> PathBuf {
    config.data_dir.join("scratch")
}

/// What builds of a server that was killed left behind.
fn clear_scratch(config: &Config) {
    let path = scratch(config);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "what earlier builds left on disk stays");
        }
        _ => {}
    }
}

/// What a server that was killed may have left in its repositories: git's lock files and the hidden refs of builds.
async fn clear_leftovers(store: &Store, repositories: &Repositories, tagger: &TaggerConfig) {
    let Ok(entries) = std::fs::read_dir(repositories.root()) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
        match clear_stale_locks(&path, tagger.lock_grace).await {
            Ok(cleared) if cleared.is_empty() => {}
            Ok(cleared) => tracing::warn!(?cleared, "removed the lock files of an earlier server"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "looking for lock files"),
        }
        release_kept(store, &path).await;
    }
}

/// What builds keep from being collected is kept as long as their records, and not longer.
async fn release_kept(store: &Store, repository: &Path) {
    let kept = refs::kept(repository).unwrap_or_else(|error| {
        tracing::warn!(path = %repository.display(), %error, "looking for the hidden refs of builds");
        Vec::new()
    });
    for (build, _) in kept {
        // a store that does not answer lets nothing go
        let over = store
            .build(&build)
            .await
            .is_ok_and(|found| found.is_none_or(|build| build.state == BuildState::Succeeded));
        if over && let Err(error) = refs::release(repository, &build) {
            tracing::warn!(%build, %error, "the build's hidden ref stays");
        }
    }
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Report> {
    TcpListener::bind(address).await.map_err(|e| {
        Report::new(Kind::Conflict, format!("listening for HTTP on {address}: {e}"))
            .hint("choose another address with --http ADDR:PORT; port 0 picks a free one")
    })
}

/// Says at start what will be missing at the first push.
async fn look_at_builders(pool: &Pool) {
    let usual: Vec<Platform> = ["linux/amd64", "linux/arm64"].iter().filter_map(|p| p.parse().ok()).collect();
    for (name, answer) in pool.probe().await {
        match answer {
            Err(error) => tracing::warn!(builder = %name, %error, "the builder does not answer yet"),
            Ok(platforms) => {
                let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                tracing::info!(builder = %name, platforms = names.join(" "), "builder");
            }
        }
    }
    for platform in engine::binfmt::missing(&usual) {
        tracing::warn!(
            %platform,
            "this machine cannot run programs of this platform: install qemu-user-static, or add a native builder"
        );
    }
}
