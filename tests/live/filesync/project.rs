//! A repository whose commits are built as a push would build them, and the images that come of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use lemnos::buildkit::session::filesync::{Concern, TransferStats};
use lemnos::buildkit::{Client, Endpoint, Exporter, Session, SolveRequest};
use lemnos::model::Sha;
use lemnos::solve::context::{GitContext, Ledger, shared_key};
use sha2::{Digest as _, Sha256};

use crate::support::engines;

pub const FILE: i32 = 0o100_644;
pub const EXECUTABLE: i32 = 0o100_755;
pub const LINK: i32 = 0o120_000;
pub const SUBMODULE: i32 = 0o160_000;

/// One `DiffCopy` call.
pub type Sent = lemnos::buildkit::session::filesync::Transfer;

/// Path, mode, content.
type Tree<'a> = Vec<(&'a [u8], i32, &'a [u8])>;

/// An app of one branch.
pub struct Project {
    dir: tempfile::TempDir,
    git: git2::Repository,
    files: BTreeMap<Vec<u8>, (i32, Vec<u8>)>,
    /// Unlike any other project's.
    pub name: String,
    pub ledger: Ledger,
    /// How far our clock is ahead of the daemon's.
    pub clock_ahead_s: i64,
    pub context: &'static str,
    pub dockerfile: &'static str,
}

/// A finished build.
pub struct Built {
    image: String,
    pub digest: String,
    pub sent: Vec<Sent>,
    pub concerns: Vec<Concern>,
}

/// A file of an image.
#[derive(PartialEq, Eq)]
pub struct File {
    kind: char,
    mode: u32,
    link: String,
    content: Vec<u8>,
}

impl File {
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = hex::encode(&Sha256::digest(&self.content)[..4]);
        write!(f, "{}{:o} {} {}b {digest}", self.kind, self.mode, self.link, self.content.len())
    }
}

pub type Files = BTreeMap<String, File>;

impl Project {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        Self {
            dir,
            git,
            files: BTreeMap::new(),
            name: format!("sync{:x}-{}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed)),
            ledger: Ledger::default(),
            clock_ahead_s: 0,
            context: "",
            dockerfile: "Dockerfile",
        }
    }

    pub fn write(&mut self, path: &str, content: &str) {
        self.put(path, FILE, content.as_bytes());
    }
    pub fn put(&mut self, path: &str, mode: i32, content: &[u8]) {
        self.put_raw(path.as_bytes(), mode, content);
    }
    pub fn put_raw(&mut self, path: &[u8], mode: i32, content: &[u8]) {
        self.files.insert(path.to_vec(), (mode, content.to_vec()));
    }
    pub fn rename(&mut self, from: &str, to: &str) {
        let file = self.files.remove(from.as_bytes()).unwrap();
        self.files.insert(to.as_bytes().to_vec(), file);
    }

    fn now_s(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() + self.clock_ahead_s
    }

    fn tree(&self, files: Tree<'_>) -> git2::Oid {
        let mut builder = self.git.treebuilder(None).unwrap();
        let mut dirs: BTreeMap<&[u8], Tree<'_>> = BTreeMap::new();
        for (path, mode, content) in files {
            if let Some(slash) = path.iter().position(|b| *b == b'/') {
                dirs.entry(&path[..slash]).or_default().push((&path[slash + 1..], mode, content));
                continue;
            }
            let oid = match mode {
                SUBMODULE => git2::Oid::from_bytes(&[7; 20]).unwrap(),
                _ => self.git.blob(content).unwrap(),
            };
            builder.insert(path, oid, mode).unwrap();
        }
        for (name, files) in dirs {
            builder.insert(name, self.tree(files), 0o040_000).unwrap();
        }
        builder.write().unwrap()
    }

