//! What exporters send: streams into files and writers, packets into directories; and senders that misbehave.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lemnos::buildkit::Session;
use lemnos::buildkit::session::filesend::{DirExport, Export, Output, OutputStream};
use lemnos::buildkit::session::filesync::{Patience, mode};
use lemnos_proto::fsutil::types::packet::PacketType;
use lemnos_proto::fsutil::types::{Packet, Stat};
use lemnos_proto::session::BytesMessage;
use lemnos_proto::session::file_send_client::FileSendClient;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::served::{SHORT, SOON, Served, packets, serve};

fn addressed<T>(exporter: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !exporter.is_empty() {
        request.metadata_mut().insert("buildkit-attachable-exporter-id", exporter.parse().unwrap());
    }
    request
}

/// Sends pieces and waits for the end, as the daemon's exporters do.
async fn send(session: &Served, exporter: &str, pieces: Vec<Bytes>) -> Result<(), Status> {
    let messages = pieces.into_iter().map(|data| BytesMessage { data });
    let mut request = addressed(exporter, futures::stream::iter(messages.collect::<Vec<_>>()));
    request.metadata_mut().insert("exporter-md-containerimage.digest", "sha256:d".parse().unwrap());
    let mut client = FileSendClient::new(session.channel.clone());
    let mut answers = client.diff_copy(request).await?.into_inner();
    match tokio::time::timeout(SOON, answers.message()).await.unwrap()? {
        None => Ok(()),
        Some(answer) => panic!("{answer:?}"),
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + SOON;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn streams_go_to_the_exporter_that_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("one.tar"), "from before").unwrap();
    let (writer, mut read) = tokio::io::duplex(16);
    let session = Session::builder("k")
        .export(0, Export::file(&at("zero.tar")))
        .export(1, Export::file(&at("one.tar")))
        .export(7, Export::writer(writer))
        .build()
        .unwrap();
    let session = serve(session).await;
    let pieces = |text: &str| text.as_bytes().chunks(3).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    send(&session, "", pieces("without a number")).await.unwrap();
    send(&session, "1", pieces("the second")).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        text
    });
    send(&session, "7", pieces("longer than the pipe is wide")).await.unwrap();
    assert_eq!(reading.await.unwrap(), "longer than the pipe is wide");
    assert_eq!(send(&session, "7", pieces("again")).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(send(&session, "2", pieces("x")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(send(&session, "one", pieces("x")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(send(&session, "-1", pieces("x")).await.unwrap_err().code(), Code::InvalidArgument);
    session.end(true).await.unwrap();
    assert_eq!(std::fs::read_to_string(at("zero.tar")).unwrap(), "without a number");
    assert_eq!(std::fs::read_to_string(at("one.tar")).unwrap(), "the second");
    assert_eq!(names(dir.path()), ["one.tar", "zero.tar"]);
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.tar");
    std::fs::write(&path, "from before").unwrap();
    let mut session = Session::builder("k").export(0, Export::file(&path)).build().unwrap();
    session.patience.asking = SHORT.asking * 5;
    let session = serve(session).await;
    // dropped in the middle
    let (pieces, outgoing) = mpsc::channel(4);
    let mut client = FileSendClient::new(session.channel.clone());
    let mut answers =
        client.diff_copy(addressed("0", ReceiverStream::new(outgoing))).await.unwrap().into_inner();
    pieces.send(BytesMessage { data: Bytes::from(vec![b'x'; 1 << 20]) }).await.unwrap();
    until("it is written beside", || names(dir.path()).len() == 2).await;
    let silent = tokio::time::timeout(SOON, answers.message()).await.unwrap().unwrap_err();
    assert_eq!(silent.code(), Code::DeadlineExceeded, "{silent}");
    let mut client = FileSendClient::new(session.channel.clone());
    let (pieces, outgoing) = mpsc::channel(4);
    let answers = client.diff_copy(addressed("0", ReceiverStream::new(outgoing))).await.unwrap();
    pieces.send(BytesMessage { data: Bytes::from_static(b"half") }).await.unwrap();
    until("it is written beside again", || names(dir.path()).len() == 2).await;
    drop(answers);
    until("the half is removed", || names(dir.path()) == ["out.tar"]).await;
    drop(pieces);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "from before");
}

/// A daemon whose export breaks in the middle closes the stream like a whole one, and fails the build afterwards.
#[tokio::test]
async fn a_file_takes_its_name_when_the_build_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.tar");
    std::fs::write(&path, "from before").unwrap();
    let begin =
        || async { serve(Session::builder("k").export(0, Export::file(&path)).build().unwrap()).await };
    let session = begin().await;
    send(&session, "0", vec![Bytes::from_static(b"half of")]).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "from before");
    session.end(false).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "from before");
    assert_eq!(names(dir.path()), ["out.tar"]);
    let session = begin().await;
    send(&session, "0", vec![Bytes::from_static(b"all of it")]).await.unwrap();
    session.end(true).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "all of it");
    assert_eq!(names(dir.path()), ["out.tar"]);
    // what cannot be put there fails the build that the daemon calls good
    let session = begin().await;
    send(&session, "0", vec![Bytes::from_static(b"nowhere")]).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let error = session.end(true).await.unwrap_err();
    assert!(error.message.contains("put in its place"), "{error}");
    assert_eq!(names(dir.path()), ["out.tar"]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_fails_without_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session::builder("k")
        .export(0, Export::file(&dir.path().join("absent/out.tar")))
        .export(1, Export::file(dir.path()))
        .export(2, Export::file(Path::new("/dev/full")))
        .build()
        .unwrap();
    let session = serve(session).await;
    for (exporter, want) in [("0", Code::Aborted), ("1", Code::Aborted), ("2", Code::ResourceExhausted)] {
        let status = send(&session, exporter, vec![Bytes::from(vec![0; 1 << 20])]).await.unwrap_err();
        assert_eq!(status.code(), want, "{status}");
        assert!(!status.message().contains(dir.path().to_str().unwrap()), "{status}");
    }
}

