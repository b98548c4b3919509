//! Ways to a daemon: through commands, through dockerd, and over a connection that all questions share.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lemnos::buildkit::{Address, Client, Endpoint, Error, Programs, Queries, SolveEvent};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{SOON, dockerfile, vertex};
use crate::fake::buildkitd::{Daemon, Script};

/// A directory with one program in it.
fn program(name: &str, script: &str) -> (tempfile::TempDir, Programs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(
        &path,
        format!("#!/bin/bash\necho $$ >\"$0.pid\"\nprintf '%s\\n' \"$@\" >\"$0.args\"\n{script}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    (dir, Programs { path: Some(path.into()) })
}

/// A daemon on TCP, and a script that bridges its standard input and output to it.
async fn bridged() -> (Daemon, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let daemon = Daemon::new(Script::default());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(daemon.service()).serve_with_incoming(incoming));
    (daemon, format!("exec 3<>/dev/tcp/127.0.0.1/{port}\ncat <&3 &\ncat >&3"))
}

async fn through(address: &str, programs: &Programs) -> Result<Client, Error> {
    let endpoint = Endpoint { address: address.parse().unwrap(), tls: None };
    Client::connect_with(&endpoint, SOON, programs).await
}

/// Processes of the group that the program was started in.
fn group(dir: &Path, name: &str) -> Vec<u32> {
    let leader = std::fs::read_to_string(dir.join(format!("{name}.pid"))).unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // name), state, parent, group
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.next() != Some("Z") && fields.nth(1) == Some(leader.trim())
    })
    .collect()
}

async fn until_gone(dir: &Path, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !group(dir, name).is_empty() {
        assert!(Instant::now() < deadline, "{:?} are left of {name}", group(dir, name));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_command_gets_its_arguments_and_carries_a_build_and_ends_with_the_connection() {
    for (address, name, arguments) in [
        ("docker-container://b1?context=far", "docker", "--context=far exec -i b1 buildctl dial-stdio"),
        ("podman-container://b1", "podman", "exec -i b1 buildctl dial-stdio"),
        (
            "kube-pod://b-0?namespace=ns&container=c",
            "kubectl",
            "--context= --namespace=ns exec --container=c -i b-0 -- buildctl dial-stdio",
        ),
        ("ssh://me@far:22", "ssh", "-l me -p 22 -- far buildctl dial-stdio"),
    ] {
        let (_daemon, bridge) = bridged().await;
        let (dir, programs) = program(name, &bridge);
        let client = through(address, &programs).await.unwrap();
        client.solve(dockerfile(&[]), |_| {}).await.unwrap();
        let given = std::fs::read_to_string(dir.path().join(format!("{name}.args"))).unwrap();
        assert_eq!(given.lines().collect::<Vec<_>>().join(" "), arguments);
        assert!(!group(dir.path(), name).is_empty());
        drop(client);
        until_gone(dir.path(), name).await;
    }
}

#[tokio::test]
async fn what_a_failing_command_says_is_in_the_error() {
    let (_dir, programs) = program("docker", "echo 'No such container: b1' >&2; exit 1");
    let error = through("docker-container://b1", &programs).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Connect { .. }) && error.is_temporary(), "{error:?}");
    let command = "`docker exec -i b1 buildctl dial-stdio` ended (exit status: 1): No such container: b1";
    assert!(text.contains(command), "{text}");

    let absent = Programs { path: Some("/nowhere".into()) };
    let text = through("podman-container://b1", &absent).await.unwrap_err().to_string();
    assert!(text.contains("`podman`: No such file"), "{text}");
}

#[tokio::test]
async fn a_command_that_dies_during_a_build_is_named_by_what_follows() {
    let (_daemon, bridge) = bridged().await;
    let (dir, programs) =
        program("ssh", &bridge.replace("cat >&3", "cat >&3; echo 'Connection reset' >&2; exit 255"));
    let client = through("ssh://far", &programs).await.unwrap();
    let leader = std::fs::read_to_string(dir.path().join("ssh.pid")).unwrap();
    for pid in group(dir.path(), "ssh").into_iter().filter(|pid| pid.to_string() != leader.trim()) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let error = client.info().await.unwrap_err();
    assert!(matches!(error, Error::Gone { .. }) && error.is_temporary(), "{error:?}");
    assert!(error.to_string().contains("Connection reset"), "{error}");
}

#[tokio::test]
async fn a_command_that_will_not_end_is_killed() {
    let (_daemon, bridge) = bridged().await;
    let (dir, programs) = program("docker", &format!("trap '' TERM\n{bridge}\nwhile :; do sleep 1; done"));
    drop(through("docker-container://b1", &programs).await.unwrap());
    until_gone(dir.path(), "docker").await;
}

/// Whom dockerd's `/session` connected, and with which headers.
type Sessions = Arc<Mutex<Vec<(hyper::HeaderMap, i32)>>>;

