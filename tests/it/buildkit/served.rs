//! A session as the daemon sees it: a channel to its services, through the tunnel, while a build runs.

use std::time::Duration;

use lemnos::buildkit::session::filesync::Patience;
use lemnos::buildkit::{Session, SolveError, SolveRequest, SolveResult};
use lemnos_proto::control::SolveResponse;
use lemnos_proto::session::file_sync_client::FileSyncClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tower::ServiceExt;
use tower::util::MapRequest;

use crate::fake::buildkitd::{Daemon, Listening, Script};

pub const SOON: Duration = Duration::from_secs(30);
/// For calls that must give up while the test waits.
pub const SHORT: Patience =
    Patience { taking: Duration::from_millis(300), asking: Duration::from_millis(300) };

pub struct Served {
    pub channel: Channel,
    pub headers: MetadataMap,
    build: JoinHandle<Result<SolveResult, SolveError>>,
    verdict: watch::Sender<Option<bool>>,
    _daemon: Listening,
}

impl Served {
    /// Has the daemon end the build.
    pub async fn end(mut self, well: bool) -> Result<SolveResult, SolveError> {
        self.verdict.send(Some(well)).unwrap();
        tokio::time::timeout(SOON, &mut self.build).await.unwrap().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.build.abort();
    }
}

/// Begins a build with `session` that lasts as long as the answer, or until it is ended.
pub async fn serve(session: Session) -> Served {
    let (peers, mut arrived) = mpsc::unbounded_channel();
    let (verdict, wanted) = watch::channel(None);
    let script = Script::default().solve(move |request, daemon| {
        let (peers, mut wanted) = (peers.clone(), wanted.clone());
        async move {
            peers.send(daemon.peer(&request.session).await).ok().unwrap();
            let well = wanted.wait_for(Option::is_some).await.map(|well| *well == Some(true));
            match well {
                Ok(true) => Ok(SolveResponse::default()),
                Ok(false) => Err(Status::unknown("the export failed")),
                Err(_) => std::future::pending().await,
            }
        }
    });
    let daemon = Daemon::new(script).listen();
    let client = daemon.client().await;
    let request = SolveRequest { frontend: "dockerfile.v0".into(), session, ..Default::default() };
    let build = tokio::spawn(async move { client.solve(request, |_| {}).await });
    let peer = tokio::time::timeout(SOON, arrived.recv()).await.unwrap().unwrap();
    Served { channel: peer.channel, headers: peer.headers, build, verdict, _daemon: daemon }
}

type Rename = fn(http::Request<tonic::body::Body>) -> http::Request<tonic::body::Body>;

/// The method of exporters, with the packets of directories.
pub fn packets(channel: Channel) -> FileSyncClient<MapRequest<Channel, Rename>> {
    let rename: Rename = |mut request| {
        let path = request.uri().to_string().replace("FileSync", "FileSend");
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    FileSyncClient::new(channel.map_request(rename))
}
