//! Attestations: what a daemon writes down about a build, beside the image.
//!
//! A value is sent as buildx writes it, the type included, so that the steps of an SBOM scanner are the same ones.

use std::collections::BTreeMap;

use crate::buildkit::csv;

/// What buildx asks for where nobody says anything about provenance.
pub const DEFAULT_PROVENANCE: &str = "mode=min,inline-only=true";

/// One kind of attestation, or that there shall be none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestation {
    /// `provenance` or `sbom`.
    pub kind: String,
    pub disabled: bool,
    pub attrs: BTreeMap<String, String>,
}

/// How much a provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// Sources and times.
    Min,
    /// The whole build graph, build arguments included.
    Max,
}

/// How a build came to be, as SLSA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    pub mode: Option<ProvenanceMode>,
    /// `v1` or `v0.2`.
    pub version: Option<String>,
    pub builder_id: Option<String>,
    /// What the build claims of itself.
    pub reproducible: bool,
    /// Only for exporters that keep attestations inside an image.
    pub inline_only: bool,
    /// The file's name in exports of files.
    pub filename: Option<String>,
    /// Fail the build where a source's digest is not known.
    pub complete_materials: bool,
    /// Whatever else a daemon knows.
    pub extra: BTreeMap<String, String>,
}

/// What is inside an image, found by a scanner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sbom {
    /// The scanner's image; the daemon's own choice when absent.
    pub generator: Option<String>,
    /// Given to the scanner.
    pub parameters: BTreeMap<String, String>,
}

impl Attestation {
    pub fn none(kind: &str) -> Self {
        Self { kind: kind.to_owned(), disabled: true, attrs: BTreeMap::new() }
    }

    /// The frontend's attribute; none where it is disabled.
    pub fn attr(&self) -> Option<(String, String)> {
        if self.disabled {
            return None;
        }
        let pairs = std::iter::once(("type", self.kind.as_str())).chain(csv::map(&self.attrs));
        Some((format!("attest:{}", self.kind), csv::pairs(pairs)))
    }
}

impl From<Provenance> for Attestation {
    fn from(from: Provenance) -> Self {
        let mut attrs = from.extra;
        let mut set = |name: &str, value: Option<String>| {
            attrs.extend(value.map(|value| (name.to_owned(), value)));
        };
        let mode = |mode| if mode == ProvenanceMode::Max { "max" } else { "min" };
        let flag = |set: bool| set.then(|| "true".to_owned());
        set("mode", from.mode.map(|m| mode(m).to_owned()));
        set("version", from.version);
        set("builder-id", from.builder_id);
        set("filename", from.filename);
        set("reproducible", flag(from.reproducible));
        set("inline-only", flag(from.inline_only));
        set("complete-materials", flag(from.complete_materials));
        Self { kind: "provenance".to_owned(), disabled: false, attrs }
    }
}

impl From<Sbom> for Attestation {
    fn from(from: Sbom) -> Self {
        let mut attrs = from.parameters;
        attrs.extend(from.generator.map(|generator| ("generator".to_owned(), generator)));
        Self { kind: "sbom".to_owned(), disabled: false, attrs }
    }
}

/// The attributes of all of them; the last of a kind counts.
pub(super) fn attrs(attestations: &[Attestation]) -> BTreeMap<String, String> {
    let last: BTreeMap<&str, &Attestation> = attestations.iter().map(|a| (a.kind.as_str(), a)).collect();
    last.into_values().filter_map(Attestation::attr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_attribute() {
        let provenance = Provenance {
            mode: Some(ProvenanceMode::Max),
            version: Some("v1".into()),
            builder_id: Some("https://ci.example/,1".into()),
            reproducible: true,
            inline_only: true,
            filename: Some("p.json".into()),
            complete_materials: true,
            extra: BTreeMap::from([("new".into(), "x".into())]),
        };
        let sbom = Sbom {
            generator: Some("scanner:1".into()),
            parameters: BTreeMap::from([("A".into(), "b".into())]),
        };
        let attrs = attrs(&[Attestation::none("provenance"), provenance.into(), sbom.into()]);
        assert_eq!(
            attrs["attest:provenance"],
            "type=provenance,\"builder-id=https://ci.example/,1\",complete-materials=true,filename=p.json,inline-only=true,mode=max,new=x,reproducible=true,version=v1"
        );
        assert_eq!(attrs["attest:sbom"], "type=sbom,A=b,generator=scanner:1");
    }

    #[test]
    fn the_last_word_counts() {
        let max = Provenance { mode: Some(ProvenanceMode::Max), ..Default::default() };
        assert!(attrs(&[max.into(), Attestation::none("provenance")]).is_empty());
    }
}
