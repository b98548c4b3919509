//! The graph: operations, each holding the outputs that it is made from.
//!
//! `Node::inputs` is the only way from one operation to another; what an operation says about an input, it says by its
//! place in that list. So walking and dropping a graph need no recursion, however long a chain is.

use std::sync::Arc;

use super::exec::ExecNode;
use super::file::FileNode;
use super::import::Imported;
use super::{Constraints, LlbError, Platform};

pub(super) struct Node {
    /// In the order in which they are marshalled before this one.
    pub(super) inputs: Vec<Output>,
    pub(super) kind: Kind,
    pub(super) constraints: Constraints,
    /// A mistake made in describing this operation.
    pub(super) mistake: Option<LlbError>,
}

pub(super) enum Kind {
    Source {
        identifier: String,
        attrs: std::collections::BTreeMap<String, String>,
    },
    Exec(Box<ExecNode>),
    File(FileNode),
    Merge,
    /// Whether the lower and the upper side are there, in that order in `inputs`.
    Diff {
        lower: bool,
        upper: bool,
    },
    Build {
        filename: String,
    },
    /// Which inputs come out, in order.
    Passthrough {
        id: String,
        outputs: Vec<usize>,
    },
    Imported(Imported),
}

/// One result of an operation.
#[derive(Clone)]
pub(super) struct Output {
    pub(super) node: Arc<Node>,
    pub(super) index: Result<i64, LlbError>,
    /// What a state made from this output is for.
    pub(super) platform: Option<Platform>,
}

impl Output {
    pub(super) fn first(node: Node) -> Self {
        Self { node: Arc::new(node), index: Ok(0), platform: None }
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node) && self.index == other.index
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut self.inputs);
        while let Some(output) = waiting.pop() {
            if let Some(mut node) = Arc::into_inner(output.node) {
                waiting.append(&mut node.inputs);
            }
        }
    }
}

/// The place of `output` among `inputs`, added where it is not there yet.
pub(super) fn place(inputs: &mut Vec<Output>, output: &Output) -> usize {
    inputs.iter().position(|known| known.same(output)).unwrap_or_else(|| {
        inputs.push(output.clone());
        inputs.len() - 1
    })
}
