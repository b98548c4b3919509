//! How large a tree would be as a checkout, without making one.
//!
//! Each distinct tree object is read once, whatever the number of paths that lead to it, so a dozen objects that unfold
//! to a billion paths cost a dozen reads. Must not keep a measure of a tree that was not measured to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use git2::{Odb, Oid};

use super::error::Refusal;
use super::limits::Limits;
use super::tree::kind_of;
use crate::model::EntryKind;

/// What a tree unfolds to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub entries: u64,
    pub bytes: u64,
    /// Levels of directories below this one.
    pub depth: u32,
}

/// Costs of trees seen before. A tree's id says all of its content, so this holds for every repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo(Arc<Mutex<HashMap<Oid, Cost>>>);

/// The memo is emptied when it holds this many trees (about 10 MB).
const MEMO_TREES: usize = 100_000;

impl Memo {
    fn get(&self, id: Oid) -> Option<Cost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
    fn put(&self, id: Oid, cost: Cost) {
        let mut costs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if costs.len() >= MEMO_TREES {
            costs.clear();
        }
        costs.insert(id, cost);
    }
}

/// Measures the trees of one push.
pub(super) struct Measure<'a> {
    pub git: &'a git2::Repository,
    pub odb: &'a Odb<'a>,
    pub limits: &'a Limits,
    pub memo: &'a Memo,
    /// The ref whose tree it is, for the refusal.
    pub reference: &'a str,
}

impl Measure<'_> {
    /// The cost of the tree, or the bound that it breaks.
    pub(super) fn tree(&self, id: Oid) -> Result<Cost, Refusal> {
        let cost = self.walk(id, 0)?;
        // subtrees came from the memo perhaps, measured from another root
        self.check(cost)?;
        Ok(cost)
    }

    fn walk(&self, id: Oid, level: u32) -> Result<Cost, Refusal> {
        if let Some(cost) = self.memo.get(id) {
            return Ok(cost);
        }
        if level > self.limits.max_tree_depth {
            return Err(self.too_deep());
        }
        let unreadable = |e: git2::Error| Refusal::Unreadable(e.message().to_owned());
        let tree = self.git.find_tree(id).map_err(unreadable)?;
        let mut cost = Cost::default();
        for entry in &tree {
            cost.entries = cost.entries.saturating_add(1);
            match kind_of(entry.filemode()) {
                EntryKind::Dir => {
                    let below = self.walk(entry.id(), level + 1)?;
                    cost.entries = cost.entries.saturating_add(below.entries);
                    cost.bytes = cost.bytes.saturating_add(below.bytes);
                    cost.depth = cost.depth.max(below.depth.saturating_add(1));
                }
                EntryKind::Submodule => {}
                EntryKind::File { .. } | EntryKind::Symlink => {
                    let (size, _) = self.odb.read_header(entry.id()).map_err(unreadable)?;
                    cost.bytes = cost.bytes.saturating_add(size as u64);
                }
            }
            self.check(cost)?;
        }
        self.memo.put(id, cost);
        Ok(cost)
    }

    fn check(&self, cost: Cost) -> Result<(), Refusal> {
        let reference = || self.reference.to_owned();
        match () {
            () if cost.entries > self.limits.max_tree_entries => {
                Err(Refusal::Entries { reference: reference(), limit: self.limits.max_tree_entries })
            }
            () if cost.bytes > self.limits.max_tree_bytes => {
                Err(Refusal::TreeBytes { reference: reference(), limit_bytes: self.limits.max_tree_bytes })
            }
            () if cost.depth > self.limits.max_tree_depth => Err(self.too_deep()),
            () => Ok(()),
        }
    }

    fn too_deep(&self) -> Refusal {
        Refusal::Depth { reference: self.reference.to_owned(), limit: self.limits.max_tree_depth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with `fan` names for the same subtree, `levels` deep, over one file of 4 bytes.
    fn bomb(git: &git2::Repository, fan: usize, levels: usize) -> Oid {
        let blob = git.blob(b"boom").unwrap();
        let mut id = blob;
        for level in 0..levels {
            let mut builder = git.treebuilder(None).unwrap();
            for n in 0..fan {
                builder.insert(format!("f{n}"), id, if level == 0 { 0o100_644 } else { 0o040_000 }).unwrap();
            }
            id = builder.write().unwrap();
        }
        id
    }

    fn measure(tree: Oid, git: &git2::Repository, limits: &Limits, memo: &Memo) -> Result<Cost, Refusal> {
        let odb = git.odb().unwrap();
        Measure { git, odb: &odb, limits, memo, reference: "refs/heads/main" }.tree(tree)
    }

    #[test]
    fn paths_are_counted_as_a_checkout_would_make_them() {
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        let tree = bomb(&git, 10, 3);
        let memo = Memo::default();
        let wanted = Cost { entries: 1110, bytes: 4000, depth: 2 };
        assert_eq!(measure(tree, &git, &Limits::default(), &memo).unwrap(), wanted);
        assert_eq!(measure(tree, &git, &Limits::default(), &memo).unwrap(), wanted, "from the memo");
    }

    #[test]
    fn a_git_bomb_is_refused_without_unfolding_it() {
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        let tree = bomb(&git, 10, 10);
        let memo = Memo::default();
        let began = std::time::Instant::now();
        let refused = measure(tree, &git, &Limits::default(), &memo);
        assert!(began.elapsed() < std::time::Duration::from_millis(200), "{:?}", began.elapsed());
        assert_eq!(
            refused,
            Err(Refusal::Entries { reference: "refs/heads/main".to_owned(), limit: 200_000 })
        );
        // trees above the bound are not in the memo, so the answer stays
        assert_eq!(measure(tree, &git, &Limits::default(), &memo), refused);
    }

    #[test]
    fn depth_and_bytes_have_their_own_bounds_also_through_the_memo() {
        let dir = tempfile::tempdir().unwrap();
        let git = git2::Repository::init_bare(dir.path()).unwrap();
        let deep = bomb(&git, 1, 66);
        let at_bound = bomb(&git, 1, 65);
        let memo = Memo::default();
        assert_eq!(measure(at_bound, &git, &Limits::default(), &memo).unwrap().depth, 64);
        let too_deep = Err(Refusal::Depth { reference: "refs/heads/main".to_owned(), limit: 64 });
        assert_eq!(measure(deep, &git, &Limits::default(), &memo), too_deep);
        assert_eq!(measure(deep, &git, &Limits::default(), &Memo::default()), too_deep);
        let small = Limits { max_tree_bytes: 399, ..Limits::default() };
        let wide = bomb(&git, 10, 2);
        assert!(matches!(measure(wide, &git, &small, &Memo::default()), Err(Refusal::TreeBytes { .. })));
    }
}
