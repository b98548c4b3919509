//! The spin kind: a `spin.toml`, its components built in toolchain images, and one artifact that Spin's runtimes take.
//!
//! Spin's own program is not run: the manifest is read here (`manifest`, `normal`), the build planned (`plan`), and the
//! artifact made by `assemble::spin`. What only Spin's program could do, composing components, is refused by name. Must not
//! look outside of the tree.

mod document;
mod errors;
mod files;
mod glob;
mod hosts;
mod ids;
mod manifest;
mod normal;
mod order;
mod plan;
mod recipe;
mod wishes;

use super::{Draft, Kind, KindError, PlanInput, Verdict, Wishes};
use crate::model::{EntryKind, KindName, Tree};

pub use errors::{At, SpinError};
pub use files::{MountedFile, mounted_files};
pub use plan::{Place, empty_patterns, find, plan};
use recipe::RECIPE;
pub use wishes::SpinConfig;

pub(super) struct Spin;

/// So many directories at the root are looked into for the sake of a reason.
const LIMIT_DIRS: usize = 64;

impl Kind for Spin {
    fn name(&self) -> KindName {
        KindName::Spin
    }

    fn needs(&self) -> &'static str {
        "a spin.toml at the root, or at or above context_path"
    }

    fn detect(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError> {
        let start = wishes.context_path.as_ref().map_or("", |said| said.value.as_str());
        Ok(match find(tree, start)? {
            Some(place) => Verdict::Yes { evidence: evidence(tree, &place) },
            None => Verdict::No { reason: reason(tree)? },
        })
    }

    fn plan(&self, input: &PlanInput<'_>, _wishes: &Wishes) -> Result<Draft, KindError> {
        Err(KindError::NotYet { kind: self.name(), evidence: input.detected.evidence.clone() })
    }
}

/// Why a tree is of this kind; of a manifest that cannot be read no more than where it is.
fn evidence(tree: &dyn Tree, place: &Place) -> String {
    let at = match place.root.as_str() {
        "" => format!("{} at the root", RECIPE.manifest),
        _ => place.manifest.clone(),
    };
    let Ok(manifest) = plan::read(tree, place) else { return at };
    let kinds: Vec<&str> = manifest.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
    let mut distinct: Vec<String> = kinds.iter().map(|kind| super::errors::shown(kind)).collect();
    distinct.dedup();
    let count = manifest.components.len();
    let components = if count == 1 { "1 component".to_owned() } else { format!("{count} components") };
    let triggers = if distinct.is_empty() { "no trigger".to_owned() } else { distinct.join(" and ") };
    format!("{at} (version {}, {components}, {triggers})", manifest.version)
}

/// Why a tree is not of this kind.
fn reason(tree: &dyn Tree) -> Result<String, KindError> {
    let name = RECIPE.manifest.as_str();
    if tree.entry(name)?.is_some() {
        return Ok(format!("{name} at the root is not a regular file"));
    }
    let dirs = tree.list("")?.into_iter().filter(|entry| entry.kind == EntryKind::Dir).take(LIMIT_DIRS);
    for dir in dirs {
        let path = files::joined(&dir.name, name);
        if matches!(tree.entry(&path), Ok(Some(_))) {
            let path = super::errors::shown(&path);
            return Ok(format!("no {name} at the root (there is {path}: context_path chooses it)"));
        }
    }
    Ok(format!("no {name} at the root"))
}

/// An image reference with host, path, and tag or digest, as BuildKit completes one; none for what is no image.
fn full_image(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse::<crate::model::Digest>().ok()?)),
        None => (image, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse::<crate::model::Tag>().ok()?)),
        _ => (name, None),
    };
    let host =
        name.split_once('/').map(|(host, _)| host).filter(|host| crate::model::image::is_registry_host(host));
    let name = match (host, name.contains('/')) {
        (Some(_), _) => name.to_owned(),
        (None, true) => format!("docker.io/{name}"),
        (None, false) => format!("docker.io/library/{name}"),
    };
    let name: crate::model::ImageName = name.parse().ok()?;
    Some(match (tag, digest) {
        (tag, Some(digest)) => {
            format!("{name}{}@{digest}", tag.map(|tag| format!(":{tag}")).unwrap_or_default())
        }
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, None) => format!("{name}:latest"),
    })
}
