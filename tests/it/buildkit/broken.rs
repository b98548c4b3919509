//! Daemons, networks and sessions that break: each is found out in time, typed, and leaves nothing running.

use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use lemnos::buildkit::{Address, Client, Endpoint, Error, SolveError, SolveErrorKind};
use lemnos_proto::control as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tonic::transport::Server;
use tonic::{Code, Status};

use super::{SOON, dockerfile, typed, vertex};
use crate::fake::buildkitd::{Daemon, Script};

/// The bound for noticing what nothing announces.
const NOTICED: Duration = Duration::from_secs(15);

/// A solve that says when it began, and when it is no longer wanted.
struct Endless {
    began: Arc<Notify>,
    gone: watch::Receiver<bool>,
    script: Script,
}

fn endless() -> Endless {
    let began = Arc::new(Notify::new());
    let (ended, gone) = watch::channel(false);
    let (begin, ended) = (began.clone(), Arc::new(ended));
    let script = Script::default()
        .solve(move |request, daemon| {
            let (begin, ended) = (begin.clone(), ended.clone());
            async move {
                struct Tell(Arc<watch::Sender<bool>>);
                impl Drop for Tell {
                    fn drop(&mut self) {
                        self.0.send_replace(true);
                    }
                }
                let _tell = Tell(ended);
                daemon.peer(&request.session).await;
                begin.notify_one();
                pending().await
            }
        })
        .status(|| {
            let first = futures::stream::iter([Ok(vertex("sha256:a", "RUN sleep", ""))]);
            first.chain(futures::stream::pending())
        });
    Endless { began, gone, script }
}

/// Bytes in both directions between a client and a daemon, until told otherwise.
struct Proxy {
    path: PathBuf,
    _dir: tempfile::TempDir,
    mode: watch::Sender<Mode>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Both sides stay connected and hear nothing more.
    BlackHole,
    /// Both sides are closed.
    Cut,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    fn new(daemon: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let daemon = daemon.to_owned();
        let task = tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let daemon = UnixStream::connect(daemon).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_daemon, to_daemon) = daemon.into_split();
            tokio::join!(pass(from_client, to_daemon, modes.clone()), pass(from_daemon, to_client, modes));
        });
        Self { path, _dir: dir, mode, task }
    }

    async fn client(&self) -> Client {
        let endpoint = Endpoint { address: Address::Unix(self.path.clone()), tls: None };
        Client::connect(&endpoint, SOON).await.unwrap()
    }
}

async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut => return,
            Mode::BlackHole => {
                if modes.changed().await.is_err() {
                    return;
                }
            }
            Mode::Pass => tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(1..) if to.write_all(&buffer[..read.unwrap()]).await.is_ok() => {}
                    _ => return,
                },
                changed = modes.changed() => if changed.is_err() { return },
            },
        }
    }
}

fn assert_infrastructure(error: &SolveError) {
    assert_eq!((error.kind, error.temporary), (SolveErrorKind::Infrastructure, true), "{error:?}");
}

#[tokio::test]
async fn a_daemon_that_dies_ends_the_build_at_once() {
    let endless = endless();
    let daemon = Daemon::new(endless.script).listen();
    let proxy = Proxy::new(&daemon.path);
    let client = proxy.client().await;
    let build = client.solve(dockerfile(&[]), |_| {});
    let (result, ()) = tokio::join!(tokio::time::timeout(SOON, build), async {
        endless.began.notified().await;
        proxy.mode.send_replace(Mode::Cut);
    });
    let error = result.unwrap().unwrap_err();
    assert_infrastructure(&error);
    assert!(error.message.starts_with("the connection to buildkitd broke"), "{error}");
}

/// E5: 15 s.
#[tokio::test]
async fn a_black_hole_is_noticed() {
    let endless = endless();
    let daemon = Daemon::new(endless.script).listen();
    let proxy = Proxy::new(&daemon.path);
    let client = proxy.client().await;
    let build = client.solve(dockerfile(&[]), |_| {});
    let (result, began) = tokio::join!(tokio::time::timeout(NOTICED + SOON, build), async {
        endless.began.notified().await;
        proxy.mode.send_replace(Mode::BlackHole);
        Instant::now()
    });
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    let error = result.unwrap().unwrap_err();
    assert_infrastructure(&error);
    assert!(error.message.contains("silent"), "{error}");
}

