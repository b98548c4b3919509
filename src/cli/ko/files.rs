//! kodata's source: the worktree on disk, of which links are told and never followed here.

use std::io::{Error, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

use crate::assemble::ko::{Node, Source};

pub struct Worktree(pub PathBuf);

impl Worktree {
    /// The path on disk, where no directory on the way to it is a link.
    fn real(&self, path: &str) -> Result<Option<PathBuf>> {
        let mut place = self.0.clone();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            if parts.peek().is_some() && !found(&place)?.is_some_and(|found| found.is_dir()) {
                return Ok(None);
            }
        }
        Ok(Some(place))
    }
}

fn found(place: &Path) -> Result<Option<std::fs::Metadata>> {
    match std::fs::symlink_metadata(place) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn text(name: std::ffi::OsString) -> Result<String> {
    name.into_string()
        .map_err(|_| Error::new(ErrorKind::InvalidData, "a name or a link's target that is not UTF-8"))
}

impl Source for Worktree {
    fn node(&self, path: &str) -> Result<Option<Node>> {
        let Some(place) = self.real(path)? else { return Ok(None) };
        let Some(found) = found(&place)? else { return Ok(None) };
        Ok(Some(if found.is_dir() {
            Node::Directory
        } else if found.is_symlink() {
            Node::Link { target: text(std::fs::read_link(&place)?.into_os_string())? }
        } else if found.is_file() {
            Node::File { size: found.len() }
        } else {
            return Err(Error::new(ErrorKind::InvalidInput, "neither a file, a directory nor a link"));
        }))
    }
    fn names(&self, path: &str) -> Result<Vec<String>> {
        let place = self.real(path)?.ok_or(ErrorKind::NotFound)?;
        std::fs::read_dir(place)?.map(|entry| text(entry?.file_name())).collect()
    }
    fn open(&self, path: &str) -> Result<Box<dyn Read + '_>> {
        let place = self.real(path)?.ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(std::fs::File::open(place)?))
    }
}
