//! From a state to its definition: every operation once, after its inputs.
//!
//! Operations that come to the same bytes are one; their metadata and source locations are put together. Source:
//! client/llb/state.go, marshal.go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lemnos_proto::pb;
use pb::op::Op as Member;

use super::constraints::merge_metadata;
use super::definition::digest;
use super::graph::{Kind, Node, Output};
use super::import::{Graph, Imported};
use super::source_map::Collector;
use super::{Constraints, Definition, LlbError, Platform, State, cap, encode};

/// Deepest nesting of source maps whose files come from builds.
const SOURCE_DEPTH_LIMIT: usize = 32;

/// `depth` is how many source maps the state lies within.
pub(super) fn definition(
    state: &State,
    constraints: &Constraints,
    depth: usize,
) -> Result<Definition, LlbError> {
    if depth > SOURCE_DEPTH_LIMIT {
        return Err(LlbError::TooDeep { what: "source maps", limit: SOURCE_DEPTH_LIMIT });
    }
    let Some(output) = &state.output else { return Ok(Definition::default()) };
    let mut base = constraints.clone();
    base.platform.get_or_insert_with(Platform::host);
    base.unique_id.get_or_insert_with(|| uuid::Uuid::now_v7().simple().to_string());
    let mut marshaller = Marshaller::new(&base);
    marshaller.walk(&output.node)?;
    let input = marshaller.edge(output)?;
    marshaller.finish(input, constraints, depth)
}

struct Marshaller<'a> {
    base: &'a Constraints,
    done: HashMap<Key, String>,
    /// Digests of what stands in the definition.
    written: HashSet<String>,
    definition: Definition,
    sources: Collector,
}

/// An operation, described here or imported. Not its content: that is what the digest is for.
enum Vertex {
    Node(Arc<Node>),
    Imported(Imported),
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Node(*const Node),
    Imported(*const Graph, String, i64),
}

impl Vertex {
    fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(Arc::as_ptr(node)),
            Self::Imported(op) => Key::Imported(Arc::as_ptr(&op.graph), op.digest.clone(), op.index),
        }
    }

    fn inputs(&self) -> Result<Vec<Self>, LlbError> {
        let imported = match self {
            Self::Imported(op) => op,
            Self::Node(node) => match &node.kind {
                Kind::Imported(op) => op,
                _ => return Ok(node.inputs.iter().map(|output| Self::Node(output.node.clone())).collect()),
            },
        };
        Ok(imported.inputs()?.into_iter().map(Self::Imported).collect())
    }
}

enum Step {
    Enter(Vertex),
    Leave(Vertex),
}

impl<'a> Marshaller<'a> {
    fn new(base: &'a Constraints) -> Self {
        Self {
            base,
            done: HashMap::new(),
            written: HashSet::new(),
            definition: Definition::default(),
            sources: Collector::default(),
        }
    }

