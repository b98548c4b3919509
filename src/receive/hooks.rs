//! The server's end of the hooks: a private unix socket, a token for each push, and the answers to both hooks.
//!
//! A caller is believed only when it runs as git's user, knows the token of a push that is running, and asks in the order
//! in which git asks: `pre-receive` once, then `proc-receive` once, for commands that the first has seen.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::child::Progress;
use super::durable::Syncing;
use super::error::{ReceiveError, Refusal};
use super::frame::{Hello, Kind};
use super::limits::Limits;
use super::measure::Memo;
use super::output::{GATHERING, OutputReader, PushOutput};
use super::proc_receive::{self, Conversation, Request, Step};
use super::quarantine::Inspection;
use super::request::GitRequest;
use super::service::{PushHandler, RefAnswer};
use crate::audit::{self, Entry, Event, Trail, Who};
use crate::metrics;
use crate::model::{Push, PushOptions, RefUpdate};

mod connection;
use connection::{Hook, PushText};

/// The longest path of a unix socket on Linux, without the NUL after it.
const SOCKET_PATH_BYTES: usize = 107;
/// Hooks that may talk to us at once; a push has one at a time.
const MAX_CALLERS: usize = 1024;
/// A caller that says nothing for this long was not started by git.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

const SCRIPTS: [(&str, &str); 2] = [
    ("pre-receive", include_str!("../../hooks/pre-receive")),
    ("proc-receive", include_str!("../../hooks/proc-receive")),
];

/// The running listener and the files that git's children need.
pub(super) struct Hooks {
    pub socket: PathBuf,
    pub scripts: PathBuf,
    /// An empty directory: a home without any configuration.
    pub home: PathBuf,
    sessions: Sessions,
    listener: tokio::task::JoinHandle<()>,
}

/// One push between its start and its end.
pub(super) struct Session {
    pub request: GitRequest,
    pub repository: PathBuf,
    pub progress: Arc<Progress>,
    gone: CancellationToken,
    stage: Mutex<Stage>,
    /// The new objects on their way to the disk.
    syncing: Mutex<Option<Syncing>>,
    began: Instant,
    /// What the request's task stands in: its hooks call from outside.
    span: tracing::Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was asked yet.
    Began,
    /// pre-receive is being answered, or was answered with no.
    Refused,
    /// pre-receive was answered with yes, for these.
    Checked(Vec<RefUpdate>),
    /// proc-receive was asked for this many; it is not asked twice.
    Handed(usize),
}

type Sessions = Arc<Mutex<HashMap<String, Arc<Session>>>>;

/// What answering needs.
pub(super) struct Answering {
    pub limits: Limits,
    pub handler: Arc<dyn PushHandler>,
    pub trail: Trail,
    pub tracker: TaskTracker,
    pub memo: Memo,
}

impl Hooks {
    /// Writes the scripts under `runtime_dir` and listens. Needs a tokio runtime.
    /// `user` is whom git's children run as, where that is not our own user; `program` serves as the hooks, where there is
    /// one.
    pub(super) fn start(
        runtime_dir: &Path,
        user: Option<u32>,
        program: Option<&Path>,
        answering: Answering,
    ) -> Result<Self, ReceiveError> {
        let place = runtime_dir.join("git");
        private_dir(runtime_dir)?;
        private_dir(&place)?;
        if user.is_some() {
            // to be passed, not to be listed
            for dir in [runtime_dir, &place] {
                open_to(dir, 0o711)?;
            }
        }
        let (scripts, home, socket) = (place.join("hooks"), place.join("home"), place.join("hook.sock"));
        let length = socket.as_os_str().as_bytes().len();
        if length > SOCKET_PATH_BYTES {
            return Err(ReceiveError::SocketPath { path: socket, length, limit: SOCKET_PATH_BYTES });
        }
        for dir in [&scripts, &home] {
            // whatever an earlier server or anybody else left in it
            if dir.exists() {
                fs::remove_dir_all(dir).map_err(ReceiveError::io("emptying", dir))?;
            }
            private_dir(dir)?;
            if user.is_some() {
                open_to(dir, 0o755)?;
            }
        }
        write_hooks(&scripts, program)?;
        if socket.exists() {
            fs::remove_file(&socket).map_err(ReceiveError::io("replacing", &socket))?;
        }
        let listener = UnixListener::bind(&socket).map_err(ReceiveError::io("listening at", &socket))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(ReceiveError::io("closing to others", &socket))?;
        if let Some(id) = user {
            std::os::unix::fs::chown(&socket, Some(id), Some(id))
                .map_err(ReceiveError::io("giving to git's user", &socket))?;
        }
        let sessions = Sessions::default();
        let caller = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let listener = tokio::spawn(listen(listener, caller, Arc::clone(&sessions), Arc::new(answering)));
        Ok(Self { socket, scripts, home, sessions, listener })
    }

