//! What a name stands for: an image's digest and config, a branch's commit, a file's checksum.

use std::collections::BTreeMap;

use lemnos_proto::gateway as wire;
use lemnos_proto::pb;

use super::{Gateway, GatewayError, answered};
use crate::buildkit::image_name;
use crate::buildkit::solve::{Platform, ResolveMode, SourcePolicy};

/// How a source is looked up.
#[derive(Debug, Clone, Default)]
pub struct ResolveOptions {
    pub platform: Option<Platform>,
    pub mode: ResolveMode,
    /// What the step is called in the progress.
    pub log_name: String,
    /// Leaves an image's config out.
    pub no_config: bool,
    /// An image's attestation manifest, and the signatures of it.
    pub attestation_chain: bool,
    /// The predicate types of the attestations whose content is wanted.
    pub attestations: Vec<String>,
    /// A commit's and a tag's own bytes.
    pub git_objects: bool,
    pub policies: Vec<SourcePolicy>,
}

/// What a source is now.
#[derive(Debug, Clone, Default)]
pub struct SourceMetadata {
    /// As policies have left it: perhaps another than was asked for.
    pub source: pb::SourceOp,
    pub image: Option<ImageSource>,
    pub git: Option<GitSource>,
    pub http: Option<HttpSource>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSource {
    pub digest: String,
    /// JSON; empty where it was left out.
    pub config: Vec<u8>,
    pub attestations: Option<AttestationChain>,
}

/// Digests, and the bytes of those manifests and attestations that were wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttestationChain {
    pub root: String,
    pub image_manifest: String,
    pub attestation_manifest: String,
    pub signature_manifests: Vec<String>,
    pub blobs: BTreeMap<String, Blob>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob {
    pub media_type: String,
    pub annotations: BTreeMap<String, String>,
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Of the tag where one was named, otherwise of the commit.
    pub checksum: String,
    /// As in `refs/heads/main`.
    pub reference: String,
    /// Where `checksum` is a tag's.
    pub commit: String,
    pub commit_object: Vec<u8>,
    pub tag_object: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSource {
    pub checksum: String,
    pub filename: String,
    /// Seconds since 1970.
    pub last_modified: Option<i64>,
}

/// An image by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// As policies have left it.
    pub reference: String,
    pub digest: String,
    /// JSON.
    pub config: Vec<u8>,
}

impl Gateway {
    /// Looks a source up, by BuildKit's name of it: `docker-image://…`, `git://…`, `https://…`.
    pub async fn resolve_source(
        &self,
        source: pb::SourceOp,
        options: &ResolveOptions,
    ) -> Result<SourceMetadata, GatewayError> {
        self.needs("source.metaresolver")?;
        if chain(options) {
            self.needs("source.metaresolver.image.attestations")?;
        }
        let message = resolve_request(source, options);
        let answer = self.bridge.clone().resolve_source_meta(self.request(message)).await;
        Ok(answered("ResolveSourceMeta", answer)?.into())
    }

