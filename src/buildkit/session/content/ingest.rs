//! One write into a store, from its first message to its commit.
//!
//! Invariants: bytes are hashed as they come, and none are written twice; a write that ends without a commit leaves
//! nothing; each message has one answer.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::Context;
use lemnos_proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use tonic::{Status, Streaming};

use super::blocking;
use super::digest::{Algorithm, Digest};
use super::store::{ContentStore, StoreError};
use crate::buildkit::session::filesync::Patience;
use crate::buildkit::session::outgoing::Outbox;

/// Longest name of a write.
const MAX_REFERENCE: usize = 4096;

/// How far a write is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub reference: String,
    pub expected: Option<Digest>,
    /// 0 where it is not known.
    pub total: u64,
    pub offset: u64,
    pub started: SystemTime,
    pub updated: SystemTime,
    /// Tells this write from a later one of the same name.
    number: uuid::Uuid,
}

impl Progress {
    pub fn new(reference: &str, expected: Option<Digest>, total: u64) -> Self {
        let now = SystemTime::now();
        let (reference, number) = (reference.to_owned(), uuid::Uuid::now_v7());
        Self { reference, expected, total, offset: 0, started: now, updated: now, number }
    }
}

/// A write under way.
pub(super) struct Ingest {
    store: Arc<ContentStore>,
    progress: Progress,
    algorithm: Algorithm,
    hash: Context,
    /// None once it is committed.
    file: Option<tempfile::NamedTempFile>,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let mut writes = self.store.writes();
        if writes.get(&self.progress.reference).is_some_and(|known| known.number == self.progress.number) {
            writes.remove(&self.progress.reference);
        }
    }
}

impl Ingest {
    pub fn new(store: Arc<ContentStore>, progress: Progress) -> Result<Self, StoreError> {
        let algorithm = progress.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let mut this = Self { store, progress, algorithm, hash: algorithm.context(), file: None };
        let dir = this.store.root().join("ingest");
        std::fs::create_dir_all(&dir)?;
        let mode = std::fs::Permissions::from_mode(0o444);
        this.file = Some(tempfile::Builder::new().permissions(mode).tempfile_in(dir)?);
        Ok(this)
    }

    fn take(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, StoreError> {
        let known = self.store.progress(&self.progress.reference);
        if !known.is_ok_and(|known| known.number == self.progress.number) {
            return Err(StoreError::Aborted(self.progress.reference.clone()));
        }
        if !request.expected.is_empty() {
            let expected: Digest = request.expected.parse()?;
            self.store.must_be_absent(Some(&expected))?;
            self.progress.expected = Some(expected);
        }
        if let Ok(total @ 1..) = u64::try_from(request.total) {
            self.progress.total = total;
        }
        let action = request.action();
        if action != WriteAction::Stat {
            self.write(request.offset, &request.data)?;
        }
        self.store.writes().insert(self.progress.reference.clone(), self.progress.clone());
        let digest = match action {
            WriteAction::Commit => self.commit()?,
            _ => Digest::of(self.algorithm, &self.hash),
        };
        Ok(WriteContentResponse {
            action: action.into(),
            started_at: super::time(self.progress.started),
            updated_at: super::time(self.progress.updated),
            offset: i64::try_from(self.progress.offset).unwrap_or(i64::MAX),
            total: i64::try_from(self.progress.total).unwrap_or(i64::MAX),
            digest: digest.to_string(),
        })
    }

    /// At the end of what is there, or from the start anew.
    fn write(&mut self, at: i64, data: &[u8]) -> Result<(), StoreError> {
        let Some(file) = &mut self.file else {
            return Err(StoreError::Aborted(self.progress.reference.clone()));
        };
        let file = file.as_file_mut();
        if at == 0 && self.progress.offset > 0 {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            self.hash = self.algorithm.context();
            self.progress.offset = 0;
        }
        if u64::try_from(at) != Ok(self.progress.offset) {
            return Err(StoreError::Offset { at, end: self.progress.offset });
        }
        file.write_all(data)?;
        self.hash.update(data);
        self.progress.offset += data.len() as u64;
        self.progress.updated = SystemTime::now();
        Ok(())
    }

    fn commit(&mut self) -> Result<Digest, StoreError> {
        let found = Digest::of(self.algorithm, &self.hash);
        let mismatch = |found: String, wanted: String| Err(StoreError::Mismatch { found, wanted });
        let (offset, total) = (self.progress.offset, self.progress.total);
        if total > 0 && total != offset {
            return mismatch(format!("{offset} bytes"), format!("{total} bytes"));
        }
        if let Some(wanted) = self.progress.expected.as_ref().filter(|wanted| **wanted != found) {
            return mismatch(found.to_string(), wanted.to_string());
        }
        self.store.must_be_absent(Some(&found))?;
        let path = self.store.blob_path(&found);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        if let Some(file) = self.file.take() {
            file.persist(path).map_err(|problem| problem.error)?;
        }
        Ok(found)
    }
}

/// Answers the messages of one call.
pub(super) async fn serve(
    store: Arc<ContentStore>,
    mut inbound: Streaming<WriteContentRequest>,
    outbox: Outbox<WriteContentResponse>,
    patience: Patience,
) -> Result<(), Status> {
    let mut ingest = None;
    loop {
        let received = tokio::time::timeout(patience.asking, inbound.message()).await;
        let received = received.map_err(|_| Status::deadline_exceeded("the write was silent too long"))?;
        let Some(request) = received? else { return Ok(()) };
        let commits = request.action() == WriteAction::Commit;
        let (store, started) = (store.clone(), ingest.take());
        let (going_on, answer) = blocking(move || {
            let mut ingest = match started {
                Some(ingest) => ingest,
                None => begin(&store, &request)?,
            };
            let answer = ingest.take(request)?;
            Ok((ingest, answer))
        })
        .await?;
        ingest = (!commits).then_some(going_on);
        outbox.put(answer).await?;
        if commits {
            return Ok(());
        }
    }
}

fn begin(store: &Arc<ContentStore>, first: &WriteContentRequest) -> Result<Ingest, StoreError> {
    if first.r#ref.is_empty() || first.r#ref.len() > MAX_REFERENCE {
        return Err(StoreError::Reference { limit: MAX_REFERENCE });
    }
    let expected = match first.expected.as_str() {
        "" => None,
        text => Some(text.parse()?),
    };
    store.begin(&first.r#ref, expected, u64::try_from(first.total).unwrap_or_default())
}
