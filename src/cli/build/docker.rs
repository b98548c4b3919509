//! Docker's side of a build: where dockerd is, what its configuration says of proxies, and images loaded into it.
//!
//! Nothing is asked of dockerd but `GET /info` and `POST /images/load`. Invariant: an image that dockerd did not take
//! whole fails the build.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::buildkit::session::filesend::{Output, OutputStream};
use crate::config::Environment;
use crate::error::{Kind, Report};

/// Where dockerd listens unless told otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// Pieces of an image waiting for dockerd.
const WAITING: usize = 8;
/// Largest answer that is read.
const ANSWER_LIMIT: usize = 4 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest configuration file.
const CONFIG_LIMIT: u64 = 4 << 20;

/// What the user's docker would do.
#[derive(Debug, Clone, Default)]
pub struct Docker {
    /// As in `unix:///var/run/docker.sock`.
    host: String,
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
        let mut docker = Self { host: String::new(), dir, config };
        let context = environment.get("DOCKER_CONTEXT").unwrap_or(&docker.config.context).to_owned();
        docker.host = match environment.get("DOCKER_HOST") {
            Some(host) => host.to_owned(),
            None => docker.host_of(&context)?,
        };
        Ok(docker)
    }

    /// The address behind a context's name.
    fn host_of(&self, context: &str) -> Result<String, Report> {
        #[derive(Deserialize)]
        struct Meta {
            #[serde(rename = "Endpoints", default)]
            endpoints: BTreeMap<String, MetaEndpoint>,
        }
        #[derive(Deserialize)]
        struct MetaEndpoint {
            #[serde(rename = "Host", default)]
            host: String,
        }
        if matches!(context, "" | "default") {
            return Ok(format!("unix://{SOCKET}"));
        }
        let id = crate::model::Digest::of(context.as_bytes());
        let id = id.as_str().trim_start_matches("sha256:").to_owned();
        let path = self.dir.clone().unwrap_or_default().join("contexts/meta").join(id).join("meta.json");
        let unknown = |problem: String| {
            Report::new(Kind::NotFound, format!("the docker context {context:?}: {problem}"))
        };
        let text = std::fs::read(&path).map_err(|e| unknown(format!("{}: {e}", path.display())))?;
        let meta: Meta = serde_json::from_slice(&text).map_err(|e| unknown(e.to_string()))?;
        let host = meta.endpoints.get("docker").map(|endpoint| endpoint.host.clone());
        host.filter(|host| !host.is_empty()).ok_or_else(|| unknown("it names no docker host".to_owned()))
    }

    /// Another dockerd, by the name of its context.
    pub fn in_context(&self, context: Option<&str>) -> Result<Self, Report> {
        match context {
            None | Some("") => Ok(self.clone()),
            Some(context) => Ok(Self { host: self.host_of(context)?, ..self.clone() }),
        }
    }

    /// The dockerd at a builder's own socket.
    pub fn at(&self, socket: &Path) -> Self {
        Self { host: format!("unix://{}", socket.display()), ..self.clone() }
    }

    /// Where docker keeps its configuration.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Whether this is the dockerd at an address.
    pub fn is_at(&self, address: &str) -> bool {
        self.host == address
    }

    /// dockerd's socket, where there is one.
    pub fn socket(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.host.strip_prefix("unix://")?);
        path.exists().then_some(path)
    }

    /// Proxies for the steps of a build, as build arguments.
    pub fn proxies(&self) -> Vec<(&'static str, &str)> {
        let Some(set) = self.config.proxies.get(&self.host).or_else(|| self.config.proxies.get("default"))
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
        Report::new(Kind::Unavailable, format!("dockerd at {}: {cause}", self.host))
            .hint("start it, set DOCKER_HOST, or choose another output: --push, or -o type=oci,dest=FILE")
    }

    async fn ask(&self, method: Method, path: &str, body: BoxBody<Bytes, io::Error>) -> io::Result<Bytes> {
        if let Some(path_of_socket) = self.host.strip_prefix("unix://") {
            let stream = UnixStream::connect(path_of_socket).await?;
            return exchange(TokioIo::new(stream), method, path, body).await;
        }
        match self.host.strip_prefix("tcp://").or_else(|| self.host.strip_prefix("http://")) {
            Some(host) => {
                let stream = TcpStream::connect(host.trim_end_matches('/')).await?;
                exchange(TokioIo::new(stream), method, path, body).await
            }
            None => Err(io::Error::other(
                "only unix:// and tcp:// without TLS can be reached: forward its socket",
            )),
        }
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

async fn exchange<T>(
    stream: TokioIo<T>,
    method: Method,
    path: &str,
    body: BoxBody<Bytes, io::Error>,
) -> io::Result<Bytes>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut asking, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let driving = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "docker")
        .header("content-type", "application/x-tar");
    let request = request.body(body).map_err(io::Error::other)?;
    let answer = asking.send_request(request).await.map_err(io::Error::other)?;
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
        assert_eq!(docker("unix:///nowhere/d.sock").socket(), None);
    }

    #[test]
    fn a_context_names_its_host() {
        let dir = tempfile::tempdir().unwrap();
        // sha256 of "far"
        let id = crate::model::Digest::of(b"far").as_str().replace("sha256:", "");
        let meta = dir.path().join("contexts/meta").join(id);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2375"}}}"#,
        )
        .unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let home = dir.path().display().to_string();
        let docker = Docker::read(&Environment::of([("DOCKER_CONFIG", home.as_str())])).unwrap();
        assert_eq!(docker.host, "tcp://far:2375");
        assert_eq!(docker.in_context(Some("default")).unwrap().host, "unix:///var/run/docker.sock");
        assert!(docker.in_context(Some("near")).unwrap_err().message.contains("near"));
    }

    #[test]
    fn a_failure_stands_in_a_line_of_the_answer() {
        loaded(b"{\"stream\":\"Loaded image: a\"}\n").unwrap();
        loaded(b"").unwrap();
        let error = loaded(b"{\"stream\":\"x\"}\n{\"errorDetail\":{},\"error\":\"no space\"}\n").unwrap_err();
        assert!(error.to_string().contains("no space"));
    }
}