    /// Makes a push known; the guard's end makes it unknown.
    pub(super) fn begin(&self, session: Session) -> Result<Registered, ReceiveError> {
        let token = random_token()?;
        let session = Arc::new(session);
        lock(&self.sessions).insert(token.clone(), Arc::clone(&session));
        Ok(Registered { token, session, sessions: Arc::clone(&self.sessions) })
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.listener.abort();
        let _ = fs::remove_file(&self.socket);
    }
}

/// A push that hooks may speak for.
pub(super) struct Registered {
    pub token: String,
    pub session: Arc<Session>,
    sessions: Sessions,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.sessions).remove(&self.token);
    }
}

impl Session {
    pub(super) fn new(
        request: GitRequest,
        repository: PathBuf,
        progress: Arc<Progress>,
        gone: CancellationToken,
    ) -> Self {
        let (stage, syncing) = (Mutex::new(Stage::Began), Mutex::default());
        let (began, span) = (Instant::now(), tracing::Span::current());
        Self { request, repository, progress, gone, stage, syncing, began, span }
    }
    /// How many commands got past git and us, to the handler.
    pub(super) fn handed(&self) -> usize {
        match &*lock(&self.stage) {
            Stage::Handed(count) => *count,
            _ => 0,
        }
    }
    /// Whether it was we who refused, and said why.
    pub(super) fn refused(&self) -> bool {
        *lock(&self.stage) == Stage::Refused
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // no code that holds one of these locks can panic half-way through a change
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn private_dir(dir: &Path) -> Result<(), ReceiveError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(ReceiveError::io("creating", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(ReceiveError::io("closing to others", dir))
}

fn open_to(dir: &Path, mode: u32) -> Result<(), ReceiveError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .map_err(ReceiveError::io("opening to git's user", dir))
}

/// The hooks themselves: links to `program`, or scripts that run all of lemnos.
fn write_hooks(place: &Path, program: Option<&Path>) -> Result<(), ReceiveError> {
    for (name, script) in SCRIPTS {
        let file = place.join(name);
        if let Some(program) = program {
            std::os::unix::fs::symlink(program, &file).map_err(ReceiveError::io("linking", &file))?;
            continue;
        }
        fs::write(&file, script).map_err(ReceiveError::io("writing", &file))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .map_err(ReceiveError::io("making executable", &file))?;
    }
    Ok(())
}

/// 256 bits from the kernel.
fn random_token() -> Result<String, ReceiveError> {
    use std::io::Read as _;
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    fs::File::open(source)
        .and_then(|mut f| f.read_exact(&mut bytes))
        .map_err(ReceiveError::io("reading", source))?;
    Ok(hex::encode(bytes))
}

async fn listen(listener: UnixListener, caller: u32, sessions: Sessions, answering: Arc<Answering>) {
    let callers = Arc::new(Semaphore::new(MAX_CALLERS));
    loop {
        let Ok(permit) = Arc::clone(&callers).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(cause) => {
                tracing::warn!(%cause, "accepting a hook failed");
                // out of descriptors, most likely: others must end first
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (sessions, answering) = (Arc::clone(&sessions), Arc::clone(&answering));
        tokio::spawn(async move {
            answer(stream, caller, &sessions, &answering).await;
            drop(permit);
        });
    }
}

/// One hook process from its first word to its exit status.
async fn answer(stream: UnixStream, caller: u32, sessions: &Sessions, answering: &Answering) {
    let user = stream.peer_cred().map(|c| c.uid()).ok();
    let mut hook = Hook::new(stream);
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, hook.receive()).await {
        Ok(Some((Kind::Hello, bytes))) => Hello::decode(&bytes).ok(),
        _ => None,
    };
    let Some(hello) = hello.filter(|_| user == Some(caller)) else {
        let reason = "this is not a hook of a running push";
        let uid = user.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
        answering.trail.note(stranger(reason).detail(format!("uid {uid}")));
        return hook.refuse(reason).await;
    };
    let Some(session) = lock(sessions).get(&hello.token).cloned() else {
        let reason = "its token belongs to no running push";
        answering.trail.note(stranger(reason).detail(hello.hook));
        return hook.refuse(reason).await;
    };
    session.progress.with_server(true);
    let answering = async {
        match hello.hook.as_str() {
            "pre-receive" => pre_receive(&mut hook, &session, &hello, answering).await,
            "proc-receive" => proc_receive(&mut hook, &session, answering).await,
            _ => refuse(&mut hook, &session.request, answering, "there is no such hook").await,
        }
    };
    answering.instrument(session.span.clone()).await;
    session.progress.with_server(false);
}

/// Checks the quarantined objects. The connection's end without an answer is a no.
async fn pre_receive(hook: &mut Hook, session: &Arc<Session>, hello: &Hello, answering: &Answering) {
    // a second question, or one after the answer, is not git's
    if std::mem::replace(&mut *lock(&session.stage), Stage::Refused) != Stage::Began {
        return refuse(hook, &session.request, answering, "pre-receive was asked before").await;
    }
    // ids, a name of at most 4096 bytes in a file system, and a line end
    let bound = answering.limits.max_updates.saturating_add(1).saturating_mul(4096 + 84);
    let Some(input) = hook.whole_input(bound).await else {
        let reason = Refusal::TooManyUpdates(answering.limits.max_updates).to_string();
        return refuse(hook, &session.request, answering, &reason).await;
    };
    let (limits, memo) = (answering.limits.clone(), answering.memo.clone());
    let (asking, quarantine) = (Arc::clone(session), hello.quarantine.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let quarantine = Path::new(std::ffi::OsStr::from_bytes(&quarantine));
        let inspection = Inspection {
            repository: &asking.repository,
            quarantine: (!quarantine.as_os_str().is_empty()).then_some(quarantine),
            settings: &asking.request.app.settings,
            shallow: &asking.progress.opening().1,
            limits: &limits,
            memo: &memo,
        };
        inspection.check(&input)
    });
    let verdict =
        checked.await.unwrap_or_else(|_| Err(Refusal::Unreadable("the check itself failed".to_owned())));
    let request = &session.request;
    match verdict {
        Ok(accepted) => {
            let objects = session.repository.join("objects");
            let syncing =
                accepted.quarantine.map(|quarantine| Syncing::begin(&quarantine, &objects)).transpose();
            let Ok(syncing) = syncing else {
                tracing::error!(request = %request.id, "the quarantine cannot be listed");
                return refuse(hook, request, answering, "the new objects cannot be read").await;
            };
            *lock(&session.syncing) = syncing;
            *lock(&session.stage) = Stage::Checked(accepted.updates);
            session.progress.complete();
            hook.exit(0).await;
        }
        Err(refusal) => {
            answering.trail.note(entry(request, Event::PushRefused { reason: refusal.to_string() }));
            let mut text = PushText::default();
            text.line("error", &refusal.to_string());
            if let Some(remedy) = refusal.remedy() {
                text.line("hint", remedy);
            }
            hook.send(Kind::Error, text.0.as_bytes()).await;
            hook.exit(1).await;
        }
    }
}

/// Hands the push to the handler and git the handler's answers.
async fn proc_receive(hook: &mut Hook, session: &Arc<Session>, answering: &Answering) {
    let request = match converse(hook, &answering.limits).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(problem) => {
            tracing::warn!(request = %session.request.id, %problem, "git's proc-receive request cannot be read");
            // on record here, and not once more as git's own refusal
            *lock(&session.stage) = Stage::Refused;
            return refuse(hook, &session.request, answering, &problem.to_string()).await;
        }
    };
    let stage = std::mem::replace(&mut *lock(&session.stage), Stage::Handed(request.updates.len()));
    match stage {
        Stage::Checked(checked) if request.updates.iter().all(|update| checked.contains(update)) => {}
        _ => {
            let reason = "git asks for refs that were not checked";
            return refuse(hook, &session.request, answering, reason).await;
        }
    }
    let syncing = lock(&session.syncing).take().unwrap_or_default();
    if let Err(cause) = syncing.done().await {
        tracing::error!(request = %session.request.id, %cause, "new objects could not be synced");
        let reason = "the new objects could not be written to the disk";
        return refuse(hook, &session.request, answering, reason).await;
    }
    let options = PushOptions::parse(request.options.iter().map(String::as_str));
    let answers = match options {
        Ok(options) => hand_over(hook, session, answering, &request, options).await,
        Err(problem) => {
            let no = |update: &RefUpdate| RefAnswer {
                name: update.name.clone(),
                result: Err(problem.to_string()),
            };
            request.updates.iter().map(no).collect()
        }
    };
    // what the pusher is told is on record before they hear it; the refs have moved, so an error changes nothing
    if let Err(error) = answering.trail.record(answered(&session.request, &request.updates, &answers)).await {
        tracing::error!(request = %session.request.id, %error, "the push is answered, and not on record");
    }
    hook.send(Kind::Output, &proc_receive::report(&answers)).await;
    hook.exit(0).await;
}

