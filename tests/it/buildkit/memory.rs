//! Streams of ten gigabytes, each in a process of its own whose memory is measured. Nothing of them is on a disk. A debug
//! build moves them at 0.2 GB/s, so that one takes a minute; the upload is shorter.

use std::io::Read;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use lemnos::buildkit::Session;
use lemnos::buildkit::session::filesend::Export;
use lemnos::buildkit::session::filesync::{DirSource, Entry, SourceError};
use lemnos_proto::fsutil::types::Packet;
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::session::BytesMessage;
use lemnos_proto::session::file_send_client::FileSendClient;
use lemnos_proto::session::file_sync_client::FileSyncClient;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::served::serve;
use super::upload::pull;

const CHILD: &str = "LEMNOS_MEMORY_CHILD";
const BYTES: u64 = 10_000_000_000;
const UPLOADED: u64 = 2 << 30;
/// Of one message.
const PIECE: u64 = 1 << 20;
/// How much more memory may be in use at the worst moment than before. A stream that is kept would take all its bytes.
const GROWTH_KIB: u64 = 64 << 10;

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs the test called `name` alone in a process.
fn alone(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("buildkit::memory::{name}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(text.contains("grew by"), "{text}");
}

fn grown(before: u64) {
    let growth = peak() - before;
    println!("grew by {growth} KiB");
    assert!(growth < GROWTH_KIB, "they took {growth} KiB");
}

#[tokio::test]
async fn an_upload_of_gigabytes_takes_no_memory() {
    if std::env::var_os(CHILD).is_none() {
        return alone("an_upload_of_gigabytes_takes_no_memory");
    }
    let session = Session::builder("k").upload("tar", tokio::io::repeat(7).take(UPLOADED)).build().unwrap();
    let session = serve(session).await;
    let before = peak();
    let mut stream = pull(&session, "/tar").await.unwrap();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.unwrap() {
        bytes += message.data.len() as u64;
    }
    assert_eq!(bytes, UPLOADED);
    grown(before);
}

/// Into a reader that is slower than the sender, so that something has to wait.
#[tokio::test]
async fn an_export_of_gigabytes_takes_no_memory() {
    if std::env::var_os(CHILD).is_none() {
        return alone("an_export_of_gigabytes_takes_no_memory");
    }
    let (writer, mut reader) = tokio::io::duplex(64 << 10);
    let session = Session::builder("k").export(0, Export::writer(writer)).build().unwrap();
    let session = serve(session).await;
    let before = peak();
    let counting = tokio::spawn(async move {
        let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
        while let n @ 1.. = reader.read(&mut buffer).await.unwrap() {
            bytes += n as u64;
            tokio::task::yield_now().await;
        }
        bytes
    });
    let piece = Bytes::from(vec![7; 1 << 20]);
    let rest = usize::try_from(BYTES % PIECE).unwrap();
    let pieces = (0..BYTES / PIECE).map({
        let piece = piece.clone();
        move |_| piece.clone()
    });
    let pieces = pieces.chain([piece.slice(..rest)]).map(|data| BytesMessage { data });
    let pieces = futures::stream::iter(pieces);
    let mut answers =
        FileSendClient::new(session.channel.clone()).diff_copy(pieces).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), None);
    assert_eq!(counting.await.unwrap(), BYTES);
    grown(before);
}

/// A directory with one file, made as it is read.
struct Endless;

impl DirSource for Endless {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        let entry = Entry { path: b"file".to_vec(), mode: 0o644, size: BYTES, ..Entry::default() };
        Ok(Arc::new([entry]))
    }
    fn open(&self, _: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        Ok(Box::new(std::io::repeat(7).take(BYTES)))
    }
}

#[tokio::test]
async fn a_context_of_gigabytes_takes_no_memory() {
    if std::env::var_os(CHILD).is_none() {
        return alone("a_context_of_gigabytes_takes_no_memory");
    }
    let session = serve(Session::builder("k").dir("context", Arc::new(Endless)).build().unwrap()).await;
    let before = peak();
    let (requests, outgoing) = mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("dir-name", "context".parse().unwrap());
    let mut client = FileSyncClient::new(session.channel.clone());
    let mut packets = client.diff_copy(request).await.unwrap().into_inner();
    let say = |kind: PacketType| Packet { r#type: kind.into(), ..Packet::default() };
    let mut bytes = 0;
    loop {
        let packet = packets.message().await.unwrap().expect("it ends with FIN");
        match packet.r#type() {
            PacketType::PacketStat if packet.stat.is_none() => {
                requests.send(say(PacketType::PacketReq)).await.unwrap()
            }
            PacketType::PacketData if packet.data.is_empty() => {
                requests.send(say(PacketType::PacketFin)).await.unwrap()
            }
            PacketType::PacketData => bytes += packet.data.len() as u64,
            PacketType::PacketFin => break,
            _ => {}
        }
    }
    assert_eq!(bytes, BYTES);
    grown(before);
}
