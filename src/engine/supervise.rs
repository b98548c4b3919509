//! One engine under supervision: started, awaited, restarted with a growing pause, stopped; its log lines become ours.
//!
//! All of it runs on a thread of its own, which lasts as long as the engine may: the kernel ties a child's parent-death
//! signal to the thread that started it. Dropping a `Supervised` stops the engine too, only nobody waits for it.
//! Must not: know which engine it is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use super::EngineError;
use super::child::{STARTED, kept_command};
use super::probe::Probe;

/// Lines kept for an error message, and how long one may be.
const TAIL_LINES: usize = 10;
const LINE_BYTES: usize = 8 * 1024;
/// Pauses before restarts double from the first to the last; an engine that was ready this long starts over.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(60);

/// What an engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    Starting,
    Ready,
    /// It ended by itself (`cause`) and is started again after a pause.
    Restarting {
        after: Duration,
        cause: String,
    },
    Stopped,
}

/// A running engine. Stop it with `stop`.
#[derive(Debug)]
pub struct Supervised {
    pub name: &'static str,
    /// `127.0.0.1:PORT` or `unix:///…`.
    pub address: String,
    /// Changes as the engine does.
    pub state: watch::Receiver<EngineState>,
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

impl Supervised {
    /// SIGTERM, the engine's grace, SIGKILL; returns when nothing of it is left.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        // an error says that the thread has ended, which is what is waited for
        let _ = self.done.await;
    }
}

/// How to start one engine.
pub(super) struct Launch {
    pub name: &'static str,
    pub address: String,
    pub lemnos: PathBuf,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// Held by the keeper while the engine runs.
    pub lock: PathBuf,
    pub probe: Probe,
    pub ready_within: Duration,
    pub grace: Duration,
    /// Done before each start; may block.
    pub prepare: Box<dyn Fn() -> Result<(), EngineError> + Send>,
    /// Done after the last end; may block.
    pub clean_up: Box<dyn Fn() + Send>,
}

/// Starts the engine and waits until it is ready. A first start that fails is not tried again.
pub(super) async fn start(launch: Launch) -> Result<Supervised, EngineError> {
    let (stop, stopped) = oneshot::channel();
    let (first, ready) = oneshot::channel();
    let (done, all_done) = oneshot::channel();
    let (state, watching) = watch::channel(EngineState::Starting);
    let (name, address) = (launch.name, launch.address.clone());
    let span = tracing::Span::current();
    std::thread::Builder::new()
        .name(format!("engine-{name}"))
        .spawn(move || {
            let _in_span = span.entered();
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(supervise(launch, state, stopped, first)),
                Err(cause) => {
                    let _ = first.send(Err(thread_error(cause)));
                }
            }
            let _ = done.send(());
        })
        .map_err(thread_error)?;
    match ready.await {
        Ok(Ok(())) => Ok(Supervised { name, address, state: watching, stop, done: all_done }),
        Ok(Err(error)) => {
            let _ = all_done.await;
            Err(error)
        }
        Err(_) => Err(thread_error(std::io::Error::other("its thread ended"))),
    }
}

fn thread_error(cause: std::io::Error) -> EngineError {
    EngineError::Io { what: "supervising an engine in", path: "a thread".into(), cause }
}

/// How one life of an engine ended.
enum End {
    Stopped,
    Died { error: EngineError, ready_for: Option<Duration> },
}

