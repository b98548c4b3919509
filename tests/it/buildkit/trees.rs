//! Our sender and our receiver over gRPC, on both sides of a relay: what comes out is what went in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use lemnos::buildkit::Session;
use lemnos::buildkit::session::filesend::{DirExport, Export};
use lemnos::buildkit::session::filesync::{DirSource, LocalDir, Mapped, Verdict, mode};
use lemnos_proto::session::file_sync_client::FileSyncClient;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::filesend::{Sender, into_dir, stat};
use super::served::{SOON, packets, serve};

/// Carries a directory from a session's FileSync to another's FileSend; the filters are the daemon's.
async fn carry(
    source: Arc<dyn DirSource>,
    out: &Path,
    delete: bool,
    filters: &[(&'static str, &str)],
) -> Result<(), Status> {
    let from = serve(Session::builder("k").dir("context", source).build().unwrap()).await;
    let export = Export::Dir(DirExport { path: out.to_owned(), delete, limit_bytes: None });
    let to = serve(Session::builder("k").export(0, export).build().unwrap()).await;
    let (to_sender, requests) = mpsc::channel(8);
    let (to_receiver, content) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(requests));
    request.metadata_mut().insert("dir-name", "context".parse().unwrap());
    for (key, value) in filters {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    let mut sent = FileSyncClient::new(from.channel.clone()).diff_copy(request).await?.into_inner();
    let mut request = Request::new(ReceiverStream::new(content));
    request.metadata_mut().insert("buildkit-exporter-multi-platform", "1".parse().unwrap());
    let mut asked = packets(to.channel.clone()).diff_copy(request).await?.into_inner();
    let forth = async move {
        while let Some(packet) = sent.message().await? {
            let _ = to_receiver.send(packet).await;
        }
        Ok::<_, Status>(())
    };
    let back = async move {
        while let Some(packet) = asked.message().await? {
            let _ = to_sender.send(packet).await;
        }
        Ok(())
    };
    let both = async { tokio::try_join!(forth, back) };
    tokio::time::timeout(SOON * 2, both).await.expect("the transfer should end").map(drop)
}

/// Everything that a tree consists of; hard links name the first path of their file.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(
        root: &Path,
        dir: &Path,
        inodes: &mut BTreeMap<u64, Vec<u8>>,
        tree: &mut BTreeMap<Vec<u8>, String>,
    ) {
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let found = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let mut text = format!("{:o} {}.{:09}", found.mode(), found.mtime(), found.mtime_nsec());
            if found.is_file() {
                let first = inodes.entry(found.ino()).or_insert_with(|| name.clone());
                let content = std::fs::read(&path).unwrap();
                let sum =
                    content.iter().fold(7_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
                text += &format!(" {} {sum:x} {}", content.len(), first.escape_ascii());
            } else if found.is_symlink() {
                text += &format!(" {}", std::fs::read_link(&path).unwrap().display());
            }
            tree.insert(name, text);
            if found.is_dir() {
                walk(root, &path, inodes, tree);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut BTreeMap::new(), &mut found);
    found
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

type Make = fn(&Path);

#[tokio::test]
async fn odd_trees_come_out_as_they_went_in() {
    let cases: &[(&str, Make)] = &[
        ("empty", |_| {}),
        ("names", |root| {
            for name in [
                "a b",
                "-rf",
                "..x",
                "x..",
                "*?[",
                "\\",
                "a\\b",
                "new\nline",
                "é",
                "日本",
                ".hidden",
                "~",
                "foo.txt",
                "foo!",
                "foo0",
            ] {
                std::fs::write(root.join(name), name).unwrap();
            }
            std::fs::write(root.join("n".repeat(255)), "long").unwrap();
            std::fs::create_dir(root.join("foo")).unwrap();
            std::fs::write(root.join("foo/bar"), "x").unwrap();
        }),
        ("sizes", |root| {
            for size in [0, 1, 32 << 10, (32 << 10) + 1, 5_000_000] {
                let content: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
                std::fs::write(root.join(size.to_string()), content).unwrap();
            }
        }),
        ("many", |root| {
            // more than are asked for at once, in more than one directory
            for n in 0..700 {
                let dir = root.join(format!("d{}", n % 7));
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::write(dir.join(n.to_string()), n.to_string().repeat(n)).unwrap();
            }
        }),
        ("links", |root| {
            std::fs::create_dir(root.join("d")).unwrap();
            for (name, target) in
                [("absent", "no/where"), ("absolute", "/etc/passwd"), ("d/up", "../../.."), ("self", "self")]
            {
                symlink(target, root.join(name)).unwrap();
                set_time(&root.join(name), 1_000_000_000, 5);
            }
        }),
        ("hard links", |root| {
            std::fs::create_dir_all(root.join("a")).unwrap();
            std::fs::create_dir_all(root.join("z")).unwrap();
            std::fs::write(root.join("a/first"), "shared").unwrap();
            for name in ["a/second", "b", "z/last"] {
                std::fs::hard_link(root.join("a/first"), root.join(name)).unwrap();
            }
            chmod(&root.join("b"), 0o640);
        }),
        ("modes", |root| {
            for mode in [0o000, 0o400, 0o111, 0o777, 0o4755, 0o2755, 0o1644] {
                let path = root.join(format!("f{mode:o}"));
                std::fs::write(&path, "x").unwrap();
                chmod(&path, mode);
            }
            for mode in [0o555, 0o700, 0o1777, 0o2775, 0o000] {
                let path = root.join(format!("d{mode:o}"));
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("in"), "x").unwrap();
                chmod(&path, mode);
            }
        }),
        ("times", |root| {
            std::fs::create_dir(root.join("d")).unwrap();
            for (name, seconds, nanoseconds) in [
                ("old", -1_000_000, 1),
                ("epoch", 0, 0),
                ("late", 4_000_000_000, 999_999_999),
                ("d/in", 1, 2),
            ] {
                std::fs::write(root.join(name), "x").unwrap();
                set_time(&root.join(name), seconds, nanoseconds);
            }
            set_time(&root.join("d"), 123, 456);
        }),
        ("pipe", |root| {
            let mode = rustix::fs::Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }),
        ("deep", |root| {
            let mut path = root.to_owned();
            for n in 0..100 {
                path.push(format!("d{n}"));
            }
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("bottom"), "x").unwrap();
        }),
    ];
    for (name, make) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        make(&from);
        carry(Arc::new(LocalDir::open(&from).unwrap()), &to, false, &[])
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tree(&to), tree(&from), "{name}");
        // a second time over the first, and over something else
        std::fs::create_dir(to.join("zz-stray")).unwrap();
        let again = Arc::new(LocalDir::open(&from).unwrap());
        carry(again, &to, true, &[]).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tree(&to), tree(&from), "{name}");
    }
}

