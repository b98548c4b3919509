//! What is done with a result: exporters and their attributes.
//!
//! Names: buildkit v0.32 exporter/containerimage/exptypes/keys.go, exporter/local, exporter/tar, exporter/oci. What has no
//! field goes through `with`.

use std::collections::BTreeMap;
use std::fmt;

use super::Platform;

/// What to do with a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exporter {
    /// `image`, `oci`, `local`, …
    pub kind: String,
    pub attrs: BTreeMap<String, String>,
}

/// How an image is made, and what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    pub names: Vec<String>,
    pub push: bool,
    /// Without a tag; for `push`.
    pub push_by_digest: bool,
    /// The registry speaks plain HTTP, or its certificate is not checked.
    pub insecure: bool,
    /// The daemon's default is OCI's types.
    pub oci_mediatypes: Option<bool>,
    /// Attestations as OCI artifacts.
    pub oci_artifact: Option<bool>,
    pub compression: Option<Compression>,
    /// 0 to 9 for gzip and estargz, 0 to 22 for zstd.
    pub compression_level: Option<u8>,
    /// Layers that exist already are compressed anew too.
    pub force_compression: bool,
    /// Times inside of layers become the epoch's; not together with `unpack`.
    pub rewrite_timestamp: bool,
    /// Seconds since 1970; for a result whose frontend knows none.
    pub source_date_epoch: Option<u64>,
    pub annotations: Vec<Annotation>,
    /// Whether the daemon keeps the image in its store, where it has one.
    pub store: Option<bool>,
    pub unpack: Option<bool>,
    /// Names an image without a name `PREFIX@DIGEST`.
    pub dangling_name_prefix: Option<String>,
    /// One more name, `NAME@DIGEST`.
    pub name_canonical: bool,
    /// Layers that may not be distributed keep their type.
    pub prefer_nondist_layers: bool,
    /// Attestations that are for inside an image only are attached in any case.
    pub attestation_inline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Uncompressed,
    Gzip,
    /// Daemons built with Go 1.27 have been seen to crash at it.
    Estargz,
    Zstd,
}

/// An annotation and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    pub level: AnnotationLevel,
    /// Only for this one of a manifest's, where several are built.
    pub platform: Option<Platform>,
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnotationLevel {
    /// Left to the daemon, which takes the manifest.
    #[default]
    Unsaid,
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

impl AnnotationLevel {
    pub const NAMED: [Self; 4] =
        [Self::Manifest, Self::ManifestDescriptor, Self::Index, Self::IndexDescriptor];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsaid => "",
            Self::Manifest => "manifest",
            Self::ManifestDescriptor => "manifest-descriptor",
            Self::Index => "index",
            Self::IndexDescriptor => "index-descriptor",
        }
    }
}

impl Annotation {
    /// The exporter's attribute.
    pub fn attr(&self) -> String {
        let key = &self.key;
        let level = self.level.as_str();
        match (self.level, &self.platform) {
            (AnnotationLevel::Unsaid, _) => format!("annotation.{key}"),
            (AnnotationLevel::Manifest | AnnotationLevel::ManifestDescriptor, Some(platform)) => {
                format!("annotation-{level}[{}].{key}", platform.with_version())
            }
            // an index has no platform
            _ => format!("annotation-{level}.{key}"),
        }
    }
}

impl Compression {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Estargz => "estargz",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Exporter {
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), attrs: BTreeMap::new() }
    }

    /// An image that the daemon keeps or pushes.
    pub fn image(options: &ImageOptions) -> Self {
        Self { kind: "image".to_owned(), attrs: options.attrs() }
    }

    /// An OCI layout for the session: a tar stream, or with `tar` false an image in its content store.
    pub fn oci(options: &ImageOptions, tar: bool) -> Self {
        let exporter = Self { kind: "oci".to_owned(), attrs: options.attrs() };
        if tar { exporter } else { exporter.with("tar", "false") }
    }

    /// A tar stream for `docker load`; the session takes it.
    pub fn docker(options: &ImageOptions) -> Self {
        Self { kind: "docker".to_owned(), attrs: options.attrs() }
    }

    /// The result's files, into a directory that the session takes them to.
    pub fn local() -> Self {
        Self::new("local")
    }

    /// The result's files as one tar stream; the session takes it.
    pub fn tar() -> Self {
        Self::new("tar")
    }

    /// Any other attribute.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.attrs.insert(name.to_owned(), value.to_owned());
        self
    }
}

