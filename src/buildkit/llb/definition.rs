//! A marshalled graph: what a solve is asked for, and what passes between clients.

use std::collections::BTreeMap;

use lemnos_proto::pb;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::LlbError;

/// Serialised operations, each after its inputs; the last names the result. Empty for scratch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    pub ops: Vec<Vec<u8>>,
    /// By digest.
    pub metadata: BTreeMap<String, pb::OpMetadata>,
    pub source: Option<pb::Source>,
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Definition {
    pub fn to_pb(&self) -> pb::Definition {
        pb::Definition { def: self.ops.clone(), metadata: self.metadata.clone(), source: self.source.clone() }
    }

    pub fn from_pb(definition: pb::Definition) -> Self {
        Self { ops: definition.def, metadata: definition.metadata, source: definition.source }
    }

    /// As `buildctl build` reads it from its input.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LlbError> {
        let definition = pb::Definition::decode(bytes).map_err(|error| LlbError::Definition {
            reason: format!("it is no protobuf message of one: {error}"),
        })?;
        Ok(Self::from_pb(definition))
    }

    /// The digest of each operation, in order.
    pub fn digests(&self) -> Vec<String> {
        self.ops.iter().map(|op| digest(op)).collect()
    }

    /// The digest of the operation that makes the result; none of scratch.
    pub fn head(&self) -> Result<Option<String>, LlbError> {
        let Some(last) = self.ops.last() else { return Ok(None) };
        Ok(decode(last)?.inputs.into_iter().next().map(|input| input.digest))
    }

    /// One JSON object a line, as `buildctl debug dump-llb` writes it.
    pub fn to_json_lines(&self) -> Result<String, LlbError> {
        super::dump::json_lines(self)
    }

    /// A graph for graphviz, as `buildctl debug dump-llb --dot` writes it.
    pub fn to_dot(&self) -> Result<String, LlbError> {
        super::dump::dot(self)
    }
}

pub(super) fn decode(op: &[u8]) -> Result<pb::Op, LlbError> {
    pb::Op::decode(op)
        .map_err(|error| LlbError::Definition { reason: format!("an operation cannot be read: {error}") })
}