#[tokio::test]
async fn hard_links_name_what_was_selected() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("a"), "shared").unwrap();
    for name in ["b", "c", "d"] {
        std::fs::hard_link(from.join("a"), from.join(name)).unwrap();
    }
    let source = Arc::new(LocalDir::open(&from).unwrap());
    carry(source, &to, false, &[("exclude-patterns", "a")]).await.unwrap();
    let inode = |name: &str| std::fs::metadata(to.join(name)).unwrap().ino();
    assert!(!to.join("a").exists());
    assert_eq!(std::fs::read_to_string(to.join("b")).unwrap(), "shared");
    assert!(inode("b") == inode("c") && inode("c") == inode("d"));
}

#[tokio::test]
async fn extended_attributes_are_carried_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("a"), "x").unwrap();
    rustix::fs::setxattr(from.join("a"), "user.kept", b"\x00value", rustix::fs::XattrFlags::empty()).unwrap();
    // of another namespace: this machine's affair
    rustix::fs::setxattr(from.join("a"), "trusted.not", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let get = |out: &Path, name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(out.join("a"), name, &mut value).ok().map(|length| value[..length].to_vec())
    };
    let source = LocalDir::open(&from).unwrap().with_xattrs();
    carry(Arc::new(source), &to, false, &[]).await.unwrap();
    assert_eq!(get(&to, "user.kept").unwrap(), b"\x00value");
    assert_eq!(get(&to, "trusted.not"), None);
    let plain = dir.path().join("plain");
    carry(Arc::new(LocalDir::open(&from).unwrap()), &plain, false, &[]).await.unwrap();
    assert_eq!(get(&plain, "user.kept"), None);
}

