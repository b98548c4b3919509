//! Where images go: a registry, a directory in OCI's layout, files with references and SBOMs; and what stands for them.

use std::path::Path;

use tempfile::TempDir;

use super::args::KoFlags;
use super::layout;
use crate::assemble::base::Base;
use crate::assemble::ko::{self, Attachment, BaseImage, Document, Image, Naming, Product};
use crate::assemble::layers::Binary;
use crate::assemble::publish::{self, LayerFile, Parts};
use crate::error::{Kind, Report};
use crate::model::{Digest, ImageName, Tag};
use crate::registry::{BlobSource, Registry};

/// Who writes SBOMs.
const TOOL: &str = concat!("lemnos-", env!("CARGO_PKG_VERSION"));

/// A program's images, with the files that they are made of.
pub struct Made {
    pub import_path: String,
    pub base: Base,
    pub bases: Vec<BaseImage>,
    /// In the base's order, as the two below.
    pub images: Vec<Image>,
    pub product: Product,
    pub kodata: LayerFile,
    pub binaries: Vec<Binary>,
    /// Holds the layers.
    pub _scratch: TempDir,
}

impl Made {
    pub fn parts(&self) -> Vec<Parts<'_>> {
        let images = self.bases.iter().zip(&self.images).zip(&self.binaries);
        images
            .map(|((base, image), binary)| Parts { base, image, layers: vec![&self.kodata, &binary.file] })
            .collect()
    }
    pub fn name(&self) -> &str {
        ko::app_name(&self.import_path)
    }
    /// The index, where there is one, and then the images.
    fn documents(&self) -> Vec<&Document> {
        let images = self.images.iter().map(|image| &image.manifest);
        match &self.product {
            Product::Image(_) => images.collect(),
            Product::Index(index) => std::iter::once(&index.document).chain(images).collect(),
        }
    }
    /// What each SBOM is about, its document, and the end of its file's name.
    fn sboms(&self) -> Vec<(&Document, Vec<u8>, String)> {
        let mut sboms = Vec::new();
        for (image, binary) in self.images.iter().zip(&self.binaries) {
            let end = image.platform.to_string().replace(['/', ':'], "-");
            sboms.push((&image.manifest, ko::image_sbom(TOOL, image, &binary.info), end));
        }
        if let Product::Index(index) = &self.product {
            sboms.push((&index.document, ko::index_sbom(TOOL, index), "index".to_owned()));
        }
        sboms
    }
}

/// What the flags ask for.
pub struct Deliver {
    repository: Option<String>,
    push: bool,
    naming: Naming,
    tags: Vec<Tag>,
    tag_only: bool,
    sbom: bool,
    sbom_dir: Option<std::path::PathBuf>,
    layout: Option<std::path::PathBuf>,
    references: Option<std::path::PathBuf>,
}

