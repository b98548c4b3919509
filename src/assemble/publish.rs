//! ko images into a registry, everything by digest: layers, configs, manifests, the index, and SBOMs as their referrers.
//!
//! The base's layers are mounted where registry and base are one, else copied as they are. No tag is touched here but the
//! one that OCI's distribution spec has clients keep for registries that list no referrers, and ko's of an SBOM.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::try_join_all;

use super::AssembleError;
use super::base::Base;
use super::ko::{self, Attachment, BaseImage, Document, Image, Layer};
use crate::model::{Digest, ImageName, Predicate, Tag};
use crate::registry::{BlobSource, Registry};

/// A layer that stands in a file here.
#[derive(Debug, Clone)]
pub struct LayerFile {
    pub layer: Layer,
    pub path: PathBuf,
}

/// One image with what it is made of.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    pub image: &'a Image,
    pub layers: Vec<&'a LayerFile>,
}

/// Has the layers that images stand on, which needs nothing of the images themselves.
pub async fn base_layers(
    registry: &Registry,
    name: &ImageName,
    base: &Base,
    bases: &[BaseImage],
) -> Result<(), AssembleError> {
    let mut theirs: Vec<(&Digest, u64)> = Vec::new();
    for layer in bases.iter().flat_map(BaseImage::layers) {
        if !theirs.iter().any(|(known, _)| **known == layer.digest) {
            theirs.push((&layer.digest, layer.size));
        }
    }
    let copies =
        theirs.iter().map(async |(digest, size)| registry.copy_blob(&base.place, name, digest, *size).await);
    try_join_all(copies).await?;
    Ok(())
}

/// Puts images with their own parts; their manifests by digest. The base's layers are there.
pub async fn images(
    registry: &Registry,
    name: &ImageName,
    images: &[Parts<'_>],
) -> Result<(), AssembleError> {
    // platforms may share layers, which are put once
    let mut own: Vec<(&Digest, u64, BlobSource)> = Vec::new();
    for Parts { image, layers } in images {
        let config = &image.config;
        let config =
            (&config.digest, config.bytes.len() as u64, BlobSource::Bytes(config.bytes.clone().into()));
        let layers =
            layers.iter().map(|one| (&one.layer.digest, one.layer.size, BlobSource::File(one.path.clone())));
        for blob in layers.chain([config]) {
            if !own.iter().any(|(known, ..)| *known == blob.0) {
                own.push(blob);
            }
        }
    }
    let puts = own.into_iter();
    try_join_all(
        puts.map(async |(digest, size, source)| registry.put_blob(name, digest, size, source).await),
    )
    .await?;
    try_join_all(images.iter().map(async |parts| document(registry, name, &parts.image.manifest).await))
        .await?;
    Ok(())
}

/// What is said of an image, and how it is found there.
#[derive(Debug, Clone)]
pub struct Statement {
    pub attachment: Attachment,
    /// Of the image or index that it is about.
    pub subject: Digest,
    /// ko's form is found by this; without it the registry lists it as a referrer.
    pub tag: Option<Tag>,
}

impl Statement {
    /// What a builder said of a build, of one of the images or artifacts that came of it.
    pub fn in_toto(
        predicate: &Predicate,
        name: &ImageName,
        all: &[Digest],
        subject: (&str, u64, &Digest),
    ) -> Self {
        let attachment = ko::statement(predicate, name, all, subject);
        Self { attachment, subject: subject.2.clone(), tag: None }
    }

    /// An SBOM as a referrer, and where that is asked for under ko's tag, too.
    pub fn sbom(document: Vec<u8>, subject: &Document, tagged: bool) -> Vec<Self> {
        let about = subject.digest.clone();
        let own = tagged.then(|| Self {
            attachment: ko::tagged(document.clone()),
            subject: about.clone(),
            tag: Some(ko::sbom_tag(&about)),
        });
        let referrer = Self { attachment: ko::referrer(document, subject), subject: about, tag: None };
        own.into_iter().chain([referrer]).collect()
    }
}

/// Puts the content of statements, which may be done before there are the images.
pub async fn content(
    registry: &Registry,
    name: &ImageName,
    statements: &[Statement],
) -> Result<(), AssembleError> {
    let mut blobs: Vec<&Document> = Vec::new();
    for blob in statements.iter().flat_map(|statement| &statement.attachment.blobs) {
        if !blobs.iter().any(|known| known.digest == blob.digest) {
            blobs.push(blob);
        }
    }
    try_join_all(blobs.into_iter().map(async |blob| {
        let source = BlobSource::Bytes(blob.bytes.clone().into());
        registry.put_blob(name, &blob.digest, blob.bytes.len() as u64, source).await
    }))
    .await?;
    Ok(())
}

/// Has statements found, of images that stand there with their content.
pub async fn attach(
    registry: &Registry,
    name: &ImageName,
    statements: &[Statement],
) -> Result<(), AssembleError> {
    // one after the other of each image: where the registry lists no referrers, they share a list
    let mut places: BTreeMap<(&Digest, Option<&Tag>), Vec<&Document>> = BTreeMap::new();
    for statement in statements {
        let place = (&statement.subject, statement.tag.as_ref());
        places.entry(place).or_default().push(&statement.attachment.manifest);
    }
    try_join_all(places.into_iter().map(async |((subject, tag), manifests)| {
        for manifest in manifests {
            let bytes = manifest.bytes.clone();
            match tag {
                Some(tag) => {
                    registry.put_manifest(name, &tag.clone().into(), &manifest.media_type, bytes).await?
                }
                None => registry.put_referrer(name, subject, bytes).await?,
            };
        }
        Ok::<_, AssembleError>(())
    }))
    .await?;
    Ok(())
}

/// Puts a manifest or an index by its digest.
pub async fn document(
    registry: &Registry,
    name: &ImageName,
    document: &Document,
) -> Result<(), AssembleError> {
    let reference = document.digest.clone().into();
    registry.put_manifest(name, &reference, &document.media_type, document.bytes.clone()).await?;
    Ok(())
}
