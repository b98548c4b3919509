//! Where cached steps come from and go to.
//!
//! The kinds `gha`, `s3` and `azblob`, and any that a daemon may learn, are passed through with their attributes as they are.

use std::collections::BTreeMap;

use serde::Serialize;

/// Where cached steps come from or go to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// `registry`, `inline`, `local`, …
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
}

/// How much an export keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// The layers of the result.
    Min,
    /// Those of every step.
    Max,
}

impl CacheEntry {
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), attrs: BTreeMap::new() }
    }

    /// A cache of its own in a registry.
    pub fn registry(reference: &str) -> Self {
        Self::new("registry").with("ref", reference)
    }

    /// Inside the pushed image itself; for exports. It is imported as `registry` with the image's name.
    pub fn inline() -> Self {
        Self::new("inline")
    }

    /// An OCI layout that the session offers as `local:DIR`, with the digest of its manifest.
    pub fn local_import(dir: &str, digest: &str) -> Self {
        Self::new("local").with("src", dir).with("digest", digest)
    }

    /// An OCI layout that the session offers as `local:DIR`.
    pub fn local_export(dir: &str) -> Self {
        Self::new("local").with("dest", dir)
    }

    pub fn mode(self, mode: CacheMode) -> Self {
        self.with("mode", if mode == CacheMode::Max { "max" } else { "min" })
    }

    /// A failing export then fails no build.
    pub fn ignore_error(self) -> Self {
        self.with("ignore-error", "true")
    }

    /// Any other attribute.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.attrs.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn check_import(&self) -> Result<(), String> {
        match self.kind.as_str() {
            "registry" => self.needs("ref", "import"),
            "local" => self.needs("src", "import").and_then(|()| self.needs("digest", "import")),
            kind => Self::named(kind),
        }
    }

    pub(super) fn check_export(&self) -> Result<(), String> {
        match self.kind.as_str() {
            "registry" => self.needs("ref", "export"),
            "local" => self.needs("dest", "export"),
            kind => Self::named(kind),
        }
    }

    fn named(kind: &str) -> Result<(), String> {
        match kind.is_empty() {
            true => Err("a cache entry needs a type".to_owned()),
            false => Ok(()),
        }
    }

    fn needs(&self, name: &str, what: &str) -> Result<(), String> {
        match self.attrs.get(name).is_some_and(|value| !value.is_empty()) {
            true => Ok(()),
            false => Err(format!("the cache {what} of the type {} needs `{name}`", self.kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_says_what_it_lacks() {
        for (entry, export, import) in [
            (CacheEntry::registry("r.example/c").mode(CacheMode::Max), true, true),
            (CacheEntry::registry(""), false, false),
            (CacheEntry::local_export("/c"), true, false),
            (CacheEntry::local_import("/c", "sha256:0"), false, true),
            (CacheEntry::new("local").with("src", "/c"), false, false),
            (CacheEntry::inline(), true, true),
            (CacheEntry::new("gha"), true, true),
            (CacheEntry::new(""), false, false),
        ] {
            assert_eq!(
                (entry.check_export().is_ok(), entry.check_import().is_ok()),
                (export, import),
                "{entry:?}"
            );
        }
    }
}
