//! A scripted buildkitd: its control service, and the daemon's side of a session.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use hyper_util::rt::TokioIo;
use lemnos::buildkit::{Address, Client, Endpoint};
use lemnos_proto::control::control_server::{Control, ControlServer};
use lemnos_proto::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use lemnos_proto::worker::{BuildkitVersion, GcPolicy, WorkerRecord};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Verdict = Result<SolveResponse, Status>;
type Bytestream = BoxStream<'static, Result<BytesMessage, Status>>;

type Hijack = dyn Fn(Streaming<BytesMessage>) -> Result<Bytestream, Status> + Send + Sync;

type Prune = dyn Fn(PruneRequest) -> Result<Vec<i64>, Status> + Send + Sync;

/// What the daemon does with each call.
#[derive(Clone)]
pub struct Script {
    pub solve: Arc<dyn Fn(SolveRequest, Daemon) -> BoxFuture<Verdict> + Send + Sync>,
    pub status:
        Arc<dyn Fn(StatusRequest) -> BoxStream<'static, Result<StatusResponse, Status>> + Send + Sync>,
    /// Instead of serving the session.
    pub session: Option<Arc<Hijack>>,
    /// What its worker can run: architecture and variant.
    pub platforms: Vec<(&'static str, &'static str)>,
    /// What its cache holds, and what every prune takes away.
    pub usage: Vec<UsageRecord>,
    pub history: Arc<dyn Fn() -> BoxStream<'static, Result<BuildHistoryEvent, Status>> + Send + Sync>,
    /// Bytes that its collection always leaves, and the sizes of what it drops when it is told to; none: all of `usage`.
    pub reserved: i64,
    pub prune: Option<Arc<Prune>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            solve: Arc::new(|_, _| async { Ok(SolveResponse::default()) }.boxed()),
            status: Arc::new(|_| futures::stream::empty().boxed()),
            session: None,
            platforms: vec![("amd64", ""), ("arm", "v7")],
            usage: Vec::new(),
            history: Arc::new(|| futures::stream::empty().boxed()),
            reserved: 0,
            prune: None,
        }
    }
}

impl Script {
    pub fn solve<F, R>(mut self, solve: F) -> Self
    where
        F: Fn(SolveRequest, Daemon) -> R + Send + Sync + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        self.solve = Arc::new(move |request, daemon| solve(request, daemon).boxed());
        self
    }

    pub fn status<F, S>(mut self, status: F) -> Self
    where
        F: Fn() -> S + Send + Sync + 'static,
        S: futures::Stream<Item = Result<StatusResponse, Status>> + Send + 'static,
    {
        self.status = Arc::new(move |_| status().boxed());
        self
    }

    pub fn session<F>(mut self, session: F) -> Self
    where
        F: Fn(Streaming<BytesMessage>) -> Result<Bytestream, Status> + Send + Sync + 'static,
    {
        self.session = Some(Arc::new(session));
        self
    }
}

/// One session as the daemon sees it.
#[derive(Clone)]
pub struct Peer {
    pub headers: MetadataMap,
    pub channel: Channel,
}

/// The running daemon.
#[derive(Clone)]
pub struct Daemon {
    script: Script,
    sessions: Arc<watch::Sender<BTreeMap<String, Peer>>>,
    pub calls: Arc<Mutex<Vec<&'static str>>>,
    /// Questions about disk and history, as they came.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub fn new(script: Script) -> Self {
        let sessions = Arc::new(watch::channel(BTreeMap::new()).0);
        Self { script, sessions, calls: Arc::default(), asked: Arc::default() }
    }

    /// The session of that id, once it is there.
    pub async fn peer(&self, id: &str) -> Peer {
        let mut sessions = self.sessions.subscribe();
        let known =
            tokio::time::timeout(Duration::from_secs(5), sessions.wait_for(|all| all.contains_key(id)));
        known.await.expect("the session opens").unwrap()[id].clone()
    }

    pub fn service(&self) -> ControlServer<Self> {
        ControlServer::new(self.clone())
            .max_decoding_message_size(16 << 20)
            .max_encoding_message_size(16 << 20)
    }

    /// Listens on a unix socket in a directory that lives as long as the answer.
    pub fn listen(&self) -> Listening {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buildkitd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = Server::builder()
            .add_service(self.service())
            .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));
        let server = tokio::spawn(async move { served.await.unwrap() });
        Listening { path, _dir: dir, server }
    }

    fn ask(&self, question: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{question:?}"));
    }

    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }
}