/// What was said of a stream, and a stream that takes nothing.
struct Stalled(Mutex<BTreeMap<String, String>>);

#[async_trait::async_trait]
impl Output for Stalled {
    async fn open(&self, about: &BTreeMap<String, String>) -> std::io::Result<Box<dyn OutputStream>> {
        *self.0.lock().unwrap() = about.clone();
        Ok(Box::new(Never))
    }
}

struct Never;

#[async_trait::async_trait]
impl OutputStream for Never {
    async fn write(&mut self, _: Bytes) -> std::io::Result<()> {
        std::future::pending().await
    }
    async fn finish(self: Box<Self>) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_output_that_takes_nothing_is_given_up_and_knows_its_stream() {
    let output = Arc::new(Stalled(Mutex::default()));
    let mut session = Session::builder("k").export(0, Export::Stream(output.clone())).build().unwrap();
    session.patience.taking = SHORT.taking;
    let session = serve(session).await;
    let status = send(&session, "0", vec![Bytes::from_static(b"x")]).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let about = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:d".to_owned())]);
    assert_eq!(*output.0.lock().unwrap(), about);
}

/// Takes nothing before the gate opens, then counts what comes.
struct Gated {
    gate: tokio::sync::watch::Receiver<bool>,
    bytes: Arc<std::sync::atomic::AtomicUsize>,
}

#[async_trait::async_trait]
impl Output for Gated {
    async fn open(&self, _: &BTreeMap<String, String>) -> std::io::Result<Box<dyn OutputStream>> {
        Ok(Box::new(Self { gate: self.gate.clone(), bytes: self.bytes.clone() }))
    }
}

#[async_trait::async_trait]
impl OutputStream for Gated {
    async fn write(&mut self, piece: Bytes) -> std::io::Result<()> {
        let _ = self.gate.wait_for(|open| *open).await;
        self.bytes.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    async fn finish(self: Box<Self>) -> std::io::Result<()> {
        Ok(())
    }
}

/// What waits to be read is held back by its window, not punished: h2 counts small frames, and ends the connection of a
/// peer that has too many under way. A daemon asks for each file of a context in one.
#[tokio::test]
async fn a_flood_of_small_frames_waits_for_a_slow_reader() {
    const FRAMES: usize = 50_000;
    let (open, gate) = tokio::sync::watch::channel(false);
    let bytes = Arc::default();
    let output = Arc::new(Gated { gate, bytes: Arc::clone(&bytes) });
    let session = serve(Session::builder("k").export(0, Export::Stream(output)).build().unwrap()).await;
    // each goes out before the next one is there, so that each has a frame of its own
    let pieces = futures::stream::unfold(0, move |sent| {
        let open = open.clone();
        async move {
            tokio::task::yield_now().await;
            if sent == FRAMES {
                open.send_replace(true);
                return None;
            }
            Some((BytesMessage { data: Bytes::from_static(b"x") }, sent + 1))
        }
    });
    let mut client = FileSendClient::new(session.channel.clone());
    let mut answers = client.diff_copy(addressed("0", pieces)).await.unwrap().into_inner();
    assert!(tokio::time::timeout(SOON, answers.message()).await.unwrap().unwrap().is_none());
    assert_eq!(bytes.load(std::sync::atomic::Ordering::SeqCst), FRAMES);
}

/// A sender of packets, in the daemon's place.
pub struct Sender {
    packets: mpsc::Sender<Packet>,
    answers: Streaming<Packet>,
}

pub fn stat(path: &str, mode: u32, size: i64, linkname: &str) -> Stat {
    let mod_time = 1_234_567_890_987_654_321;
    Stat { path: path.into(), mode, size, mod_time, linkname: linkname.into(), ..Stat::default() }
}

pub fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

impl Sender {
    pub async fn start(session: &Served, whole: bool) -> Result<Self, Status> {
        let (packets_in, outgoing) = mpsc::channel(64);
        let mut request = addressed("0", ReceiverStream::new(outgoing));
        if whole {
            request.metadata_mut().insert("buildkit-exporter-multi-platform", "1".parse().unwrap());
        }
        let answers = packets(session.channel.clone()).diff_copy(request).await?.into_inner();
        Ok(Self { packets: packets_in, answers })
    }

