//! Whole transfers, and receivers and files that misbehave.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lemnos::buildkit::session::filesync::{
    Concern, DirSource, Entry, LocalDir, Missing, Patience, SourceError, mode,
};
use lemnos_proto::fsutil::types::Packet;
use lemnos_proto::fsutil::types::packet::PacketType;
use tonic::Code;

use super::receiver::{Dir, Session, packet};

const CONTEXT: (&str, &str) = ("dir-name", "context");

fn small() -> Dir {
    Dir::default()
        .file("foo.txt", "text")
        .file("foo/empty", "")
        .link("link", "foo/empty")
        .file("foo/sub/x", "x")
}

#[tokio::test]
async fn a_transfer_announces_answers_and_ends() {
    let session = Session::of(small()).await;
    let mut call = session.context().await;
    let listing = call.listing().await.unwrap();
    let seen: Vec<_> =
        listing.iter().map(|s| (s.path.as_str(), s.mode, s.size, s.linkname.as_str())).collect();
    let dir = mode::DIR | 0o755;
    assert_eq!(
        seen,
        [
            ("foo", dir, 0, ""),
            ("foo/empty", 0o644, 0, ""),
            ("foo/sub", dir, 0, ""),
            ("foo/sub/x", 0o644, 1, ""),
            ("foo.txt", 0o644, 4, ""),
            ("link", mode::SYMLINK | 0o777, 9, "foo/empty"),
        ]
    );
    assert!(listing.iter().all(|stat| stat.uid == 0 && stat.gid == 0 && stat.xattrs.is_empty()));
    assert_eq!(listing[4].mod_time, 1_234_567_890_123);
    assert_eq!(call.fetch(4).await.unwrap(), b"text");
    assert_eq!(call.fetch(1).await.unwrap(), b"");
    call.finish().await.unwrap();
    session.ended().await.unwrap();
    let transfers = session.stats.transfers();
    assert_eq!((transfers.len(), transfers[0].dir.as_str()), (1, "context"));
    assert_eq!((session.stats.stats(), session.stats.requests(), session.stats.bytes()), (6, 2, 4));
    assert_eq!(session.stats.failure(), None);
}

#[tokio::test]
async fn files_asked_for_together_arrive_whole_in_pieces() {
    let names: Vec<String> = (0..300).map(|n| format!("f{n:03}")).collect();
    let content = |n: usize| format!("{n}-").repeat(if n.is_multiple_of(50) { 40_000 } else { n });
    let dir = names.iter().enumerate().fold(Dir::default(), |dir, (n, name)| dir.file(name, &content(n)));
    let session = Session::of(dir).await;
    let mut call = session.context().await;
    let mut announced = 0;
    let mut received: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut open = 0;
    loop {
        let packet = call.next().await.unwrap();
        match (packet.r#type(), packet.stat) {
            // asked for while the announcement goes on
            (PacketType::PacketStat, Some(_)) => {
                call.request(announced).await;
                announced += 1;
                open += 1;
            }
            (PacketType::PacketStat, None) => {}
            (PacketType::PacketData, _) if packet.data.is_empty() => {
                received.entry(packet.id).or_default();
                open -= 1;
            }
            (PacketType::PacketData, _) => {
                assert!(packet.data.len() <= 32 << 10);
                received.entry(packet.id).or_default().extend_from_slice(&packet.data);
            }
            other => panic!("{other:?}"),
        }
        if announced == 300 && open == 0 {
            break;
        }
    }
    for (n, bytes) in &received {
        assert!(bytes == content(*n as usize).as_bytes(), "file {n}");
    }
    assert_eq!(received.len(), 300);
    call.finish().await.unwrap();
}

