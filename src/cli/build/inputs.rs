//! The files of a build: the main context and the Dockerfile, wherever they are.
//!
//! Invariant: a directory is offered under the name that the frontend asks for, once; what was made for the build (a
//! Dockerfile from standard input, an empty context) goes with it. Rules: buildx v0.36, build/opt.go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::AsyncRead;

use super::stdin::{Archive, DOCKERFILE_LIMIT, Stdin};
use crate::buildkit::flags::is_remote;
use crate::buildkit::gateway::{GatewayError, GatewayResult, GatewaySolve};
use crate::buildkit::llb::{Constraints, Http};
use crate::buildkit::session::filesync::{DirSource, LocalDir};
use crate::buildkit::session::upload::Upload;
use crate::buildkit::solve::MainContext;
use crate::buildkit::{Client, SolveRequest};
use crate::error::{Kind, Report};
use crate::model::Sha;
use crate::solve::context::{GitContext, Ledger, shared_key};

/// The file that a build is made from where none is named.
const DOCKERFILE: &str = "Dockerfile";

/// What the context was given as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    StandardInput,
    Directory(PathBuf),
    /// A git or HTTP address, for the daemon to fetch.
    Remote(String),
    /// A commit of a repository at hand.
    Commit {
        repository: PathBuf,
        commit: Sha,
    },
}

impl Place {
    pub fn read(given: &str) -> Result<Self, Report> {
        if given == "-" {
            return Ok(Self::StandardInput);
        }
        if Path::new(given).is_dir() {
            return Ok(Self::Directory(given.into()));
        }
        if is_remote(given) {
            return Ok(Self::Remote(given.to_owned()));
        }
        if given.contains('@') && !Path::new(given).exists() {
            let source = crate::cli::source::Source::open(given)?;
            return Ok(Self::Commit { repository: source.path, commit: source.commit.sha });
        }
        Err(Report::new(Kind::NotFound, format!("the build context {given:?} is no directory"))
            .hint("give a directory, a git or http address, - for standard input, or GITDIR@COMMIT"))
    }
}

/// Everything that the daemon may ask for, and how it is told of it.
#[derive(Default)]
pub struct Inputs {
    pub context: MainContext,
    /// The Dockerfile, within its directory.
    pub filename: String,
    /// Whether the file is in a directory of its own though the context is not ours.
    pub own_dockerfile: bool,
    pub dirs: BTreeMap<&'static str, Arc<dyn DirSource>>,
    /// Where those directories are that are ones of this machine.
    pub paths: BTreeMap<&'static str, PathBuf>,
    upload: Option<Tar>,
    /// Names it.
    upload_id: String,
    pub shared_key: String,
    /// The Dockerfile as the user knows it.
    pub shown: String,
    made: Vec<TempDir>,
}

/// A tar's bytes.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A context that is a tar.
enum Tar {
    /// As it comes; it can be read once.
    Stream(Stdin),
    /// Kept, to be read as often as there are builders.
    File(PathBuf),
}

/// A Dockerfile that is not a file here.
pub enum Text {
    None,
    Given(Vec<u8>),
}

impl Inputs {
    /// Opens the context and the file. `fetched` is the text behind `--file URL`.
    pub async fn open(place: &Place, file: Option<&str>, fetched: Option<Vec<u8>>) -> Result<Self, Report> {
        let mut inputs = Self::default();
        let file = file.filter(|file| !file.is_empty());
        let mut text = match (fetched, file) {
            (Some(fetched), _) => Text::Given(fetched),
            (None, Some("-")) => Text::Given(Stdin::open().await?.text().await?),
            (None, _) => Text::None,
        };
        let path = file.filter(|_| matches!(text, Text::None));
        match place {
            Place::StandardInput => inputs.standard_input(path, &mut text).await?,
            Place::Directory(dir) => inputs.directory(dir, path)?,
            Place::Remote(address) => inputs.remote(address, path)?,
            Place::Commit { repository, commit } => inputs.commit(repository, commit, path)?,
        }
        if inputs.shown.is_empty() {
            inputs.shown = match file {
                None => DOCKERFILE.to_owned(),
                Some("-") => "stdin".to_owned(),
                Some(file) => file.to_owned(),
            };
        }
        if let Text::Given(text) = text {
            inputs.own_file(&text)?;
        }
        if inputs.filename.is_empty() {
            DOCKERFILE.clone_into(&mut inputs.filename);
        }
        Ok(inputs)
    }

