//! File actions: copies, directories, files, links, removals, any number of them as one operation.
//!
//! [`FileActions`] is a chain: each action works on what the one before left. A copy's source is a state, or another chain
//! bound to a state ([`FileActions::on`]), which then is part of the same operation. Source: client/llb/fileop.go.

mod actions;
mod plan;

use std::sync::Arc;

pub use actions::{Copy, CopyFrom, MakeDir, MakeFile, Mode, Owner, Remove, Symlink};
pub(super) use plan::{FileNode, output};

use super::State;
use actions::Action;

/// A chain of file actions.
#[derive(Clone, Default)]
#[must_use]
pub struct FileActions(Vec<Action>);

impl FileActions {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn copy(self, copy: Copy) -> Self {
        self.then(Action::Copy(Box::new(copy)))
    }

    pub fn mkdir(self, dir: MakeDir) -> Self {
        self.then(Action::MakeDir(dir))
    }

    pub fn mkfile(self, file: MakeFile) -> Self {
        self.then(Action::MakeFile(file))
    }

    pub fn rm(self, remove: Remove) -> Self {
        self.then(Action::Remove(remove))
    }

    pub fn symlink(self, link: Symlink) -> Self {
        self.then(Action::Symlink(link))
    }

    fn then(mut self, action: Action) -> Self {
        self.0.push(action);
        self
    }

    /// This chain on a state, as the source of a copy.
    pub fn on(&self, state: &State) -> BoundActions {
        BoundActions(Arc::new(Bound { state: state.clone(), actions: self.0.clone() }))
    }
}

/// A chain on a state. Copies are the same chain: its actions are done once.
#[derive(Clone)]
pub struct BoundActions(Arc<Bound>);

struct Bound {
    state: State,
    actions: Vec<Action>,
}
