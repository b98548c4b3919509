//! The BuildKit client against a scripted daemon: what a real one cannot be made to do on demand.

mod announced;
mod auth;
mod broken;
mod connect;
mod content;
mod filesend;
mod flags;
mod gateway;
mod history;
mod join;
mod memory;
mod progress;
mod secrets;
mod served;
mod solve;
mod ssh;
pub mod tls;
mod trees;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake::buildkitd::{Daemon, Script};
use futures::StreamExt;
use lemnos::buildkit::{Exporter, Session, SolveErrorKind, SolveEvent, SolveRequest};
use lemnos_proto::control as wire;
use prost::Message;
use tokio::sync::{Notify, watch};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The longest any of these tests may wait for what should happen at once.
const SOON: Duration = Duration::from_secs(5);

fn dockerfile(attrs: &[(&str, &str)]) -> SolveRequest {
    SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        session: Session { shared_key: "app:main".into(), ..Default::default() },
        ..Default::default()
    }
}

fn vertex(digest: &str, name: &str, error: &str) -> wire::StatusResponse {
    let vertex =
        wire::Vertex { digest: digest.into(), name: name.into(), error: error.into(), ..Default::default() };
    wire::StatusResponse { vertexes: vec![vertex], ..Default::default() }
}

fn log(data: Vec<u8>) -> wire::StatusResponse {
    let log = wire::VertexLog { vertex: "sha256:a".into(), stream: 1, msg: data, ..Default::default() };
    wire::StatusResponse { logs: vec![log], ..Default::default() }
}

/// An error with details, as the daemon writes them.
fn typed(message: &str, details: &[(&str, &str)]) -> Status {
    let full = lemnos_proto::rpc::Status {
        code: 2,
        message: message.into(),
        details: details
            .iter()
            .map(|(name, json)| prost_types::Any {
                type_url: format!("github.com/moby/buildkit/{name}+json"),
                value: json.as_bytes().to_vec(),
            })
            .collect(),
    };
    Status::with_details(Code::Unknown, message, full.encode_to_vec().into())
}

#[tokio::test]
async fn a_build_reaches_the_daemon_whole_and_comes_back_whole() {
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let script = Script::default()
        .solve(move |request, daemon| {
            let noted = noted.clone();
            async move {
                let peer = daemon.peer(&request.session).await;
                let health = HealthClient::new(peer.channel.clone())
                    .check(HealthCheckRequest::default())
                    .await
                    .map(|answer| answer.into_inner().status);
                *noted.lock().unwrap() = Some((request, peer.headers, health));
                let digest = ("containerimage.digest".to_owned(), "sha256:d".to_owned());
                Ok(wire::SolveResponse { exporter_response: BTreeMap::from([digest]) })
            }
        })
        .status(|| futures::stream::iter([Ok(vertex("sha256:a", "RUN a", "")), Ok(log(b"hi\n".to_vec()))]));
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;

    let request = SolveRequest {
        exporters: vec![Exporter {
            kind: "image".into(),
            attrs: BTreeMap::from([("push".into(), "true".into())]),
        }],
        entitlements: vec!["network.host".into()],
        internal: true,
        ..dockerfile(&[("platform", "linux/amd64,linux/arm64")])
    };
    let mut events = Vec::new();
    let result = client.solve(request, |event| events.push(event)).await.unwrap();

    assert_eq!(result.attrs["containerimage.digest"], "sha256:d");
    assert!(
        matches!(&events[..], [SolveEvent::Vertex(v), SolveEvent::Log(l)] if v.name == "RUN a" && &l.data[..] == b"hi\n")
    );
    let (request, headers, health) = seen.lock().unwrap().take().unwrap();
    assert_eq!(request.frontend, "dockerfile.v0");
    assert_eq!(request.frontend_attrs["platform"], "linux/amd64,linux/arm64");
    assert_eq!(request.exporters[0].r#type, "image");
    assert_eq!(request.exporters[0].attrs["push"], "true");
    assert_eq!((request.entitlements, request.internal), (vec!["network.host".to_owned()], true));
    assert_eq!(request.r#ref, result.reference);
    assert_eq!(headers.get("x-docker-expose-session-sharedkey").unwrap(), "app:main");
    let methods: Vec<_> = headers.get_all("x-docker-expose-session-grpc-method").iter().collect();
    assert!(methods.iter().any(|m| *m == "/grpc.health.v1.Health/Check"), "{methods:?}");
    assert!(!methods.iter().any(|m| m.to_str().unwrap().contains("Auth")), "{methods:?}");
    assert_eq!(health.unwrap(), 1, "SERVING");
}

/// Each of the three calls waits for the other two, so that a client that makes one wait for another never ends.
#[tokio::test]
async fn session_solve_and_progress_run_at_the_same_time() {
    let arrived = Arc::new(watch::channel(0_u32).0);
    let (in_solve, in_status) = (arrived.clone(), arrived.clone());
    let meet = |arrived: Arc<watch::Sender<u32>>| async move {
        arrived.send_modify(|n| *n += 1);
        arrived.subscribe().wait_for(|n| *n == 2).await.unwrap();
    };
    let script = Script::default()
        .solve(move |request, daemon| {
            let arrived = in_solve.clone();
            async move {
                daemon.peer(&request.session).await;
                meet(arrived).await;
                Ok(wire::SolveResponse::default())
            }
        })
        .status(move || {
            let arrived = in_status.clone();
            futures::stream::once(async move {
                meet(arrived).await;
                Ok(vertex("sha256:a", "a", ""))
            })
        });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let started = Instant::now();
    let mut told = 0;
    tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| told += 1)).await.unwrap().unwrap();
    assert_eq!(told, 1);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "no idle wait when all has ended: {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn progress_is_told_while_the_build_runs() {
    let told = Arc::new(Notify::new());
    let heard = told.clone();
    let script = Script::default()
        .solve(move |_, _| {
            let heard = heard.clone();
            async move {
                heard.notified().await;
                Ok(wire::SolveResponse::default())
            }
        })
        .status(|| futures::stream::iter([Ok(vertex("sha256:a", "a", ""))]));
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let solved = client.solve(dockerfile(&[]), |_| told.notify_one());
    // less than the idle wait for progress that is still open: this one has ended before the verdict
    tokio::time::timeout(Duration::from_secs(3), solved).await.expect("told in time").unwrap();
}

