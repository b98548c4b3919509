//! A buildkitd that builds nothing and behaves as the Dockerfile says: `# fake: WORD …` lines, obeyed in order. Its images
//! are manifests over the context's files, put into the registry that the solve names; there are no layers.
//!
//! - `# fake: say TEXT` writes a line of log, `# fake: sleep MS` works that long,
//! - `# fake: await GATE` works until the test opens the gate,
//! - `# fake: fail` ends as a RUN step with exit code 2, `# fake: hang` never ends,
//! - `# fake: die` ends the whole daemon, as SIGKILL would,
//! - `# fake: refused WHY` ends as where the registry does not take the image,
//! - `# fake: lie nowhere` returns a digest that nothing has, `lie half` an index of the first platform, `lie another` one of
//!   platforms that nobody asked for,
//! - `# fake: need BYTES` ends for want of space unless that much of the disk is free of cache; `# fake: write BYTES` does
//!   so as a step would whose program says it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use lemnos_proto::control as wire;
use lemnos_proto::fsutil::types::Packet;
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::session::file_sync_client::FileSyncClient;
use serde_json::json;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};

use super::buildkitd::{Daemon, Script};
use super::process::Process;
use super::registry::digest_of;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How long the test's own threads wait for what should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the builder has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub begun: usize,
    pub succeeded: usize,
    pub failed: usize,
    /// The client went away before the end.
    pub cancelled: usize,
    /// Solves between their begin and their end.
    pub running: usize,
    /// The most that ran at once.
    pub peak: usize,
    /// Of each solve in the order of their begins: its image's name and its platforms.
    pub solves: Vec<(String, Vec<String>)>,
    /// Of each solve in that order the layer caches that it reads, and those that it writes.
    pub caches: Vec<(Vec<String>, Vec<String>)>,
    /// The directories that sessions were asked for.
    pub asked: Vec<String>,
    /// Bytes of cache, of a disk of `DISK` bytes, and how often it was told to drop it.
    pub cache: i64,
    pub prunes: usize,
    /// Bytes that its collection always leaves.
    pub reserved: i64,
}

/// Of every fake builder.
pub const DISK: i64 = 100_000_000;

#[derive(Clone)]
struct Yard {
    seen: Arc<watch::Sender<Seen>>,
    gates: Arc<watch::Sender<BTreeSet<String>>>,
    /// What the next solves do before what their Dockerfile says.
    orders: Arc<std::sync::Mutex<VecDeque<String>>>,
    /// The progress of each running solve, by its reference.
    tellers: Arc<watch::Sender<BTreeMap<String, Teller>>>,
    process: Process,
}

#[derive(Clone)]
struct Teller {
    to_client: mpsc::UnboundedSender<wire::StatusResponse>,
    /// Taken by the one who asks for the progress.
    from_solve: Arc<std::sync::Mutex<Option<mpsc::UnboundedReceiver<wire::StatusResponse>>>>,
}

pub struct FakeBuilder {
    pub socket: PathBuf,
    platforms: Vec<(&'static str, &'static str)>,
    yard: Yard,
}

impl Drop for FakeBuilder {
    fn drop(&mut self) {
        self.yard.process.kill();
    }
}

impl FakeBuilder {
    /// Listens on a unix socket in `dir`; for linux/amd64 and linux/arm64.
    pub fn start(dir: &Path) -> Self {
        Self::start_for(&dir.join("fake-buildkitd.sock"), vec![("amd64", ""), ("arm64", "")])
    }

    pub fn start_for(socket: &Path, platforms: Vec<(&'static str, &'static str)>) -> Self {
        let yard = Yard {
            seen: Arc::new(watch::Sender::new(Seen::default())),
            gates: Arc::new(watch::Sender::new(BTreeSet::new())),
            orders: Arc::default(),
            tellers: Arc::new(watch::Sender::new(BTreeMap::new())),
            process: Process::default(),
        };
        let builder = Self { socket: socket.to_owned(), platforms, yard };
        builder.restart();
        builder
    }

    /// As `--builder` takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// As SIGKILL: running solves and all connections end without a word.
    pub fn kill(&self) {
        self.yard.process.kill();
    }

