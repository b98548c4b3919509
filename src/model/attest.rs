//! What a build says of itself beside the image: provenance (how it was made) and an SBOM (what is in it).

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Digest, ImageName, Invalid, text_newtype};

/// How much the provenance tells. <https://docs.docker.com/build/metadata/attestations/slsa-provenance/>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// The materials and the times.
    Min,
    /// Also build arguments, the Dockerfile's text and every step: for whoever may pull the image.
    Max,
}

/// The image that makes SBOMs, by digest: it is a program that sees every file of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generator(String);
text_newtype!(Generator);

const GENERATOR_RULE: &str =
    "HOST/PATH[:TAG]@sha256:DIGEST, for example docker.io/docker/buildkit-syft-scanner:1@sha256:…";

impl FromStr for Generator {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("SBOM generator", text, GENERATOR_RULE);
        let (named, digest) = text.split_once('@').ok_or_else(refuse)?;
        digest.parse::<Digest>().map_err(|_| refuse())?;
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        name.parse::<ImageName>().map_err(|_| refuse())?;
        if tag.is_some_and(|tag| tag.parse::<super::Tag>().is_err()) {
            return Err(refuse());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether there is to be an SBOM, and by which generator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sbom {
    /// The one of the server's configuration.
    Configured,
    By(Generator),
}

/// What an app's settings ask for: `off`, or `provenance:min|max` and `sbom[:IMAGE]` with a comma between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sbom>,
}

impl FromStr for Attest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || {
            Invalid::new(
                "list of attestations",
                text,
                "use off, or provenance:min, provenance:max, sbom, sbom:IMAGE@sha256:… with commas",
            )
        };
        let mut attest = Self::default();
        if text == "off" {
            return Ok(attest);
        }
        for item in text.split(',').map(str::trim) {
            let twice = match item.split_once(':').map_or((item, None), |(what, how)| (what, Some(how))) {
                ("provenance", None | Some("min")) => attest.provenance.replace(Provenance::Min).is_some(),
                ("provenance", Some("max")) => attest.provenance.replace(Provenance::Max).is_some(),
                ("sbom", None) => attest.sbom.replace(Sbom::Configured).is_some(),
                ("sbom", Some(image)) => attest.sbom.replace(Sbom::By(image.parse()?)).is_some(),
                _ => return Err(refuse()),
            };
            if twice {
                return Err(refuse());
            }
        }
        Ok(attest)
    }
}

impl std::fmt::Display for Attest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let provenance = self.provenance.map(|mode| match mode {
            Provenance::Min => "provenance:min".to_owned(),
            Provenance::Max => "provenance:max".to_owned(),
        });
        let sbom = self.sbom.as_ref().map(|sbom| match sbom {
            Sbom::Configured => "sbom".to_owned(),
            Sbom::By(generator) => format!("sbom:{generator}"),
        });
        let items: Vec<String> = provenance.into_iter().chain(sbom).collect();
        f.write_str(if items.is_empty() { "off" } else { "" })?;
        f.write_str(&items.join(","))
    }
}

/// What a solve is told to attest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attestations {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// The generator of the SBOM, where there is to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Generator>,
}

impl Attestations {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What is said of an artifact, without the artifact: the part of an in-toto statement that its maker knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Predicate {
    /// A URI, by which consumers know what to make of the rest.
    #[serde(rename = "predicateType")]
    pub kind: String,
    /// As it was written: an SBOM may be large.
    #[serde(rename = "predicate")]
    pub content: Box<RawValue>,
}

/// SLSA's; its version follows.
const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// Something that went into a build, and is nowhere in the builder's graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    pub uri: String,
    pub digest: Digest,
}

impl Predicate {
    pub fn is_provenance(&self) -> bool {
        self.kind.starts_with(PROVENANCE)
    }

