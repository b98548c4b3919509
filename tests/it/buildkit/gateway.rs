//! A build function against a scripted gateway: what it says to the daemon, and how the build ends.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use lemnos::buildkit::gateway::{Call, GatewayError, GatewayResult, GatewaySolve, References, Warn};
use lemnos::buildkit::solve::Attestation;
use lemnos::buildkit::{
    Address, CacheEntry, Client, Endpoint, Exporter, Session, SolveErrorKind, SolveRequest,
};
use lemnos_proto::{apicaps, control, gateway as wire, pb};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tonic::transport::Server;
use tonic::{Code, Status};

use super::{SOON, typed};
use crate::fake::buildkitd::{Daemon, Script};

type Answer = Arc<dyn Fn(&str, Bytes) -> Result<Vec<u8>, Status> + Send + Sync>;

/// One call as it came: method, build, message.
type Seen = (String, String, Bytes);

/// A daemon with a gateway that answers each method from `answer`. Its solve ends when a result has been returned, with
/// the error that was returned instead where one was.
struct Bridge {
    path: PathBuf,
    _dir: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
    solves: Arc<Mutex<Vec<control::SolveRequest>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bridge {
    async fn client(&self) -> Client {
        let endpoint = Endpoint { address: Address::Unix(self.path.clone()), tls: None };
        Client::connect(&endpoint, SOON).await.unwrap()
    }

    fn methods(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(method, ..)| method.clone()).collect()
    }

    fn message<T: Message + Default>(&self, method: &str) -> T {
        let seen = self.seen.lock().unwrap();
        let (.., bytes) = seen.iter().rev().find(|(m, ..)| m == method).expect("the call was made");
        T::decode(bytes.clone()).unwrap()
    }
}

