//! ko's images without ko: a compiled binary, `kodata` and a base image become what `ko build` v0.19.1 makes of them.
//!
//! Uncompressed layers are ko's byte for byte, so diff IDs are the same; configs, manifests' annotations, platforms, names and
//! the packages of SBOMs are the same too. The gzip streams, and with them manifests' digests, are ours. Where ko is wrong or
//! silent the difference stands in the module that makes it. Everything here is arithmetic over values, `Read`, `Write` and
//! `kodata::Source`: no network, no clock, no environment, no file is opened. Windows bases are refused.
//!
//! What the caller does, in order:
//!
//! 1. Parse the base's reference ([`BaseReference`]) and the platforms ([`Platforms`]); fetch the base. An index:
//!    [`BaseIndex::read`], then [`Platforms::choose`] names the entries; fetch each one's manifest, the config that
//!    [`config_digest`] names, and [`BaseImage::read`] both. A plain image: `BaseImage::read`, then [`Platforms::of_image`].
//! 2. For each platform have the program compiled (and, to debug where [`BasePlatform::debuggable`], delve), and read
//!    [`BuildInfo`] from it.
//! 3. Once for all platforms: [`kodata()`] walks the tree, [`compress`] with [`kodata_tar`] writes the layer. Per platform:
//!    `compress` with [`binary_tar`], named by [`app_name`], with the [`Capabilities`] of `linux_capabilities`. Both stream.
//! 4. [`image()`] makes config and manifest; [`product`] the image or index that is tagged (a plain base: the image itself).
//! 5. Push, in this order: the base's layers ([`BaseImage::layers`], mounted from its repository), ours (media type:
//!    [`BaseImage::layer_type`]), `Image::config`, `Image::manifest` by digest, the index by digest. The repository is
//!    [`Naming::repository`]'s; [`printed`] is the reference to show.
//! 6. SBOMs: [`image_sbom`] per image, [`index_sbom`] for the index; each as [`referrer`] (pushed by digest) or [`tagged`]
//!    (pushed as [`sbom_tag`]).

mod attachment;
mod base;
mod build_info;
mod capabilities;
mod config;
mod image;
mod kodata;
mod layer;
mod naming;
mod platform;
mod reference;
mod sbom;
mod spdx;
mod tar;
mod time;

pub use attachment::{Attachment, IN_TOTO, statement};
pub use base::{BaseImage, BaseIndex, Descriptor, config_digest};
pub use build_info::{BuildInfo, Module};
pub use capabilities::Capabilities;
pub use image::{
    BASE_DIGEST, BASE_NAME, Document, Image, ImageIndex, ImageOptions, Layers, Product, described, image,
    index, product,
};
pub use kodata::{Entry, KODATA_ROOT, MemorySource, Node, Source, kodata};
pub use layer::{APP_DIRECTORY, Layer, app_name, binary_tar, compress, kodata_tar};
pub use naming::{Naming, printed};
pub use platform::{BasePlatform, Platforms, Wanted};
pub use reference::BaseReference;
pub use sbom::{referrer, sbom_tag, tagged};
pub use spdx::{image_sbom, index_sbom};
pub use time::Epoch;

use crate::model::{Digest, Invalid};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum KoError {
    #[error("reading {name}: {cause}")]
    Read { name: String, cause: std::io::Error },
    #[error("writing a layer: {0}")]
    Write(std::io::Error),
    #[error("{name} is not as long as was said: {size} bytes were, {found} or more came")]
    Length { name: String, size: u64, found: u64 },
    #[error("{name:?} cannot be a name in an image")]
    Name { name: String },
    #[error("{path} is {what}, where ko wants a directory")]
    KodataRoot { path: String, what: &'static str },
    #[error("the link {path} cannot be packed: {problem}")]
    KodataLink { path: String, problem: String },
    #[error("kodata comes to more than {what} at {path}")]
    KodataLimit { path: String, what: &'static str },
    #[error("linux_capabilities: {term:?}: {problem}")]
    Capability { term: String, problem: String },
    #[error("the base image {digest} cannot be built on: {problem}")]
    Base { digest: Digest, problem: String },
    #[error("the base image has no {missing}; it has {there}")]
    PlatformMissing { missing: String, there: String },
    #[error("the base image is for {platform}: images for Windows are not made here")]
    Windows { platform: String },
    #[error("there is no debugger for {platform}")]
    NoDebugger { platform: String },
    #[error("the images do not belong to the base {base}")]
    NotOfBase { base: Digest },
    #[error("{given:?} is no {what}: {rule}")]
    Option { what: &'static str, given: String, rule: &'static str },
    #[error("{import_path} has no image name: {source}")]
    Repository { import_path: String, source: Invalid },
    #[error("a reference by tag alone needs exactly one tag, and not latest")]
    TagOnly,
    #[error("the program's build information cannot be read: {problem}")]
    BuildInfo { problem: String },
}
