//! What a build's flags name on this machine, opened and offered to the daemon: outputs, secrets, agents, local caches,
//! OCI layouts and directories as contexts.
//!
//! ```ignore
//! let flags = join::Flags { outputs: vec![flags::output("type=local,dest=out")?], ..Default::default() };
//! let joined = flags.join(Session::builder("app:main").local_dir("context", path), &mut dockerfile, &mut request)?;
//! joined.warnings.iter().for_each(|warning| eprintln!("{warning}"));
//! dockerfile.apply(&mut request)?;
//! let result = client.solve(request, on_event).await?;
//! joined.record(&result)?;
//! ```
//!
//! Invariants: an exporter's place in the request is the number by which the session knows where its output goes; a
//! directory deletes nothing outside the working directory unless that is allowed; a cache that is not there is a warning
//! and no failure, as with BuildKit's own clients; `index.json` names a cache or a layout only after a build that wrote it.
//! Reads files, directories and the environment, and blocks while it does. What a daemon does is not decided here.

mod places;
mod stores;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::SolveError;
use super::flags::{Context, Destination, FlagError, Output, Secret, SecretFrom, Ssh};
use super::session::content::StoreError;
use super::session::filesend::Export;
use super::session::ssh::Agent;
use super::session::{SessionBuilder, SessionError};
use super::solve::{CacheEntry, Dockerfile, NamedContext, SolveRequest};
pub use stores::Joined;
use stores::Named;

/// Why a build's flags cannot be joined to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Flag(#[from] FlagError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("{dir}: {problem}")]
    Store { dir: String, problem: StoreError },
    #[error("buildkitd's answer {0} is no descriptor")]
    Answer(&'static str),
}

/// The flags of one build that name something of this machine.
#[derive(Debug, Default)]
pub struct Flags {
    pub outputs: Vec<Output>,
    /// Of two with one id, the later counts.
    pub secrets: Vec<Secret>,
    /// Of two with one id, the later counts.
    pub ssh: Vec<Ssh>,
    pub cache_from: Vec<CacheEntry>,
    pub cache_to: Vec<CacheEntry>,
    pub contexts: Vec<(String, Context)>,
    /// Where an output to `-` goes; at most one can. None: there is no such place, as on a terminal.
    pub stdout: Option<Export>,
    /// Where `type=docker` without `dest` goes. None: it must have one.
    pub docker: Option<Export>,
    /// Whether `type=local,mode=delete` may delete outside the working directory: `--allow buildx.local.delete`.
    pub delete_anywhere: bool,
}

impl Flags {
    /// Opens what is named. The session in `request` becomes `session` with the services for it; exporters and caches are
    /// added to `request`, contexts to `dockerfile`, which is to be applied afterwards.
    pub fn join(
        mut self,
        mut session: SessionBuilder,
        dockerfile: &mut Dockerfile,
        request: &mut SolveRequest,
    ) -> Result<Joined, JoinError> {
        let mut joined = Joined::default();
        for output in std::mem::take(&mut self.outputs) {
            session = self.output(&output, session, &mut request.exporters, &mut joined)?;
        }
        let secrets: BTreeMap<&str, &Secret> = self.secrets.iter().map(|s| (s.id.as_str(), s)).collect();
        for secret in secrets.into_values() {
            session = lend(secret, session);
        }
        let agents: BTreeMap<&str, &Ssh> = self.ssh.iter().map(|ssh| (ssh.id.as_str(), ssh)).collect();
        for ssh in agents.into_values() {
            session = agent(ssh, session)?;
        }
        for entry in self.cache_to {
            session = joined.export_cache(&entry, session)?;
            request.cache_exports.push(entry);
        }
        for entry in self.cache_from {
            let imported;
            (session, imported) = joined.import_cache(entry, session)?;
            request.cache_imports.extend(imported);
        }
        for (name, context) in self.contexts {
            let named;
            (session, named) = context_of(&name, context, session)?;
            dockerfile.contexts.insert(name, named);
        }
        request.session = session.build()?;
        Ok(joined)
    }

