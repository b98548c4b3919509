//! `Store`: everything lemnos remembers, in one SQLite file, as typed queries.
//!
//! What was answered with `Ok` is on disk (WAL with `synchronous = FULL`): an accepted push survives power loss.
//! Text is parsed into the model's types on the way out, so a damaged row is an error with its place, never a guess.
//! Must not know SSH, HTTP, registries or repositories on disk; one file a concern below `store/`.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite, Transaction};
use tokio::sync::{oneshot, watch};

mod apps;
mod audit;
mod builders;
mod builds;
mod destinations;
mod error;
mod events;
mod generations;
mod journal;
mod ledger;
mod logins;
mod published;
mod resolved;
mod retention;
mod seal;
mod secrets;
mod snapshot;
mod tags;
mod users;

pub use audit::{AUDIT_LIMIT, Note};
pub use builders::StoredBuilder;
pub use builds::{BuildFilter, Finished};
pub use error::StoreError;
pub use generations::TagsAt;
pub use journal::JournalEntry;
pub use logins::StoredLogin;
pub use published::Published;
pub use retention::Size;
pub use seal::KEY_FILE_NAME;
pub use secrets::StoredSecret;
pub use snapshot::{check, last_build_ms, snapshot, sound};
pub use users::RemovedUser;

type Result<T> = std::result::Result<T, StoreError>;

/// The database's file name in the data directory.
pub const FILE_NAME: &str = "lemnos.db";

/// How long a writer waits for another process's write before `StoreError::Locked`.
const BUSY_TIMEOUT_MS: u64 = 5_000;
/// SQLite has one writer; more connections only serve readers.
const MAX_CONNECTIONS: u32 = 8;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// A handle on the state; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// What the next change made through this handle leaves in the audit record.
    note: Option<Note>,
}

struct Inner {
    pool: SqlitePool,
    /// Whose turn it is to write, first come first served: SQLite's own lock goes to whoever asks at the right moment,
    /// so that one build with much to say would keep everybody else's writes out.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Counts writes to builds and events made through this handle; followers of a log wait on it.
    build_changes: watch::Sender<u64>,
    /// Counts changes of logins, so that nobody goes on with one that is gone.
    login_changes: std::sync::atomic::AtomicU64,
    /// For the key of the sealed secrets.
    data_dir: PathBuf,
    audit_changes: watch::Sender<u64>,
    /// Moves of refs that wait to be counted.
    uncounted: Mutex<Vec<(Arc<generations::Uncounted>, oneshot::Sender<i64>)>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens `data_dir`/lemnos.db, made with mode 0600 where there is none, and brings its schema up to date.
    /// A database of a newer lemnos is refused.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        Self::open_with(data_dir, Duration::from_millis(BUSY_TIMEOUT_MS)).await
    }

    async fn open_with(data_dir: &Path, busy_timeout: Duration) -> Result<Self> {
        let path = data_dir.join(FILE_NAME);
        // two processes that open a fresh file at once must not both migrate it; the lock goes with the handle
        let _migrating = lock_directory(data_dir.to_owned()).await?;
        private_file(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(busy_timeout);
        {
            // decided when the file is made: pages that are free can be given back. For this connection only, as
            // SQLite writes that into the file each time: every later connection would wait for a writer
            let first = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
            let first = SqlitePoolOptions::new().max_connections(1).connect_with(first).await;
            let first = error::opening(&path, first)?;
            let migrated = MIGRATIONS.run(&first).await;
            first.close().await;
            migrated.map_err(|cause| error::migrating(&path, cause))?;
        }
        let pool = error::opening(
            &path,
            SqlitePoolOptions::new()
                .max_connections(MAX_CONNECTIONS)
                .acquire_timeout(busy_timeout + Duration::from_secs(25))
                // SQLite ends a transaction by itself when the disk is full, and sqlx goes on counting it: such a
                // connection would never begin another one
                .before_acquire(|connection, _| {
                    Box::pin(std::future::ready(Ok(!connection.is_in_transaction())))
                })
                .connect_with(options)
                .await,
        )?;
        let (turn, build_changes) = (Arc::default(), watch::Sender::new(0));
        let (login_changes, data_dir) = (Default::default(), data_dir.to_owned());
        let audit_changes = watch::Sender::new(0);
        let inner = Inner {
            pool,
            turn,
            build_changes,
            login_changes,
            audit_changes,
            data_dir,
            uncounted: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner), note: None };
        if let Some(newest) = store.newest_build().await? {
            newest.precedes_all_new();
        }
        Ok(store)
    }

    /// For the other files of `store` only: everything else calls typed queries.
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.inner.pool
    }

    /// A transaction that holds the write lock from its first moment: one begun for reading and raised later
    /// could not wait for another writer.
    pub(crate) async fn write(&self) -> Result<Write> {
        let turn = self.turn().await;
        let transaction = self.inner.pool.begin_with("BEGIN IMMEDIATE").await?;
        let audit = self.note.clone().map(|note| (note, self.inner.audit_changes.clone()));
        Ok(Write { transaction, audit, _turn: turn })
    }

    /// Keeps other writers of this process out.
    async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.inner.turn.clone().lock_owned().await
    }

    /// Runs one statement that changes something; how many rows it changed.
    async fn change(&self, statement: Query<'_, Sqlite, SqliteArguments>) -> Result<u64> {
        let mut tx = self.write().await?;
        let changed = statement.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(changed)
    }

    /// Wakes after every build or event written through this handle or its clones (not by another process).
    pub fn build_changes(&self) -> watch::Receiver<u64> {
        self.inner.build_changes.subscribe()
    }

    fn builds_changed(&self) {
        self.inner.build_changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits for running queries and closes the file; the WAL is folded in.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// One trivial write that reaches the disk: a full or read-only one shows. The schema's own number is not lemnos'
    /// to use (migrations have a table), so that it can be written without a row of its own.
    pub async fn check_writable(&self) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query("PRAGMA user_version = 1").execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One trivial read, for health checks.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1 FROM apps LIMIT 1").fetch_optional(self.pool()).await?;
        Ok(())
    }
}

