//! An SBOM as something that a registry stores: ko's form, found by a tag, and OCI's, found by its subject.

use std::collections::BTreeMap;

use super::attachment::{Attachment, referring, standing};
use super::base::CONFIG;
use super::image::Document;
use super::time::UNSET;
use crate::model::{Digest, Tag};

/// What ko calls the layer; cosign looks for it.
const SPDX_LAYER: &str = "text/spdx+json";
/// The registered name, by which referrers are listed.
const SPDX: &str = "application/spdx+json";

/// The tag of the SBOM of `subject` (an image or an index), in its repository: `sha256-<hex>.sbom`.
pub fn sbom_tag(subject: &Digest) -> Tag {
    format!("{}.sbom", subject.as_str().replace(':', "-")).parse().expect("a digest with a word is a tag")
}

/// ko's form: an image of one layer without a subject, to be pushed under `sbom_tag`.
pub fn tagged(sbom: Vec<u8>) -> Attachment {
    let layer = Document::new(SPDX_LAYER, sbom);
    // what go-containerregistry makes of an image of nothing with one layer put onto it
    let config = serde_json::json!({
        "architecture": "",
        "created": UNSET,
        "history": [{ "created": UNSET }],
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
        "config": {},
    });
    standing(Document::json(CONFIG, &config), layer)
}

/// OCI's form, to be pushed by digest: registries with referrers list it at its subject.
pub fn referrer(sbom: Vec<u8>, subject: &Document) -> Attachment {
    referring(Document::new(SPDX, sbom), subject.descriptor(), BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::MANIFEST;

    #[test]
    fn both_forms_hold_the_same_document() {
        let subject = Document::new(MANIFEST, b"{}".to_vec());
        let tagged = tagged(b"sbom".to_vec());
        let referrer = referrer(b"sbom".to_vec(), &subject);
        assert_eq!(
            sbom_tag(&subject.digest).as_str(),
            &format!("{}.sbom", subject.digest.as_str().replace(':', "-"))
        );
        let value =
            |of: &Attachment| serde_json::from_slice::<serde_json::Value>(&of.manifest.bytes).unwrap();
        let (tagged, referrer) = (value(&tagged), value(&referrer));
        assert_eq!(tagged["layers"][0]["digest"], referrer["layers"][0]["digest"]);
        assert_eq!(
            (&tagged["subject"], &tagged["artifactType"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
        assert_eq!(referrer["subject"]["digest"], subject.digest.as_str());
        assert_eq!(referrer["artifactType"], "application/spdx+json");
        assert_eq!(referrer["config"]["digest"], Digest::of(b"{}").as_str());
    }
}
