//! Content: stores of blobs that the daemon reads, and writes where it may: caches of type `local`, OCI layouts as
//! contexts, exports into a layout.
//!
//! Invariants: a store is found by its whole name (`local:DIR`, `oci:ID`, `export`); a blob is named by its digest, and
//! appears only when its bytes have that digest; a store that is read-only here refuses every change; blobs pass in pieces.
//! Source: containerd's content service, api v1.11.1; moby/buildkit v0.32.2, session/content.

mod digest;
mod index;
mod ingest;
mod reset;
mod store;

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use lemnos_proto::content as wire;
use lemnos_proto::content::content_server::Content as Service;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

pub use digest::Digest;
pub use index::Descriptor;
pub use store::{ContentStore, Info, StoreError};

use super::filesync::Patience;
use super::outgoing::{self, Outbox, Outgoing};

/// Which store a call is for.
const STORE_ID: &str = "buildkit-attachable-store-id";
/// Bytes of one message of a blob.
const CHUNK: usize = 1 << 20;
/// Blobs told in one message of a list.
const LISTED_AT_ONCE: usize = 100;

/// The session's `Content` service.
pub(super) struct ContentService {
    stores: BTreeMap<String, Arc<ContentStore>>,
    patience: Patience,
}

impl ContentService {
    pub fn new(stores: BTreeMap<String, Arc<ContentStore>>, patience: Patience) -> Self {
        Self { stores, patience }
    }

    fn store(&self, metadata: &MetadataMap) -> Result<Arc<ContentStore>, Status> {
        let id = metadata.get(STORE_ID);
        let id = id.ok_or_else(|| Status::invalid_argument(format!("no metadata {STORE_ID}")))?;
        let known = std::str::from_utf8(id.as_bytes()).ok().and_then(|id| self.stores.get(id));
        known.cloned().ok_or_else(|| Status::not_found("this build has no such content store"))
    }
}

impl From<StoreError> for Status {
    fn from(problem: StoreError) -> Self {
        let message = problem.to_string();
        match problem {
            StoreError::Digest(_) | StoreError::Reference { .. } => Self::invalid_argument(message),
            StoreError::NotFound(_) | StoreError::NoWrite(_) => Self::not_found(message),
            StoreError::Exists(_) => Self::already_exists(message),
            StoreError::ReadOnly => Self::permission_denied(message),
            // the code with which containerd says that somebody else writes it: its clients wait, and try again
            StoreError::Busy(_) => Self::unavailable(message),
            StoreError::Offset { .. } => Self::out_of_range(message),
            StoreError::Mismatch { .. } => Self::failed_precondition(message),
            StoreError::Aborted(_) => Self::aborted(message),
            StoreError::Index(_) | StoreError::Io(_) => Self::data_loss(message),
        }
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(|_| Status::internal("the content store's work broke off"))??)
}

fn time(time: SystemTime) -> Option<prost_types::Timestamp> {
    Some(time.into())
}

fn info(info: &Info) -> wire::Info {
    wire::Info {
        digest: info.digest.to_string(),
        size: i64::try_from(info.size).unwrap_or(i64::MAX),
        created_at: time(info.created),
        updated_at: time(info.created),
        labels: BTreeMap::new(),
    }
}

fn status(progress: &ingest::Progress) -> wire::Status {
    wire::Status {
        started_at: time(progress.started),
        updated_at: time(progress.updated),
        r#ref: progress.reference.clone(),
        offset: i64::try_from(progress.offset).unwrap_or(i64::MAX),
        total: i64::try_from(progress.total).unwrap_or(i64::MAX),
        expected: progress.expected.as_ref().map(Digest::to_string).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Service for ContentService {
    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let store = self.store(request.metadata())?;
        let found = blocking(move || store.info(&request.get_ref().digest.parse()?)).await?;
        Ok(Response::new(wire::InfoResponse { info: Some(info(&found)) }))
    }

    /// Only labels can be changed, and none are kept.
    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        self.store(request.metadata())?;
        Err(Status::failed_precondition("this content store keeps no labels"))
    }

    type ListStream = Outgoing<wire::ListContentResponse>;

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let store = self.store(request.metadata())?;
        if !request.get_ref().filters.is_empty() {
            return Err(Status::unimplemented("this content store lists all blobs or none"));
        }
        Ok(Response::new(outgoing::run(1, self.patience.taking, move |outbox| async move {
            let all = blocking(move || store.list()).await?;
            for some in all.chunks(LISTED_AT_ONCE) {
                outbox.put(wire::ListContentResponse { info: some.iter().map(info).collect() }).await?;
            }
            Ok(())
        })))
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let store = self.store(request.metadata())?;
        blocking(move || store.delete(&request.get_ref().digest.parse()?)).await?;
        Ok(Response::new(()))
    }

    type ReadStream = Outgoing<wire::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(request.metadata())?;
        let asked = request.into_inner();
        let (file, size) = blocking(move || store.open(&asked.digest.parse()?)).await?;
        let offset = u64::try_from(asked.offset).unwrap_or_default();
        let Some(rest) = size.checked_sub(offset) else {
            return Err(Status::out_of_range(format!("the blob has {size} bytes only")));
        };
        let length = match u64::try_from(asked.size) {
            Ok(0) | Err(_) => rest,
            Ok(wanted) => wanted.min(rest),
        };
        Ok(Response::new(outgoing::run(2, self.patience.taking, move |outbox| {
            send(file, offset, length, outbox)
        })))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let store = self.store(request.metadata())?;
        let progress = store.progress(&request.get_ref().r#ref)?;
        Ok(Response::new(wire::StatusResponse { status: Some(status(&progress)) }))
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let store = self.store(request.metadata())?;
        if !request.get_ref().filters.is_empty() {
            return Err(Status::unimplemented("this content store lists all writes or none"));
        }
        let statuses = store.all_progress().iter().map(status).collect();
        Ok(Response::new(wire::ListStatusesResponse { statuses }))
    }

    type WriteStream = Outgoing<wire::WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(request.metadata())?;
        let (inbound, patience) = (request.into_inner(), self.patience);
        Ok(Response::new(outgoing::run(1, patience.taking, move |outbox| {
            ingest::serve(store, inbound, outbox, patience)
        })))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        self.store(request.metadata())?.abort(&request.get_ref().r#ref)?;
        Ok(Response::new(()))
    }
}

/// A part of a blob, in pieces.
async fn send(
    file: std::fs::File,
    mut offset: u64,
    mut left: u64,
    outbox: Outbox<wire::ReadContentResponse>,
) -> Result<(), Status> {
    let failed = |cause: std::io::Error| Status::data_loss(format!("reading a blob: {cause}"));
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let mut data = BytesMut::with_capacity(want);
        let read = (&mut file).take(want as u64).read_buf(&mut data).await.map_err(failed)? as u64;
        if read == 0 {
            return Err(Status::data_loss("a blob is shorter than it was"));
        }
        let at = i64::try_from(offset).unwrap_or(i64::MAX);
        outbox.put(wire::ReadContentResponse { offset: at, data: data.freeze() }).await?;
        (offset, left) = (offset + read, left - read);
    }
    Ok(())
}