    pub fn is_alive(&self) -> bool {
        self.yard.process.is_alive()
    }

    /// After a kill: at the same address, with nothing running.
    pub fn restart(&self) {
        let _ = std::fs::remove_file(&self.socket);
        self.yard.tellers.send_replace(BTreeMap::new());
        self.yard.seen.send_modify(|seen| seen.running = 0);
        let listener = std::os::unix::net::UnixListener::bind(&self.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (yard, platforms) = (self.yard.clone(), self.platforms.clone());
        self.yard.process.start(async move {
            let incoming = UnixListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(incoming);
            let daemon = Daemon::new(script(&yard, platforms));
            let served = Server::builder().add_service(daemon.service()).serve_with_incoming(incoming);
            served.await.unwrap();
        });
    }

    /// The next solve does `what` (as after `# fake: `) before what its Dockerfile says; once for each call.
    pub fn order(&self, what: &str) {
        self.yard.orders.lock().unwrap().push_back(what.to_owned());
    }

    /// Lets those go on that wait at the gate, now and later.
    pub fn open(&self, gate: &str) {
        self.yard.gates.send_modify(|open| {
            open.insert(gate.to_owned());
        });
    }

    /// So much of its disk is taken by cache.
    pub fn fill(&self, bytes: i64) {
        self.yard.seen.send_modify(|seen| seen.cache = bytes);
    }

    /// What its collection leaves, told from its next start on.
    pub fn reserve(&self, bytes: i64) {
        self.yard.seen.send_modify(|seen| seen.reserved = bytes);
    }

    pub fn seen(&self) -> Seen {
        self.yard.seen.borrow().clone()
    }

    /// Waits until `done` holds of what was seen.
    pub async fn wait(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let mut seen = self.yard.seen.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, seen.wait_for(done)).await;
        assert!(waiting.is_ok(), "the fake builder waited in vain until {what}: {:?}", self.seen());
    }

    /// The same for tests without a runtime.
    pub fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.wait(what, done));
    }
}