#[tokio::test]
async fn progress_can_be_taken_in_the_daemons_own_portions() {
    let both = || {
        let mut message = vertex("sha256:a", "a", "");
        message.logs = log(b"x".to_vec()).logs;
        message
    };
    let script = Script::default().status(move || {
        futures::stream::iter([Ok(both()), Ok(wire::StatusResponse::default()), Ok(log(b"y".to_vec()))])
    });
    let daemon = Daemon::new(script).listen();
    let mut portions = Vec::new();
    let client = daemon.client().await;
    client.solve_by_message(dockerfile(&[]), |events| portions.push(events.len())).await.unwrap();
    assert_eq!(portions, [2, 1]);
}

#[tokio::test]
async fn progress_is_read_to_its_end_after_the_verdict() {
    let script = Script::default().status(|| {
        let late = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(log(b"last words".to_vec()))
        });
        futures::stream::iter([Ok(vertex("sha256:a", "a", ""))]).chain(late)
    });
    let daemon = Daemon::new(script).listen();
    let mut events = Vec::new();
    daemon.client().await.solve(dockerfile(&[]), |event| events.push(event)).await.unwrap();
    assert!(
        matches!(events.last(), Some(SolveEvent::Log(log)) if &log.data[..] == b"last words"),
        "{events:?}"
    );
}

#[tokio::test]
async fn progress_that_never_ends_holds_a_finished_build_for_five_idle_seconds() {
    let script = Script::default().status(futures::stream::pending);
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let started = Instant::now();
    let solved = client.solve(dockerfile(&[]), |_| {});
    tokio::time::timeout(Duration::from_secs(9), solved).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn messages_beyond_tonics_own_limit_pass() {
    let script = Script::default().status(|| futures::stream::iter([Ok(log(vec![b'x'; 6 << 20]))]));
    let daemon = Daemon::new(script).listen();
    let mut bytes = 0;
    let count = |event| {
        if let SolveEvent::Log(log) = event {
            bytes += log.data.len();
        }
    };
    daemon.client().await.solve(dockerfile(&[]), count).await.unwrap();
    assert_eq!(bytes, 6 << 20);
}

#[tokio::test]
async fn a_failed_step_is_named_with_its_line_and_exit_code() {
    let script = Script::default()
        .solve(|_, _| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(typed(
                "process \"/bin/sh -c make\" did not complete successfully: exit code: 2",
                &[
                    ("errdefs.Vertex", r#"{"digest":"sha256:b"}"#),
                    ("errdefs.Source", r#"{"info":{"filename":"Dockerfile","data":"RlJPTSBhClJVTiBtYWtlCg=="},"ranges":[{"start":{"line":2},"end":{"line":2}}]}"#),
                    ("gatewayapi.ExitMessage", r#"{"Code":2}"#),
                ],
            ))
        })
        .status(|| {
            futures::stream::iter([
                Ok(vertex("sha256:a", "[1/2] FROM a", "")),
                Ok(vertex("sha256:b", "[2/2] RUN make", "exit code: 2")),
            ])
        });
    let daemon = Daemon::new(script).listen();
    let error = daemon.client().await.solve(dockerfile(&[]), |_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.exit_code, error.temporary), (SolveErrorKind::Build, Some(2), false));
    let vertex = error.vertex.unwrap();
    assert_eq!((vertex.digest.as_str(), vertex.name.as_str()), ("sha256:b", "[2/2] RUN make"));
    let source = error.source.unwrap();
    assert_eq!((source.filename.as_str(), source.lines()), ("Dockerfile", Some((2, 2))));
    assert_eq!(source.text, "FROM a\nRUN make\n");
}

#[tokio::test]
async fn a_daemon_tells_its_version_and_workers() {
    let daemon = Daemon::new(Script::default()).listen();
    let client = daemon.client().await;
    assert_eq!(client.info().await.unwrap().version, "v9.9.9");
    let workers = client.workers().await.unwrap();
    assert_eq!(workers[0].platforms, ["linux/amd64", "linux/arm/v7"]);
    assert_eq!(workers[0].labels["pool"], "a");
}

#[tokio::test]
async fn an_unencrypted_connection_costs_no_question() {
    let daemon = Daemon::new(Script::default());
    let listening = daemon.listen();
    listening.client().await.solve(dockerfile(&[]), |_| {}).await.unwrap();
    let mut calls = daemon.calls.lock().unwrap().clone();
    calls.sort_unstable();
    assert_eq!(calls, ["session", "solve", "status"]);
}
