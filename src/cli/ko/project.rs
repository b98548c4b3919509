//! Where a Go program's files are: the module that the command stands in, the repository around it, and ko's configuration,
//! which the environment and flags may change.
//!
//! Reads only; no command is run.

use std::path::{Path, PathBuf};

use crate::config::Environment;
use crate::error::{Kind, Report};
use crate::model::{EntryKind, Tree, TreeEntry, TreeError};
use crate::receive::DirTree;

const LIMIT_CONFIG_BYTES: u64 = 1 << 20;

/// A module on disk.
pub struct Project {
    /// What the daemon is given: the git worktree around the module, else the workspace, else the module.
    pub source: PathBuf,
    /// The module, or the workspace: relative paths of ko's configuration start here.
    pub root: PathBuf,
    /// From `source` to `root`, and from `root` to where the command was given.
    pub root_below: String,
    pub here_below: String,
    /// The text of `.ko.yaml`.
    config: Option<Vec<u8>>,
}

impl Project {
    pub fn find(environment: &Environment) -> Result<Self, Report> {
        let failed = |error: std::io::Error| Report::internal(format!("the current directory: {error}"));
        let here = std::env::current_dir().and_then(|dir| dir.canonicalize()).map_err(failed)?;
        let has = |dir: &Path, names: &[&str]| names.iter().any(|name| dir.join(name).is_file());
        let ko = [".ko.yaml", ".ko.yml"];
        let root = here
            .ancestors()
            .find(|dir| has(dir, &["go.mod", "go.work"]) || *dir == here && has(dir, &ko))
            .ok_or_else(|| {
                let message = "there is no go.mod here, nor in any directory above";
                Report::new(Kind::NotFound, message).hint("`go mod init` makes one")
            })?
            .to_owned();
        let repository = root.ancestors().find(|dir| dir.join(".git").exists());
        if let Some(repository) = repository.filter(|repository| !repository.join(".git").is_dir()) {
            return Err(Report::user(format!(
                "{} is a linked worktree or a submodule: its history lies elsewhere",
                repository.display()
            ))
            .hint("build in a clone, where .git is a directory"));
        }
        let workspace = root.ancestors().find(|dir| has(dir, &["go.work"]));
        let source = repository.or(workspace).unwrap_or(&root).to_owned();
        let config = config(&here, environment)?;
        let (root_below, here_below) = (below(&root, &source)?, below(&here, &root)?);
        if config.is_some() && !here_below.is_empty() {
            return Err(Report::user(
                "ko's configuration names directories from here, and the module's root is above",
            )
            .hint(format!("run the command in {}", root.display())));
        }
        Ok(Self { root_below, here_below, source, root, config })
    }

    /// The module's files, with ko's configuration as the environment has it.
    pub fn tree(&self) -> ProjectTree {
        ProjectTree { files: DirTree::new(&self.root), config: self.config.clone() }
    }

    pub fn has_config(&self) -> bool {
        self.config.is_some()
    }

    /// The environment's variables that ko's configuration speaks of in templates.
    pub fn named_variables(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(self.config.as_deref().unwrap_or_default()).into_owned();
        let names = text.split(".Env.").skip(1).map(|rest| {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            rest.get(..end).unwrap_or_default().to_owned()
        });
        names.filter(|name| !name.is_empty()).collect()
    }
}

/// `KO_CONFIG_PATH` (a file, or a directory of one), else ko's file here.
fn config(here: &Path, environment: &Environment) -> Result<Option<Vec<u8>>, Report> {
    let named = environment.get("KO_CONFIG_PATH").filter(|path| !path.is_empty());
    let place = named.map_or_else(|| here.to_owned(), |path| here.join(path));
    let candidates = match place.is_dir() {
        true => vec![place.join(".ko.yaml"), place.join(".ko.yml")],
        false => vec![place.clone()],
    };
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        return match named {
            Some(path) => Err(Report::new(
                Kind::NotFound,
                format!("KO_CONFIG_PATH: there is no configuration in {path}"),
            )),
            None => Ok(None),
        };
    };
    let unreadable = |cause: String| Report::user(format!("{}: {cause}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > LIMIT_CONFIG_BYTES {
        return Err(unreadable(format!("more than {LIMIT_CONFIG_BYTES} bytes")));
    }
    std::fs::read(path).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// The way down from `above`, with slashes.
fn below(path: &Path, above: &Path) -> Result<String, Report> {
    let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
    rest.to_str().map(str::to_owned).ok_or_else(|| Report::user(format!("{} is not UTF-8", path.display())))
}

/// A module's files; ko's configuration is what the command makes of it.
pub struct ProjectTree {
    files: DirTree,
    config: Option<Vec<u8>>,
}

impl ProjectTree {
    fn own(&self, path: &str) -> Option<Option<&Vec<u8>>> {
        match path {
            ".ko.yaml" => Some(self.config.as_ref()),
            ".ko.yml" => Some(None),
            _ => None,
        }
    }
}

impl Tree for ProjectTree {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        match self.own(path) {
            None => self.files.entry(path),
            Some(text) => Ok(text.map(|_| TreeEntry {
                name: path.to_owned(),
                kind: EntryKind::File { executable: false },
                id: None,
            })),
        }
    }
    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        self.files.list(path)
    }
    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        match self.own(path) {
            None => self.files.read(path, limit_bytes),
            Some(text) => Ok(text.cloned()),
        }
    }
}
