//! Docker's side of a build: where dockerd is, what its configuration says of proxies, and images loaded into it, by builds of any kind.
//!
//! Nothing is asked of dockerd but `GET /info` and `POST /images/load`. Invariant: an image that dockerd did not take
//! whole fails the build.

mod place;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::buildkit::session::filesend::{Output, OutputStream};
use crate::buildkit::{Address, ByteStream, DockerHost, Endpoint, Programs, Tls};
use crate::config::Environment;
use crate::error::{Kind, Report};
use place::{Place, Security};

/// Pieces of an image waiting for dockerd.
const WAITING: usize = 8;
/// How much of an archive is read at once.
const PIECE: usize = 1 << 20;
/// Largest answer that is read.
const ANSWER_LIMIT: usize = 4 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what broke a connection may take to be known.
const REASON_GRACE: Duration = Duration::from_secs(1);
/// Largest configuration file.
const CONFIG_LIMIT: u64 = 4 << 20;

/// What the user's docker would do.
#[derive(Debug, Clone, Default)]
pub struct Docker {
    place: Place,
    /// What the context `default` is.
    default: Place,
    dir: Option<PathBuf>,
    config: Config,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Config {
    #[serde(default)]
    proxies: BTreeMap<String, Proxies>,
    #[serde(default, rename = "currentContext")]
    context: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
}

/// What a dockerd can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// It keeps images as containerd does: OCI layouts and several platforms can be loaded.
    pub containerd_store: bool,
}

impl Docker {
    pub fn read(environment: &Environment) -> Result<Self, Report> {
        let dir = environment.get("DOCKER_CONFIG").map(PathBuf::from);
        let dir = dir.or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".docker")));
        let config = match &dir {
            Some(dir) => config(&dir.join("config.json"))?,
            None => Config::default(),
        };
        let default = Place::of_environment(environment, dir.as_deref());
        let context = environment.get("DOCKER_CONTEXT").unwrap_or(&config.context).to_owned();
        let docker = Self { place: default.clone(), default, dir, config };
        match environment.get("DOCKER_HOST") {
            Some(_) => Ok(docker),
            None => docker.in_context(Some(&context)),
        }
    }

    /// Another dockerd, by the name of its context.
    pub fn in_context(&self, context: Option<&str>) -> Result<Self, Report> {
        match context {
            None | Some("") => Ok(self.clone()),
            Some("default") => Ok(Self { place: self.default.clone(), ..self.clone() }),
            Some(context) => {
                Ok(Self { place: Place::of_context(context, self.dir.as_deref())?, ..self.clone() })
            }
        }
    }

    /// The dockerd that a builder is.
    pub fn at(&self, host: &DockerHost, tls: Option<&Tls>) -> Self {
        let security = tls.cloned().map_or(Security::Plain, Security::Tls);
        Self { place: Place { host: host.to_string(), security }, ..self.clone() }
    }

    /// Where docker keeps its configuration.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether this is the dockerd at an address.
    pub fn is_at(&self, address: &str) -> bool {
        self.place.host == address
    }

    /// Its BuildKit, where dockerd is at all: a socket that is not there is no dockerd.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, Report> {
        let (host, tls) = self.place.resolve().map_err(|e| self.unreachable(&e))?;
        let missing = matches!(&host, DockerHost::Unix(path) if !path.exists());
        Ok((!missing).then_some(Endpoint { address: Address::Docker(host), tls }))
    }

    /// Proxies for the steps of a build, as build arguments.
    pub fn proxies(&self) -> Vec<(&'static str, &str)> {
        let Some(set) =
            self.config.proxies.get(&self.place.host).or_else(|| self.config.proxies.get("default"))
        else {
            return Vec::new();
        };
        let all = [
            ("HTTP_PROXY", set.http_proxy.as_str()),
            ("HTTPS_PROXY", &set.https_proxy),
            ("NO_PROXY", &set.no_proxy),
            ("FTP_PROXY", &set.ftp_proxy),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    pub async fn features(&self) -> Result<Features, Report> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(rename = "DriverStatus", default)]
            driver: Option<Vec<Vec<String>>>,
        }
        let asked = async {
            let body = Empty::new().map_err(|never| match never {}).boxed();
            self.ask(Method::GET, "/info", body).await
        };
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()));
        let answer = answer.map_err(|e| self.unreachable(&e))?;
        let info: Info =
            serde_json::from_slice(&answer).map_err(|e| self.unreachable(&io::Error::other(e)))?;
        let containerd_store = info.driver.unwrap_or_default().iter().any(|pair| {
            matches!(pair.as_slice(), [name, value] if name == "driver-type" && value == "io.containerd.snapshotter.v1")
        });
        Ok(Features { containerd_store })
    }

    fn unreachable(&self, cause: &io::Error) -> Report {
        Report::new(Kind::Unavailable, format!("dockerd at {}: {cause}", self.place.host))
            .hint("start it, set DOCKER_HOST, or choose another output: --push, or -o type=oci,dest=FILE")
    }

    /// Loads an archive of images.
    pub async fn load(&self, archive: &Path) -> Result<(), Report> {
        let loaded = async {
            let mut archive = tokio::fs::File::open(archive).await?;
            let mut images = self.open(&BTreeMap::new()).await?;
            let mut piece = BytesMut::with_capacity(PIECE);
            while archive.read_buf(&mut piece).await? > 0 {
                images.write(piece.split().freeze()).await?;
                piece.reserve(PIECE);
            }
            images.finish().await
        };
        loaded.await.map_err(|e| self.unreachable(&e))
    }

    async fn ask(&self, method: Method, path: &str, body: BoxBody<Bytes, io::Error>) -> io::Result<Bytes> {
        let (host, tls) = self.place.resolve()?;
        let stream = host.open(tls.as_ref(), &Programs::default()).await?;
        exchange(TokioIo::new(stream), method, path, body).await
    }
}