    fn commit(&self) -> Sha {
        let files =
            self.files.iter().map(|(path, (mode, content))| (path.as_slice(), *mode, content.as_slice()));
        let tree = self.git.find_tree(self.tree(files.collect())).unwrap();
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(1_700_000_000, 0)).unwrap();
        self.git.commit(None, &who, &who, "m", &tree, &[]).unwrap().to_string().parse().unwrap()
    }

    /// Builds what stands there now, as the next push of the branch, and pushes the image. The error is BuildKit's text.
    pub async fn build(&mut self) -> Result<Built, String> {
        let commit = self.commit();
        let now_s = self.now_s();
        let opened = GitContext::open(self.dir.path(), &commit, self.context, &mut self.ledger, now_s);
        let context = opened.unwrap().streaming_with("git".into());
        let (dockerfile_dir, dockerfile_name) =
            self.dockerfile.rsplit_once('/').unwrap_or(("", self.dockerfile));
        let dockerfile = context.at(dockerfile_dir).unwrap();
        let transfers = Arc::new(TransferStats::default());
        let image = format!("{}/live/{}", engines().registry, self.name);
        let attrs = [("name", image.as_str()), ("push", "true"), ("registry.insecure", "true")];
        let request = SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_attrs: BTreeMap::from([("filename".into(), dockerfile_name.into())]),
            exporters: vec![Exporter {
                kind: "image".into(),
                attrs: attrs.map(|(k, v)| (k.into(), v.into())).into(),
            }],
            internal: true,
            session: Session {
                shared_key: shared_key(&self.name, "refs/heads/main", self.context),
                dirs: BTreeMap::from([
                    ("context".into(), Arc::new(context) as _),
                    ("dockerfile".into(), Arc::new(dockerfile) as _),
                ]),
                transfers: transfers.clone(),
                ..Session::default()
            },
            ..SolveRequest::default()
        };
        let endpoint = Endpoint { address: engines().buildkit.parse().unwrap(), tls: None };
        let client = Client::connect(&endpoint, Duration::from_secs(10)).await.unwrap();
        let solved = tokio::time::timeout(Duration::from_secs(180), client.solve(request, |_| {})).await;
        self.ledger.finished(self.now_s());
        self.ledger = Ledger::from_bytes(&self.ledger.to_bytes()).unwrap();
        let solved = solved.expect("a build should end").map_err(|error| error.to_string())?;
        Ok(Built {
            image,
            digest: solved.attrs["containerimage.digest"].clone(),
            sent: transfers.transfers(),
            concerns: transfers.concerns(),
        })
    }

    /// The files of an image that copies the whole context.
    pub fn expected(&self) -> Files {
        let mut files = Files::new();
        for (path, (mode, content)) in &self.files {
            let path = String::from_utf8(path.clone()).unwrap();
            for (slash, _) in path.match_indices('/') {
                files.insert(
                    path[..slash].to_owned(),
                    File { kind: 'd', mode: 0o755, link: String::new(), content: Vec::new() },
                );
            }
            let file = match *mode {
                LINK => File {
                    kind: 'l',
                    mode: 0o777,
                    link: String::from_utf8(content.clone()).unwrap(),
                    content: Vec::new(),
                },
                mode => File {
                    kind: 'f',
                    mode: u32::try_from(mode).unwrap() & 0o777,
                    link: String::new(),
                    content: content.clone(),
                },
            };
            files.insert(path, file);
        }
        files
    }

    /// The work tree, on disk.
    fn check_out(&self, root: &Path) {
        use std::os::unix::fs::{PermissionsExt, symlink};
        for (path, (mode, content)) in &self.files {
            let path = root.join(std::str::from_utf8(path).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if *mode == LINK {
                symlink(std::str::from_utf8(content).unwrap(), &path).unwrap();
                continue;
            }
            std::fs::write(&path, content).unwrap();
            let mode = u32::try_from(*mode).unwrap() & 0o777;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

impl Built {
    /// All files of the image, as the registry has it.
    pub fn export(&self) -> Files {
        let reference = format!("{}@{}", self.image, self.digest);
        let mut crane = Command::new(&engines().crane)
            .args(["export", "--insecure", &reference, "-"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = crane.stdout.take().unwrap();
        let files = read_tar(&mut stdout);
        // a tar ends before its padding does
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert!(crane.wait().unwrap().success(), "crane export {reference}");
        files
    }
}

fn read_tar(tar: impl Read) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Regular => 'f',
            other => panic!("{other:?}"),
        };
        let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        let link =
            entry.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned()).unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(path, File { kind, mode: header.mode().unwrap() & 0o7777, link, content });
    }
    files
}

/// The same build by buildctl from a checked out work tree.
pub fn exported_by_buildctl(project: &Project) -> Result<Files, String> {
    let root = tempfile::tempdir().unwrap();
    project.check_out(root.path());
    let local = |name: &str| format!("{name}={}", root.path().display());
    let output = Command::new(&engines().buildctl)
        .args(["--addr", &engines().buildkit, "build", "--progress=plain", "--frontend=dockerfile.v0"])
        .args(["--local", &local("context"), "--local", &local("dockerfile"), "--output", "type=tar"])
        .output()
        .unwrap();
    if output.status.success() {
        Ok(read_tar(output.stdout.as_slice()))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
