//! A connection through a command: `docker exec`, `podman exec`, `kubectl exec` or `ssh`, with `buildctl dial-stdio` at
//! the other end.
//!
//! Invariants: arguments go to the program as they are, there is no shell; the child does not outlive the connection;
//! what it says on its standard error is in the error that its end becomes.

use std::ffi::OsString;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Address;

/// How much of what the command said last is kept.
const STDERR_LIMIT: usize = 4096;
/// How long the command may take to end after its output has: then it is told to.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long it may take to end once told to: then it is killed.
const TERM_GRACE: Duration = Duration::from_secs(3);

/// Where the commands of `docker-container://` and its like are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// As `PATH`; the environment's own when absent.
    pub path: Option<OsString>,
}

/// What to run for `address`; none for those that need no command.
pub(super) fn arguments(address: &Address) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut say = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    match address {
        Address::Unix(_) | Address::Tcp { .. } | Address::Docker(_) => return None,
        Address::DockerContainer { container, context } => {
            say(&["docker"]);
            if let Some(context) = context {
                say(&[&format!("--context={context}")]);
            }
            say(&["exec", "-i", container, "buildctl", "dial-stdio"]);
        }
        Address::PodmanContainer { container } => {
            say(&["podman", "exec", "-i", container, "buildctl", "dial-stdio"]);
        }
        Address::KubePod { pod, context, namespace, container } => {
            let or_empty = |name: &Option<String>| name.clone().unwrap_or_default();
            say(&["kubectl"]);
            say(&[&format!("--context={}", or_empty(context))]);
            say(&[&format!("--namespace={}", or_empty(namespace)), "exec"]);
            say(&[
                &format!("--container={}", or_empty(container)),
                "-i",
                pod,
                "--",
                "buildctl",
                "dial-stdio",
            ]);
        }
        Address::Ssh { user, host, port, socket } => {
            words = ssh(user.as_deref(), host, *port);
            let mut say = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
            say(&["buildctl"]);
            if let Some(socket) = socket {
                say(&["--addr", &format!("unix://{}", socket.display())]);
            }
            say(&["dial-stdio"]);
        }
    }
    Some(words)
}

/// What leads to a command on another machine: its words follow.
pub(super) fn ssh(user: Option<&str>, host: &str, port: Option<u16>) -> Vec<String> {
    let mut words = vec!["ssh".to_owned()];
    words.extend(user.into_iter().flat_map(|user| ["-l".to_owned(), user.to_owned()]));
    words.extend(port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
    words.extend(["--".to_owned(), host.to_owned()]);
    words
}

/// Starts the command; its standard input and output are the connection.
pub(super) fn start(words: &[String], programs: &Programs) -> io::Result<CommandStream> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // a Ctrl-C at the terminal is for us: we end the command in good order
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = &programs.path {
        command.env("PATH", path);
    }
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("`{program}`: {error}")))?;
    let missing = || io::Error::other("a pipe to the command is missing");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let close = CancellationToken::new();
    let ended = tokio::spawn(supervise(child, stderr, said.clone(), close.clone()));
    let command = words.join(" ");
    let end = async move {
        let status = ended.await.ok().flatten();
        let said = said.lock().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        obituary(&command, status, &said.unwrap_or_default())
    };
    let guard = Some(close.clone().drop_guard());
    Ok(CommandStream { stdin, stdout, end: end.boxed().shared(), ended: None, close, guard })
}

/// What became of the command, in words; none where it ended well and said nothing.
fn obituary(command: &str, status: Option<ExitStatus>, said: &str) -> Option<String> {
    let how = match status {
        Some(status) if status.success() && said.is_empty() => return None,
        Some(status) => status.to_string(),
        None => "killed".to_owned(),
    };
    Some(match said {
        "" => format!("`{command}` ended ({how})"),
        said => format!("`{command}` ended ({how}): {said}"),
    })
}

/// Reaps the child, whether it ends by itself or has to, because the connection did.
async fn supervise(
    mut child: Child,
    stderr: ChildStderr,
    said: Arc<Mutex<Vec<u8>>>,
    close: CancellationToken,
) -> Option<ExitStatus> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // it may be gone already
            let _ = rustix::process::kill_process_group(group, signal);
        }
    };
    let mut listening = tokio::spawn(listen(stderr, said));
    let status = tokio::select! {
        status = child.wait() => status.ok(),
        () = close.cancelled() => {
            signal(Signal::TERM);
            match tokio::time::timeout(TERM_GRACE, child.wait()).await {
                Ok(status) => status.ok(),
                Err(_) => {
                    signal(Signal::KILL);
                    child.wait().await.ok()
                }
            }
        }
    };
    let _ = tokio::time::timeout(END_GRACE, &mut listening).await;
    listening.abort();
    status
}

async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0_u8; 1024];
    while let Ok(read) = stderr.read(&mut piece).await {
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        let Ok(mut said) = said.lock() else { return };
        said.extend_from_slice(bytes);
        let excess = said.len().saturating_sub(STDERR_LIMIT);
        said.drain(..excess);
    }
}

type End = Shared<BoxFuture<'static, Option<String>>>;

/// The command's standard input and output as one stream.
pub(super) struct CommandStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    end: End,
    /// What `end` gave, once it has.
    ended: Option<Option<String>>,
    close: CancellationToken,
    guard: Option<DropGuard>,
}

impl CommandStream {
    /// The error that the command's end is, after its output has ended: it tells us more than an end of file does.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_later();
        if self.ended.is_none() {
            self.ended = Some(ready!(self.end.poll_unpin(cx)));
        }
        match self.ended.clone().flatten() {
            Some(words) => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, words))),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Tells a command that does not end by itself to end.
    fn close_later(&mut self) {
        if self.guard.take().map(DropGuard::disarm).is_some() {
            let (close, end) = (self.close.clone(), self.end.clone());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(END_GRACE, end).await;
                close.cancel();
            });
        }
    }
}

impl AsyncRead for CommandStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stdout).poll_read(cx, buf));
        match read {
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => self.poll_end(cx),
            read => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for CommandStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, buf)) {
            // the reason is what the command says, not that its pipe is closed
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Poll::Ready(ready!(self.poll_end(cx)).and(Err(error)))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(address: &str) -> String {
        arguments(&address.parse().unwrap()).unwrap().join(" ")
    }

    #[test]
    fn commands_are_the_ones_that_buildctl_starts() {
        for (address, command) in [
            ("docker-container://b", "docker exec -i b buildctl dial-stdio"),
            ("docker-container://b?context=far", "docker --context=far exec -i b buildctl dial-stdio"),
            ("podman-container://b", "podman exec -i b buildctl dial-stdio"),
            (
                "kube-pod://p?context=c&namespace=n&container=b",
                "kubectl --context=c --namespace=n exec --container=b -i p -- buildctl dial-stdio",
            ),
            ("kube-pod://p", "kubectl --context= --namespace= exec --container= -i p -- buildctl dial-stdio"),
            ("ssh://far", "ssh -- far buildctl dial-stdio"),
            (
                "ssh://me@far:22/run/b.sock",
                "ssh -l me -p 22 -- far buildctl --addr unix:///run/b.sock dial-stdio",
            ),
        ] {
            assert_eq!(words(address), command);
        }
        assert_eq!(arguments(&"unix:///s".parse().unwrap()), None);
    }
}
