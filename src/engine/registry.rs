//! The embedded registry: its configuration, its port, and how it is started.
//!
//! Invariant: it listens on loopback only, since it asks nobody who they are.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::probe::Probe;
use super::supervise::{Launch, Supervised};
use super::{EngineConfig, EngineError, environment, hold, private_dir, program, supervise, write};

const NAME: &str = "registry";
/// How often a free port is looked for: another program may take one between the look and the start.
const PORT_TRIES: u32 = 3;

pub(super) async fn start(config: &EngineConfig) -> Result<Supervised, EngineError> {
    let names = ["docker-registry", "registry"];
    let registry = program(config, config.registry.as_ref(), &names, EngineError::NoRegistry)?;
    if !config.registry_listen.ip().is_loopback() {
        return Err(EngineError::NotLoopback(config.registry_listen));
    }
    let (state, images) = (config.state_dir(), config.data_dir.join("registry"));
    for dir in [&state, &images] {
        private_dir(dir)?;
    }
    let held = std::sync::Arc::new(hold(&state.join("registry.lock"))?);
    let (remembered, file) = (state.join("registry.addr"), state.join("registry.json"));
    let mut tries = 0;
    loop {
        tries += 1;
        let addr = pick(config.registry_listen, &remembered)?;
        write(&file, &settings(addr, &images, &secret()?))?;
        let held = held.clone();
        let launch = Launch {
            name: NAME,
            address: addr.to_string(),
            lemnos: config.lemnos.clone(),
            program: registry.clone(),
            args: ["serve".into(), file.clone().into_os_string()].into(),
            environment: environment(config),
            lock: state.join("registry.child.lock"),
            probe: Probe::Registry(addr),
            ready_within: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            prepare: Box::new(move || {
                let _held = &held;
                Ok(())
            }),
            clean_up: Box::new(|| {}),
        };
        match supervise::start(launch).await {
            Ok(running) => {
                write(&remembered, &addr.to_string())?;
                return Ok(running);
            }
            Err(error) if config.registry_listen.port() != 0 || tries >= PORT_TRIES => return Err(error),
            Err(error) => tracing::warn!(%error, "the registry did not start; trying another port"),
        }
    }
}

/// The address to listen on, free a moment ago. For port 0 the one of the last time comes first: image names hold it.
fn pick(wanted: SocketAddr, remembered: &Path) -> Result<SocketAddr, EngineError> {
    let free = |addr: SocketAddr| TcpListener::bind(addr).and_then(|l| l.local_addr());
    let last =
        std::fs::read_to_string(remembered).ok().and_then(|text| text.trim().parse::<SocketAddr>().ok());
    let again = last.filter(|last| wanted.port() == 0 && last.ip() == wanted.ip());
    again
        .and_then(|addr| free(addr).ok())
        .map_or_else(|| free(wanted), Ok)
        .map_err(|cause| EngineError::Listen { addr: wanted, cause })
}

/// Signs upload addresses, nothing more: a new one at each start is as good as a kept one.
fn secret() -> Result<String, EngineError> {
    use std::io::Read;
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 32];
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(EngineError::io("reading", source))?;
    Ok(hex::encode(bytes))
}

/// The registry's configuration, its format being YAML, of which JSON is a part.
fn settings(addr: SocketAddr, images: &Path, secret: &str) -> String {
    format!(
        "{:#}",
        json!({
            "version": "0.1",
            "log": { "level": "info", "formatter": "json", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": images },
                "delete": { "enabled": true },
                // blobs come from here, never from an address that a client might not reach
                "redirect": { "disable": true },
            },
            "http": { "addr": addr, "secret": secret, "relativeurls": true },
        })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_the_last_one_again_while_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = dir.path().join("addr");
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = pick(any, &remembered).unwrap();
        std::fs::write(&remembered, first.to_string()).unwrap();
        assert_eq!(pick(any, &remembered).unwrap(), first);
        let _taken = TcpListener::bind(first).unwrap();
        assert_ne!(pick(any, &remembered).unwrap(), first);
        let error = pick(first, &remembered).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the registry cannot listen on {first}: ")), "{error}");
    }

    #[tokio::test]
    async fn it_does_not_listen_to_the_world() {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            EngineConfig::new(dir.path().into(), dir.path().into(), "/bin/true".into(), "/bin".into());
        config.registry = Some("/bin/true".into());
        config.registry_listen = "0.0.0.0:5000".parse().unwrap();
        assert!(matches!(start(&config).await, Err(EngineError::NotLoopback(_))));
    }
}
