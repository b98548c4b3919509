//! WebAssembly packages (`ns:name@version`): where a package registry says that they are, and out of there.
//!
//! The registry's own metadata names an OCI registry; another protocol is refused by name. A version is a tag there, so what
//! it stands for is decided by that registry; the bytes are those that its manifest names. Sources: wasm-pkg-tools'
//! `registry.json` and its OCI backend, the CNCF's Wasm OCI artifact.

use std::path::Path;

use serde::Deserialize;

use super::{FetchError, Fetcher};
use crate::model::{Digest, ImageName, SourceRules, Tag};
use crate::registry::{INDEX, Registry};

const METADATA_LIMIT_BYTES: u64 = 64 * 1024;
/// What the one layer of a package is.
const WASM: &str = "application/wasm";
/// Name spaces whose registry everybody knows.
const KNOWN: [(&str, &str); 2] = [("wasi", "wasi.dev"), ("ba", "bytecodealliance.org")];

/// What a package registry says of itself, in its present form and in an older one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    preferred_protocol: Option<String>,
    oci: Option<Oci>,
    warg: Option<serde_json::Value>,
    oci_registry: Option<String>,
    oci_namespace_prefix: Option<String>,
    warg_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Oci {
    registry: Option<String>,
    namespace_prefix: Option<String>,
}

impl Metadata {
    /// The OCI registry, where it is spoken; else the protocol's name.
    fn oci(self) -> Result<Oci, String> {
        let has_oci = self.oci.is_some() || self.oci_registry.is_some();
        let has_warg = self.warg.is_some() || self.warg_url.is_some();
        let protocol = match self.preferred_protocol {
            Some(protocol) => protocol,
            None if has_warg && !has_oci => "warg".to_owned(),
            None => "oci".to_owned(),
        };
        // a registry that prefers another may speak OCI as well
        if protocol != "oci" && !has_oci {
            return Err(protocol);
        }
        let said = self.oci.unwrap_or_default();
        Ok(Oci {
            registry: said.registry.or(self.oci_registry),
            namespace_prefix: said.namespace_prefix.or(self.oci_namespace_prefix),
        })
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Fetcher {
    /// Puts the WebAssembly of a package at `into`. Returns its size.
    pub async fn package(
        &self,
        client: &Registry,
        source: (Option<&str>, &str, &str),
        rules: &SourceRules,
        into: &Path,
    ) -> Result<u64, FetchError> {
        let (registry, package, version) = source;
        let (image, tag) = self.place(registry, package, version, rules).await?;
        let shown = format!("{image}:{tag}");
        if let Some(refusal) = rules.refuses(&format!("docker-image://{shown}")) {
            return Err(FetchError::Refused { url: shown, refusal: refusal.clone() });
        }
        let bad = |problem: &str| FetchError::Package {
            package: format!("{package}@{version}"),
            image: shown.clone(),
            problem: problem.to_owned(),
        };
        let manifest = client.get_manifest(&image, &tag.into()).await?;
        if manifest.media_type == INDEX {
            return Err(bad("it is an index of several"));
        }
        let read: Manifest = serde_json::from_slice(&manifest.bytes).map_err(|e| bad(&e.to_string()))?;
        let [layer] = read.layers.as_slice() else {
            return Err(bad(&format!("it has {} layers", read.layers.len())));
        };
        if layer.media_type != WASM {
            return Err(bad(&format!("its layer is {:?}, not {WASM}", layer.media_type)));
        }
        if layer.size > self.config.bytes_limit {
            return Err(FetchError::TooLarge { url: shown, limit_bytes: self.config.bytes_limit });
        }
        client.fetch_blob(&image, &layer.digest, layer.size, into).await?;
        Ok(layer.size)
    }

    /// The image that a package is.
    async fn place(
        &self,
        registry: Option<&str>,
        package: &str,
        version: &str,
        rules: &SourceRules,
    ) -> Result<(ImageName, Tag), FetchError> {
        let (space, name) = package.split_once(':').unwrap_or((package, ""));
        let known = || KNOWN.iter().find(|(known, _)| *known == space).map(|(_, registry)| *registry);
        let registry =
            registry.or_else(known).ok_or_else(|| FetchError::NoRegistry { package: package.to_owned() })?;
        let url = format!("{}://{registry}/.well-known/wasm-pkg/registry.json", self.scheme(registry));
        let wrong = |problem: String| FetchError::Metadata { registry: registry.to_owned(), problem };
        let metadata: Metadata = match self.text(&url, METADATA_LIMIT_BYTES, rules).await? {
            Some(text) => serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?,
            // one that says nothing is an OCI registry itself
            None => Metadata::default(),
        };
        let oci = metadata
            .oci()
            .map_err(|protocol| FetchError::Protocol { registry: registry.to_owned(), protocol })?;
        let host = oci.registry.as_deref().unwrap_or(registry);
        let prefix = oci.namespace_prefix.unwrap_or_default();
        let image = format!("{host}/{prefix}{space}/{name}");
        let image = image.parse().map_err(|_| wrong(format!("{image:?} is no image's name")))?;
        let tag = version.parse().map_err(|_| FetchError::Package {
            package: package.to_owned(),
            image: format!("{image}"),
            problem: format!("{version:?} is no tag, which a version is there"),
        })?;
        Ok((image, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oci(json: &str) -> Result<(Option<String>, Option<String>), String> {
        serde_json::from_str::<Metadata>(json).unwrap().oci().map(|oci| (oci.registry, oci.namespace_prefix))
    }

    #[test]
    fn both_forms_of_the_metadata_are_read() {
        let found = |registry: &str, prefix: &str| Ok((Some(registry.to_owned()), Some(prefix.to_owned())));
        assert_eq!(
            oci(r#"{"preferredProtocol":"oci","oci":{"registry":"ghcr.io","namespacePrefix":"x/"}}"#),
            found("ghcr.io", "x/")
        );
        assert_eq!(
            oci(r#"{"ociRegistry":"r.example.com","ociNamespacePrefix":"y/"}"#),
            found("r.example.com", "y/")
        );
        assert_eq!(
            oci(r#"{"warg":{"url":"https://w"},"oci":{"registry":"r"}}"#),
            Ok((Some("r".to_owned()), None))
        );
        assert_eq!(oci("{}"), Ok((None, None)));
    }

    #[test]
    fn another_protocol_is_named() {
        assert_eq!(oci(r#"{"wargUrl":"https://w"}"#), Err("warg".to_owned()));
        assert_eq!(oci(r#"{"preferredProtocol":"torrent"}"#), Err("torrent".to_owned()));
    }
}