    pub async fn stat(&self, stat: Stat) {
        let _ = self.packets.send(Packet { stat: Some(stat), ..packet(PacketType::PacketStat) }).await;
    }

    pub async fn listed(&self) {
        let _ = self.packets.send(packet(PacketType::PacketStat)).await;
    }

    pub async fn data(&self, id: u32, data: &[u8]) {
        let data = data.to_vec().into();
        let _ = self.packets.send(Packet { id, data, ..packet(PacketType::PacketData) }).await;
    }

    pub async fn next(&mut self) -> Result<Packet, Status> {
        let next =
            tokio::time::timeout(SOON, self.answers.message()).await.expect("an answer should come")?;
        next.ok_or_else(|| Status::unknown("EOF"))
    }

    /// Sends what is asked for, until the receiver has everything; then ends.
    pub async fn finish(mut self, contents: &BTreeMap<u32, &[u8]>) -> Result<(), Status> {
        loop {
            let packet = self.next().await?;
            match packet.r#type() {
                PacketType::PacketReq => {
                    for piece in contents[&packet.id].chunks(32 << 10) {
                        self.data(packet.id, piece).await;
                    }
                    self.data(packet.id, b"").await;
                }
                PacketType::PacketFin => break,
                other => panic!("{other:?}"),
            }
        }
        let _ = self.packets.send(self::packet(PacketType::PacketFin)).await;
        match tokio::time::timeout(SOON, self.answers.message()).await.unwrap()? {
            None => Ok(()),
            Some(answer) => panic!("{answer:?}"),
        }
    }
}

pub async fn into_dir(dir: &Path, delete: bool) -> Served {
    impatient(dir, delete, Patience::default()).await
}

async fn impatient(dir: &Path, delete: bool, patience: Patience) -> Served {
    let export = Export::Dir(DirExport { path: dir.to_owned(), delete, limit_bytes: None });
    let mut session = Session::builder("k").export(0, export).build().unwrap();
    session.patience = patience;
    serve(session).await
}

const DIR: u32 = mode::DIR | 0o755;

#[tokio::test]
async fn a_tree_is_written_with_modes_times_and_links() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/out");
    let session = into_dir(&out, false).await;
    let sender = Sender::start(&session, false).await.unwrap();
    for entry in [
        stat("bin", mode::DIR | mode::SETGID | 0o555, 0, ""),
        stat("bin/tool", mode::SETUID | 0o755, 5, ""),
        stat("bin/tool2", mode::SETUID | 0o755, 5, "bin/tool"),
        stat("empty", 0o400, 0, ""),
        stat("link", mode::SYMLINK | 0o777, 8, "../../up"),
        stat("pipe", mode::FIFO | 0o620, 0, ""),
    ] {
        sender.stat(entry).await;
    }
    sender.listed().await;
    sender.finish(&BTreeMap::from([(1, &b"tool\n"[..]), (3, b"")])).await.unwrap();
    let found = |path: &str| std::fs::symlink_metadata(out.join(path)).unwrap();
    for (path, mode) in [("bin", 0o42555), ("bin/tool", 0o104_755), ("empty", 0o100_400), ("pipe", 0o10620)] {
        assert_eq!(found(path).mode(), mode, "{path}: {:o}", found(path).mode());
    }
    for path in ["bin", "bin/tool", "empty", "link", "pipe"] {
        let found = found(path);
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567_890, 987_654_321), "{path}");
    }
    assert_eq!(std::fs::read(out.join("bin/tool2")).unwrap(), b"tool\n");
    assert_eq!(found("bin/tool").ino(), found("bin/tool2").ino());
    assert_eq!(std::fs::read_link(out.join("link")).unwrap(), Path::new("../../up"));
    assert_eq!(names(&out), ["bin", "empty", "link", "pipe"]);
}

