//! Records as a `.dockerbuild` file: an OCI image layout, gzipped, in which a build is a manifest. Its config is the
//! record, its layers are the record's blobs: trace, logs, attestations, results, the failure with its details.
//!
//! Invariants: every blob is checked against its digest and size while it is written; credentials of cache imports and
//! secrets in traces do not get into the file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use lemnos_proto::content::ReadContentRequest;
use lemnos_proto::content::content_client::ContentClient;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;

use super::archive::Archive;
use super::trace::without_secrets;
use super::{BuildResult, Descriptor, Record};
use crate::buildkit::connect::MESSAGE_LIMIT;
use crate::buildkit::{Client, Error};

const RECORD: &str = "application/vnd.buildkit.historyrecord.v0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Keeps a result's own media type, which would have readers look for what is not in the file.
const REAL_TYPE: &str = "vnd.export-build.descriptor.mediatype";
const REFERENCE: &str = "vnd.buildkit.history.reference";
/// Largest trace that is looked through for secrets, and largest blob at all.
const TRACE_LIMIT: i64 = 256 << 20;
const BLOB_LIMIT: i64 = 4 << 30;

/// Why records could not be exported. What has been written until then is no use.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Daemon(#[from] Error),
    #[error("there is no record to export: name a build that has ended")]
    Nothing,
    #[error("the record of build {reference} cannot be exported: its {what} {digest}: {reason}")]
    Blob { reference: String, what: &'static str, digest: String, reason: String },
    #[error("the export could not be written: {0}")]
    Write(#[from] io::Error),
}

/// As OCI has it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Layer,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Layer],
}

#[derive(Serialize)]
struct Config<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(rename = "DefaultPlatform")]
    default_platform: &'a str,
}

impl Client {
    /// Writes `records` to `out`. The daemon keeps a trace back for some minutes after a build: `finalize_history`
    /// before the record is read makes it part of the export.
    pub async fn export_history<W: Write + Send>(
        &self,
        records: Vec<Record>,
        out: W,
    ) -> Result<W, ExportError> {
        if records.is_empty() {
            return Err(ExportError::Nothing);
        }
        let workers = self.workers().await?;
        let platform =
            workers.first().and_then(|worker| worker.platforms.first()).cloned().unwrap_or_default();
        let content = ContentClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT);
        let several = records.len() > 1;
        let (archive, reference) = (Archive::new(out), String::new());
        let mut export = Export { content, archive, platform, reference, several };
        export.archive.directory("blobs/")?;
        export.archive.directory("blobs/sha256/")?;
        let mut manifests = Vec::new();
        for record in records {
            manifests.push(export.record(record).await?);
        }
        let mut root = manifests;
        if root.len() > 1 {
            let index = Index { schema_version: 2, media_type: INDEX, manifests: &root };
            root = vec![export.json(INDEX, &index)?];
        }
        let index = Index { schema_version: 2, media_type: INDEX, manifests: &root };
        let index = serde_json::to_vec(&index).map_err(io::Error::other)?;
        export.archive.file("index.json", 0o644, &index)?;
        export.archive.file("oci-layout", 0o444, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(export.archive.finish()?)
    }
}

impl Record {
    /// Takes out what opens the caches that the build read from.
    pub fn hide_credentials(&mut self) {
        if let Some(imports) = self.frontend_attrs.get_mut("cache-imports") {
            *imports = without_credentials(imports);
        }
    }
}

struct Export<W: Write> {
    content: ContentClient<Channel>,
    archive: Archive<W>,
    platform: String,
    /// The build that is exported just now.
    reference: String,
    /// Whether it is one of several.
    several: bool,
}

impl<W: Write + Send> Export<W> {
    async fn record(&mut self, mut record: Record) -> Result<Layer, ExportError> {
        self.reference.clone_from(&record.reference);
        record.hide_credentials();
        let mut layers = Vec::new();
        if let Some(trace) = &mut record.trace {
            let layer = self.trace(trace).await?;
            (trace.digest, trace.size) = (layer.digest.clone(), layer.size);
            layers.push(layer);
        }
        let config = Config { record: &record, default_platform: &self.platform };
        let config = serde_json::to_vec_pretty(&config).map_err(io::Error::other)?;
        let config = self.bytes(RECORD, &config)?;

        let mut blobs: Vec<(&'static str, &Descriptor)> = Vec::new();
        blobs.extend(record.logs.iter().map(|d| ("log", d)));
        blobs.extend(record.result.iter().flat_map(of_result));
        blobs.extend(record.external_error.iter().map(|d| ("error", d)));
        blobs.extend(record.results.values().flat_map(of_result));
        let mut seen = BTreeSet::new();
        for (what, descriptor) in blobs {
            if !seen.insert(&descriptor.digest) {
                continue;
            }
            let mut layer = self.blob(what, descriptor).await?;
            if what == "result" {
                let real = std::mem::replace(&mut layer.media_type, "application/json".to_owned());
                layer.annotations.insert(REAL_TYPE.to_owned(), real);
            }
            layers.push(layer);
        }
        let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config, layers };
        let mut manifest = self.json(MANIFEST, &manifest)?;
        if self.several {
            manifest.annotations.insert(REFERENCE.to_owned(), record.reference);
        }
        Ok(manifest)
    }

