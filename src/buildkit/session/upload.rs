//! Upload: a stream of ours that the daemon fetches as `http://buildkit-session/ID`, for a context that is a tar.
//!
//! Invariants: a stream is given once, to whoever asks first; it is read no faster than it is taken, so that its size
//! costs no memory; an unknown or used name is an error, never an empty stream.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use lemnos_proto::upload::BytesMessage;
use lemnos_proto::upload::upload_server::Upload as Service;
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::{Request, Response, Status, Streaming};

use super::filesync::Patience;
use super::outgoing::{self, Outgoing};

/// Bytes of one message.
const CHUNK: usize = 64 << 10;
/// Messages read ahead.
const QUEUE: usize = 4;

type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// A stream to give once.
#[derive(Clone)]
pub struct Upload {
    reader: Arc<Mutex<Option<Reader>>>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.reader.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        f.debug_struct("Upload").field("left", &left).finish()
    }
}

impl Upload {
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self { reader: Arc::new(Mutex::new(Some(Box::new(reader)))) }
    }

    /// The address under which the daemon finds the upload called `id`, to be used as a context. No other build's may be the
    /// same: of two builds that name one address at a time, the daemon gives both what one of them uploads.
    pub fn url(id: &str) -> String {
        format!("http://buildkit-session/{id}")
    }
}

/// The session's `Upload` service.
pub(super) struct UploadService {
    uploads: BTreeMap<String, Upload>,
    patience: Patience,
}

impl UploadService {
    pub fn new(uploads: BTreeMap<String, Upload>, patience: Patience) -> Self {
        Self { uploads, patience }
    }
}

#[tonic::async_trait]
impl Service for UploadService {
    type PullStream = Outgoing<BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request.metadata().get("urlpath").map(|path| path.as_bytes().to_vec()).unwrap_or_default();
        let id = path.strip_prefix(b"/").unwrap_or(&path);
        let known = std::str::from_utf8(id).ok().and_then(|id| self.uploads.get(id));
        let upload = known.ok_or_else(|| {
            Status::not_found(format!("this build has no upload \"{}\"", id.escape_ascii()))
        })?;
        let taken = upload.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = taken.ok_or_else(|| {
            Status::failed_precondition("this upload has been fetched already, and can be only once")
        })?;
        let patience = self.patience;
        Ok(Response::new(outgoing::run(QUEUE, patience.taking, move |outbox| async move {
            pump(reader, &outbox, patience.asking).await
        })))
    }
}

async fn pump(
    mut reader: Reader,
    outbox: &outgoing::Outbox<BytesMessage>,
    silence: Duration,
) -> Result<(), Status> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = tokio::time::timeout(silence, reader.read_buf(&mut chunk)).await;
        let read = read.map_err(|_| {
            Status::deadline_exceeded(format!("the upload gave nothing for {} s", silence.as_secs()))
        })?;
        if read.map_err(|cause| Status::data_loss(format!("reading the upload: {cause}")))? == 0 {
            return Ok(());
        }
        outbox.put(BytesMessage { data: chunk.freeze() }).await?;
    }
}
