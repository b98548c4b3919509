//! `Tree`: all that pure stages see of a source tree.

use super::Sha;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File { executable: bool },
    Dir,
    Symlink,
    Submodule,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name alone; bytes that are not UTF-8 are shown as U+FFFD and the entry cannot be read by name.
    pub name: String,
    pub kind: EntryKind,
    /// The object's id where the tree comes from git.
    pub id: Option<Sha>,
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{path} is a symbolic link; configuration is read from regular files only")]
    Symlink { path: String },
    #[error("{path} is not a regular file")]
    NotAFile { path: String },
    #[error("{path} has {size_bytes} bytes; at most {limit_bytes} are read")]
    TooLarge { path: String, size_bytes: u64, limit_bytes: u64 },
    #[error("{path:?} leaves the tree: use a relative path without '..'")]
    Outside { path: String },
    #[error("reading {path}: {cause}")]
    Read { path: String, cause: String },
}

/// A source tree, read-only. Paths are relative, `/`-separated, without `.` and `..` parts; `""` is the root.
/// Symbolic links are never followed, not in the middle of a path either.
pub trait Tree: Send + Sync {
    /// The entry at `path`; none where nothing stands.
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError>;
    /// The entries of the directory at `path`, by name bytes; empty where there is no directory.
    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError>;
    /// The whole of the regular file at `path`; an error for anything else, or above `limit_bytes`; none where nothing stands.
    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError>;
}

/// `path` in the form `Tree` takes: `./a//b/` becomes `a/b`, `.` becomes empty; absolute paths and `..` are errors.
pub fn clean_path(path: &str) -> Result<String, TreeError> {
    let outside = || TreeError::Outside { path: path.to_owned() };
    if path.starts_with('/') || path.contains(['\0', '\n', '\\']) {
        return Err(outside());
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(outside()),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// A tree in memory: for tests of pure stages, and for examples.
#[derive(Debug, Default, Clone)]
pub struct MemoryTree {
    files: std::collections::BTreeMap<String, (EntryKind, Vec<u8>)>,
}

impl MemoryTree {
    /// Adds a regular file; parents appear by themselves.
    #[must_use]
    pub fn with(mut self, path: &str, content: &str) -> Self {
        self.files
            .insert(path.to_owned(), (EntryKind::File { executable: false }, content.as_bytes().to_vec()));
        self
    }
    /// Adds an entry of another kind (`content`: a link's target).
    #[must_use]
    pub fn with_kind(mut self, path: &str, kind: EntryKind, content: &str) -> Self {
        self.files.insert(path.to_owned(), (kind, content.as_bytes().to_vec()));
        self
    }
}

impl Tree for MemoryTree {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        let path = clean_path(path)?;
        let name = path.rsplit('/').next().unwrap_or("").to_owned();
        if let Some((kind, _)) = self.files.get(&path) {
            return Ok(Some(TreeEntry { name, kind: *kind, id: None }));
        }
        let prefix = format!("{path}/");
        let is_dir = path.is_empty() || self.files.keys().any(|k| k.starts_with(&prefix));
        Ok(is_dir.then_some(TreeEntry { name, kind: EntryKind::Dir, id: None }))
    }

    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        let path = clean_path(path)?;
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries: Vec<TreeEntry> = Vec::new();
        for (key, (kind, _)) in &self.files {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let (name, kind) = match rest.split_once('/') {
                Some((dir, _)) => (dir, EntryKind::Dir),
                None => (rest, *kind),
            };
            if !entries.iter().any(|e| e.name == name) {
                entries.push(TreeEntry { name: name.to_owned(), kind, id: None });
            }
        }
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(entries)
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let clean = clean_path(path)?;
        match self.files.get(&clean) {
            Some((EntryKind::File { .. }, content)) => {
                let size_bytes = content.len() as u64;
                if size_bytes > limit_bytes {
                    return Err(TreeError::TooLarge { path: clean, size_bytes, limit_bytes });
                }
                Ok(Some(content.clone()))
            }
            Some((EntryKind::Symlink, _)) => Err(TreeError::Symlink { path: clean }),
            Some(_) => Err(TreeError::NotAFile { path: clean }),
            None => match self.entry(&clean)? {
                Some(_) => Err(TreeError::NotAFile { path: clean }),
                None => Ok(None),
            },
        }
    }
}
