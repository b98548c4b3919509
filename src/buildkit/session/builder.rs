//! A session put together piece by piece.
//!
//! Invariant: every name is taken once. The first mistake is what `build` tells; nothing after it counts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncRead;

use super::auth::AuthProvider;
use super::content::{ContentStore, StoreError};
use super::exporter::ExportChooser;
use super::filesend::Export;
use super::filesync::{DirSource, SourceError};
use super::policy::SourceJudge;
use super::secrets::{SecretError, SecretStore, Secrets};
use super::ssh::{Agent, KeyError};
use super::upload::Upload;
use super::{LocalDir, Session};

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("the session has two {what} called {name:?}")]
    Duplicate { what: &'static str, name: String },
    #[error("the session has two of this: {0}")]
    Twice(&'static str),
    #[error("{0:?} cannot be the name of an upload: letters, digits, - and _ can")]
    UploadName(String),
    #[error("a session that sends directories needs a shared key: the empty one is everybody's")]
    NoSharedKey,
    #[error("the directory {name:?}: {problem}")]
    Directory { name: String, problem: SourceError },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the SSH agent {id:?}: {problem}")]
    Agent { id: String, problem: KeyError },
    #[error("the content store {id:?}: {problem}")]
    Store { id: String, problem: StoreError },
}

/// What a session will offer.
#[derive(Debug)]
pub struct SessionBuilder {
    session: Session,
    secrets: Option<Secrets>,
    wrong: Option<SessionError>,
}

impl SessionBuilder {
    pub(super) fn new(shared_key: &str) -> Self {
        let session = Session { shared_key: shared_key.to_owned(), ..Session::default() };
        Self { session, secrets: None, wrong: None }
    }

    fn step(mut self, step: impl FnOnce(&mut Self) -> Result<(), SessionError>) -> Self {
        if self.wrong.is_none() {
            self.wrong = step(&mut self).err();
        }
        self
    }

    /// A directory, by the name that the frontend asks for: `context`, `dockerfile`.
    pub fn dir(self, name: &str, source: Arc<dyn DirSource>) -> Self {
        self.step(|this| once(&mut this.session.dirs, "directories", name.to_owned(), source))
    }

    /// A directory of this machine.
    pub fn local_dir(self, name: &str, path: &Path) -> Self {
        let opened = LocalDir::open(path);
        self.step(|this| {
            let source =
                opened.map_err(|problem| SessionError::Directory { name: name.to_owned(), problem })?;
            once(&mut this.session.dirs, "directories", name.to_owned(), Arc::new(source) as _)
        })
    }

    pub fn auth(self, provider: Arc<dyn AuthProvider>) -> Self {
        self.step(|this| match this.session.auth.replace(provider) {
            Some(_) => Err(SessionError::Twice("who knows credentials")),
            None => Ok(()),
        })
    }

    /// A store of secrets of the caller's own, instead of single ones.
    pub fn secrets(self, store: Arc<dyn SecretStore>) -> Self {
        self.step(|this| match this.session.secrets.replace(store) {
            Some(_) => Err(SessionError::Twice("who knows secrets")),
            None => Ok(()),
        })
    }

    /// Who judges every source that the build wants to take.
    pub fn judge(self, judge: Arc<dyn SourceJudge>) -> Self {
        self.step(|this| match this.session.judge.replace(judge) {
            Some(_) => Err(SessionError::Twice("who judges sources")),
            None => Ok(()),
        })
    }

    /// Who decides, once the result is there, what else to export.
    pub fn chooser(self, chooser: Arc<dyn ExportChooser>) -> Self {
        self.step(|this| match this.session.chooser.replace(chooser) {
            Some(_) => Err(SessionError::Twice("who chooses exporters")),
            None => Ok(()),
        })
    }

    pub fn secret_file(self, id: &str, path: &Path) -> Self {
        self.secret(|secrets| secrets.file(id, path))
    }

    pub fn secret_env(self, id: &str, variable: &str) -> Self {
        self.secret(|secrets| secrets.env(id, variable))
    }

    pub fn secret_value(self, id: &str, value: impl Into<Vec<u8>>) -> Self {
        self.secret(|secrets| secrets.value(id, value))
    }

    fn secret(self, add: impl FnOnce(Secrets) -> Result<Secrets, SecretError>) -> Self {
        self.step(|this| {
            this.secrets = Some(add(this.secrets.take().unwrap_or_default())?);
            Ok(())
        })
    }

    /// An SSH agent, by the id that mounts name; `default` is for those that name none.
    pub fn ssh(self, id: &str, agent: Agent) -> Self {
        self.step(|this| once(&mut this.session.agents, "SSH agents", id.to_owned(), agent))
    }

    /// An SSH agent of our own with the keys of these files.
    pub fn ssh_keys<P: AsRef<Path>>(self, id: &str, paths: impl IntoIterator<Item = P>) -> Self {
        let agent = Agent::key_files(paths);
        self.step(|this| {
            let agent = agent.map_err(|problem| SessionError::Agent { id: id.to_owned(), problem })?;
            once(&mut this.session.agents, "SSH agents", id.to_owned(), agent)
        })
    }

    /// Where the output of the request's exporter number `exporter` goes, counted from 0.
    pub fn export(self, exporter: u32, export: Export) -> Self {
        self.step(|this| once(&mut this.session.exports, "exports", exporter, export))
    }

    /// A stream to be fetched once, at [`Upload::url`].
    pub fn upload(self, id: &str, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        self.step(|this| {
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Err(SessionError::UploadName(id.to_owned()));
            }
            once(&mut this.session.uploads, "uploads", id.to_owned(), Upload::new(reader))
        })
    }

    /// A content store, by the whole name that the daemon asks for: `oci:ID`, `local:DIR`, `export`.
    pub fn store(self, id: &str, store: Arc<ContentStore>) -> Self {
        self.step(|this| once(&mut this.session.stores, "content stores", id.to_owned(), store))
    }

    /// Whether a content store is offered by that name already.
    pub fn has_store(&self, id: &str) -> bool {
        self.session.stores.contains_key(id)
    }

    /// The OCI layout at `path`, to be read as the context `oci-layout://ID@DIGEST`.
    pub fn oci_layout(self, id: &str, path: &Path) -> Self {
        self.opened(format!("oci:{id}"), ContentStore::read_only(path))
    }

    /// The cache of type `local` whose attribute `src` or `dest` is `dir`, word for word.
    pub fn local_cache(self, dir: &str) -> Self {
        if self.session.stores.contains_key(&format!("local:{dir}")) {
            // one directory is often read and written in the same build
            return self;
        }
        self.opened(format!("local:{dir}"), ContentStore::read_write(Path::new(dir)))
    }

    fn opened(self, id: String, opened: Result<ContentStore, StoreError>) -> Self {
        self.step(|this| {
            let store = opened.map_err(|problem| SessionError::Store { id: id.clone(), problem })?;
            once(&mut this.session.stores, "content stores", id, Arc::new(store))
        })
    }

    pub fn build(mut self) -> Result<Session, SessionError> {
        if let Some(secrets) = self.secrets.take() {
            self = self.secrets(Arc::new(secrets));
        }
        match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.session.shared_key.is_empty() && !self.session.dirs.is_empty() => {
                Err(SessionError::NoSharedKey)
            }
            None => Ok(self.session),
        }
    }
}

fn once<K: Ord + ToString, V>(
    map: &mut BTreeMap<K, V>,
    what: &'static str,
    key: K,
    value: V,
) -> Result<(), SessionError> {
    let name = key.to_string();
    match map.insert(key, value) {
        Some(_) => Err(SessionError::Duplicate { what, name }),
        None => Ok(()),
    }
}
