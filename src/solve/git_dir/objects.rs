//! Git objects as the files of `objects/`: of the commit its trees, links and `go.mod` files, of tags what names them. No other
//! content: git looks for it in the source beside it.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::{ObjectType, Odb, Oid, Repository};

use super::index::Listed;
use super::{GitDirError, unreadable};
use crate::buildkit::session::filesync::shown;

const MAX_FILES: usize = 500_000;
const MAX_DEPTH: usize = 256;
/// Go reads no larger `go.mod` out of a repository, and no file system has so long a link.
const SMALL_BYTES: usize = 16 << 20;
/// A tag of a tag of a tag.
const MAX_TAGS: usize = 8;

pub(super) struct Objects<'g> {
    git: &'g Repository,
    odb: Odb<'g>,
    files: BTreeMap<Oid, Vec<u8>>,
}

impl<'g> Objects<'g> {
    pub(super) fn new(git: &'g Repository) -> Result<Self, GitDirError> {
        Ok(Self { git, odb: git.odb().map_err(unreadable("the repository"))?, files: BTreeMap::new() })
    }

    pub(super) fn add(&mut self, oid: Oid) -> Result<(), GitDirError> {
        if !self.files.contains_key(&oid) {
            let object = self.odb.read(oid).map_err(unreadable(oid))?;
            self.files.insert(oid, packed(object.kind(), object.data()));
        }
        Ok(())
    }

    /// The tags between a ref and its commit; none for a ref that holds a commit.
    pub(super) fn add_tag(&mut self, target: Oid) -> Result<(), GitDirError> {
        let mut at = target;
        for _ in 0..MAX_TAGS {
            let Ok(tag) = self.git.find_tag(at) else { return Ok(()) };
            self.add(at)?;
            at = tag.target_id();
        }
        Ok(())
    }

    /// A commit that says all that `commit` says, but of its parents. Returns its name.
    pub(super) fn add_with_parents(&mut self, commit: Oid, parents: &[Oid]) -> Result<Oid, GitDirError> {
        let object = self.odb.read(commit).map_err(unreadable(commit))?;
        let text = object.data();
        let head_end = text.windows(2).position(|pair| pair == b"\n\n").map_or(text.len(), |at| at + 1);
        let (head, rest) = text.split_at(head_end);
        let mut lines = Vec::new();
        let mut added = false;
        for line in head.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b"parent ") {
                continue;
            }
            lines.extend_from_slice(line);
            // the tree comes first, then the parents
            if !added {
                added = true;
                lines.extend(parents.iter().flat_map(|parent| format!("parent {parent}\n").into_bytes()));
            }
        }
        lines.extend_from_slice(rest);
        let name = Oid::hash_object(ObjectType::Commit, &lines).map_err(unreadable(commit))?;
        self.files.insert(name, packed(ObjectType::Commit, &lines));
        Ok(name)
    }

    /// A tree and all below it; what the index lists of it.
    pub(super) fn add_tree(&mut self, tree: Oid) -> Result<Vec<Listed>, GitDirError> {
        let mut listing = Vec::new();
        self.walk(tree, b"", 0, &mut listing)?;
        Ok(listing)
    }

    fn walk(
        &mut self,
        tree: Oid,
        dir: &[u8],
        depth: usize,
        listing: &mut Vec<Listed>,
    ) -> Result<(), GitDirError> {
        if depth > MAX_DEPTH {
            return Err(GitDirError::TooDeep { path: shown(dir), limit: MAX_DEPTH });
        }
        self.add(tree)?;
        let git = self.git;
        let tree = git.find_tree(tree).map_err(unreadable(tree))?;
        if listing.len() + tree.len() > MAX_FILES {
            return Err(GitDirError::TooManyFiles { limit: MAX_FILES });
        }
        for child in &tree {
            let name = child.name_bytes();
            let path = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
            let listed = |mode| Listed { path: path.clone(), oid: child.id(), mode };
            match child.filemode() & 0o170_000 {
                0o040_000 => self.walk(child.id(), &path, depth + 1, listing)?,
                0o160_000 => listing.push(listed(0o160_000)),
                0o120_000 => {
                    listing.push(listed(0o120_000));
                    // git compares a link with the object, and never by its id
                    self.add_small(child.id())?;
                }
                _ => {
                    // as git writes it, whatever an old commit has
                    listing.push(listed(if child.filemode() & 0o111 == 0 { 0o100_644 } else { 0o100_755 }));
                    if name == b"go.mod" {
                        self.add_small(child.id())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_small(&mut self, blob: Oid) -> Result<(), GitDirError> {
        let (size, _) = self.odb.read_header(blob).map_err(unreadable(blob))?;
        if size <= SMALL_BYTES { self.add(blob) } else { Ok(()) }
    }

    /// By their place in `.git`.
    pub(super) fn into_files(self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.files.into_iter().map(|(oid, content)| {
            let name = oid.to_string();
            let (dir, file) = name.split_at_checked(2).unwrap_or_default();
            (format!("objects/{dir}/{file}").into_bytes(), content)
        })
    }
}

/// An object as a file of its own.
fn packed(kind: ObjectType, data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let written = write!(encoder, "{} {}\0", kind.str(), data.len())
        .and_then(|()| encoder.write_all(data))
        .and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}