#[tokio::test]
async fn filters_come_as_metadata_and_ids_count_what_is_announced() {
    let session = Session::of(small().file("zed é", "z")).await;
    let mut call =
        session.ask(&[CONTEXT, ("include-patterns", "foo/sub"), ("followpaths", "lin?")]).await.unwrap();
    assert_eq!(call.paths().await.unwrap(), ["foo", "foo/empty", "foo/sub", "foo/sub/x", "link"]);
    assert_eq!(call.fetch(3).await.unwrap(), b"x");
    call.finish().await.unwrap();

    let encoded = [CONTEXT, ("include-patterns", "zed+%C3%A9"), ("include-patterns-encoded", "1")];
    let mut call = session.ask(&encoded).await.unwrap();
    assert_eq!(call.paths().await.unwrap(), ["zed é"]);

    let mut call =
        session.ask(&[CONTEXT, ("exclude-patterns", "*"), ("exclude-patterns", "!foo/sub/x")]).await.unwrap();
    assert_eq!(call.paths().await.unwrap(), ["foo", "foo/sub", "foo/sub/x"]);
    assert_eq!(call.fetch(2).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_dockerignore_of_thousands_of_lines_fits() {
    let session = Session::of(small()).await;
    let lines: Vec<String> = (0..5000).map(|n| format!("some/directory/or/other/{n}")).collect();
    let mut metadata = vec![CONTEXT, ("exclude-patterns", "foo")];
    metadata.extend(lines.iter().map(|line| ("exclude-patterns", line.as_str())));
    let mut call = session.ask(&metadata).await.unwrap();
    assert_eq!(call.paths().await.unwrap(), ["foo.txt", "link"]);
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_by_name() {
    let session = Session::of(small()).await;
    let status = session.ask(&[("dir-name", "secrets")]).await.err().unwrap();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), r#"this build has no directory "secrets"; it has context"#);
    let mut call = session.ask(&[CONTEXT, ("exclude-patterns", "foo*[")]).await.unwrap();
    let status = call.failure().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("exclude patterns (.dockerignore): the pattern \"foo*[\""), "{status}");
}

#[tokio::test]
async fn a_receiver_that_breaks_the_rules_is_told_which() {
    let request = |id| packet(PacketType::PacketReq, id);
    let err = Packet { data: "disk full".into(), ..packet(PacketType::PacketErr, 0) };
    let cases: Vec<(Vec<Packet>, Code, &str)> = vec![
        (vec![request(6)], Code::InvalidArgument, "a request for id 6, of 6 entries announced"),
        (vec![request(u32::MAX)], Code::InvalidArgument, "a request for id 4294967295"),
        (vec![request(0)], Code::InvalidArgument, "a request for foo, which is not a file"),
        (vec![request(5)], Code::InvalidArgument, "a request for link, which is not a file"),
        (vec![request(4), request(4)], Code::InvalidArgument, "a second request for foo.txt"),
        (vec![packet(PacketType::PacketStat, 0)], Code::InvalidArgument, "a STAT or DATA packet"),
        (vec![packet(PacketType::PacketData, 4)], Code::InvalidArgument, "a STAT or DATA packet"),
        (vec![Packet { r#type: 9, ..Packet::default() }], Code::InvalidArgument, "unknown type 9"),
        (vec![err], Code::Aborted, "the receiver failed: disk full"),
    ];
    for (packets, code, message) in cases {
        let session = Session::of(small()).await;
        let mut call = session.context().await;
        call.listing().await.unwrap();
        for packet in packets {
            call.send(packet).await;
        }
        let status = call.failure().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with("sending the directory \"context\": "), "{status}");
        assert!(status.message().contains(message), "{status}");
        assert_eq!(session.ended().await.unwrap_err(), status.message());
    }
}

#[tokio::test]
async fn a_fin_before_the_end_is_no_good_end() {
    let dir = Dir::default().content("slow", 1 << 30, || Ok(Box::new(std::io::repeat(b'x').take(1 << 30))));
    let session = Session::of(dir).await;
    let mut call = session.context().await;
    call.listing().await.unwrap();
    call.request(0).await;
    call.next().await.unwrap();
    call.send(packet(PacketType::PacketFin, 0)).await;
    let status = call.failure().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("FIN before everything was sent"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fin_right_after_the_last_packet_is_in_order() {
    let session = Session::of(small()).await;
    for _ in 0..200 {
        let mut call = session.context().await;
        call.listing().await.unwrap();
        assert_eq!(call.fetch(4).await.unwrap(), b"text");
        // the thread that sent it may still be about to end
        call.finish().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_it_announced_fails_by_name() {
    let failing = || SourceError::Read { path: "bad".to_owned(), cause: "disk on fire".to_owned() };
    struct Breaking;
    impl Read for Breaking {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("torn page"))
        }
    }
    let cases: Vec<(Dir, Code, &str)> = vec![
        (
            Dir::default().content("bad", 5, || Ok(Box::new(&b"four"[..]))),
            Code::DataLoss,
            "reading bad: it has 4 bytes, but 5 were announced",
        ),
        (
            Dir::default().content("bad", 3, || Ok(Box::new(&b"four"[..]))),
            Code::DataLoss,
            "reading bad: it has more than the 3 bytes announced",
        ),
        (
            Dir::default().content("bad", 0, || Ok(Box::new(&b"x"[..]))),
            Code::DataLoss,
            "more than the 0 bytes",
        ),
        (
            Dir::default().content("bad", 3, || Ok(Box::new(Breaking))),
            Code::DataLoss,
            "reading bad: torn page",
        ),
        (
            Dir::default().content("bad", 3, move || Err(failing())),
            Code::DataLoss,
            "reading bad: disk on fire",
        ),
        (
            Dir::default().content("bad", 3, || Err(SourceError::NotAFile { path: "bad".to_owned() })),
            Code::FailedPrecondition,
            "bad is not a regular file",
        ),
        (
            Dir::default().content("bad", 3, || panic!("on purpose")),
            Code::Internal,
            "reading a file broke off",
        ),
    ];
    for (dir, code, message) in cases {
        let session = Session::of(dir.file("good", "good")).await;
        let mut call = session.context().await;
        call.listing().await.unwrap();
        let status = call.fetch(0).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(message), "{status}");
        assert_eq!(session.stats.failure().unwrap(), status.message());
    }
}

#[tokio::test]
async fn names_that_are_not_utf8_fail_only_where_they_would_be_sent() {
    let bad = Entry { path: b"caf\xe9".to_vec(), mode: 0o644, ..Entry::default() };
    let session = Session::of(small().entry(bad)).await;
    let status = session.context().await.failure().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(r#"the name of "caf\xe9" is not UTF-8"#), "{status}");
    assert!(status.message().contains(".dockerignore"), "{status}");
    let mut call = session.ask(&[CONTEXT, ("exclude-patterns", "caf?")]).await.unwrap();
    assert_eq!(call.paths().await.unwrap().len(), 6);

    let bad = Entry {
        path: b"link2".to_vec(),
        mode: mode::SYMLINK | 0o777,
        size: 1,
        linkname: b"\xff".to_vec(),
        ..Entry::default()
    };
    let status = Session::of(small().entry(bad)).await.context().await.failure().await;
    assert!(status.message().contains(r#"the link target of "link2" is not UTF-8"#), "{status}");
}

#[tokio::test]
async fn missing_content_is_reported_where_the_filters_let_it_through() {
    let missing = |path: &str, missing| {
        let dir = missing != Missing::LfsPointer;
        let mode = if dir { mode::DIR | 0o755 } else { 0o644 };
        Entry { path: path.into(), mode, missing: Some(missing), ..Entry::default() }
    };
    let dir = || {
        small()
            .entry(missing("vendor", Missing::Submodule))
            .entry(missing("big.bin", Missing::LfsPointer))
            .entry(missing("other", Missing::Submodule))
    };
    let concern = |path: &str, missing| Concern { dir: "context".to_owned(), path: path.to_owned(), missing };
    let session = Session::of(dir()).await;
    let mut call = session.ask(&[CONTEXT, ("exclude-patterns", "other")]).await.unwrap();
    let paths = call.paths().await.unwrap();
    assert!(paths.contains(&"big.bin".to_owned()) && !paths.contains(&"vendor".to_owned()), "{paths:?}");
    assert_eq!(
        session.stats.concerns(),
        [concern("big.bin", Missing::LfsPointer), concern("vendor", Missing::Submodule)]
    );

    // a path inside a submodule concerns it, a path elsewhere does not
    let session = Session::of(dir()).await;
    session.ask(&[CONTEXT, ("followpaths", "vendor/lib/*.c")]).await.unwrap().paths().await.unwrap();
    assert_eq!(session.stats.concerns(), [concern("vendor", Missing::Submodule)]);
    let session = Session::of(dir()).await;
    session.ask(&[CONTEXT, ("followpaths", "foo.txt")]).await.unwrap().paths().await.unwrap();
    assert_eq!(session.stats.concerns(), []);

    let session = Session::of(small().entry(missing("locked", Missing::Unreadable))).await;
    let status = session.context().await.failure().await;
    assert_eq!(
        (status.code(), status.message().ends_with("locked cannot be read")),
        (Code::PermissionDenied, true)
    );
    let mut call = session.ask(&[CONTEXT, ("exclude-patterns", "locked")]).await.unwrap();
    assert_eq!(call.paths().await.unwrap().len(), 6);
}

/// Endless bytes that count themselves.
struct Counted {
    read: Arc<AtomicU64>,
    left: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(usize::try_from(self.left).unwrap());
        self.left -= n as u64;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

fn huge(size: u64) -> (Dir, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let counter = read.clone();
    let open = move || Ok(Box::new(Counted { read: counter.clone(), left: size }) as Box<dyn Read + Send>);
    (Dir::default().content("huge", size, open), read)
}

/// What may be between the file and the receiver: our queue, and what HTTP/2 and the pipe buffer.
const IN_FLIGHT: u64 = 6 << 20;

#[tokio::test]
async fn a_file_of_any_size_passes_through_constant_memory() {
    let size = 200 << 20;
    let (dir, read) = huge(size);
    let session = Session::of(dir).await;
    let mut call = session.context().await;
    call.listing().await.unwrap();
    call.request(0).await;
    let mut received = 0;
    loop {
        let packet = call.next().await.unwrap();
        if packet.data.is_empty() {
            break;
        }
        received += packet.data.len() as u64;
        let ahead = read.load(Ordering::Relaxed) - received;
        assert!(ahead <= IN_FLIGHT, "{ahead} bytes are held");
    }
    assert_eq!(received, size);
    call.finish().await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_stalls_is_given_up() {
    let (dir, read) = huge(1 << 40);
    let patience = Patience { taking: Duration::from_millis(200), asking: Duration::from_secs(60) };
    let session = Session::patient(dir, patience).await;
    let mut call = session.context().await;
    call.listing().await.unwrap();
    call.request(0).await;
    let ended = session.ended().await.unwrap_err();
    assert!(ended.contains("the receiver took nothing for"), "{ended}");
    assert!(read.load(Ordering::Relaxed) <= IN_FLIGHT);
    // and one that wakes up later sees a failure, not the end of a file
    let status = call.failure().await;
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, ended.as_str()));
}

#[tokio::test]
async fn a_receiver_that_asks_for_nothing_is_given_up() {
    let patience = Patience { taking: Duration::from_secs(60), asking: Duration::from_millis(50) };
    let session = Session::patient(small(), patience).await;
    let mut call = session.context().await;
    let status = call.failure().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("asked for nothing"), "{status}");
}

#[tokio::test]
async fn a_receiver_that_goes_away_ends_the_transfer() {
    let (dir, read) = huge(1 << 40);
    let session = Session::of(dir).await;
    let mut call = session.context().await;
    call.listing().await.unwrap();
    call.request(0).await;
    call.next().await.unwrap();
    drop(call);
    assert!(session.ended().await.is_err());
    assert!(read.load(Ordering::Relaxed) <= IN_FLIGHT, "the reader went on");
}

#[tokio::test]
async fn a_local_directory_is_sent_as_it_is() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    std::fs::create_dir(at("foo")).unwrap();
    std::fs::write(at("foo/run"), "#!").unwrap();
    std::fs::set_permissions(at("foo/run"), PermissionsExt::from_mode(0o4750)).unwrap();
    std::fs::set_permissions(at("foo"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::write(at("foo.txt"), "text").unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
    std::fs::File::options().write(true).open(at("foo.txt")).unwrap().set_modified(time).unwrap();
    std::fs::hard_link(at("foo.txt"), at("hard")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

    let session = Session::of(LocalDir::open(root.path()).unwrap()).await;
    let mut call = session.context().await;
    let listing = call.listing().await.unwrap();
    let seen: Vec<_> =
        listing.iter().map(|s| (s.path.as_str(), s.mode, s.size, s.linkname.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("foo", mode::DIR | mode::STICKY | 0o777, 0, ""),
            ("foo/run", mode::SETUID | 0o750, 2, ""),
            ("foo.txt", 0o644, 4, ""),
            ("hard", 0o644, 4, "foo.txt"),
            ("link", mode::SYMLINK | 0o777, 11, "/etc/passwd"),
        ]
    );
    assert_eq!(listing[2].mod_time, 1_700_000_000_123_456_789);
    assert_eq!(call.fetch(1).await.unwrap(), b"#!");
    assert_eq!(call.fetch(2).await.unwrap(), b"text");
    call.finish().await.unwrap();
}

#[tokio::test]
async fn links_that_appear_after_the_listing_are_not_followed() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "secret").unwrap();
    for dir in ["a", "b"] {
        std::fs::create_dir(root.path().join(dir)).unwrap();
        std::fs::write(root.path().join(dir).join("file"), "public").unwrap();
    }
    let source = LocalDir::open(root.path()).unwrap();
    let entries = source.entries().unwrap();
    std::fs::remove_file(root.path().join("a/file")).unwrap();
    symlink(outside.path().join("file"), root.path().join("a/file")).unwrap();
    std::fs::remove_dir_all(root.path().join("b")).unwrap();
    symlink(outside.path(), root.path().join("b")).unwrap();
    for path in ["a/file", "b/file"] {
        let entry = entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap();
        assert!(source.open(entry).is_err(), "{path}");
    }
}

#[test]
fn what_is_no_directory_cannot_be_one() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    let error = LocalDir::open(&root.path().join("file")).unwrap_err();
    assert!(error.to_string().ends_with("not a directory"), "{error}");
    assert!(matches!(LocalDir::open(&root.path().join("none")), Err(SourceError::NotFound { .. })));
}
