//! The server: whether one runs, answers where it says, or has left something behind.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Finding, Subject};
use crate::admin::socket::Connection;
use crate::admin::{DataLock, Ready};
use crate::engine;

const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the server of a data directory.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Something holds the data directory.
    pub held: bool,
    /// What its ready file says.
    pub ready: Option<Ready>,
    /// Whether the control socket is answered.
    pub answers: bool,
}

impl State {
    pub(super) fn running(&self) -> Option<&Ready> {
        self.ready.as_ref().filter(|_| self.held && self.answers)
    }
}

pub(super) async fn state(data_dir: &Path) -> State {
    if !data_dir.is_dir() {
        return State::default();
    }
    let held = matches!(DataLock::for_command(data_dir), Ok(None));
    let answers = held && matches!(Connection::open(data_dir).await, Ok(Some(_)));
    State { held, ready: Ready::read(data_dir), answers }
}

pub(super) async fn check(subject: &Subject, state: &State) -> Vec<Finding> {
    let mut found = vec![judge_state(state)];
    match state.running() {
        Some(ready) => {
            let ssh = greeting(&ready.ssh, b"").await;
            found.push(judge_door("ssh", &ready.ssh, ssh, "SSH-2.0-"));
            let request = format!("GET /healthz HTTP/1.0\r\nHost: {}\r\n\r\n", ready.http);
            let http = greeting(&ready.http, request.as_bytes()).await;
            found.push(judge_door("http", &ready.http, http, "HTTP/1."));
        }
        None if !state.held => {
            let own_registry = subject.registry.is_none().then_some(("registry", subject.registry_listen));
            for (door, address) in
                [("ssh", subject.ssh), ("http", subject.http)].into_iter().chain(own_registry)
            {
                let free = tokio::net::TcpListener::bind(address).await.map(drop);
                found.push(judge_port(door, address, free.map_err(|e| e.to_string())));
            }
            let bridge = engine::bridge_left(&subject.data_dir);
            found.extend(judge_leftovers(
                bridge.as_deref(),
                &half_done(&subject.data_dir.join("repositories")),
            ));
        }
        None => {}
    }
    if !subject.http.ip().is_loopback() {
        found.push(Finding::warn(
            "http",
            format!("the HTTP door is to listen on {}, and speaks no TLS", subject.http),
            "let it listen on loopback, behind a proxy that ends TLS",
        ));
    }
    found
}

fn judge_state(state: &State) -> Finding {
    match (state.held, &state.ready, state.answers) {
        (true, Some(ready), true) => Finding::ok("server", format!("process {} runs", ready.pid)),
        (true, _, true) => Finding::warn(
            "server",
            "it answers, and has not said that it is ready",
            "it is starting or stopping: look again in a moment",
        ),
        (true, _, false) => Finding::fail(
            "server",
            "a process holds the data directory, and its control socket does not answer",
            "it is starting or stopping, or hangs: look at its log",
        ),
        (false, Some(ready), _) => Finding::warn(
            "server",
            format!("none runs; process {} was killed and has left its lemnos.json", ready.pid),
            "start it: `lemnos serve` takes away what it left and settles what was under way",
        ),
        (false, None, _) => Finding::ok("server", "none runs"),
    }
}

/// What is said first by whom listens at `address`.
async fn greeting(address: &str, request: &[u8]) -> Result<String, String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut said = [0; 12];
        stream.read_exact(&mut said).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&said).into_owned())
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(said) => said.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn judge_door(check: &str, address: &str, said: Result<String, String>, begins: &str) -> Finding {
    let remedy = "look at the server's log; a firewall or another program may be in the way";
    match said {
        Ok(said) if said.starts_with(begins) && (check != "http" || said.ends_with("200")) => {
            Finding::ok(check, format!("{address} answers"))
        }
        Ok(said) => Finding::fail(check, format!("{address} answers {said:?}"), remedy),
        Err(cause) => Finding::fail(check, format!("{address}: {cause}"), remedy),
    }
}

fn judge_port(check: &str, address: SocketAddr, free: Result<(), String>) -> Finding {
    match free {
        Ok(()) => Finding::ok(check, format!("{address} is free to listen on")),
        Err(cause) => Finding::fail(
            check,
            format!("{address} cannot be listened on: {cause}"),
            format!("`ss -ltnp 'sport = {}'` shows who does; or choose another address", address.port()),
        ),
    }
}

/// Directories and locks that a killed server left in the repositories.
fn half_done(repositories: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repositories).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".new-") || name.starts_with(".removed-") {
            found.push(name);
        } else if entry.path().join("packed-refs.lock").exists() {
            found.push(format!("{name}/packed-refs.lock"));
        }
    }
    found
}

fn judge_leftovers(bridge: Option<&str>, half_done: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(bridge) = bridge {
        found.push(Finding::warn(
            "leftovers",
            format!(
                "the builds' bridge {bridge} and its iptables rules are left of a server that was killed"
            ),
            "start the server on this data directory again and stop it: it takes them away",
        ));
    }
    if let Some(first) = half_done.first() {
        found.push(Finding::warn(
            "leftovers",
            format!("{} half-done files are left in the repositories, such as {first}", half_done.len()),
            "start the server: it takes them away",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn ready() -> Option<Ready> {
        let text = r#"{"ssh":"s","http":"h","registry":"r","builders":[],"pid":7}"#;
        serde_json::from_str(text).ok()
    }

    #[test]
    fn a_server_runs_hangs_was_killed_or_is_not_there() {
        let level = |held, ready, answers| judge_state(&State { held, ready, answers }).level;
        assert_eq!(level(true, ready(), true), Level::Ok);
        assert_eq!(level(true, None, true), Level::Warn);
        assert_eq!(level(true, ready(), false), Level::Fail);
        assert_eq!(level(false, ready(), false), Level::Warn);
        assert_eq!(level(false, None, false), Level::Ok);
    }

    #[tokio::test]
    async fn doors_must_answer_in_their_own_words() {
        assert_eq!(judge_door("ssh", "a", Ok("SSH-2.0-russ".into()), "SSH-2.0-").level, Level::Ok);
        assert_eq!(judge_door("ssh", "a", Ok("HTTP/1.1 400".into()), "SSH-2.0-").level, Level::Fail);
        assert_eq!(judge_door("http", "a", Ok("HTTP/1.1 503".into()), "HTTP/1.").level, Level::Fail);
        assert_eq!(judge_door("http", "a", Err("refused".into()), "HTTP/1.").level, Level::Fail);
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let free = tokio::net::TcpListener::bind(address).await.map(drop).map_err(|e| e.to_string());
        assert_eq!(judge_port("ssh", address, free).level, Level::Fail);
        assert_eq!(judge_port("ssh", address, Ok(())).level, Level::Ok);
    }

    #[test]
    fn what_a_killed_server_left_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".removed-x")).unwrap();
        std::fs::create_dir_all(dir.path().join("a.git")).unwrap();
        std::fs::write(dir.path().join("a.git/packed-refs.lock"), "").unwrap();
        let mut left = half_done(dir.path());
        left.sort();
        assert_eq!(left, [".removed-x", "a.git/packed-refs.lock"]);
        assert_eq!(judge_leftovers(Some("lmn-1"), &left).len(), 2);
        assert!(judge_leftovers(None, &[]).is_empty());
    }
}
