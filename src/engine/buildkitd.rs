//! The embedded buildkitd: its configuration and how it is started.
//!
//! Invariant: no insecure entitlement, no frontend image but allowed ones, a bounded cache, plain http to loopback only.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::network::Bridge;
use super::probe::Probe;
use super::supervise::{Launch, Supervised};
use super::{
    EngineConfig, EngineError, Network, environment, hold, leftovers, private_dir, program, supervise, write,
};

const NAME: &str = "buildkitd";
/// A unix socket's address holds 108 bytes, one of them the end.
const SOCKET_PATH_BYTES: usize = 107;
/// Network namespaces kept ready: making one costs about as much as a small step.
const NETWORKS_READY: u32 = 4;

pub(super) async fn start(config: &EngineConfig, registry: Option<&str>) -> Result<Supervised, EngineError> {
    let daemon = program(config, config.buildkitd.as_ref(), &[NAME], EngineError::NoBuildkitd)?;
    if !rustix::process::geteuid().is_root() {
        return Err(EngineError::NotRoot);
    }
    let runc = config.find(&["buildkit-runc", "runc"]).ok_or(EngineError::NoTool("runc"))?;
    let state = config.state_dir();
    let root = config.data_dir.join("buildkit");
    for dir in [&state, &config.runtime_dir, &root] {
        private_dir(dir)?;
    }
    // buildkitd resolves links in its root, and containers are recognised by it
    let root = root.canonicalize().map_err(EngineError::io("finding", &root))?;
    let socket = config.runtime_dir.join("buildkitd.sock");
    if socket.as_os_str().len() > SOCKET_PATH_BYTES {
        return Err(EngineError::SocketPath(socket));
    }
    let held = hold(&state.join("buildkitd.lock"))?;
    let bridge = match config.network {
        Network::Isolated => Some(Bridge::plan(config)?),
        Network::Host => None,
    };
    let conflist = state.join("cni.conflist");
    let addresses = state.join("cni");
    if let Some(bridge) = &bridge {
        write(&conflist, &bridge.conflist(&addresses))?;
    }
    let toml = state.join("buildkitd.toml");
    write(
        &toml,
        &settings(config, registry, &root, &socket, &runc, bridge.as_ref().map(|b| (b, conflist.as_path()))),
    )?;
    let path = config.path.clone();
    let clean = {
        let (bridge, root, runc, path) = (bridge.clone(), root.clone(), runc.clone(), path.clone());
        move || {
            leftovers::clear(&root, &runc, &path);
            if let Some(bridge) = &bridge {
                bridge.raze();
            }
        }
    };
    let prepare = {
        let socket = socket.clone();
        move || {
            let _held = &held;
            leftovers::clear(&root, &runc, &path);
            // the addresses that were handed out belong to namespaces that buildkitd makes anew
            let _ = std::fs::remove_dir_all(&addresses);
            let _ = std::fs::remove_file(&socket);
            bridge.as_ref().map_or(Ok(()), Bridge::raise)
        }
    };
    supervise::start(Launch {
        name: NAME,
        address: format!("unix://{}", socket.display()),
        lemnos: config.lemnos.clone(),
        program: daemon,
        args: ["--config".into(), toml.into_os_string()].into(),
        environment: environment(config),
        lock: state.join("buildkitd.child.lock"),
        probe: Probe::Http2(socket),
        ready_within: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        prepare: Box::new(prepare),
        clean_up: Box::new(clean),
    })
    .await
}

/// buildkitd.toml.
fn settings(
    config: &EngineConfig,
    registry: Option<&str>,
    root: &Path,
    socket: &Path,
    runc: &Path,
    bridge: Option<(&Bridge, &Path)>,
) -> String {
    let network = match bridge {
        None => json!({ "networkMode": "host" }),
        Some((bridge, conflist)) => json!({
            "networkMode": "cni",
            "cniConfigPath": conflist,
            "cniBinaryPath": bridge.plugins,
            "cniPoolSize": NETWORKS_READY,
        }),
    };
    let worker = json!({
        "enabled": true,
        "snapshotter": "overlayfs",
        "binary": runc,
        "gc": true,
        "maxUsedSpace": config.cache_limit,
        // without a floor of free space a cache within its bounds still fills a small disk
        "minFreeSpace": "10%",
    });
    let worker = merged(worker, network);
    let settings = json!({
        "root": root,
        "insecure-entitlements": [],
        "log": { "format": "json", "level": "info" },
        "grpc": { "address": [format!("unix://{}", socket.display())] },
        "otel": { "socketPath": socket.with_file_name("otel.sock") },
        // lemnos keeps builds and their logs itself
        "history": { "maxAge": "48h", "maxEntries": 50 },
        "worker": { "oci": worker, "containerd": { "enabled": false } },
        "frontend": {
            "dockerfile.v0": { "enabled": true },
            "gateway.v0": { "enabled": !config.frontends.is_empty(), "allowedRepositories": config.frontends },
        },
        "registry": registries(config, registry),
    });
    // only what TOML lacks could fail here, and there is no null above
    toml::to_string(&settings).unwrap_or_default()
}

/// Which registries are asked elsewhere, and which over plain http: those on loopback, and no other.
fn registries(config: &EngineConfig, own: Option<&str>) -> Value {
    let mut table: BTreeMap<String, Value> = BTreeMap::new();
    for (host, mirrors) in &config.mirrors {
        table.insert(host.clone(), json!({ "mirrors": mirrors }));
    }
    let named = own.into_iter().chain(config.mirrors.values().flatten().map(String::as_str));
    for host in named.filter(|name| super::is_loopback_registry(name)) {
        let entry = table.entry(host.split('/').next().unwrap_or(host).to_owned()).or_default();
        *entry = merged(entry.take(), json!({ "http": true }));
    }
    json!(table)
}

/// Both objects' keys; `null` counts as none.
fn merged(one: Value, two: Value) -> Value {
    [one, two].into_iter().filter_map(|v| v.as_object().cloned()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_closed_by_default() {
        let mut config =
            EngineConfig::new("/data".into(), "/run/l".into(), "/bin/lemnos".into(), "/bin".into());
        config
            .mirrors
            .insert("docker.io".into(), vec!["127.0.0.1:5000/hub".into(), "mirror.example.org".into()]);
        let (root, socket, runc) =
            (Path::new("/data/buildkit"), Path::new("/run/l/b.sock"), Path::new("/bin/runc"));
        let text = settings(&config, Some("127.0.0.1:5001"), root, socket, runc, None);
        insta::assert_snapshot!(text, @r#"
        insecure-entitlements = []
        root = "/data/buildkit"

        [frontend."dockerfile.v0"]
        enabled = true

        [frontend."gateway.v0"]
        allowedRepositories = []
        enabled = false

        [grpc]
        address = ["unix:///run/l/b.sock"]

        [history]
        maxAge = "48h"
        maxEntries = 50

        [log]
        format = "json"
        level = "info"

        [otel]
        socketPath = "/run/l/otel.sock"

        [registry."127.0.0.1:5000"]
        http = true

        [registry."127.0.0.1:5001"]
        http = true

        [registry."docker.io"]
        mirrors = ["127.0.0.1:5000/hub", "mirror.example.org"]

        [worker.containerd]
        enabled = false

        [worker.oci]
        binary = "/bin/runc"
        enabled = true
        gc = true
        maxUsedSpace = "60%"
        minFreeSpace = "10%"
        networkMode = "host"
        snapshotter = "overlayfs"
        "#);
    }
}
