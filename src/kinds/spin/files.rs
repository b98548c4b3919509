//! Which files a component sees, and where: `files` and `exclude_files` over a tree.
//!
//! As Spin's loader: a path that is there is itself (a directory: all that is below it, at the same place); another one must be
//! a pattern. `exclude_files` are for what patterns and directories bring, not for a file that is named. Two differences, on
//! purpose: a symbolic link is refused, for it may lead out of the application, and two files cannot become one.

use std::collections::BTreeMap;

use super::errors::SpinError;
use super::glob::{self, PathPattern, Pattern};
use crate::model::{EntryKind, SpinComponent, SpinMount, Tree, TreeError};

/// Bounds of one component's files.
const LIMIT_FILES: usize = 20_000;
const LIMIT_ENTRIES: usize = 500_000;
const LIMIT_DEPTH: usize = 128;

/// A file as a component sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedFile {
    /// Without a leading `/`.
    pub path: String,
    /// Within the application.
    pub source: String,
}

/// The files of `component`, by path. `root` is the application's directory in `tree`.
pub fn mounted_files(
    tree: &dyn Tree,
    root: &str,
    component: &SpinComponent,
) -> Result<Vec<MountedFile>, SpinError> {
    let exclude = component.exclude_files.iter().map(|pattern| pattern_of(component, pattern, Pattern::new));
    let mut found = Found {
        tree,
        root,
        component,
        exclude: exclude.collect::<Result<_, _>>()?,
        files: BTreeMap::new(),
        entries: 0,
    };
    for mount in &component.files {
        found.mount(mount)?;
    }
    found.check_parents()?;
    let file = |(path, source)| MountedFile { path, source };
    Ok(found.files.into_iter().map(file).collect())
}

fn pattern_of<P>(
    component: &SpinComponent,
    text: &str,
    read: impl Fn(&str) -> Result<P, glob::GlobError>,
) -> Result<P, SpinError> {
    read(text).map_err(|error| {
        SpinError::app(format!("component {}: {text:?}: {error}", component.id), "correct the pattern")
    })
}

/// `a/b`, where either may be empty.
pub(super) fn joined(dir: &str, name: &str) -> String {
    if dir.is_empty() || name.is_empty() { format!("{dir}{name}") } else { format!("{dir}/{name}") }
}

struct Found<'a> {
    tree: &'a dyn Tree,
    root: &'a str,
    component: &'a SpinComponent,
    exclude: Vec<Pattern>,
    /// Path as seen -> path in the application.
    files: BTreeMap<String, String>,
    entries: usize,
}