fn script(yard: &Yard, platforms: Vec<(&'static str, &'static str)>) -> Script {
    let (solving, telling, pruning) = (yard.clone(), yard.clone(), yard.clone());
    Script {
        solve: Arc::new(move |request, daemon| solving.clone().solve(request, daemon).boxed()),
        status: Arc::new(move |request| telling.clone().progress(request.r#ref)),
        session: None,
        platforms,
        reserved: yard.seen.borrow().reserved,
        prune: Some(Arc::new(move |request| Ok(pruning.prune(&request)))),
        ..Script::default()
    }
}

/// A file that a graph makes at its root.
fn made_file(graph: &lemnos_proto::pb::Definition, name: &str) -> Option<Vec<u8>> {
    use lemnos_proto::pb::{Op, file_action::Action, op};
    use prost::Message as _;
    let actions = graph.def.iter().filter_map(|bytes| match Op::decode(bytes.as_slice()).unwrap().op {
        Some(op::Op::File(file)) => Some(file.actions),
        _ => None,
    });
    actions.flatten().find_map(|action| match action.action {
        Some(Action::Mkfile(file)) if file.path == format!("/{name}") => Some(file.data),
        _ => None,
    })
}

impl Yard {
    async fn solve(self, request: wire::SolveRequest, daemon: Daemon) -> Result<wire::SolveResponse, Status> {
        let teller = Teller::new();
        self.tellers.send_modify(|all| drop(all.insert(request.r#ref.clone(), teller.clone())));
        let mut presence = Presence::enter(&self, &request);
        teller.vertex(1, false, "");
        let worked = self.work(&request, &daemon, &teller).await;
        teller.vertex(1, true, worked.as_ref().err().map_or("", |status| status.message()));
        presence.leave(worked.is_ok());
        worked
    }

    async fn work(
        &self,
        request: &wire::SolveRequest,
        daemon: &Daemon,
        teller: &Teller,
    ) -> Result<wire::SolveResponse, Status> {
        let session = daemon.peer(&request.session).await.channel;
        let name = request.frontend_attrs.get("filename").map_or("Dockerfile", String::as_str);
        let name = name.rsplit('/').next().unwrap_or(name);
        // as the frontend does: what goes with the request, else what the session has
        let text = match request.frontend_inputs.get("dockerfile") {
            Some(graph) => made_file(graph, name),
            None => self.fetch(session.clone(), "dockerfile").await?.remove(name),
        };
        let text = text.map(|content| String::from_utf8_lossy(&content).into_owned());
        let text = text.ok_or_else(|| Status::not_found(format!("{name}: no such file")))?;
        let ordered = self.orders.lock().unwrap().pop_front();
        let written = text.lines().filter_map(|line| line.strip_prefix("# fake: ")).map(str::to_owned);
        let orders: Vec<String> = ordered.into_iter().chain(written).collect();
        for order in &orders {
            self.obey(order, teller).await?;
        }
        let context = self.fetch(session, "context").await?;
        let lie = orders.iter().find_map(|order| order.strip_prefix("lie ")).unwrap_or_default();
        let mut made = platforms(request);
        match lie {
            "half" => made.truncate(1),
            "another" => made = vec!["linux/riscv64".to_owned(), "linux/s390x".to_owned()],
            _ => {}
        }
        let mut digest = publish(request, made, &context).await?;
        if lie == "nowhere" {
            digest = digest_of(b"nowhere");
        }
        for cache in caches(request).1 {
            keep_cache(&cache).await?;
        }
        let exporter_response = BTreeMap::from([("containerimage.digest".to_owned(), digest)]);
        Ok(wire::SolveResponse { exporter_response })
    }

    async fn obey(&self, order: &str, teller: &Teller) -> Result<(), Status> {
        let (word, rest) = order.split_once(' ').unwrap_or((order, ""));
        match word {
            "say" => teller.log(rest),
            "sleep" => tokio::time::sleep(Duration::from_millis(rest.parse().unwrap())).await,
            "await" => drop(self.gates.subscribe().wait_for(|open| open.contains(rest)).await),
            "fail" => {
                return Err(Status::unknown(
                    "process \"/bin/sh -c make\" did not complete successfully: exit code: 2",
                ));
            }
            "hang" => std::future::pending().await,
            "die" => {
                self.process.die();
                std::future::pending().await
            }
            "refused" => {
                return Err(Status::unknown(format!("failed to push 127.0.0.1:5000/team/shop: {rest}")));
            }
            "need" if !self.has_room(rest) => {
                return Err(Status::resource_exhausted(
                    "write /b/content/ingest/8f/data: no space left on device",
                ));
            }
            "write" if !self.has_room(rest) => {
                teller.log("dd: error writing '/f': No space left on device");
                return Err(step_failed(1));
            }
            "need" | "write" | "lie" => {}
            other => return Err(Status::invalid_argument(format!("the fake builder cannot {other:?}"))),
        }
        Ok(())
    }

    async fn fetch(&self, session: Channel, dir: &str) -> Result<BTreeMap<String, Vec<u8>>, Status> {
        self.seen.send_modify(|seen| seen.asked.push(dir.to_owned()));
        fetch(session, dir).await
    }

    fn has_room(&self, bytes: &str) -> bool {
        DISK - self.seen.borrow().cache >= bytes.parse::<i64>().unwrap()
    }

    /// Drops all the cache but what is to be left.
    fn prune(&self, request: &wire::PruneRequest) -> Vec<i64> {
        let mut dropped = Vec::new();
        self.seen.send_modify(|seen| {
            seen.prunes += 1;
            let left = seen.cache.min(request.reserved_space);
            dropped.extend(Some(seen.cache - left).filter(|bytes| *bytes > 0));
            seen.cache = left;
        });
        dropped
    }

    /// What the solve of that reference tells, once it has begun.
    fn progress(self, reference: String) -> BoxStream<'static, Result<wire::StatusResponse, Status>> {
        let told = async move {
            let mut tellers = self.tellers.subscribe();
            let known = tellers.wait_for(|all| all.contains_key(&reference));
            let known = tokio::time::timeout(Duration::from_secs(5), known).await;
            let teller = known.ok().and_then(|all| Some(all.ok()?.get(&reference)?.clone()));
            let receiver = teller.and_then(|teller| teller.from_solve.lock().unwrap().take());
            // the last sender goes with the solve
            self.tellers.send_modify(|all| drop(all.remove(&reference)));
            match receiver {
                Some(receiver) => UnboundedReceiverStream::new(receiver).map(Ok).boxed(),
                None => futures::stream::empty().boxed(),
            }
        };
        told.flatten_stream().boxed()
    }
}

impl Teller {
    fn new() -> Self {
        let (to_client, from_solve) = mpsc::unbounded_channel();
        Self { to_client, from_solve: Arc::new(std::sync::Mutex::new(Some(from_solve))) }
    }

    fn vertex(&self, number: u32, completed: bool, error: &str) {
        let now = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let vertex = wire::Vertex {
            digest: digest_of(&number.to_le_bytes()),
            name: "[1/1] RUN make".to_owned(),
            started: now,
            completed: now.filter(|_| completed),
            error: error.to_owned(),
            ..wire::Vertex::default()
        };
        // nobody may be listening
        let _ = self.to_client.send(wire::StatusResponse { vertexes: vec![vertex], ..Default::default() });
    }

    fn log(&self, line: &str) {
        let log = wire::VertexLog {
            vertex: digest_of(&1_u32.to_le_bytes()),
            stream: 1,
            msg: format!("{line}\n").into_bytes(),
            ..wire::VertexLog::default()
        };
        let _ = self.to_client.send(wire::StatusResponse { logs: vec![log], ..Default::default() });
    }
}

/// As BuildKit says that a step's process ended.
fn step_failed(code: i32) -> Status {
    let message = format!("process \"/bin/sh -c make\" did not complete successfully: exit code: {code}");
    let exit = prost_types::Any {
        type_url: "github.com/moby/buildkit/gatewayapi.ExitMessage+json".to_owned(),
        value: format!("{{\"Code\":{code}}}").into_bytes(),
    };
    let details = lemnos_proto::rpc::Status { code: 2, message: message.clone(), details: vec![exit] };
    Status::with_details(Code::Unknown, message, prost::Message::encode_to_vec(&details).into())
}

/// Counts a solve as running, and as cancelled when it is dropped before its end.
struct Presence {
    seen: Arc<watch::Sender<Seen>>,
    ended: bool,
}

impl Presence {
    fn enter(yard: &Yard, request: &wire::SolveRequest) -> Self {
        let image = image(request).unwrap_or_default();
        let platforms = platforms(request);
        yard.seen.send_modify(|seen| {
            seen.begun += 1;
            seen.running += 1;
            seen.peak = seen.peak.max(seen.running);
            seen.solves.push((image, platforms));
            seen.caches.push(caches(request));
        });
        Self { seen: yard.seen.clone(), ended: false }
    }

    fn leave(&mut self, well: bool) {
        self.ended = true;
        self.seen.send_modify(|seen| {
            seen.running = seen.running.saturating_sub(1);
            if well {
                seen.succeeded += 1;
            } else {
                seen.failed += 1;
            }
        });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if !self.ended {
            self.seen.send_modify(|seen| {
                seen.running = seen.running.saturating_sub(1);
                seen.cancelled += 1;
            });
        }
    }
}

fn image(request: &wire::SolveRequest) -> Option<String> {
    request.exporters.first()?.attrs.get("name").cloned()
}

/// The names of the registry caches that are read, and of those that are written.
fn caches(request: &wire::SolveRequest) -> (Vec<String>, Vec<String>) {
    let names = |entries: &[wire::CacheOptionsEntry]| -> Vec<String> {
        entries.iter().filter_map(|entry| entry.attrs.get("ref").cloned()).collect()
    };
    request.cache.as_ref().map_or_else(Default::default, |c| (names(&c.imports), names(&c.exports)))
}

/// A cache of no layers: the same bytes for everybody.
async fn keep_cache(name: &str) -> Result<(), Status> {
    let empty = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"digest":"{}","size":2}},"layers":[]}}"#,
        digest_of(b"{}")
    );
    let (image, tag) = name.rsplit_once(':').ok_or_else(|| Status::invalid_argument("no tag"))?;
    put_at(image, tag, MANIFEST, empty.as_bytes()).await
}