    /// Makes the context one that several builders can read: a stream is kept in a file.
    pub async fn for_several(&mut self) -> Result<(), Report> {
        match self.upload.take() {
            Some(Tar::Stream(stdin)) => {
                let path = self.made()?.join("context.tar");
                stdin.spool(&path).await?;
                self.upload = Some(Tar::File(path));
            }
            other => self.upload = other,
        }
        Ok(())
    }

    /// What the daemon fetches, by its name, where the context is a tar.
    pub fn upload(&mut self) -> Result<Option<(String, Reader)>, Report> {
        let id = self.upload_id.clone();
        Ok(match self.upload.take() {
            None => None,
            Some(Tar::Stream(stdin)) => Some((id, stdin.reader())),
            Some(Tar::File(path)) => {
                let file = std::fs::File::open(&path)
                    .map_err(|e| Report::internal(format!("reading {}: {e}", path.display())))?;
                self.upload = Some(Tar::File(path));
                Some((id, Box::pin(tokio::fs::File::from_std(file))))
            }
        })
    }

    async fn standard_input(&mut self, path: Option<&str>, text: &mut Text) -> Result<(), Report> {
        let stdin = Stdin::open().await?;
        if stdin.is_empty() {
            return Err(Report::user("standard input is empty: there is no build context in it"));
        }
        match stdin.archive() {
            Some(Archive::Tar) => {
                // the daemon takes one address for one source, whichever build asks: no two builds have the same
                self.upload_id = uuid::Uuid::now_v7().simple().to_string();
                let address = Upload::url(&self.upload_id);
                self.context = MainContext::Remote { address, own_dockerfile: false };
                self.upload = Some(Tar::Stream(stdin));
                path.unwrap_or_default().clone_into(&mut self.filename);
            }
            Some(Archive::Zstd) => {
                return Err(Report::user(
                    "a context packed with zstd is not unpacked by Dockerfile frontends",
                )
                .hint(
                    "unpack it on the way, `zstd -dc context.tar.zst | lemnos build -`, or pack it with gzip",
                ));
            }
            None if path.is_some() || matches!(text, Text::Given(_)) => {
                return Err(Report::user("both standard input and --file give a Dockerfile")
                    .hint("give a tar on standard input, or leave --file out"));
            }
            None => {
                *text = Text::Given(stdin.text().await?);
                let empty = self.made()?;
                self.offer("context", &empty)?;
                "stdin".clone_into(&mut self.shown);
            }
        }
        Ok(())
    }

    fn directory(&mut self, dir: &Path, file: Option<&str>) -> Result<(), Report> {
        let found = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        self.shared_key = key_of(&found);
        self.offer("context", dir)?;
        self.paths.insert("context", found);
        match file {
            None => {
                self.shown = dir.join(DOCKERFILE).display().to_string();
                self.filename = lower_case(dir, DOCKERFILE);
                if let Some(context) = self.dirs.get("context").cloned() {
                    self.dirs.insert("dockerfile", context);
                }
                self.paths.extend(self.paths.get("context").cloned().map(|path| ("dockerfile", path)));
                Ok(())
            }
            Some(file) => self.beside(file),
        }
    }

