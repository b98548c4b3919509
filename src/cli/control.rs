//! How a command reaches the state: through the running server, or on the store itself where there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::admin::socket::{Connection, Followed};
use crate::admin::{self, Caller, Context, DataLock, Repositories, Request, Response, Step, lock};
use crate::audit::Trail;
use crate::config::{self, Environment, Layer};
use crate::console::Following;
use crate::error::{Kind, Report};
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
                let result = admin::execute(&store, &context, &Caller::Operator, request).await;
                store.close().await;
                result
            }
        }
    }

    /// Begins to follow a build's log from `from_seq` on. Without a server nothing comes any more: what is stored is all
    /// there is, and the build is returned as it stands.
    pub async fn follow(&self, build: &str, from_seq: u64) -> Result<Box<dyn Following>, Report> {
        Ok(match self.target(false).await? {
            Target::Server(connection) => Box::new(connection.follow(build, from_seq).await?),
            Target::Store { store, _lock, .. } => {
                let build = store.find_build(build, &Caller::Operator.visible()).await?;
                Box::new(Stored { store, build, next_seq: from_seq, _lock })
            }
        })
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
                    work: None,
                    trail: Trail::nowhere(),
                    builders: None,
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

#[async_trait]
impl Following for Followed {
    async fn next(&mut self) -> Result<Step, Report> {
        Followed::next(self).await
    }
}

/// A log that nobody adds to.
struct Stored {
    store: Store,
    build: Build,
    next_seq: u64,
    _lock: DataLock,
}

#[async_trait]
impl Following for Stored {
    async fn next(&mut self) -> Result<Step, Report> {
        let events = self.store.events(&self.build.id, self.next_seq, admin::EVENTS_LIMIT).await?;
        let Some(last) = events.last() else { return Ok(Step::Ended(Box::new(self.build.clone()))) };
        self.next_seq = last.seq.saturating_add(1);
        Ok(Step::Events(events))
    }
}
