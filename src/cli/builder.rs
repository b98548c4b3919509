//! Which builders a command speaks to, and speaking to them: those it is given, else the environment's and the
//! configuration file's, else those of the server that runs on the data directory.
//!
//! Must not know what is asked of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::serve::wiring;
use crate::admin::Ready;
use crate::buildkit::Client;
use crate::config::{self, Config, Environment, Layer};
use crate::error::{Kind, Report};
use crate::event::plain_line;
use crate::solve::BuilderConfig;

/// Longest wait for a connection: one through ssh or kubectl takes seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What filters of containerd's look like.
pub const FILTERS: &str = "a filter is NAME==VALUE, NAME!=VALUE, NAME~=PATTERN or NAME, conditions joined by commas: \
                           type==exec.cachemount, id~=abc, inuse";

/// What every command that speaks to builders takes.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct BuilderArgs {
    /// A BuildKit daemon: unix:///PATH, tcp://HOST:PORT, docker-container://NAME, podman-container://NAME,
    /// kube-pod://NAME, ssh://[USER@]HOST or docker://, and for TLS `,ca=FILE,cert=FILE,key=FILE,servername=NAME`; again
    /// for each one [default: BUILDKIT_HOST, else those of the server that runs on the data directory].
    #[arg(long, value_name = "ADDR[,name=value]…", global = true)]
    builder: Vec<String>,
    /// Data directory of a running server [env: LEMNOS_DATA].
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

/// A builder that answers.
pub struct Chosen {
    pub name: String,
    pub client: Client,
    /// Whether it is one of several.
    among: bool,
}

impl Chosen {
    /// What stands before text about it; nothing where there is no other.
    pub fn heading(&self) -> String {
        if self.among { format!("builder {}\n", plain_line(&self.name)) } else { String::new() }
    }
}

/// What stands where there is no builder.
pub const NO_BUILDER: &str =
    "give --builder unix:///run/buildkit/buildkitd.sock (or set BUILDKIT_HOST), or start `lemnos serve`";

/// The configured builders, else those of the server on this data directory; empty where there are neither.
pub fn found(config: &Config) -> Result<Vec<BuilderConfig>, Report> {
    let configured = wiring::builders(config);
    if !configured.is_empty() {
        return Ok(configured);
    }
    let running = Ready::read(&config.data_dir).map(|ready| ready.builders).unwrap_or_default();
    running
        .iter()
        .map(|address| {
            let mut builder = wiring::own_builder(address, config.solves_per_builder)?;
            if running.len() > 1 {
                builder.name.clone_from(address);
            }
            Ok(builder)
        })
        .collect()
}

impl BuilderArgs {
    /// The data directory that was named.
    pub fn data_dir(&self) -> Option<&std::path::Path> {
        self.data.as_deref()
    }

    /// The builders that are meant; nothing is asked of them yet.
    pub fn builders(&self) -> Result<Vec<BuilderConfig>, Report> {
        let flags = Layer::default().flag("--builder", self.builder.clone());
        let config = config::resolve(self.data.as_deref(), None, flags, &Environment::of_process())?;
        let found = found(&config)?;
        if found.is_empty() {
            let message = "no builder is configured, and no lemnos server runs here";
            return Err(Report::new(Kind::NotFound, message).hint(NO_BUILDER));
        }
        Ok(found)
    }

    /// All of them, connected: for what has to look at all of them before it does anything.
    pub async fn connect(&self) -> Result<Vec<Chosen>, Report> {
        let builders = self.builders()?;
        let among = builders.len() > 1;
        futures::future::try_join_all(builders.iter().map(|builder| connect(builder, among))).await
    }

    /// The first of them, connected: for what one builder does alone.
    pub async fn connect_first(&self) -> Result<Chosen, Report> {
        let builders = self.builders()?;
        let first = builders.first().ok_or_else(|| Report::internal("no builder was found"))?;
        connect(first, false).await
    }

    /// Asks one after the other. Where there are several, what goes wrong with one is printed, and the next is asked.
    pub async fn each(
        &self,
        mut ask: impl AsyncFnMut(&Chosen) -> Result<(), Report>,
    ) -> Result<ExitCode, Report> {
        let builders = self.builders()?;
        let among = builders.len() > 1;
        let mut code = ExitCode::SUCCESS;
        for builder in &builders {
            let asked = match connect(builder, among).await {
                Ok(chosen) => ask(&chosen).await,
                Err(report) => Err(report),
            };
            match asked {
                Ok(()) => {}
                Err(report) if !among => return Err(report),
                Err(mut report) => {
                    report.message = format!("builder {}: {}", builder.name, report.message);
                    eprintln!("{report}");
                    code = report.exit_code();
                }
            }
        }
        Ok(code)
    }
}

async fn connect(builder: &BuilderConfig, among: bool) -> Result<Chosen, Report> {
    let client = Client::connect(&builder.endpoint, CONNECT_TIMEOUT).await?;
    Ok(Chosen { name: builder.name.clone(), client, among })
}

/// What a daemon says of filters that it was given; `hint` says what they look like.
pub fn about_filters(error: crate::buildkit::Error, filters: &[String], hint: &str) -> Report {
    let refused = matches!(error, crate::buildkit::Error::Refused { .. });
    let mut report = Report::from(error);
    if refused && !filters.is_empty() {
        report.kind = Kind::User;
        report.hint = Some(hint.to_owned());
    }
    report
}