impl Found<'_> {
    fn mount(&mut self, mount: &SpinMount) -> Result<(), SpinError> {
        match mount {
            SpinMount::Placed { source, destination } => match self.kind(source)? {
                Some(EntryKind::Dir) => self.directory(source, destination),
                Some(EntryKind::File { .. }) if destination.is_empty() => Err(self.refuse(
                    format!("{source} is a file, and the destination is a directory"),
                    "add the file's name to destination",
                )),
                Some(kind) => self.named(source, destination, kind),
                None => Err(self.missing(source)),
            },
            SpinMount::Pattern(path) => match self.kind(path.trim_end_matches('/'))? {
                Some(EntryKind::Dir) => self.directory(path, path),
                Some(kind) => self.named(path, path, kind),
                None if glob::is_pattern(path) => self.pattern(path),
                None => Err(self.missing(path)),
            },
        }
    }

    fn kind(&self, path: &str) -> Result<Option<EntryKind>, TreeError> {
        Ok(self.tree.entry(&joined(self.root, path))?.map(|entry| entry.kind))
    }

    fn refuse(&self, problem: impl std::fmt::Display, hint: &str) -> SpinError {
        SpinError::app(format!("component {}: files: {problem}", self.component.id), hint)
    }

    fn missing(&self, path: &str) -> SpinError {
        self.refuse(
            format!("{path} is not there, and is no pattern"),
            "commit it, or correct the path: it is relative to the directory of spin.toml",
        )
    }

    /// A file that is named is taken, whatever is excluded.
    fn named(&mut self, source: &str, path: &str, kind: EntryKind) -> Result<(), SpinError> {
        self.check_kind(source, kind)?;
        self.add(path.to_owned(), source.to_owned())
    }

    fn directory(&mut self, source: &str, destination: &str) -> Result<(), SpinError> {
        let mut below = Vec::new();
        self.walk(source, 0, &mut |_| true, &mut below)?;
        let prefix = if source.is_empty() { String::new() } else { format!("{source}/") };
        for (path, kind) in below {
            self.check_kind(&path, kind)?;
            let inside = path.strip_prefix(&prefix).unwrap_or(&path);
            self.add(joined(destination, inside), path.clone())?;
        }
        Ok(())
    }

    fn pattern(&mut self, text: &str) -> Result<(), SpinError> {
        let pattern = pattern_of(self.component, text, PathPattern::new)?;
        let mut below = Vec::new();
        self.walk(&pattern.directory(), 0, &mut |path| pattern.matches_file(path), &mut below)?;
        for (path, kind) in below {
            self.check_kind(&path, kind)?;
            self.add(path.clone(), path)?;
        }
        Ok(())
    }

    /// All but directories under `dir` that are `wanted` and not excluded.
    fn walk(
        &mut self,
        dir: &str,
        depth: usize,
        wanted: &mut dyn FnMut(&str) -> bool,
        below: &mut Vec<(String, EntryKind)>,
    ) -> Result<(), SpinError> {
        if depth > LIMIT_DEPTH {
            let problem = format!("directories more than {LIMIT_DEPTH} deep");
            return Err(self.refuse(problem, "name the directories that the component needs"));
        }
        for entry in self.tree.list(&joined(self.root, dir))? {
            self.entries += 1;
            if self.entries > LIMIT_ENTRIES {
                let problem = format!("more than {LIMIT_ENTRIES} entries were looked at");
                return Err(self.refuse(problem, "begin the patterns with a directory"));
            }
            let path = joined(dir, &entry.name);
            if entry.kind == EntryKind::Dir {
                self.walk(&path, depth + 1, wanted, below)?;
            } else if wanted(&path) && !self.exclude.iter().any(|pattern| pattern.matches(&path)) {
                below.push((path, entry.kind));
            }
        }
        Ok(())
    }

    fn check_kind(&self, path: &str, kind: EntryKind) -> Result<(), SpinError> {
        match kind {
            EntryKind::File { .. } => Ok(()),
            EntryKind::Symlink => Err(self.refuse(
                format!("{path} is a symbolic link"),
                "commit the file itself, or leave it out with exclude_files",
            )),
            EntryKind::Submodule | EntryKind::Dir => Err(self.refuse(
                format!("{path} is a submodule, whose files a push does not bring"),
                "add its files to the repository, or leave it out with exclude_files",
            )),
        }
    }

    /// No file is where another's directory has to be.
    fn check_parents(&self) -> Result<(), SpinError> {
        for path in self.files.keys() {
            let mut parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
            if let Some(parent) = parents.find(|parent| self.files.contains_key(*parent)) {
                return Err(self.refuse(
                    format!("/{parent} would be a file, and the directory of /{path}"),
                    "mount one of them elsewhere, or leave it out with exclude_files",
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, source: String) -> Result<(), SpinError> {
        match self.files.get(&path) {
            Some(first) if *first == source => return Ok(()),
            Some(first) => {
                return Err(self.refuse(
                    format!("{first} and {source} both become /{path}"),
                    "mount one of them elsewhere, or leave it out with exclude_files",
                ));
            }
            None if self.files.len() == LIMIT_FILES => {
                let problem = format!("more than {LIMIT_FILES} files");
                return Err(self.refuse(problem, "mount fewer, or serve them from elsewhere"));
            }
            None => {}
        }
        self.files.insert(path, source);
        Ok(())
    }
}