pub struct Listening {
    pub path: PathBuf,
    _dir: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Listening {
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: Address::Unix(self.path.clone()), tls: None }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.endpoint(), Duration::from_secs(5)).await.unwrap()
    }
}

#[tonic::async_trait]
impl Control for Daemon {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        self.note("solve");
        (self.script.solve)(request.into_inner(), self.clone()).await.map(Response::new)
    }

    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        self.note("status");
        Ok(Response::new((self.script.status)(request.into_inner())))
    }

    type SessionStream = Bytestream;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.note("session");
        let headers = request.metadata().clone();
        let incoming = request.into_inner();
        if let Some(scripted) = &self.script.session {
            return scripted(incoming).map(Response::new);
        }
        let (outgoing, channel) = tunnel(incoming);
        let id = headers.get("x-docker-expose-session-uuid").unwrap().to_str().unwrap().to_owned();
        self.sessions.send_modify(|all| {
            all.insert(id, Peer { headers, channel });
        });
        Ok(Response::new(outgoing))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let platform = |architecture: &str, variant: &str| lemnos_proto::pb::Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
            ..Default::default()
        };
        let record = WorkerRecord {
            id: "w1".into(),
            labels: BTreeMap::from([("pool".into(), "a".into())]),
            platforms: self.script.platforms.iter().map(|(arch, variant)| platform(arch, variant)).collect(),
            gc_policy: vec![
                GcPolicy::default(),
                GcPolicy { reserved_space: self.script.reserved, ..GcPolicy::default() },
            ],
            ..Default::default()
        };
        Ok(Response::new(ListWorkersResponse { record: vec![record] }))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        self.ask(request.get_ref());
        Ok(Response::new(DiskUsageResponse { record: self.script.usage.clone() }))
    }

    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        self.note("prune");
        self.ask(request.get_ref());
        let dropped = match &self.script.prune {
            None => self.script.usage.clone(),
            Some(prune) => {
                let sizes = prune(request.into_inner())?;
                sizes.into_iter().map(|size| UsageRecord { size, ..UsageRecord::default() }).collect()
            }
        };
        Ok(Response::new(futures::stream::iter(dropped.into_iter().map(Ok)).boxed()))
    }

    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        self.ask(request.get_ref());
        Ok(Response::new((self.script.history)()))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        self.ask(request.get_ref());
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        self.note("info");
        let version = BuildkitVersion { version: "v9.9.9".into(), ..Default::default() };
        Ok(Response::new(InfoResponse { buildkit_version: Some(version) }))
    }
}

/// The daemon's end of the tunnel: what to send, and a channel to the client's services.
fn tunnel(mut incoming: Streaming<BytesMessage>) -> (Bytestream, Channel) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (read, mut write) = tokio::io::split(theirs);
    tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if write.write_all(&message.data).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    let outgoing =
        ReaderStream::new(read).map(|read| Ok(BytesMessage { data: read.unwrap_or_else(|_| Bytes::new()) }));
    let mut once = Some(TokioIo::new(ours));
    let channel = tonic::transport::Endpoint::from_static("http://session").connect_with_connector_lazy(
        tower::service_fn(move |_| {
            let io = once.take();
            async move { io.ok_or_else(|| std::io::Error::other("one connection only")) }
        }),
    );
    (outgoing.boxed(), channel)
}