fn platforms(request: &wire::SolveRequest) -> Vec<String> {
    let listed = request.frontend_attrs.get("platform").map_or("linux/amd64", String::as_str);
    listed.split(',').map(str::to_owned).collect()
}

/// Every regular file of a directory of the session, by path.
async fn fetch(session: Channel, dir: &str) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    let (requests, outgoing) = mpsc::channel(64);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("dir-name", MetadataValue::try_from(dir).unwrap());
    let mut packets = FileSyncClient::new(session).diff_copy(request).await?.into_inner();
    let mut announced = Vec::new();
    loop {
        let packet = packets.message().await?.ok_or_else(|| Status::unknown("EOF"))?;
        match packet.stat {
            Some(stat) => announced.push(stat),
            None => break,
        }
    }
    let mut files = BTreeMap::new();
    for (id, stat) in announced.iter().enumerate().filter(|(_, stat)| stat.mode >> 19 == 0) {
        ask(&requests, PacketType::PacketReq, u32::try_from(id).unwrap()).await;
        let mut content = Vec::new();
        loop {
            let packet = packets.message().await?.ok_or_else(|| Status::unknown("EOF"))?;
            if packet.data.is_empty() {
                break;
            }
            content.extend_from_slice(&packet.data);
        }
        files.insert(stat.path.clone(), content);
    }
    ask(&requests, PacketType::PacketFin, 0).await;
    while packets.message().await?.is_some() {}
    Ok(files)
}

