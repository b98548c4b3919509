//! How a command reaches the state: through the running server, or on the store itself where there is none.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::socket::Connection;
use crate::admin::{self, Context, DataLock, Repositories, Request, Response, lock};
use crate::config::{self, Environment, Layer};
use crate::error::{Kind, Report};
use crate::event::Recorded;
use crate::model::{Build, ImagePrefix};
use crate::receive::repo;
use crate::store::{self, Store};

/// How long a server that holds the data directory, but does not answer yet or any more, is waited for.
const SERVER_WAIT_MS: u64 = 5_000;
const POLL_MS: u64 = 50;

/// What every command that talks to a server takes.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct DataArgs {
    /// Directory of the server's state [env: LEMNOS_DATA; default: the platform's].
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

/// The repositories of a data directory, for `admin`.
pub struct OnDisk(pub repo::Repositories);

impl OnDisk {
    pub fn of(data_dir: &Path) -> Self {
        Self(repo::Repositories::new(data_dir.join("repositories")))
    }
}

impl Repositories for OnDisk {
    fn create(&self, app_id: &str) -> Result<(), Report> {
        self.0.create(app_id)?;
        Ok(())
    }
    fn remove(&self, app_id: &str) -> Result<(), Report> {
        Ok(self.0.remove(app_id)?)
    }
    fn set_head(&self, app_id: &str, branch: &str) -> Result<(), Report> {
        Ok(self.0.set_head(app_id, branch)?)
    }
}

/// Where a call goes.
enum Target {
    Server(Connection),
    Store { store: Store, context: Context, _lock: DataLock },
}

impl DataArgs {
    pub fn data_dir(&self) -> Result<PathBuf, Report> {
        Ok(config::data_dir(self.data.as_deref(), &Environment::of_process())?.0)
    }

    /// Does one operation.
    pub async fn execute(&self, request: Request) -> Result<Response, Report> {
        match self.target(request.writes()).await? {
            Target::Server(connection) => connection.execute(request).await,
            Target::Store { store, context, _lock } => {
                let result = admin::execute(&store, &context, request).await;
                store.close().await;
                result
            }
        }
    }

    /// Hands a build's events to `show` as they come, until it has ended. Without a server nothing comes any more:
    /// what is stored is all there is, and the build is returned as it stands. None when `show` breaks off.
    pub async fn follow(
        &self,
        build: &str,
        mut show: impl FnMut(Vec<Recorded>) -> Result<ControlFlow<()>, Report>,
    ) -> Result<Option<Build>, Report> {
        match self.target(false).await? {
            Target::Server(connection) => connection.follow(build, show).await?.map(built).transpose(),
            Target::Store { store, .. } => {
                let found = store.find_build(build).await?;
                let mut next_seq = 0;
                loop {
                    let events = store.events(&found.id, next_seq, admin::EVENTS_LIMIT).await?;
                    let Some(last) = events.last() else { return Ok(Some(found)) };
                    next_seq = last.seq.saturating_add(1);
                    if show(events)?.is_break() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn target(&self, writes: bool) -> Result<Target, Report> {
        let data_dir = self.data_dir()?;
        if let Some(connection) = Connection::open(&data_dir).await? {
            return Ok(Target::Server(connection));
        }
        if writes {
            lock::prepare(&data_dir)?;
        } else if !data_dir.join(store::FILE_NAME).exists() {
            let message = format!("there is no lemnos data in {}", data_dir.display());
            return Err(Report::new(Kind::NotFound, message)
                .hint("name the server's directory with --data DIR or LEMNOS_DATA"));
        }
        let mut waited_ms = 0;
        loop {
            if let Some(lock) = DataLock::for_command(&data_dir)? {
                let store = Store::open(&data_dir).await?;
                let context = Context {
                    prefix: self.image_prefix()?,
                    repositories: Arc::new(OnDisk::of(&data_dir)),
                    serving: false,
                };
                return Ok(Target::Store { store, context, _lock: lock });
            }
            if waited_ms >= SERVER_WAIT_MS {
                let message = format!("a server holds {} but does not answer", data_dir.display());
                return Err(Report::new(Kind::Unavailable, message)
                    .hint("it is starting or stopping: try again in a moment"));
            }
            // a server that starts or stops tells nobody who is not connected
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            waited_ms += POLL_MS;
            if let Some(connection) = Connection::open(&data_dir).await? {
                return Ok(Target::Server(connection));
            }
        }
    }

    /// Where the server would put images, as far as file and environment say.
    fn image_prefix(&self) -> Result<Option<ImagePrefix>, Report> {
        let environment = Environment::of_process();
        let config = config::resolve(self.data.as_deref(), None, Layer::default(), &environment)?;
        Ok(config.image_prefix())
    }
}

fn built(response: Response) -> Result<Build, Report> {
    match response {
        Response::Build(build) => Ok(build),
        other => Err(unexpected(&other)),
    }
}

/// A server of another version may answer with something else.
pub fn unexpected(response: &Response) -> Report {
    let json = serde_json::to_string(response).unwrap_or_default();
    let said = json.chars().take(60).collect::<String>();
    Report::internal(format!("the server answered something else than was asked: {said}"))
        .hint("command and server must be of one version: restart the server after an upgrade")
}