fn config(path: &Path) -> Result<Config, Report> {
    let bad = |problem: String| Report::user(format!("docker's configuration {}: {problem}", path.display()));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
        Ok(found) if found.len() > CONFIG_LIMIT => return Err(bad("it is too large".to_owned())),
        _ => {}
    }
    let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    // its own message may quote a secret
    serde_json::from_slice(&text).map_err(|e| bad(format!("no JSON as expected, line {}", e.line())))
}

async fn exchange(
    stream: TokioIo<Box<dyn ByteStream>>,
    method: Method,
    path: &str,
    body: BoxBody<Bytes, io::Error>,
) -> io::Result<Bytes> {
    let (mut asking, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let driving = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "docker")
        .header("content-type", "application/x-tar");
    let request = request.body(body).map_err(io::Error::other)?;
    let answer = match asking.send_request(request).await {
        Ok(answer) => answer,
        // a refused certificate shows here, and only whoever drives the connection knows of it
        Err(error) => {
            let broke = tokio::time::timeout(REASON_GRACE, driving).await;
            let cause = broke.ok().and_then(|ended| ended.ok()?.err()).unwrap_or(error);
            return Err(io::Error::other(format!("{:#}", anyhow::Error::from(cause))));
        }
    };
    let status = answer.status();
    let words =
        Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
    driving.abort();
    match status {
        StatusCode::OK => Ok(words),
        _ => Err(io::Error::other(format!(
            "{path} was answered {status}: {}",
            String::from_utf8_lossy(&words).trim()
        ))),
    }
}

