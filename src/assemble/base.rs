//! The base of a ko image, out of its registry or a mirror of that: looked up once a build, from then on by digest.

use futures::future::try_join_all;

use super::AssembleError;
use super::ko::{BaseImage, BaseIndex, BasePlatform, BaseReference, Descriptor, Platforms, config_digest};
use crate::model::{Digest, ImageName, Platform};
use crate::registry::{DOCKER_LIST, INDEX, Manifest, Reference, Registry};

/// The largest config of an image that is read.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

/// A base as it stands just now.
#[derive(Debug, Clone)]
pub struct Base {
    /// As it is written into images.
    pub reference: BaseReference,
    /// Of what the reference names: an index, or an image.
    pub digest: Digest,
    /// Where it was found; its layers are there.
    pub place: ImageName,
    found: Found,
}

#[derive(Debug, Clone)]
enum Found {
    Index(BaseIndex),
    Image(Box<BaseImage>),
}

/// One image of a base, and what its index says of it; nothing where there is no index.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub entry: Option<Descriptor>,
    pub platform: BasePlatform,
}

/// Looks an image up by a whole name (`HOST/PATH:TAG` or `@DIGEST`, or both); where it was found, and its manifest.
pub async fn look_up(registry: &Registry, name: &str) -> Result<(ImageName, Manifest), AssembleError> {
    let unusable = |problem: &dyn std::fmt::Display| AssembleError::Name {
        name: name.to_owned(),
        problem: problem.to_string(),
    };
    let (named, digest) = match name.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (name, None),
    };
    let (image, tag) = match named.rsplit_once(':') {
        Some((image, tag)) if !tag.contains('/') => (image, tag),
        _ => (named, "latest"),
    };
    let reference = match digest {
        Some(digest) => Reference::Digest(digest.parse().map_err(|problem| unusable(&problem))?),
        None => Reference::Tag(tag.parse().map_err(|problem| unusable(&problem))?),
    };
    let image: ImageName = image.parse().map_err(|problem| unusable(&problem))?;
    Ok(registry.find_manifest(&image, &reference).await?)
}

/// The base of this whole name.
pub async fn resolve(registry: &Registry, name: &str) -> Result<Base, AssembleError> {
    let reference: BaseReference = name.parse().map_err(|problem: crate::model::Invalid| {
        AssembleError::Name { name: name.to_owned(), problem: problem.to_string() }
    })?;
    let (place, manifest) = look_up(registry, name).await?;
    let found = match manifest.media_type.as_str() {
        INDEX | DOCKER_LIST => Found::Index(BaseIndex::read(&manifest.bytes, &manifest.media_type)?),
        _ => Found::Image(Box::new(read(registry, &place, &manifest).await?)),
    };
    Ok(Base { reference, digest: manifest.digest, place, found })
}

async fn read(
    registry: &Registry,
    place: &ImageName,
    manifest: &Manifest,
) -> Result<BaseImage, AssembleError> {
    let config = registry.get_blob(place, &config_digest(&manifest.bytes)?, CONFIG_LIMIT_BYTES).await?;
    Ok(BaseImage::read(&manifest.bytes, &manifest.media_type, &config)?)
}

impl Base {
    /// The index, where it is one.
    pub fn index(&self) -> Option<&BaseIndex> {
        match &self.found {
            Found::Index(index) => Some(index),
            Found::Image(_) => None,
        }
    }

    /// What of it images for `platforms` are put on, in its own order. An error where it lacks one.
    pub fn choose(&self, platforms: &[Platform]) -> Result<Vec<Chosen>, AssembleError> {
        let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        let names = names.join(",");
        let wanted = names.parse::<Platforms>();
        let wanted =
            wanted.map_err(|problem| AssembleError::Name { name: names, problem: problem.to_string() })?;
        let of_entry = |entry: &Descriptor| {
            let platform = entry.platform.clone()?;
            Some(Chosen { entry: Some(entry.clone()), platform })
        };
        Ok(match &self.found {
            Found::Index(index) => wanted.choose(index)?.into_iter().filter_map(of_entry).collect(),
            Found::Image(image) => vec![Chosen { entry: None, platform: wanted.of_image(image)? }],
        })
    }

    /// The images of `chosen`, with their configs.
    pub async fn images(
        &self,
        registry: &Registry,
        chosen: &[Chosen],
    ) -> Result<Vec<BaseImage>, AssembleError> {
        try_join_all(chosen.iter().map(async |chosen| match (&self.found, &chosen.entry) {
            (Found::Image(image), _) => Ok((**image).clone()),
            (Found::Index(_), None) => Err(AssembleError::NoPlatform { digest: self.digest.clone() }),
            (Found::Index(_), Some(entry)) => {
                let manifest = registry.get_manifest(&self.place, &entry.digest.clone().into()).await?;
                read(registry, &self.place, &manifest).await
            }
        }))
        .await
    }
}