/// A step may work for minutes without a word, and a daemon without health checks says nothing either.
#[tokio::test]
async fn a_silent_daemon_that_answers_when_asked_is_left_in_peace() {
    let script = Script::default()
        .solve(|_, _| async {
            tokio::time::sleep(Duration::from_secs(16)).await;
            Ok(wire::SolveResponse::default())
        })
        .status(|| {
            futures::stream::once(async {
                tokio::time::sleep(Duration::from_secs(16)).await;
                Ok(vertex("sha256:a", "a", ""))
            })
        });
    let daemon = Daemon::new(script);
    let listening = daemon.listen();
    let client = listening.client().await;
    client.solve(dockerfile(&[]), |_| {}).await.unwrap();
    let asked = daemon.calls.lock().unwrap().iter().filter(|call| **call == "info").count();
    assert_eq!(asked, 2, "once each time 6 s were silent");
}

#[tokio::test]
async fn a_dropped_session_ends_the_build() {
    let script = Script::default().solve(|_, _| pending()).status(futures::stream::pending).session(|_| {
        let silent = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(wire::BytesMessage::default())
        });
        Ok(silent.boxed())
    });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let error = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap_err();
    assert_infrastructure(&error);
    assert!(error.message.contains("session"), "{error}");
}

#[tokio::test]
async fn a_refused_session_ends_the_build_with_the_daemons_words() {
    let script = Script::default()
        .solve(|_, _| pending())
        .status(futures::stream::pending)
        .session(|_| Err(Status::failed_precondition("session already exists")));
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let error = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap_err();
    assert_infrastructure(&error);
    assert!(error.message.contains("session already exists"), "{error}");
}

