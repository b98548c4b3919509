//! Build graphs on their way to a daemon, spelled out.
//!
//! prost leaves a map's value out where it is empty. That is the same value by the specification; buildkitd's decoder makes
//! a nil pointer of it, and buildkitd v0.32 follows that pointer and dies, with every build it has. So no map that goes
//! there may hold an empty message: it is left out where that means the same, and otherwise written so that it is not empty.

use std::collections::BTreeMap;

use lemnos_proto::gateway as wire;
use lemnos_proto::pb;

/// The same graph without empty messages in its maps.
pub(super) fn spelled_out(mut definition: pb::Definition) -> pb::Definition {
    definition.metadata.retain(|_, metadata| *metadata != pb::OpMetadata::default());
    if let Some(source) = &mut definition.source {
        source.locations.retain(|_, locations| !locations.locations.is_empty());
        for info in &mut source.infos {
            info.definition = info.definition.take().map(spelled_out);
        }
    }
    definition
}

/// Graphs by name. An empty one, which is an empty file system, has an empty list of sources.
pub(super) fn inputs(inputs: BTreeMap<String, pb::Definition>) -> BTreeMap<String, pb::Definition> {
    let named = |(name, definition): (String, pb::Definition)| {
        let mut definition = spelled_out(definition);
        definition.source.get_or_insert_default();
        (name, definition)
    };
    inputs.into_iter().map(named).collect()
}

/// A reference by its id. One without is an empty result, and has an empty graph.
pub(super) fn reference(id: String) -> wire::Ref {
    wire::Ref { id, def: Some(pb::Definition::default()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// Whether each entry of the map in field `tag` has a value: 2 as the tag of its second field.
    fn valued(message: &impl Message, tag: u8) -> bool {
        let bytes = message.encode_to_vec();
        let [key, length, entry @ ..] = &bytes[..] else { return true };
        assert_eq!(*key, tag << 3 | 2);
        let entry = &entry[..usize::from(*length)];
        let rest = &entry[2 + usize::from(entry[1])..];
        rest.first() == Some(&0x12)
    }

    #[test]
    fn no_value_is_left_to_be_guessed() {
        let refs = |r: wire::Ref| wire::RefMap { refs: BTreeMap::from([("k".to_owned(), r)]) };
        assert!(!valued(&refs(wire::Ref::default()), 1), "prost leaves it out: this is why");
        assert!(valued(&refs(reference(String::new())), 1));
        let locations = BTreeMap::from([("d".to_owned(), pb::Locations::default())]);
        let metadata = BTreeMap::from([("d".to_owned(), pb::OpMetadata::default())]);
        let inner = pb::Definition { metadata: metadata.clone(), ..Default::default() };
        let infos = vec![pb::SourceInfo { definition: Some(inner), ..Default::default() }];
        let source = Some(pb::Source { locations, infos });
        let shown = spelled_out(pb::Definition { metadata, source, ..Default::default() });
        let source = shown.source.unwrap();
        assert!(shown.metadata.is_empty() && source.locations.is_empty());
        assert_eq!(source.infos[0].definition, Some(pb::Definition::default()));
        let empty = inputs(BTreeMap::from([("k".to_owned(), pb::Definition::default())]));
        assert_ne!(empty["k"], pb::Definition::default());
    }
}