fn bridge(answer: impl Fn(&str, Bytes) -> Result<Vec<u8>, Status> + Send + Sync + 'static) -> Bridge {
    let (solves, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let returned = Arc::new(watch::channel(None::<wire::ReturnRequest>).0);
    let (noted, end) = (solves.clone(), returned.clone());
    let daemon = Daemon::new(
        Script::default()
            .solve(move |request, _| {
                noted.lock().unwrap().push(request);
                let mut end = end.subscribe();
                async move {
                    let end = end.wait_for(Option::is_some).await.unwrap().clone().unwrap();
                    match end.error {
                        None => Ok(control::SolveResponse::default()),
                        Some(error) => Err(Status::new(Code::from(error.code), "the daemon's own words")),
                    }
                }
            })
            .status(futures::stream::pending),
    );
    let answer: Answer = Arc::new(answer);
    serve(daemon, answer, seen, solves, returned)
}

fn serve(
    daemon: Daemon,
    answer: Answer,
    seen: Arc<Mutex<Vec<Seen>>>,
    solves: Arc<Mutex<Vec<control::SolveRequest>>>,
    returned: Arc<watch::Sender<Option<wire::ReturnRequest>>>,
) -> Bridge {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.sock");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let control = daemon.service();
    let noted = seen.clone();
    let service = tower::service_fn(move |request: hyper::Request<tonic::body::Body>| {
        let (mut control, answer, seen, returned) =
            (control.clone(), answer.clone(), noted.clone(), returned.clone());
        async move {
            let Some(method) = request.uri().path().strip_prefix("/moby.buildkit.v1.frontend.LLBBridge/")
            else {
                return tower::Service::call(&mut control, request).await;
            };
            let method = method.to_owned();
            let build = request.headers().get("buildkit-controlapi-buildid").unwrap();
            let build = build.to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let message = body.slice(5..);
            seen.lock().unwrap().push((method.clone(), build, message.clone()));
            let answered = answer(&method, message.clone());
            if method == "Return" && answered.is_ok() {
                returned.send_replace(Some(wire::ReturnRequest::decode(message).unwrap()));
            }
            Ok(match answered {
                Err(status) => status.into_http(),
                Ok(message) => {
                    let mut frame = BytesMut::new();
                    frame.put_u8(0);
                    frame.put_u32(u32::try_from(message.len()).unwrap());
                    frame.put_slice(&message);
                    let trailers = hyper::HeaderMap::from_iter([(
                        hyper::header::HeaderName::from_static("grpc-status"),
                        hyper::header::HeaderValue::from_static("0"),
                    )]);
                    let body = Full::new(frame.freeze()).with_trailers(async { Some(Ok(trailers)) });
                    let answer = hyper::Response::builder().header("content-type", "application/grpc");
                    answer.body(tonic::body::Body::new(body)).unwrap()
                }
            })
        }
    });
    let server = tokio::spawn(async move {
        Server::builder().serve_with_incoming(service, incoming).await.unwrap();
    });
    Bridge { path, _dir: dir, seen, solves, server }
}

fn caps(ids: &[&str]) -> Vec<apicaps::ApiCap> {
    ids.iter().map(|id| apicaps::ApiCap { id: (*id).into(), enabled: true, ..Default::default() }).collect()
}

/// Can warn, and nothing else that has a name.
fn pong() -> Vec<u8> {
    let mut frontend_api_caps = caps(&["gateway.warnings"]);
    frontend_api_caps.push(apicaps::ApiCap {
        id: "readdir".into(),
        disabled_reason_msg: "switched off".into(),
        ..Default::default()
    });
    wire::PongResponse { frontend_api_caps, llb_caps: caps(&["known"]), ..Default::default() }.encode_to_vec()
}

fn plain(method: &str) -> Result<Vec<u8>, Status> {
    match method {
        "Ping" => Ok(pong()),
        "Solve" => {
            let reference = wire::Ref { id: "r1".into(), def: None };
            let result = wire::Result {
                result: Some(wire::result::Result::Ref(reference)),
                metadata: BTreeMap::from([("result.json".into(), b"{\"warnings\":null}".to_vec())]),
                ..Default::default()
            };
            Ok(wire::SolveResponse { result: Some(result) }.encode_to_vec())
        }
        _ => Ok(Vec::new()),
    }
}

fn request() -> SolveRequest {
    let provenance = Attestation { kind: "provenance".into(), ..Default::default() }.attr().unwrap();
    SolveRequest {
        frontend_attrs: BTreeMap::from([provenance]),
        exporters: vec![Exporter { kind: "image".into(), ..Default::default() }],
        cache_imports: vec![CacheEntry::registry("r.example/c")],
        session: Session { shared_key: "app:main".into(), ..Default::default() },
        reference: Some("build1".into()),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_a_function_returns_is_the_builds_result() {
    let bridge = bridge(|method, _| plain(method));
    let client = bridge.client().await;
    let function = |gateway: lemnos::buildkit::gateway::Gateway| async move {
        gateway.warn(Warn { short: "w".into(), ..Default::default() }).await?;
        let solve = GatewaySolve { frontend: "dockerfile.v0".into(), ..Default::default() };
        let mut result = gateway.solve(solve).await?;
        assert!(result.sole().is_ok());
        result.metadata.insert("mine".into(), b"1".to_vec());
        Ok(result)
    };
    let result = client.build(request(), function, |_| {}).await.unwrap();
    assert_eq!(result.reference, "build1");
    assert_eq!(bridge.methods(), ["Ping", "Warn", "Solve", "Return"]);
    assert!(
        bridge.seen.lock().unwrap().iter().all(|(_, build, _)| build == "build1"),
        "each call names the build"
    );
    let solve: wire::SolveRequest = bridge.message("Solve");
    assert!(solve.allow_result_return && solve.allow_result_array_ref);
    assert!(solve.frontend_opt["cache-imports"].contains("r.example/c"), "{:?}", solve.frontend_opt);
    let returned = bridge.message::<wire::ReturnRequest>("Return").result.unwrap();
    assert_eq!(returned.metadata["mine"], b"1");
    assert!(matches!(returned.result, Some(wire::result::Result::Ref(r)) if r.id == "r1"));
    let begun = bridge.solves.lock().unwrap()[0].clone();
    assert_eq!((begun.frontend.as_str(), begun.exporters[0].r#type.as_str()), ("", "image"));
    assert_eq!(begun.frontend_attrs["attest:provenance"], "type=provenance");
}

#[tokio::test]
async fn a_functions_error_is_the_builds_and_is_told_with_its_details() {
    let failing = |method: &str| match method {
        "Solve" => Err(typed("make: exit 2", &[("gatewayapi.ExitMessage", r#"{"Code":2}"#)])),
        other => plain(other),
    };
    let bridge = bridge(move |method, _| failing(method));
    let function = |gateway: lemnos::buildkit::gateway::Gateway| async move {
        gateway.solve(GatewaySolve::default()).await
    };
    let error = bridge.client().await.build(request(), function, |_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.exit_code), (SolveErrorKind::Build, Some(2)), "{error:?}");
    let told = bridge.message::<wire::ReturnRequest>("Return").error.unwrap();
    assert_eq!((told.message.as_str(), told.details.len()), ("make: exit 2", 1));
}

#[tokio::test]
async fn what_the_daemon_cannot_do_is_not_asked_of_it() {
    let bridge = bridge(|method, _| plain(method));
    let function = |gateway: lemnos::buildkit::gateway::Gateway| async move {
        let reference = gateway.solve(GatewaySolve::default()).await?;
        let reference = reference.sole()?;
        let error = reference.read_dir("/", None).await.unwrap_err();
        assert!(error.to_string().contains("readdir: switched off"), "{error}");
        assert!(matches!(reference.stat_file("/").await, Err(GatewayError::Unsupported { .. })));
        assert!(gateway.container(Default::default()).await.is_err());
        let metadata = pb::OpMetadata { caps: BTreeMap::from([("new".into(), true)]), ..Default::default() };
        let definition = pb::Definition {
            metadata: BTreeMap::from([("sha256:0".into(), metadata)]),
            ..Default::default()
        };
        let solve = GatewaySolve { definition: Some(definition), ..Default::default() };
        gateway.solve(solve).await
    };
    let error = bridge.client().await.build(request(), function, |_| {}).await.unwrap_err();
    assert!(error.message.contains("lacks new"), "{error}");
    assert_eq!(bridge.methods(), ["Ping", "Solve", "Return"]);
}

#[tokio::test]
async fn a_daemon_that_fails_ends_the_function() {
    let script = Script::default().solve(|_, _| async { Err(Status::unknown("no such exporter")) });
    let bridge = serve(
        Daemon::new(script),
        Arc::new(|method, _| plain(method)),
        Arc::default(),
        Arc::default(),
        Arc::new(watch::channel(None).0),
    );
    let client = bridge.client().await;
    let build = client.build(request(), |_| pending(), |_| {});
    let error = tokio::time::timeout(SOON, build).await.unwrap().unwrap_err();
    assert_eq!(error.message, "no such exporter");
}

#[tokio::test]
async fn a_result_that_is_not_taken_is_an_error() {
    let bridge = bridge(|method, _| match method {
        "Return" => Err(Status::invalid_argument("no such reference")),
        other => plain(other),
    });
    let client = bridge.client().await;
    let function = |_| async { Ok(GatewayResult { references: References::None, ..Default::default() }) };
    let error = client.build(request(), function, |_| {}).await.unwrap_err();
    assert_eq!(error.message, "no such reference");
}

#[tokio::test]
async fn dropping_a_function_cancels_the_build_within_a_second() {
    let (gone, mut ended) = watch::channel(false);
    let gone = Arc::new(gone);
    let script = Script::default()
        .solve(move |_, _| {
            let gone = gone.clone();
            async move {
                struct Tell(Arc<watch::Sender<bool>>);
                impl Drop for Tell {
                    fn drop(&mut self) {
                        self.0.send_replace(true);
                    }
                }
                let _tell = Tell(gone);
                pending().await
            }
        })
        .status(futures::stream::pending);
    let bridge = serve(
        Daemon::new(script),
        Arc::new(|method, _| plain(method)),
        Arc::default(),
        Arc::default(),
        Arc::new(watch::channel(None).0),
    );
    let (client, began) = (bridge.client().await, Arc::new(Notify::new()));
    let begin = began.clone();
    let function = |_| async move {
        begin.notify_one();
        pending().await
    };
    tokio::select! {
        result = client.build(request(), function, |_| {}) => panic!("ended: {result:?}"),
        () = began.notified() => {}
    }
    let told = tokio::time::timeout(Duration::from_secs(1), ended.wait_for(|gone| *gone));
    told.await.expect("the daemon learns of it within a second").unwrap();
}

#[tokio::test]
async fn a_call_asks_the_frontend_and_builds_nothing() {
    let bridge = bridge(|method, _| plain(method));
    let asked = SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_attrs: BTreeMap::from([("frontend.caps".into(), "a".into())]),
        ..request()
    };
    let answer = bridge.client().await.call(asked, &Call::Check, |_| {}).await.unwrap();
    assert!(answer.lint().unwrap().warnings.is_empty());
    let solve: wire::SolveRequest = bridge.message("Solve");
    assert_eq!(solve.frontend_opt["requestid"], "frontend.lint");
    assert_eq!(solve.frontend_opt["frontend.caps"], "a,moby.buildkit.frontend.subrequests+forward");
    let begun = bridge.solves.lock().unwrap()[0].clone();
    assert!(begun.internal && begun.exporters.is_empty() && begun.frontend.is_empty());
    let returned = bridge.message::<wire::ReturnRequest>("Return").result.unwrap();
    assert!(
        matches!(returned.result, Some(wire::result::Result::Ref(r)) if r.id.is_empty()),
        "nothing is exported"
    );
}

#[tokio::test]
async fn a_frontend_in_the_request_of_a_function_is_refused() {
    let bridge = bridge(|method, _| plain(method));
    let request = SolveRequest { frontend: "dockerfile.v0".into(), ..request() };
    let error = bridge.client().await.build(request, |_| pending(), |_| {}).await.unwrap_err();
    assert!(error.message.contains("in its own solves"), "{error}");
    assert!(bridge.methods().is_empty());
}