async fn ask(requests: &mpsc::Sender<Packet>, kind: PacketType, id: u32) {
    // a sender that is gone shows at the next packet
    let _ = requests.send(Packet { r#type: kind.into(), id, ..Packet::default() }).await;
}

/// Puts an image of each platform, by digest, and for several an index over them; returns the digest of the whole.
async fn publish(
    request: &wire::SolveRequest,
    platforms: Vec<String>,
    context: &BTreeMap<String, Vec<u8>>,
) -> Result<String, Status> {
    let image = image(request).ok_or_else(|| Status::invalid_argument("no image name"))?;
    let mut content = sha2::Sha256::new();
    for (path, bytes) in context {
        content.update(format!("{path} {}\n", bytes.len()));
        content.update(bytes);
    }
    let content = hex::encode(content.finalize());
    let mut children = Vec::new();
    for platform in platforms {
        let config = digest_of(format!("{content} {platform}").as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
            "layers": [],
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = put(&image, MANIFEST, &bytes).await?;
        let mut words = platform.split('/');
        let (os, arch) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        children.push(json!({
            "mediaType": MANIFEST, "digest": digest, "size": bytes.len(),
            "platform": {"os": os, "architecture": arch},
        }));
    }
    let several = self::platforms(request).len() > 1;
    if let [only] = children.as_slice()
        && !several
    {
        return Ok(only["digest"].as_str().unwrap().to_owned());
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    put(&image, INDEX, &serde_json::to_vec(&index).unwrap()).await
}

/// One manifest by its digest, tried again a few times as BuildKit does.
async fn put(image: &str, media_type: &str, bytes: &[u8]) -> Result<String, Status> {
    let digest = digest_of(bytes);
    put_at(image, &digest, media_type, bytes).await?;
    Ok(digest)
}

async fn put_at(image: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Result<(), Status> {
    let (host, path) = image.split_once('/').ok_or_else(|| Status::invalid_argument("no host"))?;
    let target = format!("/v2/{path}/manifests/{reference}");
    let mut last = String::new();
    for _ in 0..4 {
        match put_once(host, &target, media_type, bytes).await {
            Ok(status) if status.starts_with("HTTP/1.1 201") => return Ok(()),
            Ok(status) => last = status,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Status::unknown(format!("failed to push {image}: {last}")))
}

async fn put_once(host: &str, target: &str, media_type: &str, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(bytes).await?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned())
}