    async fn trace(&mut self, descriptor: &Descriptor) -> Result<Layer, ExportError> {
        if descriptor.size > TRACE_LIMIT {
            return Err(self.bad("trace", descriptor, format!("{} bytes are too many", descriptor.size)));
        }
        let mut trace = Vec::new();
        self.read("trace", descriptor, |_, piece| {
            trace.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        let clean = without_secrets(&trace);
        let clean =
            clean.ok_or_else(|| self.bad("trace", descriptor, "it is not made of JSON".to_owned()))?;
        self.bytes(&descriptor.media_type, &clean)
    }

    /// A blob of the daemon's as one of the file's.
    async fn blob(&mut self, what: &'static str, descriptor: &Descriptor) -> Result<Layer, ExportError> {
        let layer = Layer {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
        };
        let size = u64::try_from(descriptor.size).ok().filter(|_| descriptor.size <= BLOB_LIMIT);
        let size = size.ok_or_else(|| self.bad(what, descriptor, format!("{} bytes", descriptor.size)))?;
        let hex = descriptor.digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
        let hex = hex.ok_or_else(|| self.bad(what, descriptor, "that is no sha256 digest".to_owned()))?;
        if self.archive.begin(&format!("blobs/sha256/{hex}"), 0o444, size)? {
            self.read(what, descriptor, Archive::more).await?;
            self.archive.end().map_err(|error| self.bad(what, descriptor, error.to_string()))?;
        }
        Ok(layer)
    }

    async fn read(
        &mut self,
        what: &'static str,
        descriptor: &Descriptor,
        mut take: impl FnMut(&mut Archive<W>, &[u8]) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let request = ReadContentRequest { digest: descriptor.digest.clone(), offset: 0, size: 0 };
        let mut sum = Sha256::new();
        let mut length = 0_i64;
        let status = |status: tonic::Status| status.message().to_owned();
        let opened = self.content.read(request).await;
        let mut pieces = opened.map_err(|e| self.bad(what, descriptor, status(e)))?.into_inner();
        loop {
            let piece = pieces.message().await.map_err(|e| self.bad(what, descriptor, status(e)))?;
            let Some(piece) = piece else { break };
            sum.update(&piece.data);
            length = length.saturating_add(i64::try_from(piece.data.len()).unwrap_or(i64::MAX));
            if length > descriptor.size {
                return Err(self.bad(what, descriptor, format!("is longer than {} bytes", descriptor.size)));
            }
            take(&mut self.archive, &piece.data)?;
        }
        if length != descriptor.size || format!("sha256:{}", hex::encode(sum.finalize())) != descriptor.digest
        {
            return Err(self.bad(
                what,
                descriptor,
                "the daemon's bytes are not those of the digest".to_owned(),
            ));
        }
        Ok(())
    }

    fn json(&mut self, media_type: &str, value: &impl Serialize) -> Result<Layer, ExportError> {
        let text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        self.bytes(media_type, &text)
    }

    fn bytes(&mut self, media_type: &str, content: &[u8]) -> Result<Layer, ExportError> {
        let hex = hex::encode(Sha256::digest(content));
        self.archive.file(&format!("blobs/sha256/{hex}"), 0o444, content)?;
        Ok(Layer {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{hex}"),
            size: i64::try_from(content.len()).unwrap_or(i64::MAX),
            annotations: BTreeMap::new(),
        })
    }

    fn bad(&self, what: &'static str, descriptor: &Descriptor, reason: String) -> ExportError {
        let (reference, digest) = (self.reference.clone(), descriptor.digest.clone());
        ExportError::Blob { reference, what, digest, reason }
    }
}

fn of_result(result: &BuildResult) -> impl Iterator<Item = (&'static str, &Descriptor)> {
    let attestations = result.attestations.iter().map(|d| ("attestation", d));
    attestations.chain(result.results.values().map(|d| ("result", d)))
}

pub(super) fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Cache imports with what says where the cache is, and nothing that opens it.
fn without_credentials(imports: &str) -> String {
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Import {
        #[serde(default, rename = "Type")]
        kind: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let Ok(mut imports) = serde_json::from_str::<Vec<Import>>(imports) else { return String::new() };
    for import in &mut imports {
        import.attrs.retain(|key, _| key == "scope" || key == "ref");
    }
    serde_json::to_string(&imports).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_imports_keep_no_credentials() {
        let imports = r#"[{"Type":"s3","Attrs":{"ref":"r","secret_access_key":"x"}},{"Type":"gha"}]"#;
        let clean = r#"[{"Type":"s3","Attrs":{"ref":"r"}},{"Type":"gha","Attrs":{}}]"#;
        assert_eq!(without_credentials(imports), clean);
        assert_eq!(without_credentials("nonsense"), "");
    }
}
