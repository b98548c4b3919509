//! The bytes of an operation, as Go's deterministic protobuf marshalling writes them.
//!
//! A digest is of these bytes. Two rules differ from prost's own: the members of a oneof come after all other fields, and
//! an entry of a map always has its key and its value, empty or not. Maps are sorted by key in both.

use lemnos_proto::pb;
use pb::op::Op as Member;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message, string};

pub(super) fn op(op: &pb::Op) -> Vec<u8> {
    let mut out = Vec::new();
    for input in &op.inputs {
        message::encode(1, input, &mut out);
    }
    if let Some(platform) = &op.platform {
        message::encode(10, platform, &mut out);
    }
    if let Some(constraints) = &op.constraints {
        message::encode(11, constraints, &mut out);
    }
    match &op.op {
        None => {}
        Some(Member::Exec(exec)) => message::encode(2, exec, &mut out),
        Some(Member::Source(op)) => bytes(3, &source(op), &mut out),
        Some(Member::File(file)) => message::encode(4, file, &mut out),
        Some(Member::Build(op)) => bytes(5, &build(op), &mut out),
        Some(Member::Merge(merge)) => message::encode(6, merge, &mut out),
        Some(Member::Diff(diff)) => message::encode(7, diff, &mut out),
        Some(Member::Passthrough(op)) => message::encode(8, op, &mut out),
    }
    out
}

fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn entry(tag: u32, key: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    bytes(1, key.as_bytes(), &mut pair);
    bytes(2, value, &mut pair);
    bytes(tag, &pair, out);
}

fn source(op: &pb::SourceOp) -> Vec<u8> {
    let mut out = Vec::new();
    if !op.identifier.is_empty() {
        string::encode(1, &op.identifier, &mut out);
    }
    for (key, value) in &op.attrs {
        entry(2, key, value.as_bytes(), &mut out);
    }
    out
}

fn build(op: &pb::BuildOp) -> Vec<u8> {
    let mut out = Vec::new();
    if op.builder != 0 {
        prost::encoding::int64::encode(1, &op.builder, &mut out);
    }
    for (key, input) in &op.inputs {
        entry(2, key, &input.encode_to_vec(), &mut out);
    }
    if let Some(def) = &op.def {
        message::encode(3, def, &mut out);
    }
    for (key, value) in &op.attrs {
        entry(4, key, value.as_bytes(), &mut out);
    }
    out
}
