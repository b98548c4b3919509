//! `ko_config.resolve`: Kubernetes YAML of the tree, with the images of this push in its references' place.
//!
//! Planned before anything is built: every file is there and is YAML, every reference is a program that is built. Done when
//! the images have digests, from the same tree. Bounded in number of files and references, and in bytes.

use std::collections::BTreeMap;

use super::errors::KoError;
use super::resolve::{Manifest, Reference};
use super::yaml::At;
use crate::kinds::{BUILD_CONFIG, By, KindError};
use crate::model::tree::clean_path;
use crate::model::{Digest, EntryKind, ImageName, Manifests, Tree};

const LIMIT_FILES: usize = 256;
const LIMIT_REFERENCES: usize = 1_000;
/// All files together: it is kept with every build.
const LIMIT_BYTES: usize = 1 << 20;

/// What a file of a directory ends in, as ko has it.
const ENDS: [&str; 2] = [".yaml", ".json"];

/// What is to be resolved; none where nothing is asked for. `programs`: import paths, and the images of them.
pub(super) fn plan(
    tree: &dyn Tree,
    wanted: &[At<String>],
    programs: &[(String, ImageName)],
) -> Result<Option<Manifests>, KindError> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let files = files(tree, wanted)?;
    let mut references = BTreeMap::new();
    let mut left = LIMIT_REFERENCES;
    for (file, manifest) in &read(tree, &files)? {
        for reference in manifest.references() {
            left = left.checked_sub(1).ok_or_else(|| too_much(LIMIT_REFERENCES, "references"))?;
            let image = image(file, reference, programs)?;
            references.insert(reference.text.clone(), image.clone());
        }
    }
    Ok(Some(Manifests { files, references }))
}

/// The text of all files with the images that were built, each by its digest.
pub fn resolved(
    tree: &dyn Tree,
    manifests: &Manifests,
    built: &BTreeMap<ImageName, Digest>,
) -> Result<String, KindError> {
    let of = |(reference, image): (&String, &ImageName)| {
        built.get(image).map(|digest| (reference.clone(), format!("{image}@{digest}")))
    };
    let images: BTreeMap<String, String> = manifests.references.iter().filter_map(of).collect();
    let mut text = String::new();
    for (_, manifest) in read(tree, &manifests.files)? {
        text.push_str(&manifest.written(&images).map_err(KoError::Resolve)?);
    }
    Ok(text)
}

fn too_much(limit: usize, what: &'static str) -> KindError {
    KoError::TooMuchYaml { limit, what }.into()
}

/// Every file that is meant, once, in order.
fn files(tree: &dyn Tree, wanted: &[At<String>]) -> Result<Vec<String>, KindError> {
    let mut files: Vec<String> = Vec::new();
    for said in wanted {
        let by = By::Config { line: said.line };
        let path = clean_path(&said.value).map_err(|cause| KindError::Path {
            by,
            key: "ko_config.resolve",
            cause,
        })?;
        let place = || format!("{BUILD_CONFIG}:{}", said.line);
        let kind = tree.entry(&path)?.map(|entry| entry.kind);
        let found = match kind {
            None => return Err(KoError::NoYaml { place: place(), path, dir: false }.into()),
            Some(EntryKind::Dir) => within(tree, &path)?,
            Some(_) => vec![path.clone()],
        };
        if found.is_empty() {
            return Err(KoError::NoYaml { place: place(), path, dir: true }.into());
        }
        for file in found {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        if files.len() > LIMIT_FILES {
            return Err(too_much(LIMIT_FILES, "files"));
        }
    }
    Ok(files)
}

/// The YAML of a directory, without what lies below it.
fn within(tree: &dyn Tree, dir: &str) -> Result<Vec<String>, KindError> {
    let entries = tree.list(dir)?.into_iter();
    let is_yaml = |name: &str| ENDS.iter().any(|end| name.ends_with(end));
    let yaml = entries.filter(|entry| entry.kind != EntryKind::Dir && is_yaml(&entry.name));
    let path = |name: String| if dir.is_empty() { name } else { format!("{dir}/{name}") };
    Ok(yaml.take(LIMIT_FILES + 1).map(|entry| path(entry.name)).collect())
}

/// The files' texts, each with its references.
fn read<'f>(tree: &dyn Tree, files: &'f [String]) -> Result<Vec<(&'f String, Manifest)>, KindError> {
    let mut left = LIMIT_BYTES;
    let mut manifests = Vec::new();
    for file in files {
        // a name that is not UTF-8 is listed, and cannot be read
        let gone = || KoError::NoYaml { place: BUILD_CONFIG.to_owned(), path: file.clone(), dir: false };
        let bytes = tree.read(file, LIMIT_BYTES as u64)?.ok_or_else(gone)?;
        left = left.checked_sub(bytes.len()).ok_or_else(|| too_much(LIMIT_BYTES, "bytes"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count() as u64;
            KoError::Config { file: file.clone(), line, column: 1, problem: "not UTF-8".to_owned() }
        })?;
        manifests.push((file, Manifest::read(file, &text, None).map_err(KoError::Resolve)?));
    }
    Ok(manifests)
}

/// The image of the program that a reference names.
fn image<'p>(
    file: &str,
    reference: &Reference,
    programs: &'p [(String, ImageName)],
) -> Result<&'p ImageName, KindError> {
    let named = reference.import_path().trim_end_matches('/');
    let found = programs.iter().find(|(path, _)| path == named);
    found.map(|(_, image)| image).ok_or_else(|| {
        let built = programs.iter().map(|(path, _)| path.clone()).collect();
        KoError::NotBuilt {
            file: file.to_owned(),
            line: reference.line,
            reference: reference.text.clone(),
            built,
        }
        .into()
    })
}

#[cfg(test)]
mod tests;
