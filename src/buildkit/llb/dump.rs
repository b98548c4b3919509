//! Definitions for people: JSON and graphviz, letter for letter as `buildctl debug dump-llb` writes them.
//!
//! Fields stand in the order of Go's structs and are left out when empty. Source: cmd/buildctl/debug/dumpllb.go,
//! solver/pb/json.go.

mod fields;
mod graphviz;

use super::definition::{decode, digest};
use super::{Definition, LlbError};

pub(super) use graphviz::dot;

pub(super) fn json_lines(definition: &Definition) -> Result<String, LlbError> {
    let mut out = String::new();
    for bytes in &definition.ops {
        let digest = digest(bytes);
        let metadata = definition.metadata.get(&digest).cloned().unwrap_or_default();
        let line = fields::Object::new()
            .raw("Op", &fields::op(&decode(bytes)?))
            .text("Digest", &digest)
            .raw("OpMetadata", &fields::metadata(&metadata));
        out.push_str(&line.close());
        out.push('\n');
    }
    Ok(out)
}
