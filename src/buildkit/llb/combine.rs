//! Operations on whole states: merge, diff, nested builds, passthrough.
//!
//! Source: client/llb/merge.go, diff.go, passthrough.go, llbbuild/llbbuild.go.

use super::graph::{Kind, Node, Output};
use super::{Constraints, LlbError, State, cap};

/// The states on top of each other, later ones last, without copying. Empty ones are left out.
///
/// On a daemon that cannot merge (see [`Constraints::caps`]) it is copies, one state after the other.
pub fn merge(states: &[State], mut constraints: Constraints) -> State {
    let inputs: Vec<Output> = states.iter().filter_map(|state| state.output.clone()).collect();
    let Some(first) = states.iter().find(|state| !state.is_scratch()) else { return State::scratch() };
    if inputs.len() == 1 {
        return first.clone();
    }
    constraints.needs(cap::MERGE_OP);
    let node = Node { inputs, kind: Kind::Merge, constraints, mistake: None };
    first.with_output(Some(Output::first(node)))
}

/// What has to be laid on `lower` to make `upper` of it.
pub fn diff(lower: &State, upper: &State, mut constraints: Constraints) -> State {
    if lower.is_scratch() {
        return if upper.is_scratch() { State::scratch() } else { upper.clone() };
    }
    constraints.needs(cap::DIFF_OP);
    let kind = Kind::Diff { lower: !lower.is_scratch(), upper: !upper.is_scratch() };
    let inputs = [lower, upper].into_iter().filter_map(|state| state.output.clone()).collect();
    lower.with_output(Some(Output::first(Node { inputs, kind, constraints, mistake: None })))
}

/// A build whose definition is a file of a state.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Build {
    filename: String,
    constraints: Constraints,
}

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    /// `buildkit.llb.definition` unless given.
    pub fn filename(mut self, name: impl Into<String>) -> Self {
        self.filename = name.into();
        self
    }

    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// What the definition within `state` makes.
    pub fn of(self, state: &State) -> State {
        let mut constraints = self.constraints;
        constraints.needs(cap::BUILD_OP_LLB_FILE_NAME);
        let mistake = state.is_scratch().then_some(LlbError::NoBuildInput);
        let kind = Kind::Build { filename: self.filename };
        let node = Node { inputs: state.output.iter().cloned().collect(), kind, constraints, mistake };
        state.with_output(Some(Output::first(node)))
    }
}

/// The states that are marked, in order, once all of them are made. `id` is part of the digest.
pub fn passthrough(id: &str, states: &[(State, bool)], mut constraints: Constraints) -> Vec<State> {
    constraints.needs(cap::PASSTHROUGH_OP);
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();
    for (state, out) in states {
        let Some(output) = &state.output else { continue };
        if *out {
            outputs.push(inputs.len());
        }
        inputs.push(output.clone());
    }
    let mistake = match (id, inputs.is_empty(), outputs.is_empty()) {
        (_, true, _) => Some(LlbError::Passthrough { reason: "needs a state that is not scratch" }),
        ("", _, _) => Some(LlbError::Passthrough { reason: "needs an id" }),
        (_, _, true) => Some(LlbError::Passthrough { reason: "needs a state that comes out of it" }),
        _ => None,
    };
    let count = outputs.len().max(1);
    let kind = Kind::Passthrough { id: id.into(), outputs };
    let first = Output::first(Node { inputs, kind, constraints, mistake });
    let at = |index| Output { index: Ok(index), ..first.clone() };
    (0i64..).take(count).map(|index| State::fresh(Some(at(index)))).collect()
}

pub(super) fn requires(state: &State, id: &str, others: &[State]) -> State {
    if others.is_empty() {
        return state.clone();
    }
    let all: Vec<(State, bool)> = std::iter::once((state.clone(), true))
        .chain(others.iter().map(|other| (other.clone(), false)))
        .collect();
    let passed = passthrough(id, &all, Constraints::new());
    state.with_output(passed.into_iter().next().and_then(|state| state.output))
}