#[async_trait]
impl Output for Docker {
    async fn open(&self, _: &BTreeMap<String, String>) -> io::Result<Box<dyn OutputStream>> {
        let (pieces, taken) = mpsc::channel::<io::Result<Frame<Bytes>>>(WAITING);
        let body = http_body_util::BodyExt::boxed(StreamBody::new(ReceiverStream::new(taken)));
        let docker = self.clone();
        let loading =
            tokio::spawn(async move { docker.ask(Method::POST, "/images/load?quiet=1", body).await });
        Ok(Box::new(Loading { loading: AbortOnDropHandle::new(loading), pieces }))
    }
}

/// An image on its way into dockerd. Dropped before its end, the request is cut first: half an image is not to look whole.
struct Loading {
    loading: AbortOnDropHandle<io::Result<Bytes>>,
    pieces: mpsc::Sender<io::Result<Frame<Bytes>>>,
}

#[async_trait]
impl OutputStream for Loading {
    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        if self.pieces.send(Ok(Frame::data(data))).await.is_ok() {
            return Ok(());
        }
        let answer = (&mut self.loading).await.map_err(io::Error::other)?;
        answer.and_then(|words| loaded(&words))?;
        Err(io::Error::other("dockerd took only a part of the image"))
    }

    async fn finish(self: Box<Self>) -> io::Result<()> {
        let Self { loading, pieces } = *self;
        drop(pieces);
        let answer = loading.await.map_err(io::Error::other)??;
        loaded(&answer)
    }
}

/// dockerd tells of a failure in a line of an answer that began well.
fn loaded(answer: &[u8]) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        error: Option<String>,
    }
    let lines = answer.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let told = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()?.error).next();
    told.map_or(Ok(()), |error| Err(io::Error::other(format!("dockerd: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxies_are_those_of_the_daemon_or_the_default_ones() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}, "tcp://d:1": {"httpsProxy": "s"}}, "auths": {}}"#;
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let home = dir.path().display().to_string();
        let docker = |host: &str| {
            Docker::read(&Environment::of([("DOCKER_CONFIG", home.as_str()), ("DOCKER_HOST", host)])).unwrap()
        };
        assert_eq!(docker("unix:///d.sock").proxies(), [("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "x")]);
        assert_eq!(docker("tcp://d:1").proxies(), [("HTTPS_PROXY", "s")]);
        assert_eq!(docker("unix:///nowhere/d.sock").endpoint().unwrap(), None);
        let far = docker("ssh://me@d").endpoint().unwrap().unwrap();
        assert_eq!(far.address.to_string(), "docker+ssh://me@d");
    }

    #[test]
    fn a_dockerd_named_by_address_comes_before_contexts() {
        let dir = tempfile::tempdir().unwrap();
        // sha256 of "far"
        let id = crate::model::Digest::of(b"far").as_str().replace("sha256:", "");
        let meta = dir.path().join("contexts/meta").join(id);
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Endpoints":{"docker":{"Host":"ssh://me@far"}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let home = dir.path().display().to_string();
        let read = |variables: &[(&'static str, &str)]| {
            let variables = variables.iter().copied().chain([("DOCKER_CONFIG", home.as_str())]);
            Docker::read(&Environment::of(variables)).unwrap()
        };
        assert_eq!(read(&[]).place.host, "ssh://me@far");
        assert_eq!(read(&[("DOCKER_CONTEXT", "default")]).place.host, "unix:///var/run/docker.sock");
        let named = read(&[("DOCKER_HOST", "tcp://d:1")]);
        assert_eq!(named.place.host, "tcp://d:1");
        assert_eq!(named.in_context(Some("default")).unwrap().place.host, "tcp://d:1");
        assert_eq!(named.in_context(Some("far")).unwrap().place.host, "ssh://me@far");
    }

    #[test]
    fn a_failure_stands_in_a_line_of_the_answer() {
        loaded(b"{\"stream\":\"Loaded image: a\"}\n").unwrap();
        loaded(b"").unwrap();
        let error = loaded(b"{\"stream\":\"x\"}\n{\"errorDetail\":{},\"error\":\"no space\"}\n").unwrap_err();
        assert!(error.to_string().contains("no space"));
    }
}
