//! Layers of settings before they are parsed: raw texts, each with its origin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::settings::{SETTINGS, Shape};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--ssh`
    Flag(&'static str),
    /// `LEMNOS_SSH`
    Variable(String),
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// One or several texts.
    Texts(Vec<String>),
    /// Builders, each as its named parts.
    Builders(Vec<Vec<(String, String)>>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub raw: Raw,
    pub origin: Origin,
}

/// The settings that one source gives.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub(super) entries: BTreeMap<&'static str, Entry>,
}

impl Layer {
    /// Sets a flag's setting to what was typed, once or several times; nothing typed sets nothing.
    /// `flag` must be one of `SETTINGS`' flags: a misspelt one is a bug that the tests of `cli::serve` see.
    #[must_use]
    pub fn flag(mut self, flag: &str, typed: impl IntoIterator<Item = String>) -> Self {
        let texts: Vec<String> = typed.into_iter().collect();
        let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag));
        debug_assert!(setting.is_some(), "{flag} is in no setting");
        if let Some((setting, flag)) = setting.and_then(|s| Some((s, s.flag?)))
            && !texts.is_empty()
        {
            self.entries.insert(setting.key, Entry { raw: Raw::Texts(texts), origin: Origin::Flag(flag) });
        }
        self
    }

    pub(super) fn insert(&mut self, key: &'static str, raw: Raw, origin: Origin) {
        self.entries.insert(key, Entry { raw, origin });
    }

    pub(super) fn defaults() -> Self {
        let mut layer = Self::default();
        for setting in SETTINGS {
            let texts = setting.default.map(|text| split(setting.shape, text)).unwrap_or_default();
            layer.insert(setting.key, Raw::Texts(texts), Origin::Default);
        }
        layer
    }

    /// One layer out of several; the earlier ones win, key by key.
    pub(super) fn merge(layers: Vec<Self>) -> Self {
        let mut merged = Self::default();
        for layer in layers {
            for (key, entry) in layer.entries {
                merged.entries.entry(key).or_insert(entry);
            }
        }
        merged
    }
}

/// The parts of a value as it is written in one text.
pub(super) fn split(shape: Shape, text: &str) -> Vec<String> {
    let parts: Vec<&str> = match shape {
        Shape::List => text.split(',').map(str::trim).collect(),
        Shape::Builders => text.split_whitespace().collect(),
        Shape::Text | Shape::Path | Shape::Number { .. } => vec![text.trim()],
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