    /// Depth first, inputs in order, without recursion.
    fn walk(&mut self, node: &Arc<Node>) -> Result<(), LlbError> {
        let mut steps = vec![Step::Enter(Vertex::Node(node.clone()))];
        while let Some(step) = steps.pop() {
            match step {
                Step::Enter(vertex) if self.done.contains_key(&vertex.key()) => {}
                Step::Enter(vertex) => {
                    let inputs = vertex.inputs()?;
                    steps.push(Step::Leave(vertex));
                    steps.extend(inputs.into_iter().rev().map(Step::Enter));
                }
                Step::Leave(vertex) => self.write(&vertex)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, vertex: &Vertex) -> Result<(), LlbError> {
        let imported = match vertex {
            Vertex::Imported(op) => Some(op),
            Vertex::Node(node) => match &node.kind {
                Kind::Imported(op) => Some(op),
                _ => None,
            },
        };
        let (bytes, metadata, locations) = match (imported, vertex) {
            (Some(op), _) => (op.bytes()?.to_vec(), op.metadata()?.clone(), op.locations()),
            (None, Vertex::Node(node)) => {
                let (op, metadata) = self.message(node)?;
                (encode::op(&op), metadata, node.constraints.locations.as_slice())
            }
            (None, Vertex::Imported(_)) => return Ok(()),
        };
        let digest = digest(&bytes);
        merge_metadata(self.definition.metadata.entry(digest.clone()).or_default(), &metadata);
        self.sources.add(&digest, locations);
        if self.written.insert(digest.clone()) {
            self.definition.ops.push(bytes);
        }
        self.done.insert(vertex.key(), digest);
        Ok(())
    }

    /// The edge to an output whose operation is written.
    fn edge(&self, output: &Output) -> Result<pb::Input, LlbError> {
        let index = output.index.clone()?;
        let digest = self.done.get(&Key::Node(Arc::as_ptr(&output.node))).cloned();
        Ok(pb::Input { digest: digest.expect("inputs are written first"), index })
    }

    fn message(&self, node: &Node) -> Result<(pb::Op, pb::OpMetadata), LlbError> {
        if let Some(mistake) = &node.mistake {
            return Err(mistake.clone());
        }
        let edges: Vec<pb::Input> =
            node.inputs.iter().map(|output| self.edge(output)).collect::<Result<_, _>>()?;
        let mut constraints = node.constraints.clone();
        let (op, inputs, platform) = self.member(node, &mut constraints, edges)?;
        let mut metadata = self.base.metadata.clone();
        merge_metadata(&mut metadata, &constraints.metadata);
        let own = constraints.platform.as_ref().or(self.base.platform.as_ref()).map(Platform::to_pb);
        let filter = self.base.filters.iter().chain(&constraints.filters).cloned().collect();
        let op = pb::Op {
            inputs,
            platform: own.filter(|_| platform),
            constraints: Some(pb::WorkerConstraints { filter }),
            op: Some(op),
        };
        Ok((op, metadata))
    }

    /// An operation's own part, its inputs, and whether its platform is part of it.
    fn member(
        &self,
        node: &Node,
        constraints: &mut Constraints,
        edges: Vec<pb::Input>,
    ) -> Result<(Member, Vec<pb::Input>, bool), LlbError> {
        Ok(match &node.kind {
            Kind::Source { identifier, attrs } => {
                let op = self.source(identifier, attrs, constraints)?;
                let platform = ["docker-image://", "oci-layout://"].iter().any(|s| identifier.starts_with(s));
                (Member::Source(op), edges, platform)
            }
            Kind::Exec(exec) => {
                let (op, inputs) = exec.message(self.base, constraints, &edges)?;
                (Member::Exec(op), inputs, true)
            }
            Kind::File(file) => {
                let (op, inputs) = file.message(constraints, &edges);
                (Member::File(op), inputs, false)
            }
            Kind::Merge if !self.base.supports(cap::MERGE_OP) => {
                (Member::File(self.copies(edges.len(), constraints)), edges, false)
            }
            Kind::Merge => {
                let inputs = (0i64..).take(edges.len()).map(|input| pb::MergeInput { input }).collect();
                (Member::Merge(pb::MergeOp { inputs }), edges, false)
            }
            Kind::Diff { lower, upper } => (Member::Diff(self.diff(*lower, *upper)?), edges, false),
            Kind::Build { filename } => (Member::Build(nested_build(filename)), edges, true),
            Kind::Passthrough { id, outputs } => {
                let outputs = outputs.iter().map(|at| i64::try_from(*at).unwrap_or(i64::MAX)).collect();
                (Member::Passthrough(pb::PassthroughOp { id: id.clone(), outputs }), edges, false)
            }
            Kind::Imported(_) => {
                return Err(LlbError::Definition {
                    reason: "an imported operation is described anew".into(),
                });
            }
        })
    }

    fn source(
        &self,
        identifier: &str,
        attrs: &super::source::Attrs,
        constraints: &mut Constraints,
    ) -> Result<pb::SourceOp, LlbError> {
        if identifier.is_empty() {
            return Err(LlbError::NoIdentifier);
        }
        let mut attrs = attrs.clone();
        if identifier.starts_with("local://") && !attrs.contains_key("local.session") {
            let own = constraints.unique_id.clone().filter(|id| !id.is_empty());
            let id = own.or_else(|| self.base.unique_id.clone()).unwrap_or_default();
            attrs.insert("local.unique".into(), id);
            constraints.needs(cap::SOURCE_LOCAL_UNIQUE);
        }
        Ok(pb::SourceOp { identifier: identifier.into(), attrs })
    }

    fn diff(&self, lower: bool, upper: bool) -> Result<pb::DiffOp, LlbError> {
        if !self.base.supports(cap::DIFF_OP) {
            return Err(LlbError::Unsupported {
                what: "a diff of two states",
                cap: cap::DIFF_OP,
                remedy: "use a newer daemon, or copy the files that differ",
            });
        }
        let at = |there: bool, input: i64| if there { input } else { -1 };
        Ok(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: at(lower, 0) }),
            upper: Some(pb::UpperDiffInput { input: at(upper, i64::from(lower)) }),
        })
    }

    /// What a merge of `count` inputs comes to without merging: the second and later ones copied onto the first.
    fn copies(&self, count: usize, constraints: &mut Constraints) -> pb::FileOp {
        constraints.metadata.caps.remove(cap::MERGE_OP);
        constraints.needs(cap::FILE_BASE);
        let replace = self.base.supports(cap::FILE_COPY_ALWAYS_REPLACE);
        if replace {
            constraints.needs(cap::FILE_COPY_ALWAYS_REPLACE);
        }
        let inputs = i64::try_from(count).unwrap_or(i64::MAX);
        let action = |source: i64| pb::FileAction {
            input: if source == 1 { 0 } else { inputs + source - 2 },
            secondary_input: source,
            output: if source + 1 == inputs { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(pb::FileActionCopy {
                src: "/".into(),
                dest: "/".into(),
                mode: -1,
                timestamp: -1,
                dir_copy_contents: true,
                always_replace_existing_dest_paths: replace,
                ..Default::default()
            })),
        };
        pb::FileOp { actions: (1..inputs).map(action).collect() }
    }

    fn finish(
        mut self,
        end: pb::Input,
        constraints: &Constraints,
        depth: usize,
    ) -> Result<Definition, LlbError> {
        let last = encode::op(&pb::Op { inputs: vec![end], ..Default::default() });
        let mut caps = vec![cap::CONSTRAINTS, cap::PLATFORM];
        let any = |is: fn(&pb::OpMetadata) -> bool| self.definition.metadata.values().any(is);
        for (met, cap) in [
            (any(|op| op.ignore_cache), cap::META_IGNORE_CACHE),
            (any(|op| !op.description.is_empty()), cap::META_DESCRIPTION),
            (any(|op| op.export_cache.is_some()), cap::META_EXPORT_CACHE),
        ] {
            if met {
                caps.push(cap);
            }
        }
        let caps = caps.into_iter().map(|cap| (cap.to_owned(), true)).collect();
        self.definition.metadata.entry(digest(&last)).or_default().caps = caps;
        self.definition.ops.push(last);
        self.definition.source = Some(self.sources.finish(constraints, depth)?);
        Ok(self.definition)
    }
}

/// The daemon's own builder, on a definition in the first input.
fn nested_build(filename: &str) -> pb::BuildOp {
    let mut op = pb::BuildOp { builder: -1, ..Default::default() };
    op.inputs.insert("buildkit.llb.definition".into(), pb::BuildInput { input: 0 });
    if !filename.is_empty() {
        op.attrs.insert("llbbuild.filename".into(), filename.into());
    }
    op
}