    /// An image's digest and config. `alpine` and `docker.io/library/alpine:latest` name the same one.
    pub async fn image_config(
        &self,
        reference: &str,
        options: &ResolveOptions,
    ) -> Result<ImageConfig, GatewayError> {
        let reference = &image_name::full(reference)
            .ok_or_else(|| GatewayError::Failed(format!("{reference:?} is no image's name")))?;
        if self.supports("source.metaresolver") {
            let identifier = format!("docker-image://{reference}");
            let source = pb::SourceOp { identifier, attrs: BTreeMap::new() };
            let found = self.resolve_source(source, options).await?;
            let image = found.image.ok_or_else(|| GatewayError::Answer {
                call: "ResolveSourceMeta",
                reason: format!("{reference} is no image any more but {}", found.source.identifier),
            })?;
            let name = found.source.identifier;
            let reference = name.strip_prefix("docker-image://").unwrap_or(&name).to_owned();
            return Ok(ImageConfig { reference, digest: image.digest, config: image.config });
        }
        let message = wire::ResolveImageConfigRequest {
            r#ref: reference.to_owned(),
            platform: options.platform.as_ref().map(pb::Platform::from),
            resolve_mode: mode(options.mode).to_owned(),
            log_name: options.log_name.clone(),
            source_policies: policies(&options.policies),
            ..Default::default()
        };
        let answer = self.bridge.clone().resolve_image_config(self.request(message)).await;
        let answer = answered("ResolveImageConfig", answer)?;
        // an old daemon does not repeat the name
        let reference = if answer.r#ref.is_empty() { reference.to_owned() } else { answer.r#ref };
        Ok(ImageConfig { reference, digest: answer.digest, config: answer.config })
    }
}

fn chain(options: &ResolveOptions) -> bool {
    options.attestation_chain || !options.attestations.is_empty()
}

/// The question on the wire.
pub(in crate::buildkit) fn resolve_request(
    source: pb::SourceOp,
    options: &ResolveOptions,
) -> wire::ResolveSourceMetaRequest {
    let image = wire::ResolveSourceImageRequest {
        no_config: options.no_config,
        attestation_chain: chain(options),
        resolve_attestations: options.attestations.clone(),
    };
    let git = wire::ResolveSourceGitRequest { return_object: options.git_objects };
    wire::ResolveSourceMetaRequest {
        source: Some(source),
        platform: options.platform.as_ref().map(pb::Platform::from),
        log_name: options.log_name.clone(),
        resolve_mode: mode(options.mode).to_owned(),
        git: Some(git),
        image: Some(image),
        http: None,
        source_policies: policies(&options.policies),
    }
}

impl From<wire::ResolveSourceMetaResponse> for SourceMetadata {
    fn from(found: wire::ResolveSourceMetaResponse) -> Self {
        Self {
            source: found.source.unwrap_or_default(),
            image: found.image.map(ImageSource::from),
            git: found.git.map(GitSource::from),
            http: found.http.map(HttpSource::from),
        }
    }
}

fn mode(mode: ResolveMode) -> &'static str {
    match mode {
        ResolveMode::Default => "default",
        ResolveMode::Pull => "pull",
        ResolveMode::PreferLocal => "local",
    }
}

fn policies(policies: &[SourcePolicy]) -> Vec<lemnos_proto::sourcepolicy::Policy> {
    policies.iter().cloned().filter_map(SourcePolicy::message).collect()
}

impl From<wire::ResolveSourceImageResponse> for ImageSource {
    fn from(image: wire::ResolveSourceImageResponse) -> Self {
        let blob = |blob: wire::Blob| {
            let descriptor = blob.descriptor.unwrap_or_default();
            Blob { media_type: descriptor.media_type, annotations: descriptor.annotations, data: blob.data }
        };
        let chain = |chain: wire::AttestationChain| AttestationChain {
            root: chain.root,
            image_manifest: chain.image_manifest,
            attestation_manifest: chain.attestation_manifest,
            signature_manifests: chain.signature_manifests,
            blobs: chain.blobs.into_iter().map(|(digest, b)| (digest, blob(b))).collect(),
        };
        Self { digest: image.digest, config: image.config, attestations: image.attestation_chain.map(chain) }
    }
}

impl From<wire::ResolveSourceGitResponse> for GitSource {
    fn from(git: wire::ResolveSourceGitResponse) -> Self {
        Self {
            checksum: git.checksum,
            reference: git.r#ref,
            commit: git.commit_checksum,
            commit_object: git.commit_object,
            tag_object: git.tag_object,
        }
    }
}

impl From<wire::ResolveSourceHttpResponse> for HttpSource {
    fn from(http: wire::ResolveSourceHttpResponse) -> Self {
        Self {
            checksum: http.checksum,
            filename: http.filename,
            last_modified: http.last_modified.map(|at| at.seconds),
        }
    }
}