/// A write transaction: every change goes through one. Dropped without `commit`, it changes nothing.
pub(crate) struct Write {
    transaction: Transaction<'static, Sqlite>,
    /// The entry that goes with it, and whom to tell.
    audit: Option<(Note, watch::Sender<u64>)>,
    // after the transaction, so that the next in line finds it closed
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Write {
    pub(crate) async fn commit(mut self) -> std::result::Result<(), sqlx::Error> {
        let Some((note, changes)) = self.audit.take() else { return self.transaction.commit().await };
        let taken = note.write(&mut self.transaction).await?;
        let committed = self.transaction.commit().await;
        match taken {
            Some(entry) if committed.is_err() => note.put_back(entry),
            Some(_) => changes.send_modify(|count| *count = count.wrapping_add(1)),
            None => {}
        }
        committed
    }
}

impl std::ops::Deref for Write {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.transaction
    }
}

impl std::ops::DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

/// Unix milliseconds now.
pub fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Locks the directory itself until the handle is dropped.
async fn lock_directory(dir: PathBuf) -> Result<std::fs::File> {
    let locking = move || {
        let open = |cause| StoreError::DataDir { path: dir.clone(), cause };
        let handle = std::fs::File::open(&dir).map_err(open)?;
        rustix::fs::flock(&handle, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| open(errno.into()))?;
        Ok(handle)
    };
    match tokio::task::spawn_blocking(locking).await {
        Ok(result) => result,
        Err(cause) => Err(StoreError::DataDir { path: PathBuf::new(), cause: std::io::Error::other(cause) }),
    }
}

/// Makes the file with mode 0600, and takes other people's access away from one that has more.
/// SQLite gives its -wal and -shm files the mode of the database.
fn private_file(path: &Path) -> Result<()> {
    let failed = |cause| StoreError::DataDir { path: path.to_owned(), cause };
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o700))
                    .map_err(failed)?;
            }
            Ok(())
        }
        Err(e) => Err(failed(e)),
    }
}

/// Parses a stored text into its type; `place` is `table.column`, for the error.
fn parsed<T: FromStr<Err = crate::model::Invalid>>(place: &'static str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|cause: crate::model::Invalid| StoreError::Damaged { place, cause: cause.to_string() })
}

/// Reads a stored JSON value; `place` is `table.column`, for the error.
fn from_json<T: serde::de::DeserializeOwned>(place: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| StoreError::Damaged { place, cause: cause.to_string() })
}

/// Writes a value as JSON; `place` is `table.column`, for the error.
fn to_json<T: serde::Serialize>(place: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| StoreError::Damaged { place, cause: cause.to_string() })
}

#[cfg(test)]
mod tests;
