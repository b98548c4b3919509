//! What is said of an image as something that a registry stores: one document as the layer of a manifest.
//!
//! Must not touch a registry: what is made here is put by `publish`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::base::Descriptor;
use super::image::Document;
use crate::model::{Digest, ImageName, Predicate};
use crate::registry::MANIFEST;

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An in-toto statement, as BuildKit stores it.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// As BuildKit annotates it; on the manifest too, for those who list referrers.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// A manifest with its blobs, to be pushed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub manifest: Document,
    /// Config and layer.
    pub blobs: [Document; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: [Descriptor; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// One without a subject, to be pushed under a tag.
pub(super) fn standing(config: Document, layer: Document) -> Attachment {
    attachment(config, layer, None, BTreeMap::new())
}

/// One that registries with referrers list at its subject, to be pushed by digest.
pub(super) fn referring(
    document: Document,
    subject: Descriptor,
    annotations: BTreeMap<String, String>,
) -> Attachment {
    attachment(Document::new(EMPTY, b"{}".to_vec()), document, Some(subject), annotations)
}

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: &'a [serde_json::Value],
    #[serde(flatten)]
    predicate: &'a Predicate,
}

/// An in-toto statement of `subject`. It names `all` that came of the same build, which all stand in the repository `name`.
pub fn statement(
    predicate: &Predicate,
    name: &ImageName,
    all: &[Digest],
    subject: (&str, u64, &Digest),
) -> Attachment {
    let named = |digest: &Digest| json!({ "name": name, "digest": { "sha256": digest.hex() } });
    let subject_names: Vec<_> = all.iter().map(named).collect();
    let content = Statement { kind: STATEMENT, subject: &subject_names, predicate };
    let annotations = BTreeMap::from([(PREDICATE_TYPE.to_owned(), predicate.kind.clone())]);
    let (media_type, size, digest) = subject;
    referring(
        Document::json(IN_TOTO, &content),
        Descriptor::new(media_type, size, digest.clone()),
        annotations,
    )
}

fn attachment(
    config: Document,
    document: Document,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> Attachment {
    let mut layer = document.descriptor();
    layer.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        artifact_type: subject.as_ref().map(|_| document.media_type.clone()),
        config: config.descriptor(),
        layers: [layer],
        subject,
        annotations,
    };
    Attachment { manifest: Document::json(MANIFEST, &manifest), blobs: [config, document] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_about_its_subject_and_names_all() {
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let content = serde_json::value::to_raw_value(&json!({ "made": "here" })).unwrap();
        let predicate = Predicate { kind: "urn:p".to_owned(), content };
        let name: ImageName = "r.example.com/shop".parse().unwrap();
        let made = statement(&predicate, &name, &[one.clone(), two.clone()], (MANIFEST, 3, &two));
        let read = |of: &Document| serde_json::from_slice::<serde_json::Value>(&of.bytes).unwrap();
        let manifest = read(&made.manifest);
        assert_eq!(manifest["subject"], json!({ "mediaType": MANIFEST, "size": 3, "digest": two }));
        assert_eq!(manifest["artifactType"], IN_TOTO);
        assert_eq!(manifest["annotations"], json!({ "in-toto.io/predicate-type": "urn:p" }));
        assert_eq!(manifest["layers"][0]["annotations"], manifest["annotations"]);
        assert_eq!(manifest["layers"][0]["digest"], Digest::of(&made.blobs[1].bytes).as_str());
        let said = read(&made.blobs[1]);
        let hex = one.as_str().strip_prefix("sha256:").unwrap();
        assert_eq!(said["subject"][0], json!({ "name": "r.example.com/shop", "digest": { "sha256": hex } }));
        assert_eq!(
            (&said["subject"][2], &said["predicate"]["made"]),
            (&serde_json::Value::Null, &json!("here"))
        );
    }
}
