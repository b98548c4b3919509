//! Paths that must arrive whole: each symbolic link on the way to one of them, and what the links point at.
//!
//! The rules, and the order in which they apply, are those of tonistiigi/fsutil's link follower: a link is expanded
//! once, and a target is looked up from the directory's root, never outside it. Pure.

use std::collections::BTreeSet;

use super::filter::{is_below, subtree_len};
use super::paths::{base, clean, dir, join, shell_match};
use super::{Entry, find, shown};

/// Links whose targets add up to longer paths than this are refused: no file system takes them.
const MAX_PATH_BYTES: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("following the symbolic link {link} gives a path of more than {MAX_PATH_BYTES} bytes")]
pub struct BadLink {
    link: String,
}

/// The paths to include for `paths`, sorted; none where one of them is the root, so that all is included.
pub fn follow(entries: &[Entry], paths: &[Vec<u8>]) -> Result<Option<Vec<Vec<u8>>>, BadLink> {
    let mut resolved = BTreeSet::new();
    for path in paths {
        // depth first, in the order of the targets: the next to do is last
        let mut todo = vec![path.clone()];
        while let Some(path) = todo.pop() {
            let mut targets = step(entries, &path, &mut resolved)?;
            targets.reverse();
            todo.append(&mut targets);
        }
    }
    Ok(dedupe(resolved.into_iter().collect()))
}

/// Walks `path` up to its first link, notes what was passed, and returns where to go from there.
fn step(entries: &[Entry], path: &[u8], resolved: &mut BTreeSet<Vec<u8>>) -> Result<Vec<Vec<u8>>, BadLink> {
    let path = join(&[b".", path]);
    let mut parts = path.split(|b| *b == b'/');
    let mut current = b".".to_vec();
    while let Some(part) = parts.next() {
        current = join(&[&current, part]);
        let rest = parts.clone().collect::<Vec<_>>().join(&b'/');
        let targets = links_at(entries, &current);
        if targets.is_empty() && !rest.is_empty() {
            continue;
        }
        if !resolved.insert(current.clone()) {
            return Ok(Vec::new());
        }
        if targets.iter().any(|target| target.len() + rest.len() > MAX_PATH_BYTES) {
            return Err(BadLink { link: shown(&current) });
        }
        return Ok(targets.into_iter().map(|target| join(&[&target, &rest])).collect());
    }
    Ok(Vec::new())
}

/// The targets, from the root, of the links that `path` names; its last part may be a shell pattern.
fn links_at(entries: &[Entry], path: &[u8]) -> Vec<Vec<u8>> {
    let name = base(path);
    if !has_wildcards(name) {
        return find(entries, path).and_then(|at| target(entries.get(at)?)).into_iter().collect();
    }
    children(entries, &dir(path))
        .filter(|entry| shell_match(name, base(&entry.path)).unwrap_or(false))
        .filter_map(target)
        .collect()
}

/// Where a link points, as a path from the root; none for anything but a link.
fn target(link: &Entry) -> Option<Vec<u8>> {
    if !link.is_symlink() {
        return None;
    }
    let text = clean(&link.linkname);
    Some(if text.first() == Some(&b'/') { text } else { join(&[b"/", &dir(&link.path), &text]) })
}

/// What stands directly in `dir`; nothing where that is no directory.
fn children<'a>(entries: &'a [Entry], dir: &[u8]) -> impl Iterator<Item = &'a Entry> {
    let (mut at, end) = match dir {
        b"." | b"/" => (0, entries.len()),
        dir => match find(entries, dir) {
            Some(found) => (found + 1, found + 1 + subtree_len(entries, found + 1, dir)),
            None => (0, 0),
        },
    };
    std::iter::from_fn(move || {
        let entry = entries.get(at).filter(|_| at < end)?;
        at += 1;
        if entry.is_dir() {
            at += subtree_len(entries, at, &entry.path);
        }
        Some(entry)
    })
}

/// An escaped character is no wildcard.
fn has_wildcards(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Drops what stands in a path listed just before it; none where the root is among the paths.
pub(super) fn dedupe(paths: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(paths.len());
    for path in paths {
        if path == b"." {
            return None;
        }
        let last = kept.last().map_or(&b""[..], Vec::as_slice);
        if !is_below(&path, last) {
            kept.push(path);
        }
    }
    Some(kept)
}
