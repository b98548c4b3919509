//! The commit's tree, with its `.git`, as what kodata is read from: links lead to anything in it.
//!
//! Reads git objects through the build's own context; no link of this machine is ever followed.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result};
use std::sync::Arc;

use crate::assemble::ko::{Node, Source};
use crate::solve::{DirEntry, DirSource, mode::DIR};

pub(super) struct Tree {
    nodes: BTreeMap<Vec<u8>, (Arc<dyn DirSource>, DirEntry)>,
    /// What lies in each directory, in any order.
    names: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

const GIT: &[u8] = b".git";

impl Tree {
    pub fn new(source: Arc<dyn DirSource>, git: Arc<dyn DirSource>) -> Result<Self> {
        let mut tree = Self { nodes: BTreeMap::new(), names: BTreeMap::new() };
        let root = DirEntry { path: GIT.to_vec(), mode: DIR, ..DirEntry::default() };
        tree.nodes.insert(GIT.to_vec(), (git.clone(), root));
        tree.name(GIT);
        for (dir, prefix) in [(&source, &b""[..]), (&git, b".git/")] {
            for entry in dir.entries().map_err(Error::other)?.iter() {
                let path = [prefix, &entry.path].concat();
                tree.name(&path);
                tree.nodes.insert(path, (dir.clone(), entry.clone()));
            }
        }
        Ok(tree)
    }

    fn name(&mut self, path: &[u8]) {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        self.names.entry(above.to_vec()).or_default().push(name.to_vec());
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    let not_text = |_| Error::new(ErrorKind::InvalidData, "a name or a link's target that is not UTF-8");
    String::from_utf8(bytes.to_vec()).map_err(not_text)
}

impl Source for Tree {
    fn node(&self, path: &str) -> Result<Option<Node>> {
        if path.is_empty() {
            return Ok(Some(Node::Directory));
        }
        let Some((_, entry)) = self.nodes.get(path.as_bytes()) else { return Ok(None) };
        Ok(Some(if entry.is_dir() {
            Node::Directory
        } else if entry.is_symlink() {
            Node::Link { target: text(&entry.linkname)? }
        } else {
            Node::File { size: entry.size }
        }))
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        self.names.get(path.as_bytes()).into_iter().flatten().map(|name| text(name)).collect()
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + '_>> {
        let (dir, entry) = self.nodes.get(path.as_bytes()).ok_or(ErrorKind::NotFound)?;
        let content: Box<dyn Read> = dir.open(entry).map_err(Error::other)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::session::filesync::LocalDir;

    #[test]
    fn links_lead_to_the_tree_and_to_what_git_says_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, git) = (dir.path().join("tree"), dir.path().join("git"));
        std::fs::create_dir_all(tree.join("cmd/kodata")).unwrap();
        std::fs::create_dir(&git).unwrap();
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        std::fs::write(tree.join("LICENSE"), "free").unwrap();
        std::os::unix::fs::symlink("../../.git/HEAD", tree.join("cmd/kodata/HEAD")).unwrap();
        std::os::unix::fs::symlink("../../LICENSE", tree.join("cmd/kodata/LICENSE")).unwrap();
        let open = |path: &std::path::Path| Arc::new(LocalDir::open(path).unwrap()) as Arc<dyn DirSource>;
        let tree = Tree::new(open(&tree), open(&git)).unwrap();
        let entries = crate::assemble::ko::kodata(&tree, "cmd/kodata", "").unwrap();
        let mut said = Vec::new();
        for (path, _) in entries.iter().filter_map(|entry| entry.file.as_ref()) {
            let mut text = String::new();
            tree.open(path).unwrap().read_to_string(&mut text).unwrap();
            said.push(text);
        }
        assert_eq!(said, ["ref: refs/heads/main\n", "free"]);
        assert_eq!(tree.node("cmd").unwrap(), Some(Node::Directory));
        assert!(tree.node("missing").unwrap().is_none() && tree.open("missing").is_err());
    }
}
