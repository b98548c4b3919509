//! The database as a file: one moment of it copied while others write, and a copy checked.
//!
//! Neither brings a schema up to date: a copy is what it was, and a running server's file is the server's.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::{FILE_NAME, Result, StoreError, error, private_file};

/// Writers may hold the file for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies the database of a data directory to `to`, which must not exist, as it is at one moment; the ids of its apps.
pub async fn snapshot(data_dir: &Path, to: &Path) -> Result<Vec<String>> {
    let from = data_dir.join(FILE_NAME);
    let mut connection = open(&from, false).await?;
    // the copy is private from its first byte on; SQLite takes a file that is there and empty
    private_file(to)?;
    let name = to.to_string_lossy().into_owned();
    let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await;
    let closed = connection.close().await;
    error::opening(&from, copied)?;
    error::opening(&from, closed)?;
    check(to).await
}

/// Looks a database file over that nobody has open; the ids of its apps.
pub async fn check(file: &Path) -> Result<Vec<String>> {
    let mut connection = open(file, true).await?;
    let found = read(&mut connection).await;
    let closed = error::opening(file, connection.close().await);
    let ids = found?;
    closed.map(|()| ids)
}

async fn read(connection: &mut SqliteConnection) -> Result<Vec<String>> {
    quick_check(connection).await?;
    let rows = sqlx::query("SELECT id FROM apps ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Whether the database of a data directory is sound, also while a server has it open.
pub async fn sound(data_dir: &Path) -> Result<()> {
    let mut connection = open(&data_dir.join(FILE_NAME), false).await?;
    let found = quick_check(&mut connection).await;
    connection.close().await?;
    found
}

/// When the last build of a data directory was asked for.
pub async fn last_build_ms(data_dir: &Path) -> Result<Option<i64>> {
    let mut connection = open(&data_dir.join(FILE_NAME), false).await?;
    let row = sqlx::query("SELECT MAX(started_at_ms) AS last FROM builds").fetch_one(&mut connection).await;
    connection.close().await?;
    Ok(row?.try_get("last")?)
}

async fn quick_check(connection: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await?;
    match row.try_get::<String, _>(0)? {
        said if said == "ok" => Ok(()),
        said => Err(StoreError::Corrupt(said)),
    }
}

/// `immutable`: nobody else has it open, and nothing beside it is made or read.
async fn open(file: &Path, immutable: bool) -> Result<SqliteConnection> {
    let options =
        SqliteConnectOptions::new().filename(file).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
    let options = if immutable { options.read_only(true).immutable(true) } else { options };
    error::opening(file, options.connect().await)
}