#[tokio::test]
async fn what_others_wrote_stays_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
    std::fs::create_dir_all(out.join("kept/deep")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(out.join("kept/deep/file"), "mine").unwrap();
    std::fs::write(outside.join("target"), "precious").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("a")).unwrap();
    std::os::unix::fs::symlink(outside.join("target"), out.join("b")).unwrap();
    let session = into_dir(&out, false).await;
    let sender = Sender::start(&session, false).await.unwrap();
    for entry in [
        stat("a", DIR, 0, ""),
        stat("a/target", 0o644, 3, ""),
        stat("b", 0o644, 3, ""),
        stat("kept", DIR, 0, ""),
    ] {
        sender.stat(entry).await;
    }
    sender.listed().await;
    sender.finish(&BTreeMap::from([(1, &b"new"[..]), (2, b"new")])).await.unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("target")).unwrap(), "precious");
    assert_eq!(std::fs::read_to_string(out.join("a/target")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(out.join("b")).unwrap(), "new");
    assert!(std::fs::symlink_metadata(out.join("a")).unwrap().is_dir());
    assert_eq!(std::fs::read_to_string(out.join("kept/deep/file")).unwrap(), "mine");
    // a directory with something in it does not make way for a file
    let sender = Sender::start(&session, false).await.unwrap();
    sender.stat(stat("kept", 0o644, 1, "")).await;
    sender.listed().await;
    let status = sender.finish(&BTreeMap::from([(0, &b"x"[..])])).await.unwrap_err();
    assert!(
        status.message().contains("kept") && status.message().contains("stands in its place"),
        "{status}"
    );
    assert_eq!(std::fs::read_to_string(out.join("kept/deep/file")).unwrap(), "mine");
    assert_eq!(names(&out), ["a", "b", "kept"]);
}