impl ImageOptions {
    fn attrs(&self) -> BTreeMap<String, String> {
        let flag = |set: bool| set.then(|| "true".to_owned());
        let choice = |choice: Option<bool>| choice.map(|choice| choice.to_string());
        let names = self.names.join(",");
        let attrs = [
            ("name", Some(names).filter(|names| !names.is_empty())),
            ("push", flag(self.push)),
            ("push-by-digest", flag(self.push_by_digest)),
            ("registry.insecure", flag(self.insecure)),
            ("oci-mediatypes", choice(self.oci_mediatypes)),
            ("oci-artifact", choice(self.oci_artifact)),
            ("compression", self.compression.map(|c| c.to_string())),
            ("compression-level", self.compression_level.map(|level| level.to_string())),
            ("force-compression", flag(self.force_compression)),
            ("rewrite-timestamp", flag(self.rewrite_timestamp)),
            ("source-date-epoch", self.source_date_epoch.map(|epoch| epoch.to_string())),
            ("store", choice(self.store)),
            ("unpack", choice(self.unpack)),
            ("dangling-name-prefix", self.dangling_name_prefix.clone()),
            ("name-canonical", flag(self.name_canonical)),
            ("prefer-nondist-layers", flag(self.prefer_nondist_layers)),
            ("attestation-inline", flag(self.attestation_inline)),
        ];
        let mut attrs: BTreeMap<String, String> =
            attrs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        attrs.extend(self.annotations.iter().map(|a| (a.attr(), a.value.clone())));
        attrs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_attribute() {
        let annotation = |level, platform: Option<&str>| Annotation {
            level,
            platform: platform.map(|p| p.parse().unwrap()),
            key: "k".into(),
            value: "v".into(),
        };
        let mut annotations: Vec<Annotation> =
            AnnotationLevel::NAMED.map(|level| annotation(level, Some("linux/arm/v7"))).into();
        annotations.push(annotation(AnnotationLevel::Unsaid, None));
        annotations.push(annotation(AnnotationLevel::Manifest, None));
        let options = ImageOptions {
            names: vec!["r.example/a".into(), "r.example/b".into()],
            push: true,
            push_by_digest: true,
            insecure: true,
            oci_mediatypes: Some(false),
            oci_artifact: Some(true),
            compression: Some(Compression::Zstd),
            compression_level: Some(9),
            force_compression: true,
            rewrite_timestamp: true,
            source_date_epoch: Some(7),
            annotations,
            store: Some(true),
            unpack: Some(false),
            dangling_name_prefix: Some("d".into()),
            name_canonical: true,
            prefer_nondist_layers: true,
            attestation_inline: true,
        };
        let exporter = Exporter::oci(&options, false).with("new", "1");
        let shown: String = exporter.attrs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        insta::assert_snapshot!(shown, @r"
        annotation-index-descriptor.k = v
        annotation-index.k = v
        annotation-manifest-descriptor[linux/arm/v7].k = v
        annotation-manifest.k = v
        annotation-manifest[linux/arm/v7].k = v
        annotation.k = v
        attestation-inline = true
        compression = zstd
        compression-level = 9
        dangling-name-prefix = d
        force-compression = true
        name = r.example/a,r.example/b
        name-canonical = true
        new = 1
        oci-artifact = true
        oci-mediatypes = false
        prefer-nondist-layers = true
        push = true
        push-by-digest = true
        registry.insecure = true
        rewrite-timestamp = true
        source-date-epoch = 7
        store = true
        tar = false
        unpack = false
        ");
        assert!(Exporter::image(&ImageOptions::default()).attrs.is_empty());
    }
}
