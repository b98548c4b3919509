//! Git's index of a tree, as after `git read-tree`: names and content ids, and nothing known of any file on a disk, so that git
//! compares content. Format: git's `gitformat-index`. Pure.

use aws_lc_rs::digest;
use git2::Oid;

/// An entry of the tree, at its whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: Vec<u8>,
    pub(super) oid: Oid,
    /// `100644`, `100755`, `120000` or `160000`.
    pub(super) mode: u32,
}

const SUBMODULE: u32 = 0o160_000;
/// Longer names say so by this and end with their NUL.
const NAME_LENGTH: usize = 0xfff;
const EXTENDED: u16 = 1 << 14;
/// Of the extended flags: nobody is to look for it on the disk.
const SKIP_WORKTREE: u16 = 1 << 14;

/// The file's bytes.
pub(super) fn write(listing: &[Listed]) -> Vec<u8> {
    let mut sorted: Vec<&Listed> = listing.iter().collect();
    sorted.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    // submodules have no directory in what is built; only version 3 can say that this is no change
    let version: u32 = if sorted.iter().any(|entry| entry.mode == SUBMODULE) { 3 } else { 2 };
    let mut index = b"DIRC".to_vec();
    index.extend(version.to_be_bytes());
    index.extend(u32::try_from(sorted.len()).unwrap_or(u32::MAX).to_be_bytes());
    for entry in sorted {
        write_entry(&mut index, entry);
    }
    let checksum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &index);
    index.extend(checksum.as_ref());
    index
}

fn write_entry(index: &mut Vec<u8>, entry: &Listed) {
    let begin = index.len();
    // times, device and inode
    index.extend([0; 24]);
    index.extend(entry.mode.to_be_bytes());
    // owner, group and size
    index.extend([0; 12]);
    index.extend(entry.oid.as_bytes());
    let length = u16::try_from(entry.path.len().min(NAME_LENGTH)).unwrap_or_default();
    if entry.mode == SUBMODULE {
        index.extend((length | EXTENDED).to_be_bytes());
        index.extend(SKIP_WORKTREE.to_be_bytes());
    } else {
        index.extend(length.to_be_bytes());
    }
    index.extend(&entry.path);
    // one NUL at least, up to a multiple of eight
    let padding = 8 - (index.len() - begin) % 8;
    index.extend(std::iter::repeat_n(0, padding));
}