/// Docker's socket with a BuildKit behind `/grpc`, which checks the health of whatever comes by `/session`.
async fn dockerd(daemon: Daemon) -> (tempfile::TempDir, PathBuf, Sessions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let sessions = Sessions::default();
    let seen = sessions.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (daemon, seen) = (daemon.clone(), seen.clone());
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (daemon, seen) = (daemon.clone(), seen.clone());
                async move { Ok::<_, std::convert::Infallible>(upgraded(request, daemon, seen)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    (dir, path, sessions)
}

fn upgraded(request: Request<Incoming>, daemon: Daemon, seen: Sessions) -> Response<Empty<Bytes>> {
    let mut answer = Response::new(Empty::new());
    let path = request.uri().path().to_owned();
    let wants = request.headers().get("upgrade").is_some_and(|protocol| protocol == "h2c");
    if request.method() != "POST" || !wants || !["/grpc", "/session"].contains(&path.as_str()) {
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return answer;
    }
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "h2c")] {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    let headers = request.headers().clone();
    tokio::spawn(async move {
        let stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        if path == "/grpc" {
            let incoming = futures::stream::iter([Ok::<_, std::io::Error>(Raw(stream))]);
            let _ = Server::builder().add_service(daemon.service()).serve_with_incoming(incoming).await;
            return;
        }
        let mut once = Some(TokioIo::new(stream));
        let channel = tonic::transport::Endpoint::from_static("http://session")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = once.take();
                async move { stream.ok_or_else(|| std::io::Error::other("once")) }
            }))
            .await
            .unwrap();
        let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        seen.lock().unwrap().push((headers, health.unwrap().into_inner().status));
    });
    answer
}

/// An upgraded connection as tonic takes connections.
struct Raw(TokioIo<hyper::upgrade::Upgraded>);

impl tonic::transport::server::Connected for Raw {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Raw {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Raw {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_build_in_dockerd_has_its_session_on_a_connection_of_its_own() {
    let sessions: Arc<std::sync::OnceLock<Sessions>> = Arc::default();
    let wait = sessions.clone();
    let script = Script::default()
        .solve(move |_, _| {
            let wait = wait.clone();
            async move {
                let sessions = wait.get().unwrap();
                let deadline = Instant::now() + SOON;
                while sessions.lock().unwrap().is_empty() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(Default::default())
            }
        })
        .status(|| futures::stream::iter([Ok(vertex("sha256:a", "RUN a", ""))]));
    let daemon = Daemon::new(script);
    let (_dir, path, seen) = dockerd(daemon.clone()).await;
    sessions.set(seen.clone()).unwrap();
    let client = through(&format!("docker://{}", path.display()), &Programs::default()).await.unwrap();
    let mut events = Vec::new();
    client.solve(dockerfile(&[]), |event| events.push(event)).await.unwrap();
    assert!(matches!(&events[..], [SolveEvent::Vertex(v)] if v.name == "RUN a"), "{events:?}");
    let (headers, health) = seen.lock().unwrap().pop().expect("a session came");
    assert_eq!(health, 1, "SERVING");
    assert_eq!(headers.get("x-docker-expose-session-sharedkey").unwrap(), "app:main");
    assert!(headers.get("x-docker-expose-session-uuid").is_some());
    let methods = headers.get_all("x-docker-expose-session-grpc-method").iter();
    assert!(methods.into_iter().any(|method| method == "/grpc.health.v1.Health/Check"), "{headers:?}");
    // the daemon itself was asked for no session
    assert!(!daemon.calls.lock().unwrap().contains(&"session"));
}

#[tokio::test]
async fn what_docker_refuses_is_said() {
    let daemon = Daemon::new(Script::default()).listen();
    let text =
        through(&format!("docker://{}", daemon.path.display()), &Programs::default()).await.unwrap_err();
    assert!(matches!(text, Error::Connect { .. }), "{text:?}");
}

/// A socket whose first connection is closed with a GOAWAY, as a daemon does that was asked for signs of life too often;
/// the others lead to `path`. Returns how many there were.
fn closing_once(dir: &Path, path: PathBuf) -> (PathBuf, Arc<Mutex<u32>>) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let socket = dir.join("once.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *counted.lock().unwrap() += 1;
            if *counted.lock().unwrap() == 1 {
                let why = b"too_many_pings";
                let mut goaway = SETTINGS.to_vec();
                goaway.extend([0, 0, 8 + u8::try_from(why.len()).unwrap(), 7, 0, 0, 0, 0, 0]);
                goaway.extend([0, 0, 0, 0, 0, 0, 0, 11]);
                goaway.extend(why);
                stream.write_all(&goaway).await.unwrap();
                continue;
            }
            let mut daemon = UnixStream::connect(&path).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut daemon).await });
        }
    });
    (socket, count)
}

#[tokio::test]
async fn questions_share_a_connection_and_get_a_new_one_when_it_broke() {
    let daemon = Daemon::new(Script::default()).listen();
    let dir = tempfile::tempdir().unwrap();
    let (socket, count) = closing_once(dir.path(), daemon.path.clone());
    let endpoint = Endpoint { address: Address::Unix(socket), tls: None };
    let alone = Client::connect(&endpoint, SOON).await.unwrap();
    let error = alone.info().await.unwrap_err();
    assert!(matches!(error, Error::Gone { .. }) && error.is_temporary(), "{error:?}");
    assert!(!alone.is_open());

    *count.lock().unwrap() = 0;
    let queries = Queries::new(endpoint, SOON, Programs::default());
    for _ in 0..3 {
        let answers = futures::join!(
            queries.ask(|client| async move { client.info().await }),
            queries.ask(|client| async move { client.workers().await }),
        );
        assert_eq!((answers.0.unwrap().version.as_str(), answers.1.unwrap().len()), ("v9.9.9", 1));
    }
    assert_eq!(*count.lock().unwrap(), 2);
}
