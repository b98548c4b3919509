//! `Receiver`: serves one git request with one git child.
//!
//! A request runs in a task of its own: a door that gives up on it does not end it. Every push is answered by the
//! `PushHandler` once, and the handler runs to its end whatever happens to the client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::child::{self, Cut, Ended, HookPlace, Progress};
use super::error::ReceiveError;
use super::hooks::{Answering, Hooks, Session, entry};
use super::limits::Limits;
use super::measure::Memo;
use super::output::PushOutput;
use super::repo::Repositories;
use super::request::{GitIo, GitRequest};
use crate::audit::{Event, Trail};
use crate::model::{Push, RefName};

/// `safe.bareRepository` came with this one; everything else that is needed is older.
const OLDEST_GIT: (u32, u32) = (2, 38);
const OLDEST_GIT_TEXT: &str = "2.38";

/// What a `Receiver` needs.
#[derive(Debug, Clone)]
pub struct ReceiveConfig {
    pub repositories: Repositories,
    /// Private to the server; `git/` below it is ours. At most 93 bytes long, for the socket in it.
    pub runtime_dir: PathBuf,
    /// This program, which the hooks call where no `lemnos-hook` stands beside it.
    pub lemnos_exe: PathBuf,
    /// git's absolute path.
    pub git: PathBuf,
    pub limits: Limits,
    /// Where pushes are recorded.
    pub trail: Trail,
}

/// Decides over a push.
#[async_trait]
pub trait PushHandler: Send + Sync + 'static {
    /// Runs when the objects are checked and in the repository, and no ref has moved: whoever wants a ref moved moves it
    /// here. Returns one answer per update, in order. `push.atomic` asks for all or nothing, which is the handler's to
    /// keep.
    async fn push(&self, push: Push, repository: PathBuf, output: PushOutput) -> Vec<RefAnswer>;
}

/// What git tells the pusher about one ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefAnswer {
    pub name: RefName,
    /// Err: one line for `! [remote rejected] main -> main (…)`.
    pub result: Result<(), String>,
}

/// Serves git requests. Clones share everything.
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

struct Inner {
    config: ReceiveConfig,
    hooks: Hooks,
    tracker: TaskTracker,
}

impl Receiver {
    /// Checks git, removes what a killed server left in the repositories, writes the hooks, listens for them. One
    /// `Receiver` at a time may use these repositories. Needs a tokio runtime.
    pub fn new(config: ReceiveConfig, handler: Arc<dyn PushHandler>) -> Result<Self, ReceiveError> {
        let root = config.repositories.root();
        for (what, path) in [
            ("git's path", config.git.as_path()),
            ("this program's path", &config.lemnos_exe),
            ("the runtime directory", &config.runtime_dir),
            ("the repositories' directory", root),
        ] {
            if !path.is_absolute() {
                return Err(ReceiveError::NotAbsolute { what, path: path.to_owned() });
            }
        }
        check_git(&config.git)?;
        config.repositories.sweep()?;
        let tracker = TaskTracker::new();
        let answering = Answering {
            limits: config.limits.clone(),
            handler,
            trail: config.trail.clone(),
            tracker: tracker.clone(),
            memo: Memo::default(),
        };
        let git_user = crate::owner::of(&root.join("any"));
        let hook_program = hook_program(&config.lemnos_exe);
        let hooks = Hooks::start(&config.runtime_dir, git_user, hook_program.as_deref(), answering)?;
        Ok(Self(Arc::new(Inner { config, hooks, tracker })))
    }

    /// Serves one request to its end; the exit status that the client is to see. Never panics.
    pub async fn serve(&self, request: GitRequest, io: GitIo) -> u32 {
        let inner = Arc::clone(&self.0);
        let id = request.id.clone();
        let served = self.0.tracker.spawn(async move { inner.serve(request, io).await }.in_current_span());
        served.await.unwrap_or_else(|cause| {
            tracing::error!(request = %id, %cause, "serving a request failed");
            128
        })
    }

    /// Takes no more requests and returns when the running ones, their handlers included, have ended.
    pub async fn finish(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}

impl Inner {
    async fn serve(&self, request: GitRequest, mut io: GitIo) -> u32 {
        let (id, service) = (request.id.clone(), request.service);
        if self.tracker.is_closed() {
            say(&mut io.stderr, "error: the server is stopping; try again in a moment\n").await;
            return 1;
        }
        let ended = match self.run(request, io).await {
            Ok(ended) => ended,
            Err((cause, mut stderr)) => {
                tracing::error!(request = %id, %cause, "a request could not be served");
                let text = format!(
                    "error: the server cannot serve the repository now\nhint: its operator finds the cause in the log under request {id}\n"
                );
                say(&mut stderr, &text).await;
                return 128;
            }
        };
        tracing::debug!(request = %id, %service, status = ended.status, cut = ?ended.cut, "request ended");
        ended.status
    }

    async fn run(&self, request: GitRequest, io: GitIo) -> Result<Ended, (ReceiveError, Stderr)> {
        let (service, protocol) = (request.service, request.protocol.clone());
        // until its end the objects that this push was told of stay
        let _lease = match service.writes() {
            true => Some(self.config.repositories.leases().push(&request.app.id).await),
            false => None,
        };
        let (child, registered) = match self.start(request, protocol.as_deref(), io.gone.clone()).await {
            Ok(started) => started,
            Err(cause) => return Err((cause, io.stderr)),
        };
        let session = &registered.session;
        let limits = &self.config.limits;
        let relayed = child::relay(child, service, io, &session.progress, limits).await;
        let mut ended = relayed.map_err(|cause| {
            let git = self.config.git.clone();
            let lost: Stderr = Box::new(tokio::io::sink());
            (ReceiveError::Io { doing: "running", path: git, cause }, lost)
        })?;
        if let Some(text) = last_word(&ended, session) {
            say(&mut ended.stderr, text).await;
        }
        if let Some(reason) = ended_by_us(&ended, session) {
            let event = match service.writes() {
                true => Event::PushRefused { reason },
                false => Event::RequestRefused { service: Some(service.to_string()), reason },
            };
            self.config.trail.note(entry(&session.request, event));
        }
        Ok(ended)
    }