/// Refuses a push on record.
async fn refuse(hook: &mut Hook, request: &GitRequest, answering: &Answering, reason: &str) {
    answering.trail.note(entry(request, Event::PushRefused { reason: reason.to_owned() }));
    hook.refuse(reason).await;
}

fn stranger(reason: &str) -> Entry {
    audit::entry(Who::Anonymous, Event::HookRefused { reason: reason.to_owned() })
}

pub(super) fn entry(request: &GitRequest, event: Event) -> Entry {
    let actor = Who::of(&request.user);
    let entry = audit::entry(actor, event).key(request.key.clone()).peer(request.peer);
    entry.app(request.app.name.clone()).request(&request.id)
}

/// One entry for each ref; the answers are in the order of the updates.
fn answered(request: &GitRequest, updates: &[RefUpdate], answers: &[RefAnswer]) -> Vec<Entry> {
    let one = |(update, answer): (&RefUpdate, &RefAnswer)| {
        let event = Event::PushAnswered {
            reference: update.name.to_string(),
            old: update.old.to_string(),
            new: update.new.to_string(),
            refused: answer.result.as_ref().err().cloned(),
        };
        entry(request, event)
    };
    updates.iter().zip(answers).map(one).collect()
}

async fn converse(hook: &mut Hook, limits: &Limits) -> Result<Option<Request>, proc_receive::ProtocolError> {
    let mut conversation = Conversation::new(limits);
    loop {
        match conversation.step()? {
            Step::More => match hook.receive().await {
                Some((Kind::Input, bytes)) if !bytes.is_empty() => conversation.feed(&bytes)?,
                _ => return Ok(None),
            },
            Step::Reply(bytes) => hook.send(Kind::Output, &bytes).await,
            Step::Decide(request) => return Ok(Some(request)),
        }
    }
}