    /// A provenance that names these, too; anything else as it is.
    pub fn with_materials(self, materials: &[Material]) -> Result<Self, UnknownProvenance> {
        if materials.is_empty() || !self.is_provenance() {
            return Ok(self);
        }
        let unknown = || UnknownProvenance { kind: self.kind.clone() };
        let mut content = serde_json::from_str::<Value>(self.content.get()).map_err(|_| unknown())?;
        let (place, name) = match self.kind.strip_prefix(PROVENANCE) {
            Some(version) if version.starts_with("v0.") => (Some(&mut content), "materials"),
            Some(version) if matches!(version.split('.').next(), Some("v1")) => {
                (content.get_mut("buildDefinition"), "resolvedDependencies")
            }
            _ => return Err(unknown()),
        };
        let place = place.and_then(Value::as_object_mut).ok_or_else(unknown)?;
        let list = place.entry(name).or_insert(Value::Null);
        if list.is_null() {
            *list = json!([]);
        }
        let list = list.as_array_mut().ok_or_else(unknown)?;
        for Material { uri, digest } in materials {
            list.push(json!({ "uri": uri, "digest": { "sha256": digest.hex() } }));
        }
        let content = serde_json::value::to_raw_value(&content).map_err(|_| unknown())?;
        Ok(Self { content, ..self })
    }
}

/// A provenance without the place where what went into a build is named: it would be attached with a part of that missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the builder's provenance, {kind:?}, is of no shape that is known: what it was made of cannot be named in it"
)]
pub struct UnknownProvenance {
    pub kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provenance_takes_further_materials_in_either_version() {
        let digest = Digest::of(b"base");
        let base = [Material { uri: "pkg:docker/base@1".to_owned(), digest: digest.clone() }];
        let hex = digest.as_str().trim_start_matches("sha256:");
        let named = json!({ "uri": "pkg:docker/base@1", "digest": { "sha256": hex } });
        let made = |kind: &str, content: &str| {
            let content = RawValue::from_string(content.to_owned()).unwrap();
            Predicate { kind: kind.to_owned(), content }.with_materials(&base)
        };
        let with = |kind: &str, content: &str| {
            serde_json::from_str::<Value>(made(kind, content).unwrap().content.get()).unwrap()
        };
        let v1 =
            with("https://slsa.dev/provenance/v1", r#"{"buildDefinition":{"resolvedDependencies":[1]}}"#);
        assert_eq!(v1["buildDefinition"]["resolvedDependencies"], json!([1, named]));
        let none =
            with("https://slsa.dev/provenance/v1", r#"{"buildDefinition":{"resolvedDependencies":null}}"#);
        assert_eq!(none["buildDefinition"]["resolvedDependencies"], json!([named]));
        let old = with("https://slsa.dev/provenance/v0.2", r#"{"buildType":"x"}"#);
        assert_eq!(old["materials"], json!([named]));
        assert_eq!(with("https://spdx.dev/Document", "{}"), json!({}));
        for (kind, content) in [
            ("https://slsa.dev/provenance/v2", r#"{"buildDefinition":{}}"#),
            ("https://slsa.dev/provenance/v1", "{}"),
            ("https://slsa.dev/provenance/v1", r#"{"buildDefinition":{"resolvedDependencies":{}}}"#),
            ("https://slsa.dev/provenance/v0.2", "[]"),
        ] {
            let refused = made(kind, content).unwrap_err();
            assert_eq!(refused, UnknownProvenance { kind: kind.to_owned() }, "{content}");
        }
    }

    #[test]
    fn what_is_asked_for_is_read_and_written_alike() {
        let image = format!("sbom:r.example.com/scan:1@sha256:{}", "a".repeat(64));
        for text in ["off", "provenance:min", "provenance:max,sbom", &image] {
            assert_eq!(text.parse::<Attest>().unwrap().to_string(), text);
        }
        assert_eq!("provenance".parse::<Attest>().unwrap().to_string(), "provenance:min");
        let unpinned = "sbom:r.example.com/scan:1";
        for wrong in [
            "",
            "on",
            "provenance:all",
            "sbom,sbom",
            "off,sbom",
            "provenance:min,provenance:max",
            unpinned,
            "sbom:",
        ] {
            assert!(wrong.parse::<Attest>().is_err(), "{wrong}");
        }
    }
}
