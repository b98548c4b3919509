//! What records name: blobs in the daemon's content store, and a failure with its details.
//!
//! Invariant: bytes are handed out only if they are those of the digest that they were asked by.

use lemnos_proto::content::ReadContentRequest;
use lemnos_proto::content::content_client::ContentClient;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use super::Record;
use super::export::is_sha256;
use crate::buildkit::connect::MESSAGE_LIMIT;
use crate::buildkit::{Client, Error, SolveError};

/// Largest blob that is held in memory.
const BLOB_LIMIT: usize = 64 << 20;

impl Client {
    /// The blob of that digest, which a record's descriptors name; none where the daemon has it no more.
    pub async fn history_blob(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        if !digest.strip_prefix("sha256:").is_some_and(is_sha256) {
            let message = format!("{digest:?} is no digest: it is sha256: and 64 digits from 0 to f");
            return Err(self.error(&Status::invalid_argument(message)));
        }
        let mut content = ContentClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let read = async {
            let mut blob = Vec::new();
            let mut pieces = content.read(request).await?.into_inner();
            while let Some(piece) = pieces.message().await? {
                if blob.len().saturating_add(piece.data.len()) > BLOB_LIMIT {
                    let message = format!("the blob {digest} has more than {BLOB_LIMIT} bytes");
                    return Err(Status::resource_exhausted(message));
                }
                blob.extend_from_slice(&piece.data);
            }
            if format!("sha256:{}", hex::encode(Sha256::digest(&blob))) != digest {
                return Err(Status::data_loss(format!(
                    "the blob {digest} has other bytes than its digest says"
                )));
            }
            Ok(blob)
        };
        match self.while_alive(read).await {
            Ok(blob) => Ok(Some(blob)),
            Err(Error::Refused { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Why a build failed, with the step and the place in its definition file where the record has kept them.
    pub async fn history_failure(&self, record: &Record) -> Result<Option<SolveError>, Error> {
        let details = match &record.external_error {
            Some(descriptor) => self.history_blob(&descriptor.digest).await?,
            None => None,
        };
        let told = details.and_then(|blob| {
            let code = lemnos_proto::rpc::Status::decode(blob.as_slice()).ok()?.code;
            Some(Status::with_details(Code::from_i32(code), "", blob.into()))
        });
        let told = told.or_else(|| {
            let failure = record.failure.as_ref()?;
            Some(Status::new(Code::from_i32(failure.code), failure.message.clone()))
        });
        Ok(told.map(|status| SolveError::from_status(&status)))
    }
}