impl Deliver {
    pub fn read(flags: &KoFlags, repository: Option<&str>) -> Result<Self, Report> {
        if repository.is_none() && (flags.push || flags.oci_layout_path.is_none()) {
            return Err(Report::user("KO_DOCKER_REPO environment variable is unset")
                .hint("name the registry and the path that images are pushed below, for example KO_DOCKER_REPO=ghcr.io/team"));
        }
        let mut tags: Vec<Tag> = Vec::new();
        for tag in &flags.tags {
            let tag = tag.parse::<Tag>()?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if flags.tag_only && !matches!(tags.as_slice(), [tag] if tag.as_str() != "latest") {
            return Err(ko::KoError::TagOnly.into());
        }
        Ok(Self {
            repository: repository.map(str::to_owned),
            push: flags.push,
            naming: flags.naming(),
            tags,
            tag_only: flags.tag_only,
            sbom: flags.sbom != "none",
            sbom_dir: flags.sbom_dir.clone(),
            layout: flags.oci_layout_path.clone(),
            references: flags.image_refs.clone(),
        })
    }

    /// Delivers everything; the reference of each, in order.
    pub async fn all(&self, registry: &Registry, made: &[Made]) -> Result<Vec<String>, Report> {
        let mut printed = Vec::new();
        let mut references = String::new();
        for one in made {
            let (place, reference) = self.one(registry, one).await?;
            for document in one.documents() {
                references.push_str(&format!("{place}@{}\n", document.digest));
            }
            printed.push(reference);
        }
        if let Some(path) = &self.references {
            write(path, references.as_bytes())?;
        }
        Ok(printed)
    }

    /// The place, and the reference to print.
    async fn one(&self, registry: &Registry, made: &Made) -> Result<(String, String), Report> {
        if let Some(dir) = &self.sbom_dir {
            create_dir(dir)?;
            for (_, sbom, end) in made.sboms().iter().filter(|_| self.sbom) {
                write(&dir.join(format!("{}-{end}.spdx.json", made.name())), sbom)?;
            }
        }
        if let Some(dir) = &self.layout {
            layout::add(registry, dir, made).await?;
        }
        let digest = &made.product.document().digest;
        let Some(repository) = &self.repository else {
            let place = self.layout.as_deref().unwrap_or(Path::new("")).display().to_string();
            return Ok((place.clone(), format!("{place}@{digest}")));
        };
        let image = self.naming.repository(repository, &made.import_path)?;
        match (self.push, &self.layout) {
            (true, _) => {
                self.push(registry, &image, made).await?;
                let printed = ko::printed(&image, &self.tags, digest, self.tag_only)?;
                Ok((image.to_string(), printed))
            }
            (false, Some(dir)) => {
                let place = dir.display().to_string();
                Ok((place.clone(), format!("{place}@{digest}")))
            }
            (false, None) => Ok((image.to_string(), self.unpublished(&image, digest))),
        }
    }

    /// What ko prints of images that went nowhere: with their first tag, whichever it is.
    fn unpublished(&self, image: &ImageName, digest: &Digest) -> String {
        match (self.tags.first(), self.tag_only) {
            (Some(tag), true) => format!("{image}:{tag}"),
            (Some(tag), false) => format!("{image}:{tag}@{digest}"),
            (None, _) => format!("{image}@{digest}"),
        }
    }

    async fn push(&self, registry: &Registry, image: &ImageName, made: &Made) -> Result<(), Report> {
        publish::images(registry, image, &made.base, &made.parts()).await?;
        let top = made.product.document();
        publish::document(registry, image, top).await?;
        if self.sbom {
            for (subject, sbom, _) in made.sboms() {
                attach(registry, image, subject, sbom).await?;
            }
        }
        for tag in &self.tags {
            registry.put_manifest(image, &tag.clone().into(), &top.media_type, top.bytes.clone()).await?;
        }
        Ok(())
    }
}

/// Puts an SBOM where ko and cosign look for it, under a tag of its own, and where OCI has it found, as a referrer.
async fn attach(
    registry: &Registry,
    image: &ImageName,
    subject: &Document,
    sbom: Vec<u8>,
) -> Result<(), Report> {
    let tagged = ko::tagged(sbom.clone());
    blobs(registry, image, &tagged).await?;
    let tag = ko::sbom_tag(&subject.digest);
    registry.put_manifest(image, &tag.into(), &tagged.manifest.media_type, tagged.manifest.bytes).await?;
    publish::attach(registry, image, subject, &ko::referrer(sbom, subject)).await?;
    Ok(())
}

async fn blobs(registry: &Registry, image: &ImageName, attachment: &Attachment) -> Result<(), Report> {
    for Document { digest, bytes, .. } in &attachment.blobs {
        let source = BlobSource::Bytes(bytes.clone().into());
        registry.put_blob(image, digest, bytes.len() as u64, source).await?;
    }
    Ok(())
}

pub(super) fn create_dir(path: &Path) -> Result<(), Report> {
    std::fs::create_dir_all(path).map_err(|error| unwritable(path, &error))
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    std::fs::write(path, bytes).map_err(|error| unwritable(path, &error))
}

pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> Report {
    Report::new(Kind::User, format!("writing {}: {error}", path.display()))
}