async fn supervise(
    launch: Launch,
    state: watch::Sender<EngineState>,
    mut stopped: oneshot::Receiver<()>,
    first: oneshot::Sender<Result<(), EngineError>>,
) {
    let mut first = Some(first);
    let mut pause = FIRST_PAUSE;
    loop {
        state.send_replace(EngineState::Starting);
        let end = match (launch.prepare)() {
            Ok(()) => life(&launch, &state, &mut stopped, &mut first).await,
            Err(error) => End::Died { error, ready_for: None },
        };
        let (error, ready_for) = match end {
            End::Stopped => break,
            End::Died { error, ready_for } => (error, ready_for),
        };
        if let Some(first) = first.take() {
            (launch.clean_up)();
            state.send_replace(EngineState::Stopped);
            let _ = first.send(Err(error));
            return;
        }
        if ready_for.is_some_and(|ready| ready >= SETTLED) {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(engine = launch.name, pause_ms = pause.as_millis(), %error, "engine ended; starting it again");
        state.send_replace(EngineState::Restarting { after: pause, cause: error.to_string() });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut stopped => break,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
    (launch.clean_up)();
    state.send_replace(EngineState::Stopped);
    tracing::info!(engine = launch.name, "engine stopped");
}

async fn life(
    launch: &Launch,
    state: &watch::Sender<EngineState>,
    stopped: &mut oneshot::Receiver<()>,
    first: &mut Option<oneshot::Sender<Result<(), EngineError>>>,
) -> End {
    let died = |error| End::Died { error, ready_for: None };
    let mut keeper = match spawn(launch) {
        Ok(keeper) => keeper,
        Err(cause) => return died(EngineError::NotRunnable { program: launch.lemnos.clone(), cause }),
    };
    let log = Log::new(launch.name);
    let readers = [
        keeper.stdout.take().map(|out| tokio::spawn(log.clone().follow(out))),
        keeper.stderr.take().map(|out| tokio::spawn(log.clone().follow(out))),
    ];
    let waiting = tokio::time::timeout(launch.ready_within, until_ready(launch, &log));
    let early = tokio::select! {
        status = keeper.wait() => Some(ended(launch, status)),
        ready = waiting => match ready {
            Ok(()) => None,
            Err(_) => {
                let seconds = launch.ready_within.as_secs();
                Some(EngineError::NotReady { name: launch.name, seconds, log: Vec::new() })
            }
        },
        _ = &mut *stopped => { end(&mut keeper, launch).await; return End::Stopped }
    };
    if let Some(error) = early {
        end(&mut keeper, launch).await;
        drain(readers).await;
        return died(log.explain(error));
    }
    let since = Instant::now();
    tracing::info!(engine = launch.name, address = launch.address, "engine ready");
    state.send_replace(EngineState::Ready);
    if let Some(first) = first.take() {
        let _ = first.send(Ok(()));
    }
    let status = tokio::select! {
        status = keeper.wait() => status,
        _ = stopped => { end(&mut keeper, launch).await; return End::Stopped }
    };
    drain(readers).await;
    End::Died { error: log.explain(ended(launch, status)), ready_for: Some(since.elapsed()) }
}

fn ended(launch: &Launch, status: std::io::Result<ExitStatus>) -> EngineError {
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    EngineError::Ended { name: launch.name, status, log: Vec::new() }
}

/// Waits for the last lines, a second at most: what holds the pipe longer is not the keeper.
async fn drain(readers: [Option<tokio::task::JoinHandle<()>>; 2]) {
    for reader in readers.into_iter().flatten() {
        let _ = tokio::time::timeout(Duration::from_secs(1), reader).await;
    }
}

fn spawn(launch: &Launch) -> std::io::Result<Child> {
    let mut command = kept_command(&launch.lemnos, &launch.lock, launch.grace, None, &launch.program);
    command.args(&launch.args);
    command.env_clear().envs(launch.environment.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // a Ctrl-C at the terminal is for the server, which ends the engines when it no longer needs them
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

/// Until the keeper has started the engine and the engine answers.
async fn until_ready(launch: &Launch, log: &Log) {
    log.started().await;
    while !launch.probe.answers().await {
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Ends the keeper, which ends the engine. The keeper kills what does not go by itself; only a stuck keeper is killed here.
async fn end(keeper: &mut Child, launch: &Launch) {
    let pid = keeper.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let enough = launch.grace + Duration::from_secs(10);
    if tokio::time::timeout(enough, keeper.wait()).await.is_err() {
        tracing::warn!(engine = launch.name, "engine does not end; killing it");
        let _ = keeper.kill().await;
    }
}

/// An engine's output: into tracing, the last lines kept.
#[derive(Clone)]
struct Log {
    name: &'static str,
    tail: Arc<Mutex<VecDeque<String>>>,
    started: Arc<watch::Sender<bool>>,
}

impl Log {
    fn new(name: &'static str) -> Self {
        Self { name, tail: Arc::default(), started: Arc::new(watch::channel(false).0) }
    }

    async fn started(&self) {
        let mut seen = self.started.subscribe();
        // the sender is `self`'s, so this ends only when it was said
        let _ = seen.wait_for(|started| *started).await;
    }

    /// Reads to the end; longer lines are cut into several.
    async fn follow(self, mut from: impl AsyncRead + Unpin) {
        let (mut buffer, mut line) = ([0_u8; LINE_BYTES], Vec::with_capacity(LINE_BYTES));
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            for &byte in buffer.get(..n).unwrap_or_default() {
                if byte != b'\n' {
                    line.push(byte);
                }
                if byte == b'\n' || line.len() >= LINE_BYTES {
                    self.line(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
        }
        if !line.is_empty() {
            self.line(&String::from_utf8_lossy(&line));
        }
    }

    fn line(&self, line: &str) {
        if line == STARTED {
            self.started.send_replace(true);
            return;
        }
        let (level, message) = read_line(line);
        let engine = self.name;
        match level {
            tracing::Level::ERROR => tracing::error!(engine, "{message}"),
            tracing::Level::WARN => tracing::warn!(engine, "{message}"),
            tracing::Level::INFO => tracing::info!(engine, "{message}"),
            _ => tracing::debug!(engine, "{message}"),
        }
        if is_stack(&message) {
            return;
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(message);
    }

    /// The error, with the last lines.
    fn explain(&self, mut error: EngineError) -> EngineError {
        if let EngineError::Ended { log, .. } | EngineError::NotReady { log, .. } = &mut error {
            *log = self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        }
        error
    }
}

/// A line of the stack that Go ends a fatal message with, two lines a frame: it would push the message out of the tail.
fn is_stack(line: &str) -> bool {
    line.starts_with('\t') || !line.contains(' ')
}

/// Level and text of a line: both engines write logrus' JSON; anything else is passed on as it is. What is worth `info` to an
/// engine is detail to its server, and the registry calls each 404 an error.
fn read_line(line: &str) -> (tracing::Level, String) {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        msg: String,
        error: Option<serde_json::Value>,
    }
    let Ok(Line { level, msg, error }) = serde_json::from_str::<Line>(line) else {
        let level = if is_stack(line) { tracing::Level::DEBUG } else { tracing::Level::INFO };
        return (level, line.trim_end().to_owned());
    };
    let level = match level.as_str() {
        _ if msg.starts_with("response completed") => tracing::Level::DEBUG,
        "panic" | "fatal" | "error" => tracing::Level::ERROR,
        "warning" | "warn" => tracing::Level::WARN,
        _ => tracing::Level::DEBUG,
    };
    match error {
        Some(serde_json::Value::String(error)) => (level, format!("{msg}: {error}")),
        Some(error) => (level, format!("{msg}: {error}")),
        None => (level, msg),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_level() {
        let warn = r#"{"error":"no such file","level":"warning","msg":"reading","time":"…"}"#;
        assert_eq!(read_line(warn), (tracing::Level::WARN, "reading: no such file".to_owned()));
        assert_eq!(read_line("plain words\r"), (tracing::Level::INFO, "plain words".to_owned()));
        assert_eq!(read_line("main.main").0, tracing::Level::DEBUG);
        let access = r#"{"level":"error","msg":"response completed with error","http.response.status":404}"#;
        assert_eq!(read_line(access).0, tracing::Level::DEBUG);
    }

    #[tokio::test]
    async fn an_error_carries_the_last_lines_and_no_more() {
        let log = Log::new("registry");
        let text: String = (0..30).map(|n| format!("line {n}\n")).chain(["the end".to_owned()]).collect();
        log.clone().follow(text.as_bytes()).await;
        let error = log.explain(EngineError::Ended {
            name: "registry",
            status: "exit status: 1".into(),
            log: vec![],
        });
        let text = error.to_string();
        assert!(
            text.starts_with("registry ended while it was starting (exit status: 1); it said:\n  line 21\n"),
            "{text}"
        );
        assert!(text.ends_with("line 29\n  the end"), "{text}");
    }

    #[tokio::test]
    async fn a_stack_does_not_hide_the_message() {
        let log = Log::new("buildkitd");
        let stack = "main.main\n\tgithub.com/moby/buildkit/main.go:488 +0x1\n".repeat(TAIL_LINES);
        log.clone().follow(format!("buildkitd: bad config\n{stack}").as_bytes()).await;
        assert_eq!(*log.tail.lock().unwrap(), ["buildkitd: bad config"]);
    }

    #[tokio::test]
    async fn endless_lines_are_cut() {
        let log = Log::new("registry");
        let text = "x ".repeat(LINE_BYTES + 2);
        log.clone().follow(text.as_bytes()).await;
        let lengths: Vec<usize> = log.tail.lock().unwrap().iter().map(String::len).collect();
        assert_eq!(lengths.len(), 3);
        assert!(lengths.iter().all(|length| *length <= LINE_BYTES), "{lengths:?}");
    }
}