    /// The child, and the registration under which its hooks may speak.
    async fn start(
        &self,
        request: GitRequest,
        protocol: Option<&str>,
        gone: CancellationToken,
    ) -> Result<(tokio::process::Child, super::hooks::Registered), ReceiveError> {
        let config = &self.config;
        let repositories = config.repositories.clone();
        let (app_id, main) = (request.app.id.clone(), request.app.settings.main_branch.clone());
        let ready = tokio::task::spawn_blocking(move || {
            repositories.create(&app_id)?;
            let path = repositories.ensure_pristine(&app_id)?;
            repositories.set_head(&app_id, &main)?;
            Ok(path)
        });
        let repository = ready.await.unwrap_or_else(|e| {
            let cause = std::io::Error::other(e);
            Err(ReceiveError::Io { doing: "preparing", path: config.repositories.root().to_owned(), cause })
        })?;
        let service = request.service;
        let progress = Arc::new(Progress::new(service, &config.limits));
        let registered = self.hooks.begin(Session::new(request, repository.clone(), progress, gone))?;
        let place = HookPlace {
            scripts: &self.hooks.scripts,
            home: &self.hooks.home,
            socket: &self.hooks.socket,
            executable: &config.lemnos_exe,
            token: &registered.token,
        };
        let mut command = child::command(&config.git, service, &repository, protocol, &place, &config.limits);
        let child =
            command.spawn().map_err(|cause| ReceiveError::NoGit { path: config.git.clone(), cause })?;
        Ok((child, registered))
    }
}

type Stderr = Box<dyn tokio::io::AsyncWrite + Send + Unpin>;

async fn say(to: &mut Stderr, text: &str) {
    // whoever is gone cannot be told
    if to.write_all(text.as_bytes()).await.is_ok() {
        let _ = to.flush().await;
    }
}

/// Why a request came to nothing, where neither our check nor the handler has said so: git refused it, or we cut it off.
fn ended_by_us(ended: &Ended, session: &Session) -> Option<String> {
    let reason = match ended.cut {
        Some(Cut::ClientGone) => return None,
        Some(Cut::Stalled) => "nothing came for a long time",
        Some(Cut::TooLong) => "the transfer took too long",
        Some(Cut::TooMuch) => "more refs or options than one push may name",
        None if session.progress.opening().0 > session.handed() && !session.refused() => "git refused it",
        None => return None,
    };
    Some(reason.to_owned())
}

/// What git's own words leave out.
fn last_word(ended: &Ended, session: &Session) -> Option<&'static str> {
    if let Some(cut) = ended.cut {
        return Some(match cut {
            Cut::Stalled => "error: nothing came for a long time; the request was ended\nhint: push again\n",
            Cut::TooLong => {
                "error: the transfer took too long and was ended\nhint: push in parts, oldest commits first\n"
            }
            Cut::TooMuch => {
                "error: the push names more refs or options than one push may\nhint: push the refs in several pushes\n"
            }
            Cut::ClientGone => return None,
        });
    }
    let (commands, shallow) = session.progress.opening();
    let git_refused = commands > session.handed() && !session.refused();
    (!shallow.is_empty() && git_refused).then_some(
        "error: this clone is shallow, and the server lacks the commits before its boundary\nhint: run git fetch --unshallow, then push again\n",
    )
}

/// The program beside this one that does as the hooks and starts faster, if it is there and of this very version.
fn hook_program(lemnos: &Path) -> Option<PathBuf> {
    let program = lemnos.with_file_name("lemnos-hook");
    let output = std::process::Command::new(&program).arg("--version").env_clear().output().ok()?;
    let found = String::from_utf8_lossy(&output.stdout);
    let wanted = concat!("lemnos-hook ", env!("CARGO_PKG_VERSION"));
    if found.trim_end() == wanted {
        return Some(program);
    }
    tracing::warn!(program = %program.display(), wanted, "another version's hooks are not used");
    None
}

/// git at `path` runs, and is new enough.
fn check_git(path: &Path) -> Result<(), ReceiveError> {
    let no_git = |cause| ReceiveError::NoGit { path: path.to_owned(), cause };
    let output = std::process::Command::new(path).arg("--version").env_clear().output().map_err(no_git)?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(found) if found >= OLDEST_GIT => Ok(()),
        _ => Err(ReceiveError::GitTooOld {
            path: path.to_owned(),
            found: text.trim().trim_start_matches("git version ").chars().take(80).collect(),
            needed: OLDEST_GIT_TEXT,
        }),
    }
}

/// Major and minor of `git version 2.39.5 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("git version 2.39.5\n"), Some((2, 39)));
        assert_eq!(version("git version 2.100.1.windows.1"), Some((2, 100)));
        assert_eq!(version("git version 2.38"), Some((2, 38)));
        assert_eq!(version("hello"), None);
        assert!((2, 100) > OLDEST_GIT && (2, 9) < OLDEST_GIT && (3, 0) > OLDEST_GIT);
    }

    #[test]
    fn what_is_no_git_is_said_clearly() {
        assert!(matches!(check_git(Path::new("/nowhere/git")), Err(ReceiveError::NoGit { .. })));
        let echo = check_git(Path::new("/bin/echo"));
        assert!(matches!(echo, Err(ReceiveError::GitTooOld { .. })), "{echo:?}");
    }
}