#[tokio::test]
async fn a_map_changes_what_is_announced_and_leaves_things_out() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for path in ["out/deep", "rest"] {
        std::fs::create_dir_all(from.join(path)).unwrap();
    }
    for path in ["a", "out/deep/x", "rest/1", "rest/2", "rest/3", "z"] {
        std::fs::write(from.join(path), path).unwrap();
    }
    let source = Arc::new(LocalDir::open(&from).unwrap());
    let mapped = Arc::new(Mapped::new(source, |entry| match entry.path.as_slice() {
        b"out" => Verdict::LeaveOut,
        b"rest/2" => Verdict::LeaveOutRest,
        _ => {
            entry.path = b"elsewhere".to_vec();
            entry.mtime_ns = 1_000_000_001;
            (entry.uid, entry.gid) = (1000, 1001);
            if entry.is_regular() {
                entry.mode = mode::STICKY | 0o600;
            }
            Verdict::Keep
        }
    }));
    let owners: Vec<(u32, u32)> =
        mapped.entries().unwrap().iter().map(|entry| (entry.uid, entry.gid)).collect();
    assert_eq!(owners, [(1000, 1001); 4]);
    carry(mapped, &to, false, &[]).await.unwrap();
    let found: Vec<String> =
        tree(&to).into_iter().map(|(path, text)| format!("{} {text}", path.escape_ascii())).collect();
    let words: Vec<(&str, &str)> = found.iter().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(words.iter().map(|(path, _)| *path).collect::<Vec<_>>(), ["a", "rest", "rest/1", "z"]);
    assert!(words[0].1.starts_with("101600 1.000000001 "), "{words:?}");
    assert_eq!(std::fs::read_to_string(to.join("rest/1")).unwrap(), "rest/1");
}

fn any_entry() -> impl Strategy<Value = (Vec<u8>, u32, Vec<u8>)> {
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just("up"),
        Just("in"),
        Just("file"),
        Just(".."),
        Just("."),
        Just("")
    ];
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/").into_bytes());
    let target = prop_oneof![
        Just(""),
        Just("a"),
        Just("file"),
        Just("../outside"),
        Just("up"),
        Just("up/file"),
        Just("/etc"),
        Just("in/file")
    ];
    let mode = prop_oneof![
        3 => Just(0o644), 3 => Just(mode::DIR | 0o755), 2 => Just(mode::SYMLINK | 0o777), 1 => Just(mode::FIFO | 0o600)
    ];
    (path, mode, target.prop_map(|target| target.as_bytes().to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is sent, in order or not, into a directory with links that lead out: nothing outside changes.
    #[test]
    fn nothing_outside_the_directory_is_touched(
        mut entries in proptest::collection::vec(any_entry(), 1..12),
        sorted in any::<bool>(),
        delete in any::<bool>(),
    ) {
        if sorted {
            entries.sort_by(|a, b| lemnos::buildkit::session::filesync::sending_order(&a.0, &b.0));
            entries.dedup_by(|a, b| a.0 == b.0);
        }
        let dir = tempfile::tempdir().unwrap();
        let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
        std::fs::create_dir_all(outside.join("a")).unwrap();
        std::fs::create_dir_all(out.join("in")).unwrap();
        std::fs::write(outside.join("file"), "precious").unwrap();
        std::fs::write(outside.join("a/file"), "precious").unwrap();
        symlink("../outside", out.join("up")).unwrap();
        symlink("../../outside/file", out.join("in/file")).unwrap();
        symlink(&outside, out.join("in/a")).unwrap();
        let before = tree(&outside);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let session = into_dir(&out, delete).await;
            let sender = Sender::start(&session, true).await.unwrap();
            let mut contents: BTreeMap<u32, &[u8]> = BTreeMap::new();
            for (id, (path, mode, target)) in entries.iter().enumerate() {
                contents.insert(id as u32, b"evil");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                sender.stat(stat(&text(path), *mode, 4, &text(target))).await;
            }
            sender.listed().await;
            let _ = sender.finish(&contents).await;
        });
        drop(runtime);
        prop_assert_eq!(tree(&outside), before);
        let beside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert_eq!(beside.len(), 2, "{:?}", beside.iter().map(OsStr::new).collect::<Vec<_>>());
    }
}