    /// The directory of a Dockerfile that is a file here.
    fn beside(&mut self, file: &str) -> Result<(), Report> {
        let path = Path::new(file);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Report::user(format!("--file {file:?} names no file")))?;
        self.filename = lower_case(dir, &name);
        self.offer("dockerfile", dir)?;
        self.paths.insert("dockerfile", dir.canonicalize().unwrap_or_else(|_| dir.to_owned()));
        Ok(())
    }

    fn remote(&mut self, address: &str, file: Option<&str>) -> Result<(), Report> {
        let own_dockerfile = file.is_some_and(|file| Path::new(file).is_absolute());
        self.context = MainContext::Remote { address: address.to_owned(), own_dockerfile };
        match file {
            Some(file) if own_dockerfile => self.beside(file)?,
            file => {
                file.unwrap_or_default().clone_into(&mut self.filename);
                self.shown = format!("{address}/{}", file.unwrap_or(DOCKERFILE));
            }
        }
        Ok(())
    }

    fn commit(&mut self, repository: &Path, commit: &Sha, file: Option<&str>) -> Result<(), Report> {
        let now_s = crate::store::now_ms().div_euclid(1000);
        // no state is kept outside of a server: every file goes over once more, and nothing is ever stale
        let context = GitContext::open(repository, commit, "", &mut Ledger::default(), now_s)?;
        let (beside, name) =
            file.map_or(("", DOCKERFILE), |file| file.rsplit_once('/').unwrap_or(("", file)));
        let dockerfile = context.at(beside)?;
        self.shared_key = key_of(&std::path::absolute(repository).unwrap_or_else(|_| repository.to_owned()));
        name.clone_into(&mut self.filename);
        self.dirs.insert("context", Arc::new(context));
        self.dirs.insert("dockerfile", Arc::new(dockerfile));
        Ok(())
    }

    /// A Dockerfile that came as text stands alone in a directory.
    fn own_file(&mut self, text: &[u8]) -> Result<(), Report> {
        let dir = self.made()?;
        let path = dir.join(DOCKERFILE);
        std::fs::write(&path, text)
            .map_err(|e| Report::internal(format!("writing {}: {e}", path.display())))?;
        self.dirs.remove("dockerfile");
        self.paths.remove("dockerfile");
        self.offer("dockerfile", &dir)?;
        DOCKERFILE.clone_into(&mut self.filename);
        self.own_dockerfile = true;
        if let MainContext::Remote { own_dockerfile, .. } = &mut self.context {
            *own_dockerfile = true;
        }
        Ok(())
    }

    fn made(&mut self) -> Result<PathBuf, Report> {
        let made = tempfile::Builder::new().prefix("lemnos-build-").tempdir();
        let made = made.map_err(|e| Report::internal(format!("making a temporary directory: {e}")))?;
        let path = made.path().to_owned();
        self.made.push(made);
        Ok(path)
    }

    fn offer(&mut self, name: &'static str, dir: &Path) -> Result<(), Report> {
        let source =
            LocalDir::open(dir).map_err(|e| Report::user(format!("the directory {}: {e}", dir.display())))?;
        self.dirs.insert(name, Arc::new(source));
        Ok(())
    }
}

/// Names the daemon's mirror of a directory: the machine and the path, so that no other one is met there.
pub fn key_of(path: &Path) -> String {
    let machine = rustix::system::uname();
    shared_key("build", &machine.nodename().to_string_lossy(), &path.display().to_string())
}

/// `dockerfile` where a directory has that instead of `Dockerfile`.
fn lower_case(dir: &Path, name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if name != DOCKERFILE || dir.join(name).exists() {
        return name.to_owned();
    }
    if dir.join(&lower).exists() { lower } else { name.to_owned() }
}

/// The Dockerfile at an address, fetched by the daemon.
pub async fn fetch(client: &Client, url: &str) -> Result<Vec<u8>, Report> {
    let constraints = Constraints::default().custom_name(format!("[internal] load {url}"));
    let state = Http::new(url).filename(DOCKERFILE).constraints(constraints).state();
    let definition =
        state.marshal(&Constraints::default()).map_err(|e| Report::user(format!("--file {url}: {e}")))?;
    let mut text = Vec::new();
    let kept = &mut text;
    let function = |gateway: crate::buildkit::gateway::Gateway| async move {
        let solve = GatewaySolve { definition: Some(definition.to_pb()), ..GatewaySolve::default() };
        let result = gateway.solve(solve).await?;
        let file = result.sole()?;
        let size = file.stat_file(DOCKERFILE).await?.size;
        if u64::try_from(size).map_or(true, |size| size > DOCKERFILE_LIMIT as u64) {
            return Err(GatewayError::Failed(format!(
                "it has {size} bytes, and a Dockerfile at most {DOCKERFILE_LIMIT}"
            )));
        }
        *kept = file.read_file(DOCKERFILE).await?.to_vec();
        Ok(GatewayResult::default())
    };
    let request = SolveRequest { internal: true, ..SolveRequest::default() };
    client
        .build(request, function, |_| {})
        .await
        .map_err(|e| Report::from(e).hint(format!("--file {url}")))?;
    Ok(text)
}