/// Runs the handler, with its output going to the pusher for as long as there is one. The handler is never cut short.
async fn hand_over(
    hook: &mut Hook,
    session: &Arc<Session>,
    answering: &Answering,
    request: &Request,
    options: PushOptions,
) -> Vec<RefAnswer> {
    let about = &session.request;
    let push = Push {
        id: about.id.clone(),
        app: about.app.clone(),
        user: about.user.clone(),
        key: about.key.clone(),
        updates: request.updates.clone(),
        atomic: request.atomic,
        options,
    };
    let (output, reader) = PushOutput::channel(answering.limits.output_buffer_bytes, session.gone.clone());
    let (handler, repository) = (Arc::clone(&answering.handler), session.repository.clone());
    let ms = u64::try_from(session.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    metrics::took(metrics::Stage::Receive, session.began.elapsed());
    tracing::info!(app = %about.app.name, refs = push.updates.len(), ms, "received");
    let work = async move { handler.push(push, repository, output).await };
    let work = answering.tracker.spawn(work.in_current_span());
    let finished = async {
        let answers = work.await;
        session.progress.with_server(false);
        reader.close();
        answers
    };
    let (answers, ()) = tokio::join!(finished, show(&reader, hook));
    match answers {
        Ok(answers) => in_order(&request.updates, answers),
        Err(cause) => {
            tracing::error!(request = %about.id, %cause, "the push handler ended without an answer");
            in_order(&request.updates, Vec::new())
        }
    }
}

async fn show(reader: &OutputReader, hook: &mut Hook) {
    while let Some(bytes) = reader.next().await {
        hook.send(Kind::Error, &bytes).await;
        reader.gather(GATHERING).await;
    }
}

/// One answer for each update, in git's order; a ref that was not answered for is refused.
fn in_order(updates: &[RefUpdate], answers: Vec<RefAnswer>) -> Vec<RefAnswer> {
    let mut by_name: HashMap<_, _> = answers.into_iter().map(|a| (a.name, a.result)).collect();
    let unanswered = || Err("internal error: the server has no answer for this ref".to_owned());
    updates
        .iter()
        .map(|u| RefAnswer {
            name: u.name.clone(),
            result: by_name.remove(&u.name).unwrap_or_else(unanswered),
        })
        .collect()
}
