//! The actions of an operation in one row, with chains that are copied from in front of the copies.
//!
//! Two orders are Go's own and part of digests: inputs are numbered as actions first name them, and the operations under
//! this one are marshalled from its last action to its first.

use std::sync::Arc;

use lemnos_proto::pb;

use super::super::exec::position;
use super::super::graph::{Kind, Node, Output, place};
use super::super::{Constraints, LlbError, State, cap};
use super::actions::{Action, CopyFrom};
use super::{Bound, BoundActions, FileActions};

/// Deepest nesting of chains in copies' sources.
const DEPTH_LIMIT: usize = 100;

/// A file operation in the graph.
#[derive(Default)]
pub(in super::super) struct FileNode {
    actions: Vec<Planned>,
    /// The node's inputs in the order in which actions name them.
    named: Vec<usize>,
}

struct Planned {
    input: Place,
    source: Place,
    /// The state that names of owners are looked up in.
    base: Place,
    action: pb::file_action::Action,
}

#[derive(Clone, Copy)]
enum Place {
    Nothing,
    /// Of the node's inputs.
    Input(usize),
    /// Of the actions before.
    Action(usize),
}

/// The output of `actions` on `state`.
pub(in super::super) fn output(state: &State, actions: FileActions, constraints: Constraints) -> Output {
    let bound = BoundActions(Arc::new(Bound { state: state.clone(), actions: actions.0 }));
    let mut planner = Planner::default();
    let mistake = match bound.0.actions.is_empty() {
        true => Some(LlbError::NoActions),
        false => planner.visit(&bound, 0).and_then(|()| planner.add(&bound, 0)).err(),
    };
    let Planner { inputs, node, .. } = planner;
    Output::first(Node { inputs, kind: Kind::File(node), constraints, mistake })
}

#[derive(Default)]
struct Planner {
    inputs: Vec<Output>,
    node: FileNode,
    /// Chains that are in the row already, and their last actions.
    done: Vec<(BoundActions, Place)>,
}

impl Planner {
    /// The inputs, in the order in which they are marshalled.
    fn visit(&mut self, chain: &BoundActions, depth: usize) -> Result<(), LlbError> {
        check_depth(depth)?;
        for action in chain.0.actions.iter().rev() {
            self.note(&chain.0.state);
            if let Action::Copy(copy) = action {
                match &copy.from {
                    CopyFrom::State(state) => self.note(state),
                    CopyFrom::Actions(chain) => self.visit(chain, depth + 1)?,
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, state: &State) {
        if let Some(output) = &state.output {
            place(&mut self.inputs, output);
        }
    }

    /// The place of a state's output; from here on it is named.
    fn name(&mut self, state: &State) -> Place {
        let Some(output) = &state.output else { return Place::Nothing };
        let at = place(&mut self.inputs, output);
        if !self.node.named.contains(&at) {
            self.node.named.push(at);
        }
        Place::Input(at)
    }

    fn add(&mut self, chain: &BoundActions, depth: usize) -> Result<(), LlbError> {
        check_depth(depth)?;
        let mut before = None;
        for action in &chain.0.actions {
            let base = self.name(&chain.0.state);
            let source = match action {
                Action::Copy(copy) => match &copy.from {
                    CopyFrom::State(state) => self.name(state),
                    CopyFrom::Actions(from) => self.last_of(from, depth)?,
                },
                _ => Place::Nothing,
            };
            let input = before.unwrap_or(base);
            before = Some(Place::Action(self.node.actions.len()));
            let action = action.message(chain.0.state.current_dir());
            self.node.actions.push(Planned { input, source, base, action });
        }
        self.done.push((chain.clone(), before.unwrap_or(Place::Nothing)));
        Ok(())
    }

    fn last_of(&mut self, chain: &BoundActions, depth: usize) -> Result<Place, LlbError> {
        if chain.0.actions.is_empty() {
            return Err(LlbError::NoActions);
        }
        let known = |done: &[(BoundActions, Place)]| {
            done.iter().find(|(known, _)| Arc::ptr_eq(&known.0, &chain.0)).map(|(_, place)| *place)
        };
        if known(&self.done).is_none() {
            self.add(chain, depth + 1)?;
        }
        Ok(known(&self.done).unwrap_or(Place::Nothing))
    }
}

fn check_depth(depth: usize) -> Result<(), LlbError> {
    match depth > DEPTH_LIMIT {
        true => Err(LlbError::TooDeep { what: "chains of file actions", limit: DEPTH_LIMIT }),
        false => Ok(()),
    }
}

impl FileNode {
    /// The message, what it needs, and its inputs: `edges` are those of the node's, in order.
    pub(in super::super) fn message(
        &self,
        constraints: &mut Constraints,
        edges: &[pb::Input],
    ) -> (pb::FileOp, Vec<pb::Input>) {
        constraints.needs(cap::FILE_BASE);
        let mut inputs = Vec::new();
        let mut numbers = vec![-1; edges.len()];
        for &at in &self.named {
            if let (Some(edge), Some(number)) = (edges.get(at), numbers.get_mut(at)) {
                *number = position(&mut inputs, edge);
            }
        }
        let index = |place| match place {
            Place::Nothing => -1,
            Place::Input(at) => numbers.get(at).copied().unwrap_or(-1),
            Place::Action(at) => i64::try_from(inputs.len() + at).unwrap_or(i64::MAX),
        };
        let last = self.actions.len().saturating_sub(1);
        let actions = self.actions.iter().enumerate().map(|(at, planned)| {
            let mut action = planned.action.clone();
            look_up_owners_in(index(planned.base), &mut action);
            pb::FileAction {
                input: index(planned.input),
                secondary_input: index(planned.source),
                output: if at == last { 0 } else { -1 },
                action: Some(action),
            }
        });
        let op = pb::FileOp { actions: actions.collect() };
        (op, inputs)
    }
}

fn look_up_owners_in(base: i64, action: &mut pb::file_action::Action) {
    use pb::file_action::Action as Message;
    let owner = match action {
        Message::Copy(copy) => copy.owner.as_mut(),
        Message::Mkdir(dir) => dir.owner.as_mut(),
        Message::Mkfile(file) => file.owner.as_mut(),
        Message::Symlink(link) => link.owner.as_mut(),
        Message::Rm(_) => None,
    };
    let Some(owner) = owner else { return };
    for account in [&mut owner.user, &mut owner.group].into_iter().flatten() {
        if let Some(pb::user_opt::User::ByName(named)) = &mut account.user {
            named.input = base;
        }
    }
}
