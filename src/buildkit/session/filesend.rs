//! FileSend: what exporters send back: one stream of bytes (`tar`, `oci`, `docker`), or a directory (`local`).
//!
//! Invariants: an exporter is found by its number and by nothing else; an output counts only when its stream ended in
//! good order and the build ended well, so that a broken one leaves no half under its name; memory does not grow with the size. Both
//! kinds share one method, whose messages differ: they are taken as bytes, and read by the target's kind.

mod codec;
mod order;
mod output;
mod receive;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lemnos_proto::session::BytesMessage;
use prost::Message;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status, Streaming};

pub(super) use codec::FileSendServer;
pub use output::{FileOutput, Output, OutputStream, WriterOutput};

use super::filesync::Patience;
use super::outgoing::{self, Outgoing};

/// Which exporter of the request a stream comes from.
const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Set by daemons that send all platforms of one export in one call, as deleting needs.
const WHOLE_EXPORT: &str = "buildkit-exporter-multi-platform";
/// In front of what an exporter tells of its stream.
const ABOUT: &str = "exporter-md-";
/// Packets waiting for the connection; more than may be asked for at once, so that asking never waits.
const QUEUE: usize = 2 * receive::ASKED_AT_ONCE;

/// Where one exporter's output goes.
#[derive(Clone)]
pub enum Export {
    /// Of `tar`, `oci` and `docker`.
    Stream(Arc<dyn Output>),
    /// Of `local`.
    Dir(DirExport),
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Dir(dir) => dir.fmt(f),
        }
    }
}

impl Export {
    /// A stream into the file at `path`, which is replaced when the build has ended well.
    pub fn file(path: &Path) -> Self {
        Self::Stream(Arc::new(FileOutput::new(path)))
    }

    /// A stream into `writer`, once.
    pub fn writer(writer: impl tokio::io::AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::Stream(Arc::new(WriterOutput::new(writer)))
    }

    /// Files below `path`, which is made where it is not there.
    pub fn dir(path: &Path) -> Self {
        Self::Dir(DirExport { path: path.to_owned(), delete: false, limit_bytes: None })
    }

    /// As `dir`, for at most so many bytes of files.
    pub fn bounded_dir(path: &Path, limit_bytes: u64) -> Self {
        Self::Dir(DirExport { path: path.to_owned(), delete: false, limit_bytes: Some(limit_bytes) })
    }
}

/// Makes what the exporters of a build sent final, or throws it away.
pub(in crate::buildkit) async fn decide(targets: &BTreeMap<u32, Export>, well: bool) -> std::io::Result<()> {
    let mut outcome = Ok(());
    for target in targets.values() {
        if let Export::Stream(output) = target {
            outcome = outcome.and(output.decide(well).await);
        }
    }
    outcome
}

/// A directory to write into.
///
/// Files, links and directories get the names, modes and times that the exporter says; they belong to whoever runs this
/// process. What stands under one of those names is replaced, but for a directory with something in it. A device is
/// refused: it would be one of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirExport {
    pub path: PathBuf,
    /// Whether to remove what the export does not name, as the exporter's attribute `mode=delete` asks.
    pub delete: bool,
    /// More bytes of files are refused.
    pub limit_bytes: Option<u64>,
}

/// What the service knows.
pub(super) struct Exports {
    targets: BTreeMap<u32, Export>,
    patience: Patience,
}

impl Exports {
    pub fn new(targets: BTreeMap<u32, Export>, patience: Patience) -> Self {
        Self { targets, patience }
    }

    /// One call of the daemon.
    fn accept(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Outgoing<Bytes>>, Status> {
        let (metadata, _, inbound) = request.into_parts();
        let id = exporter_id(&metadata)?;
        let target = self.targets.get(&id).cloned();
        let target = target.ok_or_else(|| Status::not_found(format!("this build has no exporter {id}")))?;
        let patience = self.patience;
        let outgoing = match target {
            Export::Stream(output) => {
                let about = about(&metadata);
                outgoing::run(1, patience.taking, move |_: outgoing::Outbox<Bytes>| async move {
                    store(inbound, &*output, &about, patience).await
                })
            }
            Export::Dir(dir) => {
                if dir.delete && metadata.get(WHOLE_EXPORT).is_none_or(|value| value.as_bytes() != b"1") {
                    return Err(Status::failed_precondition(
                        "this daemon sends an export in parts: nothing can be deleted (mode=delete needs a newer buildkitd)",
                    ));
                }
                outgoing::run(QUEUE, patience.taking, move |outbox| {
                    receive::receive(inbound, outbox, dir, patience)
                })
            }
        };
        Ok(Response::new(outgoing))
    }
}

/// A daemon that knows one exporter only does not say which.
fn exporter_id(metadata: &MetadataMap) -> Result<u32, Status> {
    let Some(value) = metadata.get(EXPORTER_ID) else { return Ok(0) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| Status::invalid_argument(format!("the metadata {EXPORTER_ID} is no number")))
}

/// What the exporter tells of its stream.
fn about(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let mut about = BTreeMap::<String, String>::new();
    for pair in metadata.iter() {
        if let KeyAndValueRef::Ascii(key, value) = pair
            && let Some(name) = key.as_str().strip_prefix(ABOUT)
        {
            let text = String::from_utf8_lossy(value.as_bytes());
            about
                .entry(name.to_owned())
                .and_modify(|known| {
                    known.push(',');
                    known.push_str(&text);
                })
                .or_insert_with(|| text.into_owned());
        }
    }
    about
}

/// Takes a stream of bytes to its end.
async fn store(
    mut inbound: Streaming<Bytes>,
    output: &dyn Output,
    about: &BTreeMap<String, String>,
    patience: Patience,
) -> Result<(), Status> {
    let slow = |_| Status::deadline_exceeded("the place that the export goes to takes nothing");
    let opened = tokio::time::timeout(patience.taking, output.open(about)).await.map_err(slow)?;
    let mut stream = opened.map_err(|cause| write_status(&cause))?;
    loop {
        let received = tokio::time::timeout(patience.asking, inbound.message()).await.map_err(|_| {
            Status::deadline_exceeded(format!("nothing was sent for {} s", patience.asking.as_secs()))
        })?;
        let Some(raw) = received? else { break };
        let data =
            BytesMessage::decode(raw).map_err(|_| Status::invalid_argument("not a piece of a stream"))?.data;
        if !data.is_empty() {
            let written = tokio::time::timeout(patience.taking, stream.write(data)).await.map_err(slow)?;
            written.map_err(|cause| write_status(&cause))?;
        }
    }
    let finished = tokio::time::timeout(patience.taking, stream.finish()).await.map_err(slow)?;
    finished.map_err(|cause| write_status(&cause))
}

/// The cause, without the place: that is ours alone.
fn write_status(cause: &std::io::Error) -> Status {
    let message = format!("writing the export: {cause}");
    match cause.kind() {
        std::io::ErrorKind::AlreadyExists => Status::already_exists(message),
        std::io::ErrorKind::PermissionDenied => Status::permission_denied(message),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted(message)
        }
        _ => Status::aborted(message),
    }
}
