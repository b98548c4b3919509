//! `lemnos serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::telemetry;
use crate::config::{self, Config, Environment, Layer};
use crate::error::Report;

mod desk;
mod fleet;
mod git_user;
mod health;
mod host;
mod house;
mod logins;
pub(super) mod wiring;

use house::Surroundings;
pub(super) use house::find_git;

/// What is given by no flag comes from LEMNOS_… variables, then lemnos.toml, then defaults: `lemnos config` shows all.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Directory of the state; made where there is none [env: LEMNOS_DATA].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration file, instead of lemnos.toml in the data directory [env: LEMNOS_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen for SSH here; port 0 picks a free one [default: 127.0.0.1:2222].
    #[arg(long, value_name = "ADDR:PORT")]
    ssh: Option<String>,
    /// Listen for HTTP here; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// How the log on standard error is written: `text`, or `json` for an object a line [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A BuildKit daemon (unix:///PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME, kube-pod://NAME,
    /// ssh://[USER@]HOST), with `,platform=OS/ARCH` for each platform it shall take,
    /// `,max=N` for its solves at once and, for TLS, `,ca=FILE,cert=FILE,key=FILE,servername=NAME`; again for each one [default: BUILDKIT_HOST, else
    /// one of our own].
    #[arg(long, value_name = "ADDR[,platform=P]…")]
    builder: Vec<String>,
    /// Where images go [default: a registry of our own].
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    registry: Option<String>,
    /// Where a registry of our own listens; port 0 picks a free one [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDR:PORT")]
    registry_listen: Option<String>,
    /// A registry to speak plain http to, besides loopback; again for each one.
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// What our own buildkitd and lemnos ask for base images before a registry; again for each one.
    #[arg(long, value_name = "HOST=MIRROR")]
    mirror: Vec<String>,
    /// The buildkitd program [default: buildkitd on PATH].
    #[arg(long, value_name = "PATH")]
    buildkitd: Option<PathBuf>,
    /// The registry program [default: docker-registry or registry on PATH].
    #[arg(long, value_name = "PATH")]
    registry_program: Option<PathBuf>,
}

impl Args {
    /// The flags that were given, as the topmost layer of the configuration.
    pub fn layer(&self) -> Layer {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        Layer::default()
            .flag("--ssh", self.ssh.clone())
            .flag("--http", self.http.clone())
            .flag("--log-format", self.log_format.clone())
            .flag("--builder", self.builder.clone())
            .flag("--registry", self.registry.clone())
            .flag("--registry-listen", self.registry_listen.clone())
            .flag("--plain-http", self.plain_http.clone())
            .flag("--mirror", self.mirror.clone())
            .flag("--buildkitd", path(&self.buildkitd))
            .flag("--registry-program", path(&self.registry_program))
    }

    /// The effective configuration under these flags.
    pub fn resolve(&self, environment: &Environment) -> Result<Config, Report> {
        Ok(config::resolve(self.data.as_deref(), self.config.as_deref(), self.layer(), environment)?)
    }
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let config = args.resolve(&environment)?;
    telemetry::start(&environment, config.log_format)?;
    let around = Surroundings::of_process(&environment)?;
    super::block_on(async {
        let stop = signals()?;
        house::serve(config, around, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process at once, as a crash would.
fn signals() -> Result<CancellationToken, Report> {
    let failed = |e: std::io::Error| Report::internal(format!("waiting for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: no new pushes, running ones finish"),
            _ = interrupt.recv() => tracing::info!("SIGINT: no new pushes, running ones finish"),
        }
        stopping.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once");
        #[expect(
            clippy::disallowed_methods,
            clippy::exit,
            reason = "asked for twice; engines die with their keeper"
        )]
        std::process::exit(1);
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn every_flag_of_the_table_exists_and_reaches_its_setting() {
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let value = match setting.key {
                "builders" => "unix:///x.sock",
                "mirrors" => "docker.io=r.example.com",
                "plain_http_hosts" | "registry" => "r.example.com",
                _ => setting.default.unwrap_or("/x"),
            };
            let line = Line::try_parse_from(["lemnos", "--data", "/nonexistent", flag, value]).unwrap();
            let config = line.args.resolve(&Environment::default()).unwrap();
            let shown = config.shown.iter().find(|shown| shown.key == setting.key).unwrap();
            assert_eq!(shown.origin.to_string(), flag);
        }
    }
}
