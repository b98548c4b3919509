//! The build context: its directory, its ignore file, and what a push did not bring.
//!
//! Submodules and Git LFS pointers in the context are refused, never built silently wrong, unless the ignore file names
//! them (or a directory above them) by their exact path: wildcards are BuildKit's to match, and no later `!` line may
//! follow. Must not decide what BuildKit sends: that is the session's.

use std::collections::BTreeSet;

use crate::kinds::errors::shown;
use crate::kinds::{KindError, Said};
use crate::model::tree::clean_path;
use crate::model::{EntryKind, Sha, Tree, TreeError};

/// Bounds of the walk; a tree above it is refused here, whatever let it in.
const LIMIT_ENTRIES: usize = 500_000;
const LIMIT_DEPTH: usize = 256;
const LIMIT_IGNORE_BYTES: u64 = 1024 * 1024;
/// A pointer file is below this by its specification.
const LIMIT_POINTER_BYTES: u64 = 1024;
const LIMIT_ATTRIBUTES_BYTES: u64 = 1024 * 1024;
/// So many paths are looked for before the refusal; the message names a few and counts the rest.
const LIMIT_FOUND: usize = 1000;

/// The ignore file in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct IgnoreFile {
    /// `NAME.dockerignore` beside the Dockerfile: it rules when it is there.
    pub beside_dockerfile: Option<Vec<u8>>,
    /// Paths from the context's root that are certainly left out.
    exact: BTreeSet<String>,
}

/// The context's path and the id of its tree.
pub(super) fn locate(
    tree: &dyn Tree,
    said: Option<&Said<String>>,
) -> Result<(String, Option<Sha>), KindError> {
    let path = said.map_or("", |said| said.value.as_str());
    match (tree.entry(path)?, said) {
        (Some(entry), _) if entry.kind == EntryKind::Dir => Ok((path.to_owned(), entry.id)),
        // a directory without files is none for git; an empty root is a context without files
        (None, None) => Ok((String::new(), None)),
        (Some(_), None) => Err(TreeError::NotAFile { path: path.to_owned() }.into()),
        (_, Some(said)) => {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let close = tree.list(parent)?.into_iter().filter(|e| e.kind == EntryKind::Dir).map(|e| e.name);
            let close = close.filter(|dir| crate::model::closest::closest(dir, [name]).is_some()).take(3);
            let close = close.map(|dir| super::join(parent, &shown(&dir))).collect();
            Err(KindError::NoContext { by: said.by, path: path.to_owned(), close })
        }
    }
}

/// The ignore files of a Dockerfile and its context.
pub(super) fn ignore_file(tree: &dyn Tree, dockerfile: &str, context: &str) -> Result<IgnoreFile, KindError> {
    let beside_dockerfile = tree.read(&format!("{dockerfile}.dockerignore"), LIMIT_IGNORE_BYTES)?;
    let in_context = tree.read(&super::join(context, ".dockerignore"), LIMIT_IGNORE_BYTES)?;
    let exact = exact_paths(beside_dockerfile.as_ref().or(in_context.as_ref()).map_or(&[], Vec::as_slice));
    Ok(IgnoreFile { beside_dockerfile, exact })
}

/// The lines that are paths and not taken back by a later `!` line.
fn exact_paths(ignore_file: &[u8]) -> BTreeSet<String> {
    let mut exact = BTreeSet::new();
    let text = String::from_utf8_lossy(ignore_file);
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if line.starts_with('!') {
            exact.clear();
        } else if let Ok(path) = clean_path(line.trim_start_matches('/')) {
            exact.insert(path);
        }
    }
    exact
}

/// Refuses a context whose files a push did not bring whole.
pub(super) fn refuse_missing_content(
    tree: &dyn Tree,
    context: &str,
    ignore: &IgnoreFile,
) -> Result<(), KindError> {
    let walk = Walk::over(tree, context, ignore)?;
    if !walk.submodules.is_empty() {
        return Err(KindError::Submodules { context: context.to_owned(), paths: walk.submodules });
    }
    if !walk.lfs && !lfs_above(tree, context)? {
        return Ok(());
    }
    let mut paths = Vec::new();
    for path in &walk.files {
        if paths.len() < LIMIT_FOUND && is_lfs_pointer(tree, path) {
            paths.push(path.clone());
        }
    }
    if paths.is_empty() { Ok(()) } else { Err(KindError::LfsPointers { context: context.to_owned(), paths }) }
}

fn inside<'a>(path: &'a str, context: &str) -> &'a str {
    path.strip_prefix(context).map_or(path, |rest| rest.trim_start_matches('/'))
}

/// What stands in a context and is not left out, by paths from the root of the tree.
struct Walk {
    submodules: Vec<String>,
    files: Vec<String>,
    /// A `.gitattributes` in the context speaks of LFS.
    lfs: bool,
}

impl Walk {
    fn over(tree: &dyn Tree, context: &str, ignore: &IgnoreFile) -> Result<Self, KindError> {
        let mut walk = Self { submodules: Vec::new(), files: Vec::new(), lfs: false };
        let mut entries = 0;
        let mut dirs = vec![context.to_owned()];
        while let Some(dir) = dirs.pop() {
            if dir.split('/').count() > LIMIT_DEPTH {
                return Err(KindError::TooDeep { context: context.to_owned(), limit: LIMIT_DEPTH });
            }
            let list = tree.list(&dir)?;
            entries += list.len();
            if entries > LIMIT_ENTRIES {
                return Err(KindError::TooManyEntries { context: context.to_owned(), limit: LIMIT_ENTRIES });
            }
            for entry in list {
                let path = super::join(&dir, &entry.name);
                // of a directory that is a work tree; no commit holds such a name
                if entry.name == ".git" || ignore.exact.contains(inside(&path, context)) {
                    continue;
                }
                match entry.kind {
                    EntryKind::Dir => dirs.push(path),
                    EntryKind::Submodule if walk.submodules.len() < LIMIT_FOUND => walk.submodules.push(path),
                    EntryKind::File { .. } => {
                        walk.lfs |= entry.name == ".gitattributes" && speaks_of_lfs(tree, &path);
                        walk.files.push(path);
                    }
                    EntryKind::Submodule | EntryKind::Symlink => {}
                }
            }
        }
        walk.submodules.sort();
        walk.files.sort();
        Ok(walk)
    }
}

/// Whether an attributes file above the context speaks of LFS.
fn lfs_above(tree: &dyn Tree, context: &str) -> Result<bool, TreeError> {
    let mut dir = context;
    while !dir.is_empty() {
        dir = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
        if speaks_of_lfs(tree, &super::join(dir, ".gitattributes")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An attributes file that cannot be read is taken as one that does: then pointers are looked for.
fn speaks_of_lfs(tree: &dyn Tree, path: &str) -> bool {
    match tree.read(path, LIMIT_ATTRIBUTES_BYTES) {
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).contains("filter=lfs"),
        Ok(None) => false,
        Err(_) => true,
    }
}

fn is_lfs_pointer(tree: &dyn Tree, path: &str) -> bool {
    let Ok(Some(bytes)) = tree.read(path, LIMIT_POINTER_BYTES) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    text.starts_with("version https://git-lfs.github.com/spec/") && text.contains("\noid sha256:")
}