    /// One output: its exporter behind the others, and where it goes under that place's number.
    fn output(
        &mut self,
        output: &Output,
        session: SessionBuilder,
        exporters: &mut Vec<super::Exporter>,
        joined: &mut Joined,
    ) -> Result<SessionBuilder, JoinError> {
        output.check()?;
        let Some(exporter) = output.exporter() else { return Ok(session) };
        let number = u32::try_from(exporters.len()).unwrap_or(u32::MAX);
        exporters.push(exporter);
        let export = match (output.sends(), output.destination.as_deref()) {
            (Destination::None, _) => return Ok(session),
            (Destination::Directory, Some(dir)) if output.kind != "local" => {
                let store = joined.export_layout(dir)?;
                return Ok(session.store("export", store));
            }
            (Destination::Directory, dir) => {
                places::directory(output, dir.unwrap_or_default(), self.delete_anywhere)?
            }
            (Destination::Stream, None) if output.kind == "docker" => {
                self.docker.take().ok_or_else(|| {
                    places::refused(output, "there is no docker here to load it into: say dest=FILE")
                })?
            }
            (Destination::Stream, None | Some("-")) => self.stdout.take().ok_or_else(|| {
                places::refused(output, "standard output is a terminal or taken: say dest=FILE")
            })?,
            (Destination::Stream, Some(file)) => places::file(output, file)?,
        };
        Ok(session.export(number, export))
    }
}

/// Offers a secret from where the flag says.
fn lend(secret: &Secret, session: SessionBuilder) -> SessionBuilder {
    match &secret.from {
        SecretFrom::File(path) => session.secret_file(&secret.id, path.as_ref()),
        SecretFrom::Variable(variable) => session.secret_env(&secret.id, variable),
        SecretFrom::Either => match places::variable(&secret.id) {
            Some(_) => session.secret_env(&secret.id, &secret.id),
            None => session.secret_file(&secret.id, secret.id.as_ref()),
        },
    }
}

/// Offers one agent's socket, or an agent of our own with the keys of files.
fn agent(ssh: &Ssh, session: SessionBuilder) -> Result<SessionBuilder, JoinError> {
    let refused = |reason: &str| FlagError {
        flag: "--ssh",
        given: [ssh.id.as_str(), "=", &ssh.paths.join(",")].concat(),
        reason: reason.to_owned(),
    };
    let named: Vec<&str> = ssh.paths.iter().map(String::as_str).filter(|path| !path.is_empty()).collect();
    let own = match named.is_empty() {
        false => String::new(),
        true => places::variable("SSH_AUTH_SOCK")
            .and_then(|path| path.into_string().ok())
            .filter(|path| !path.is_empty())
            .ok_or_else(|| refused("SSH_AUTH_SOCK is not set: start an agent, or name a socket or keys"))?,
    };
    let paths = if named.is_empty() { vec![own.as_str()] } else { named };
    let sockets = paths.iter().filter(|path| places::is_socket(path)).count();
    match (sockets, &paths[..]) {
        (0, _) => Ok(session.ssh_keys(&ssh.id, paths)),
        (1, [only]) => Ok(session.ssh(&ssh.id, Agent::socket(only.as_ref()))),
        _ => Err(refused("name one agent's socket, or key files, not both").into()),
    }
}

/// Offers what a named context needs of the session.
fn context_of(
    name: &str,
    context: Context,
    session: SessionBuilder,
) -> Result<(SessionBuilder, NamedContext), JoinError> {
    match context {
        Context::Remote(named) => Ok((session, named)),
        Context::Directory(path) => {
            // these two are the main context's own
            let dir = match name {
                "context" | "dockerfile" => format!("_{name}"),
                _ => name.to_owned(),
            };
            let named = NamedContext::Local { dir: dir.clone(), shared_key: places::last_name(&path) };
            Ok((session.local_dir(&dir, path.as_ref()), named))
        }
        Context::OciLayout { path, tag, digest } => {
            let Named { store, digest } = stores::layout(&path, tag.as_deref(), digest)?;
            // the same in every build, so that provenance does not differ by it
            let id = format!("context-{}", stores::plain(name));
            let named = NamedContext::OciLayout { store: id.clone(), digest };
            Ok((session.store(&format!("oci:{id}"), Arc::new(store)), named))
        }
    }
}

impl From<JoinError> for SolveError {
    fn from(problem: JoinError) -> Self {
        Self::invalid(problem.to_string())
    }
}