#[tokio::test]
async fn the_daemons_verdict_wins_over_a_session_that_ended_first() {
    let script = Script::default()
        .solve(|_, _| async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Err(typed("no such stage", &[("errdefs.Vertex", r#"{"digest":"sha256:a"}"#)]))
        })
        .session(|_| Ok(futures::stream::empty().boxed()));
    let daemon = Daemon::new(script).listen();
    let error = daemon.client().await.solve(dockerfile(&[]), |_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (SolveErrorKind::Build, "no such stage"));
}

#[tokio::test]
async fn a_session_that_speaks_no_http_ends_the_build() {
    let script =
        Script::default().solve(|_, _| pending()).status(futures::stream::pending).session(|incoming| {
            let garbage = wire::BytesMessage { data: b"GET / HTTP/1.0\r\n\r\n\0\xff".repeat(40).into() };
            // the client's bytes are drained, so that the end can come from its side only
            let drained = incoming.filter_map(|_| async { None });
            Ok(futures::stream::iter([Ok(garbage)]).chain(drained).boxed())
        });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let error =
        tokio::time::timeout(NOTICED, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap_err();
    assert_infrastructure(&error);
}

/// Solves against a daemon that answers `Status` with `body` instead of what it has to say.
async fn with_raw_status(body: &'static [u8]) -> SolveError {
    let daemon = Daemon::new(Script::default().solve(|_, _| pending()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.sock");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let control = daemon.service();
    let service = tower::service_fn(move |request: hyper::Request<tonic::body::Body>| {
        let mut control = control.clone();
        async move {
            if request.uri().path().ends_with("/Status") {
                let body = http_body_util::Full::new(bytes::Bytes::from_static(body));
                let answer = hyper::Response::builder().header("content-type", "application/grpc");
                return Ok(answer.body(tonic::body::Body::new(body)).unwrap());
            }
            tower::Service::call(&mut control, request).await
        }
    });
    let server = tokio::spawn(async move { Server::builder().serve_with_incoming(service, incoming).await });
    let endpoint = Endpoint { address: Address::Unix(path), tls: None };
    let client = Client::connect(&endpoint, SOON).await.unwrap();
    let result = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await;
    server.abort();
    result.unwrap().unwrap_err()
}

#[tokio::test]
async fn malformed_progress_ends_the_build() {
    // field 1, a message of 3 bytes, that holds no valid field; a length beyond the limit; a frame cut short
    for body in [&b"\0\0\0\0\x05\x0a\x03\xff\xff\xff"[..], b"\0\x7f\xff\xff\xff", b"\0\0\0\0\x09\x0a"] {
        let error = with_raw_status(body).await;
        assert_infrastructure(&error);
        assert!(error.message.contains("progress"), "{error}");
    }
}

/// A runtime that a client has to itself, so that whatever it leaves behind can be counted.
fn alone<F: Future>(work: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let output = runtime.block_on(work());
    let deadline = Instant::now() + SOON;
    while runtime.metrics().num_alive_tasks() > 0 {
        assert!(Instant::now() < deadline, "{} tasks are left", runtime.metrics().num_alive_tasks());
        std::thread::sleep(Duration::from_millis(5));
    }
    output
}

async fn cancel_when_begun(client: &Client, began: &Notify) {
    tokio::select! {
        result = client.solve(dockerfile(&[]), |_| {}) => panic!("ended: {result:?}"),
        () = began.notified() => {}
    }
}

#[tokio::test]
async fn dropping_a_build_cancels_it_and_leaves_the_connection_usable() {
    let mut endless = endless();
    let daemon = Daemon::new(endless.script).listen();
    let client = daemon.client().await;
    cancel_when_begun(&client, &endless.began).await;
    let told = tokio::time::timeout(Duration::from_secs(1), endless.gone.wait_for(|gone| *gone));
    told.await.expect("the daemon learns of it within a second").unwrap();
    assert_eq!(client.info().await.unwrap().version, "v9.9.9");
}

#[tokio::test]
async fn nothing_is_left_running_after_a_build_or_a_dropped_one() {
    let endless = endless();
    let (finished, dropped) = (Daemon::new(Script::default()).listen(), Daemon::new(endless.script).listen());
    let (one, other, began) = (finished.endpoint(), dropped.endpoint(), endless.began.clone());
    tokio::task::spawn_blocking(move || {
        alone(|| async {
            let client = Client::connect(&one, SOON).await.unwrap();
            client.solve(dockerfile(&[]), |_| {}).await.unwrap();
        });
        alone(|| async {
            let client = Client::connect(&other, SOON).await.unwrap();
            cancel_when_begun(&client, &began).await;
        });
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn nothing_is_left_running_when_the_daemon_reads_no_more() {
    let endless = endless();
    let daemon = Daemon::new(endless.script).listen();
    let proxy = Proxy::new(&daemon.path);
    let endpoint = Endpoint { address: Address::Unix(proxy.path.clone()), tls: None };
    let began = endless.began.clone();
    tokio::task::spawn_blocking(move || {
        alone(|| async {
            let client = Client::connect(&endpoint, SOON).await.unwrap();
            cancel_when_begun(&client, &began).await;
            proxy.mode.send_replace(Mode::BlackHole);
            drop(client);
        });
        drop(proxy);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_cannot_be_reached_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint { address: Address::Unix(dir.path().join("none.sock")), tls: None };
    let error = Client::connect(&endpoint, SOON).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_temporary(), "{error:?}");

    let closed = crate::fake::port::own();
    let endpoint = Endpoint { address: format!("tcp://{closed}").parse().unwrap(), tls: None };
    let error = Client::connect(&endpoint, SOON).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_buildkitd_says_so() {
    // a web server of the old kind
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
    });
    let endpoint = Endpoint { address: format!("tcp://{address}").parse().unwrap(), tls: None };
    if let Ok(client) = Client::connect(&endpoint, SOON).await {
        let error = client.info().await.unwrap_err();
        assert!(matches!(error, Error::Gone { .. }), "{error:?}");
    }
    server.await.unwrap();

    // a gRPC server with other services
    let (_, health) = tonic_health::server::health_reporter();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sock");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let server = tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    let client = Client::connect(&Endpoint { address: Address::Unix(path), tls: None }, SOON).await.unwrap();
    let error = client.info().await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code::Unimplemented, .. }), "{error:?}");
    let error = client.solve(dockerfile(&[]), |_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.temporary), (SolveErrorKind::Infrastructure, false), "{error:?}");
    server.abort();
}