#[tokio::test]
async fn deleting_waits_for_the_whole_export_and_for_a_daemon_that_sends_one() {
    let dir = tempfile::tempdir().unwrap();
    let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
    std::fs::create_dir_all(out.join("old/deep")).unwrap();
    std::fs::create_dir_all(out.join("both")).unwrap();
    std::fs::create_dir_all(out.join("becomes-file/deep")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    for path in ["old/deep/file", "both/old", "file"] {
        std::fs::write(out.join(path), "old").unwrap();
    }
    std::fs::write(outside.join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("both/link")).unwrap();
    let session = into_dir(&out, true).await;
    assert_eq!(Sender::start(&session, false).await.map(drop).unwrap_err().code(), Code::FailedPrecondition);
    // one that breaks deletes nothing
    let sender = Sender::start(&session, true).await.unwrap();
    sender.listed().await;
    let _ = sender.packets.send(packet(PacketType::PacketErr)).await;
    drop(sender);
    let broken = Sender::start(&session, true).await.unwrap();
    broken.stat(stat("both", DIR, 0, "")).await;
    broken.stat(stat("../x", DIR, 0, "")).await;
    broken.finish(&BTreeMap::new()).await.unwrap_err();
    assert!(out.join("both/old").exists());
    let sender = Sender::start(&session, true).await.unwrap();
    for entry in
        [stat("becomes-file", 0o644, 1, ""), stat("both", DIR, 0, ""), stat("both/new", 0o644, 1, "")]
    {
        sender.stat(entry).await;
    }
    sender.listed().await;
    sender.finish(&BTreeMap::from([(0, &b"f"[..]), (2, b"n")])).await.unwrap();
    assert_eq!(names(&out), ["becomes-file", "both"]);
    assert_eq!(names(&out.join("both")), ["new"]);
    assert_eq!(names(&outside), ["precious"]);
}

#[tokio::test]
async fn senders_that_break_the_rules_are_refused() {
    let file = || vec![stat("a", 0o644, 3, "")];
    let sent = |stats: Vec<Stat>| -> Vec<Packet> {
        let stat = |stat| Packet { stat: Some(stat), ..packet(PacketType::PacketStat) };
        stats.into_iter().map(stat).chain([packet(PacketType::PacketStat)]).collect()
    };
    let data = |id, bytes: &'static [u8]| Packet { id, data: bytes.into(), ..packet(PacketType::PacketData) };
    let with = |mut packets: Vec<Packet>, more: Vec<Packet>| {
        packets.extend(more);
        packets
    };
    for (name, packets, code, words) in [
        ("escape", sent(vec![stat("../a", 0o644, 0, "")]), Code::InvalidArgument, "clean path"),
        ("absolute", sent(vec![stat("/etc/a", 0o644, 0, "")]), Code::InvalidArgument, "clean path"),
        ("no parent", sent(vec![stat("a/b", 0o644, 0, "")]), Code::InvalidArgument, "not announced"),
        (
            "through a link",
            sent(vec![stat("a", mode::SYMLINK | 0o777, 4, "/etc"), stat("a/b", 0o644, 0, "")]),
            Code::InvalidArgument,
            "not announced",
        ),
        (
            "order",
            sent(vec![stat("b", 0o644, 0, ""), stat("a", 0o644, 0, "")]),
            Code::InvalidArgument,
            "out of order",
        ),
        ("unknown link", sent(vec![stat("a", 0o644, 3, "b")]), Code::InvalidArgument, "no file announced"),
        (
            "link outside",
            sent(vec![stat("a", 0o644, 3, "../../etc/passwd")]),
            Code::InvalidArgument,
            "no file",
        ),
        (
            "link to a link",
            sent(vec![stat("a", mode::SYMLINK | 0o777, 4, "/etc"), stat("b", 0o644, 3, "a")]),
            Code::InvalidArgument,
            "no file announced",
        ),
        (
            "device",
            sent(vec![stat("a", mode::DEVICE | 0o666, 0, "")]),
            Code::FailedPrecondition,
            "export a tar",
        ),
        ("negative", sent(vec![stat("a", 0o644, -1, "")]), Code::InvalidArgument, "no size"),
        ("not asked for", with(sent(vec![]), vec![]), Code::Unknown, ""),
        ("unknown id", with(vec![data(9, b"x")], sent(file())), Code::InvalidArgument, "not asked for"),
        ("too long", with(sent(file()), vec![data(0, b"longer")]), Code::DataLoss, "longer"),
        (
            "too short",
            with(sent(file()), vec![data(0, b"x"), data(0, b"")]),
            Code::DataLoss,
            "2 bytes shorter",
        ),
        (
            "after its end",
            with(
                sent(vec![stat("a", 0o644, 1, ""), stat("b", 0o644, 1, "")]),
                vec![data(0, b"x"), data(0, b""), data(0, b"x")],
            ),
            Code::InvalidArgument,
            "not asked for",
        ),
        ("behind the last", with(sent(file()), sent(file())), Code::InvalidArgument, "behind the last"),
        (
            "early FIN",
            with(sent(file()), vec![packet(PacketType::PacketFin)]),
            Code::InvalidArgument,
            "no sender",
        ),
        ("REQ", vec![packet(PacketType::PacketReq)], Code::InvalidArgument, "no sender"),
        (
            "ERR",
            with(sent(file()), vec![Packet { data: "no\ndisk".into(), ..packet(PacketType::PacketErr) }]),
            Code::Aborted,
            "the sender failed: no\\ndisk",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let session = into_dir(&out, false).await;
        let mut sender = Sender::start(&session, false).await.unwrap();
        let nothing_wrong = name == "not asked for";
        // data comes when it is asked for, or else it would be refused as such
        let mut asked = 0;
        let wanted = packets
            .iter()
            .filter(|p| p.stat.as_ref().is_some_and(|s| s.linkname.is_empty() && s.mode & mode::TYPE == 0))
            .count();
        for packet in packets {
            if packet.r#type() == PacketType::PacketData && packet.id != 9 {
                while asked < wanted {
                    assert_eq!(sender.next().await.unwrap().r#type(), PacketType::PacketReq, "{name}");
                    asked += 1;
                }
            }
            let _ = sender.packets.send(packet).await;
        }
        if nothing_wrong {
            sender.finish(&BTreeMap::new()).await.unwrap();
            continue;
        }
        let status = loop {
            match sender.next().await {
                Ok(packet) => assert_eq!(packet.r#type(), PacketType::PacketReq, "{name}"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(status.message().contains(words), "{name}: {status}");
        assert!(!status.message().contains(dir.path().to_str().unwrap()), "{name}: {status}");
        // what is refused at once is refused before anything is made
        assert!(names(dir.path()).iter().all(|name| name == "out"), "{name}");
        until(name, || !out.exists() || !names(&out).iter().any(|name| name.starts_with(".lemnos"))).await;
        assert!(!out.join("b").exists() || name == "after its end", "{name}");
    }
}

#[tokio::test]
async fn senders_that_stop_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let before = std::fs::metadata(dir.path()).unwrap();
    let session = impatient(dir.path(), false, SHORT).await;
    // silent at once; silent within a file; no FIN
    let mut silent = Sender::start(&session, false).await.unwrap();
    assert_eq!(silent.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut half = Sender::start(&session, false).await.unwrap();
    half.stat(stat("a", 0o644, 3, "")).await;
    half.listed().await;
    assert_eq!(half.next().await.unwrap().r#type(), PacketType::PacketReq);
    half.data(0, b"x").await;
    assert_eq!(half.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut unended = Sender::start(&session, false).await.unwrap();
    unended.listed().await;
    assert_eq!(unended.next().await.unwrap().r#type(), PacketType::PacketFin);
    assert_eq!(unended.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut closed = Sender::start(&session, false).await.unwrap();
    closed.listed().await;
    assert_eq!(closed.next().await.unwrap().r#type(), PacketType::PacketFin);
    let (unused, _) = mpsc::channel(1);
    closed.packets = unused;
    let status = closed.next().await.unwrap_err();
    assert!(status.code() == Code::Cancelled && status.message().contains("FIN"), "{status}");
    until("nothing is left", || names(dir.path()).is_empty()).await;
    let after = std::fs::metadata(dir.path()).unwrap();
    assert_eq!(after.mode(), before.mode(), "the directory itself is left as it is");
}
