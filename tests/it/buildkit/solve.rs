//! What a solve says on the wire, and a daemon that takes its leave or says too much in the middle of one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use lemnos::buildkit::solve::{PolicyAction, PolicyMatch, PolicyRule, SourcePolicy};
use lemnos::buildkit::{SolveErrorKind, SolveRequest};
use lemnos_proto::{control as wire, pb};
use tonic::Status;

use super::{SOON, dockerfile, log, vertex};
use crate::fake::buildkitd::{Daemon, Script};

/// What arrives at the daemon.
async fn sent(request: SolveRequest) -> wire::SolveRequest {
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let script = Script::default().solve(move |request, _| {
        *noted.lock().unwrap() = Some(request);
        async { Ok(wire::SolveResponse::default()) }
    });
    let daemon = Daemon::new(script).listen();
    daemon.client().await.solve(request, |_| {}).await.unwrap();
    seen.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn a_definition_arrives_byte_by_byte_and_inputs_by_name() {
    let definition = pb::Definition { def: vec![b"\x0a\x00op".to_vec(), vec![]], ..Default::default() };
    let raw = SolveRequest { definition: Some(definition.clone()), ..Default::default() };
    let arrived = sent(raw).await;
    assert_eq!((arrived.definition, arrived.frontend.as_str()), (Some(definition.clone()), ""));
    let inputs = SolveRequest {
        frontend_inputs: BTreeMap::from([("context".into(), definition.clone())]),
        compatibility_version: 3,
        session_exporter: true,
        proxy_network: true,
        policy_session: true,
        reference: Some("mine".into()),
        ..dockerfile(&[])
    };
    let arrived = sent(inputs).await;
    assert_eq!(arrived.frontend_inputs["context"].def, definition.def);
    assert_eq!((arrived.compatibility_version, arrived.r#ref.as_str()), (3, "mine"));
    assert!(arrived.enable_session_exporter && arrived.proxy_network);
    assert_eq!(arrived.source_policy_session, arrived.session);
}

#[tokio::test]
async fn a_conversion_of_sources_arrives() {
    let rule = PolicyRule {
        action: PolicyAction::Convert { identifier: "docker-image://b".into(), attrs: BTreeMap::new() },
        identifier: "docker-image://a".into(),
        matching: PolicyMatch::Exact,
        constraints: Vec::new(),
    };
    let request = SolveRequest { source_policy: SourcePolicy::new(vec![rule]), ..dockerfile(&[]) };
    let policy = sent(request).await.source_policy.unwrap();
    assert_eq!(policy.rules[0].updates.as_ref().unwrap().identifier, "docker-image://b");
}

#[tokio::test]
async fn nothing_to_solve_is_told_before_anything_is_sent() {
    let daemon = Daemon::new(Script::default());
    let listening = daemon.listen();
    let error = listening.client().await.solve(SolveRequest::default(), |_| {}).await.unwrap_err();
    assert!(error.message.contains("nothing to solve"), "{error}");
    assert!(daemon.calls.lock().unwrap().is_empty());
}

/// The daemon closes the connection in good order (GOAWAY) when it is told to end: what runs is finished, and told.
#[tokio::test]
async fn a_daemon_that_takes_its_leave_lets_the_build_end() {
    use tokio::net::UnixListener;
    use tonic::transport::Server;
    let (leave, mut leaving) = tokio::sync::watch::channel(false);
    let leave = Arc::new(leave);
    let told = leave.clone();
    let script = Script::default()
        .solve(move |request, daemon| {
            let told = told.clone();
            async move {
                daemon.peer(&request.session).await;
                told.send_replace(true);
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                Ok(wire::SolveResponse { exporter_response: BTreeMap::from([("a".into(), "b".into())]) })
            }
        })
        .status(|| futures::stream::iter([Ok(vertex("sha256:a", "RUN a", ""))]));
    let daemon = Daemon::new(script);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leaving.sock");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let served =
        Server::builder().add_service(daemon.service()).serve_with_incoming_shutdown(incoming, async move {
            let _ = leaving.wait_for(|leave| *leave).await;
        });
    let server = tokio::spawn(served);
    let endpoint = lemnos::buildkit::Endpoint { address: lemnos::buildkit::Address::Unix(path), tls: None };
    let client = lemnos::buildkit::Client::connect(&endpoint, SOON).await.unwrap();
    let result = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap();
    assert_eq!(result.attrs["a"], "b");
    server.abort();
}

#[tokio::test]
async fn progress_that_is_dropped_ends_a_build_without_a_verdict() {
    let script = Script::default().solve(|_, _| std::future::pending()).status(|| {
        futures::stream::iter([Ok(vertex("sha256:a", "RUN a", "")), Err(Status::internal("stream gone"))])
    });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let error = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.lost), (SolveErrorKind::Infrastructure, true), "{error:?}");
    assert!(error.message.contains("stream gone"), "{error}");
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_build_with_its_size() {
    let script = Script::default().solve(|_, _| std::future::pending()).status(|| {
        // the server's own bound lies at 16 MiB: two of these are one message too large for the client
        let part = || log(vec![b'x'; 9 << 20]).logs;
        let large = wire::StatusResponse { logs: [part(), part()].concat(), ..Default::default() };
        futures::stream::iter([Ok(large)]).chain(futures::stream::pending())
    });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let error = tokio::time::timeout(SOON, client.solve(dockerfile(&[]), |_| {})).await.unwrap().unwrap_err();
    assert_eq!(error.kind, SolveErrorKind::Infrastructure, "{error:?}");
    assert!(error.message.contains("18874"), "{error}");
}
