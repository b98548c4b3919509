//! Why a store operation failed, told apart by who can do something about it.

use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

use crate::model::{AppName, Fingerprint, ImageName, RefName, RegistryPlace, SecretName, Tag, UserName};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {cause}", path = path.display())]
    DataDir { path: PathBuf, cause: std::io::Error },
    #[error("opening {path}: {cause}", path = path.display())]
    Open { path: PathBuf, cause: Box<StoreError> },
    #[error("{path} was written by a newer lemnos (schema {found}, this one knows up to {known})", path = path.display())]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{path}: schema migration {version} failed: {cause}", path = path.display())]
    Migration { path: PathBuf, version: i64, cause: String },
    #[error("the database is locked by another process")]
    Locked,
    #[error("the database cannot be written: {0}")]
    ReadOnly(String),
    #[error("no space is left for the database: {0}")]
    Full(String),
    #[error("the disk under the database answers with an error: {0}")]
    Disk(String),
    #[error("the database file is damaged: {0}")]
    Corrupt(String),
    #[error("the database holds a value in {place} that cannot be read: {cause}")]
    Damaged { place: &'static str, cause: String },
    #[error("database: {0}")]
    Database(sqlx::Error),

    #[error("key {fingerprint} belongs to user {user} already")]
    KeyTaken { fingerprint: Fingerprint, user: UserName },
    #[error("key {0} is a deploy key of this app already, with other access")]
    OtherAccess(Fingerprint),
    #[error("no key {0} is registered")]
    NoKey(Fingerprint),
    #[error("there is no user {0}")]
    NoUser(UserName),
    #[error("there is a user {0} already")]
    UserExists(UserName),
    #[error("there is no app {0}")]
    NoApp(AppName),
    #[error("there is an app {0} already")]
    AppExists(AppName),
    #[error("image {image} belongs to app {owner} already")]
    ImageTaken { image: ImageName, owner: AppName },
    #[error("{image} is another app's")]
    DestinationTaken { image: ImageName },
    #[error("user {user} has no grant on app {app}")]
    NoGrant { app: AppName, user: UserName },
    #[error("no build matches {0:?}")]
    NoBuild(String),
    #[error("{given:?} matches several builds: {matches}", matches = matches.join(", "))]
    AmbiguousBuild { given: String, matches: Vec<String> },
    #[error("build {0} has ended already")]
    BuildEnded(String),
    #[error("there is a builder {0} already")]
    BuilderExists(String),
    #[error("no builder {0} was added with `lemnos builders add`")]
    NoBuilder(String),
    #[error("no login at {place} is stored {}", .app.as_ref().map_or("for all apps".to_owned(), |app| format!("for app {app}")))]
    NoLogin { place: RegistryPlace, app: Option<AppName> },
    #[error("the key of the stored credentials, {path}: {cause}", path = path.display())]
    SecretKey { path: PathBuf, cause: std::io::Error },
    #[error("the key of the stored credentials, {path}, {problem}", path = path.display())]
    UnsafeSecretKey { path: PathBuf, problem: &'static str },
    #[error("credentials are stored, but their key {path} is missing", path = path.display())]
    NoSecretKey { path: PathBuf },
    #[error("the stored credential of {place} does not open with {path}", path = path.display())]
    WrongSecretKey { place: RegistryPlace, path: PathBuf },
    #[error("the secret {name} of app {app} does not open with {path}", path = path.display())]
    SealedOtherwise { app: AppName, name: SecretName, path: PathBuf },
    #[error("app {app} has no secret {name}")]
    NoSecret { app: AppName, name: SecretName },
    #[error("the secrets of app {app} would be more than {limit} bytes together")]
    SecretsTooLarge { app: AppName, limit: usize },
    #[error("app {app} has {limit} secrets already")]
    TooManySecrets { app: AppName, limit: usize },
    #[error("tag {tag} of {image} belongs to {owner}", owner = owner.as_str())]
    TagTaken { image: ImageName, tag: Tag, owner: RefName },
}

impl From<sqlx::Error> for StoreError {
    fn from(cause: sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = &cause else {
            return match cause {
                sqlx::Error::PoolTimedOut => Self::Locked,
                cause => Self::Database(cause),
            };
        };
        // primary result codes of https://www.sqlite.org/rescode.html; the upper bits only refine them
        let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
        let message = database.message().to_owned();
        match code & 0xff {
            5 | 6 => Self::Locked,
            8 => Self::ReadOnly(message),
            10 => Self::Disk(message),
            13 => Self::Full(message),
            11 | 26 => Self::Corrupt(message),
            _ => Self::Database(cause),
        }
    }
}

/// Adds the path to an error of opening.
pub(super) fn opening<T>(path: &Path, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
    result.map_err(|cause| StoreError::Open { path: path.to_owned(), cause: Box::new(cause.into()) })
}

/// Tells a newer schema from a migration that failed.
pub(super) fn migrating(path: &Path, cause: MigrateError) -> StoreError {
    let known = super::MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    let path = path.to_owned();
    match cause {
        MigrateError::VersionMissing(found) => StoreError::NewerSchema { path, found, known },
        MigrateError::Execute(cause) => StoreError::Open { path, cause: Box::new(cause.into()) },
        MigrateError::ExecuteMigration(cause, version) => {
            StoreError::Migration { path, version, cause: StoreError::from(cause).to_string() }
        }
        MigrateError::VersionMismatch(version) => StoreError::Migration {
            path,
            version,
            cause: "it was applied in another form (a development version of lemnos wrote this file)"
                .to_owned(),
        },
        other => StoreError::Migration { path, version: known, cause: other.to_string() },
    }
}
