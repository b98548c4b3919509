//! A receiver in the daemon's place, and directories made of values.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lemnos::buildkit::session::filesync::{
    DirSource, Entry, Patience, SourceError, TransferStats, mode, sending_order, service_with,
};
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::fsutil::types::{Packet, Stat};
use lemnos_proto::session::file_sync_client::FileSyncClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status, Streaming};

/// The longest any of these tests may wait for what should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

type Opener = Box<dyn Fn() -> Result<Box<dyn Read + Send>, SourceError> + Send + Sync>;

/// A directory of values.
#[derive(Default)]
pub struct Dir {
    entries: Vec<Entry>,
    contents: BTreeMap<Vec<u8>, Opener>,
}

impl Dir {
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self.entries.sort_by(|a, b| sending_order(&a.path, &b.path));
        self
    }

    /// Its parents are added where they are not there.
    pub fn file(self, path: &str, content: &str) -> Self {
        let bytes = content.as_bytes().to_vec();
        self.content(path, content.len() as u64, move || Ok(Box::new(Cursor::new(bytes.clone()))))
    }

    /// A file that announces `size` and gives what it likes.
    pub fn content(
        mut self,
        path: &str,
        size: u64,
        open: impl Fn() -> Result<Box<dyn Read + Send>, SourceError> + Send + Sync + 'static,
    ) -> Self {
        for (at, _) in path.match_indices('/') {
            if !self.entries.iter().any(|entry| entry.path == path.as_bytes()[..at]) {
                self = self.entry(Entry {
                    path: path[..at].into(),
                    mode: mode::DIR | 0o755,
                    ..Entry::default()
                });
            }
        }
        self.contents.insert(path.into(), Box::new(open));
        self.entry(Entry {
            path: path.into(),
            mode: 0o644,
            size,
            mtime_ns: 1_234_567_890_123,
            ..Entry::default()
        })
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        let (mode, size) = (mode::SYMLINK | 0o777, target.len() as u64);
        self.entry(Entry { path: path.into(), mode, size, linkname: target.into(), ..Entry::default() })
    }
}

impl DirSource for Dir {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        Ok(self.entries.clone().into())
    }
    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        self.contents.get(&entry.path).unwrap()()
    }
}

/// A served session with one directory, `context`.
pub struct Session {
    client: FileSyncClient<tonic::transport::Channel>,
    pub stats: Arc<TransferStats>,
}

impl Session {
    pub async fn of(dir: impl DirSource) -> Self {
        Self::patient(dir, Patience::default()).await
    }

    pub async fn patient(dir: impl DirSource, patience: Patience) -> Self {
        let stats = Arc::new(TransferStats::default());
        let dirs = BTreeMap::from([("context".to_owned(), Arc::new(dir) as Arc<dyn DirSource>)]);
        let service = service_with(dirs, stats.clone(), patience);
        let (near, far) = tokio::io::duplex(256 << 10);
        tokio::spawn(
            Server::builder()
                .http2_max_header_list_size(4 << 20)
                .add_service(service)
                .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far))),
        );
        let mut near = Some(near);
        let channel = Endpoint::from_static("http://session.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let near = near.take().ok_or_else(|| std::io::Error::other("one connection only"));
                async move { near.map(TokioIo::new) }
            }))
            .await
            .unwrap();
        Self { client: FileSyncClient::new(channel), stats }
    }

    pub async fn ask(&self, metadata: &[(&'static str, &str)]) -> Result<Call, Status> {
        let (requests, outgoing) = mpsc::channel(1024);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        for (key, value) in metadata {
            request.metadata_mut().append(*key, MetadataValue::try_from(*value).unwrap());
        }
        let packets = self.client.clone().diff_copy(request).await?.into_inner();
        Ok(Call { requests, packets })
    }

    /// The whole context.
    pub async fn context(&self) -> Call {
        self.ask(&[("dir-name", "context")]).await.unwrap()
    }

    /// Waits for the end of the first transfer, as the sender sees it.
    pub async fn ended(&self) -> Result<(), String> {
        let end = async {
            loop {
                if let Some(ended) =
                    self.stats.transfers().first().and_then(|transfer| transfer.ended.clone())
                {
                    return ended;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, end).await.expect("the transfer should end")
    }
}

/// The receiving side of one call.
pub struct Call {
    requests: mpsc::Sender<Packet>,
    packets: Streaming<Packet>,
}

pub fn packet(kind: PacketType, id: u32) -> Packet {
    Packet { r#type: kind.into(), id, ..Packet::default() }
}

impl Call {
    pub async fn send(&self, packet: Packet) {
        self.requests.send(packet).await.unwrap();
    }

    pub async fn request(&self, id: u32) {
        self.send(packet(PacketType::PacketReq, id)).await;
    }

    /// The next packet; an end of the stream is the error that a daemon makes of it.
    pub async fn next(&mut self) -> Result<Packet, Status> {
        let next = tokio::time::timeout(SOON, self.packets.message()).await.expect("a packet should come");
        next?.ok_or_else(|| Status::unknown("EOF"))
    }

    /// Everything announced, up to the empty STAT.
    pub async fn listing(&mut self) -> Result<Vec<Stat>, Status> {
        let mut stats = Vec::new();
        loop {
            let packet = self.next().await?;
            assert_eq!(packet.r#type(), PacketType::PacketStat);
            match packet.stat {
                Some(stat) => stats.push(stat),
                None => return Ok(stats),
            }
        }
    }

    /// The paths announced.
    pub async fn paths(&mut self) -> Result<Vec<String>, Status> {
        Ok(self.listing().await?.into_iter().map(|stat| stat.path).collect())
    }

    /// Requests one file and takes it whole.
    pub async fn fetch(&mut self, id: u32) -> Result<Vec<u8>, Status> {
        self.request(id).await;
        let mut content = Vec::new();
        loop {
            let packet = self.next().await?;
            assert_eq!((packet.r#type(), packet.id), (PacketType::PacketData, id));
            if packet.data.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(&packet.data);
        }
    }

    /// FIN, answered by FIN and the end of the stream.
    pub async fn finish(mut self) -> Result<(), Status> {
        self.send(packet(PacketType::PacketFin, 0)).await;
        let fin = self.next().await?;
        assert_eq!(fin.r#type(), PacketType::PacketFin);
        let end = tokio::time::timeout(SOON, self.packets.message()).await.expect("the stream should end");
        assert_eq!(end?, None);
        Ok(())
    }

    /// Takes packets until the call fails, and returns how.
    pub async fn failure(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
