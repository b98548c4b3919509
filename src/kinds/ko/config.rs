//! `.ko.yaml`, whole, as ko reads it (viper): keys have no case, lists may be written as texts. Beyond ko: an unknown key is
//! noted, a value of the wrong kind is refused by line and never taken for nothing.
//!
//! Facts: ko 0.19, pkg/commands/options/build.go and pkg/build/config.go; `tests/oracle/ko` holds them. Must not look at
//! the tree beyond this one file.

use std::collections::BTreeMap;

use super::errors::KoError;
use super::reference;
use super::yaml::{self, At, Node};
use crate::kinds::KindError;
use crate::kinds::errors::shown;
use crate::model::closest::closest;
use crate::model::{EntryKind, Tree};

/// What ko looks for in its working directory; `ko.yaml` without the dot is not read by it.
pub const CONFIGS: [&str; 2] = [".ko.yaml", ".ko.yml"];

/// Far above any that is written by hand.
const LIMIT_BYTES: u64 = 256 * 1024;
const LIMIT_ITEMS: usize = 1000;

const KEYS: [&str; 7] = [
    "defaultBaseImage",
    "baseImageOverrides",
    "defaultPlatforms",
    "defaultEnv",
    "defaultFlags",
    "defaultLdflags",
    "builds",
];
const BUILD_KEYS: [&str; 7] = ["id", "dir", "main", "env", "flags", "ldflags", "linux_capabilities"];

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KoConfig {
    /// Its path in the tree; empty where there is none.
    pub file: String,
    pub default_base_image: Option<At<String>>,
    /// By import path in lower case, as ko looks them up.
    pub base_image_overrides: BTreeMap<String, At<String>>,
    pub default_platforms: Vec<At<String>>,
    pub default_env: Vec<At<String>>,
    pub default_flags: Vec<At<String>>,
    pub default_ldflags: Vec<At<String>>,
    pub builds: Vec<At<BuildEntry>>,
    pub notes: Vec<String>,
}

/// One entry of `builds`. Empty lists mean the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildEntry {
    /// For messages only.
    pub id: String,
    pub dir: String,
    /// A directory or a Go file in `dir`.
    pub main: String,
    pub env: Vec<At<String>>,
    pub flags: Vec<At<String>>,
    pub ldflags: Vec<At<String>>,
    pub linux_capabilities: Vec<At<String>>,
}

/// Which of ko's files stands at the root.
pub fn find(tree: &dyn Tree) -> Result<Option<&'static str>, KindError> {
    for name in CONFIGS {
        if tree.entry(name)?.is_some_and(|e| matches!(e.kind, EntryKind::File { .. } | EntryKind::Symlink)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl KoConfig {
    /// The file at `path`; `KO_CONFIG_PATH` may name another than those at the root.
    pub fn read(tree: &dyn Tree, path: &str) -> Result<Self, KindError> {
        let bytes = tree.read(path, LIMIT_BYTES)?.unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|e| {
            let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|b| **b == b'\n').count() as u64;
            KoError::Config { file: path.to_owned(), line, column: 1, problem: "not UTF-8".to_owned() }
        })?;
        Ok(Self::parse(path, &text)?)
    }

    pub fn parse(file: &str, text: &str) -> Result<Self, KoError> {
        let root = yaml::parse(file, text)?;
        let mut reader = Reader { file, notes: Vec::new() };
        let mut config = Self { file: file.to_owned(), ..Self::default() };
        for (key, value) in reader.entries("the file", root, &KEYS)? {
            match key {
                "defaultBaseImage" => config.default_base_image = Some(reader.image(key, value)?),
                "baseImageOverrides" => config.base_image_overrides = reader.overrides(value)?,
                "defaultPlatforms" => config.default_platforms = reader.words(key, value)?,
                "defaultEnv" => config.default_env = reader.env(reader.words(key, value)?)?,
                "defaultFlags" => config.default_flags = reader.words(key, value)?,
                "defaultLdflags" => config.default_ldflags = reader.words(key, value)?,
                _ => config.builds = reader.builds(value)?,
            }
        }
        config.notes = reader.notes;
        Ok(config)
    }
}

struct Reader<'a> {
    file: &'a str,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn wrong<T>(&self, at: &At<T>, problem: impl Into<String>) -> KoError {
        KoError::Config {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            problem: problem.into(),
        }
    }

    /// The known keys of a mapping with their values; others are noted.
    fn entries(
        &mut self,
        what: &str,
        node: At<Node>,
        known: &[&'static str],
    ) -> Result<Vec<(&'static str, At<Node>)>, KoError> {
        let place = At { value: (), line: node.line, column: node.column };
        let entries = match node.value {
            Node::Null => Vec::new(),
            Node::Map(entries) => entries,
            other => return Err(self.wrong(&place, format!("{what} is {}, not a mapping", other.kind()))),
        };
        let mut found: Vec<(&'static str, At<Node>)> = Vec::new();
        for (key, value) in entries {
            let name = known.iter().find(|name| name.eq_ignore_ascii_case(&key.value));
            let Some(name) = name else {
                let near = closest(&key.value, known.iter().copied());
                let meant = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                self.notes.push(format!(
                    "{}:{}: unknown key {:?} has no effect, as with ko{meant}",
                    self.file,
                    key.line,
                    shown(&key.value)
                ));
                continue;
            };
            if found.iter().any(|(seen, _)| seen == name) {
                return Err(self.wrong(&key, format!("{name} stands here a second time: keys have no case")));
            }
            found.push((name, value));
        }
        Ok(found)
    }

    fn text(&self, key: &str, node: At<Node>) -> Result<At<String>, KoError> {
        let kind = node.value.kind();
        let place = At { value: (), line: node.line, column: node.column };
        let text = match node.value {
            Node::Text(text) => text,
            Node::Null => String::new(),
            Node::Whole(number) => number.to_string(),
            _ => {
                return Err(self.wrong(&place, format!("{key} is {kind}, not a text: write it in quotes")));
            }
        };
        if text.contains('\0') {
            return Err(self.wrong(&place, format!("{key} holds a NUL character")));
        }
        Ok(place.map(|()| text))
    }

    fn list(&self, key: &str, items: Vec<At<Node>>) -> Result<Vec<At<String>>, KoError> {
        if let Some(item) = items.get(LIMIT_ITEMS) {
            return Err(self.wrong(item, format!("{key} has more than {LIMIT_ITEMS} entries")));
        }
        items.into_iter().map(|item| self.text(key, item)).collect()
    }

    /// A list, or one text that is taken apart at its spaces.
    fn words(&self, key: &str, node: At<Node>) -> Result<Vec<At<String>>, KoError> {
        match node.value {
            Node::List(items) => self.list(key, items),
            _ => {
                let text = self.text(key, node)?;
                let word = |word: &str| At { value: word.to_owned(), line: text.line, column: text.column };
                Ok(text.value.split_whitespace().map(word).collect())
            }
        }
    }

    /// A list, or one text that is its only entry.
    fn texts(&self, key: &str, node: At<Node>) -> Result<Vec<At<String>>, KoError> {
        match node.value {
            Node::List(items) => self.list(key, items),
            Node::Null => Ok(Vec::new()),
            _ => Ok(vec![self.text(key, node)?]),
        }
    }

    fn env(&self, entries: Vec<At<String>>) -> Result<Vec<At<String>>, KoError> {
        match entries.iter().find(|entry| entry.value.split_once('=').is_none_or(|(name, _)| name.is_empty()))
        {
            Some(entry) => {
                let problem = format!("{:?} is no environment variable: NAME=VALUE", shown(&entry.value));
                Err(self.wrong(entry, problem))
            }
            None => Ok(entries),
        }
    }

    fn image(&self, key: &str, node: At<Node>) -> Result<At<String>, KoError> {
        let text = self.text(key, node)?;
        match reference::full(&text.value) {
            Ok(_) => Ok(text),
            Err(problem) => {
                Err(self.wrong(&text, format!("{key}: {:?} is not an image: {problem}", shown(&text.value))))
            }
        }
    }

    fn overrides(&self, node: At<Node>) -> Result<BTreeMap<String, At<String>>, KoError> {
        let place = At { value: (), line: node.line, column: node.column };
        let entries = match node.value {
            Node::Null => Vec::new(),
            Node::Map(entries) => entries,
            other => {
                let problem = format!("baseImageOverrides is {}, not a mapping", other.kind());
                return Err(self.wrong(&place, problem));
            }
        };
        let mut overrides = BTreeMap::new();
        for (key, value) in entries {
            let image = self.image("baseImageOverrides", value)?;
            let path = key.value.to_lowercase();
            if overrides.insert(path, image).is_some() {
                let problem =
                    format!("{:?} stands here a second time: import paths have no case", shown(&key.value));
                return Err(self.wrong(&key, problem));
            }
        }
        Ok(overrides)
    }

    fn builds(&mut self, node: At<Node>) -> Result<Vec<At<BuildEntry>>, KoError> {
        let place = At { value: (), line: node.line, column: node.column };
        let entries = match node.value {
            Node::Null => Vec::new(),
            Node::List(entries) => entries,
            // one build may stand there without a list around it
            map @ Node::Map(_) => vec![place.map(|()| map)],
            other => return Err(self.wrong(&place, format!("builds is {}, not a list", other.kind()))),
        };
        if let Some(entry) = entries.get(LIMIT_ITEMS) {
            return Err(self.wrong(entry, format!("builds has more than {LIMIT_ITEMS} entries")));
        }
        entries.into_iter().map(|entry| self.build(entry)).collect()
    }

    fn build(&mut self, node: At<Node>) -> Result<At<BuildEntry>, KoError> {
        let place = At { value: (), line: node.line, column: node.column };
        let mut build = BuildEntry::default();
        for (key, value) in self.entries("an entry of builds", node, &BUILD_KEYS)? {
            match key {
                "id" => build.id = self.text(key, value)?.value,
                "dir" => build.dir = self.text(key, value)?.value,
                "main" => build.main = self.text(key, value)?.value,
                "env" => build.env = self.env(self.texts(key, value)?)?,
                "flags" => build.flags = self.words(key, value)?,
                "ldflags" => build.ldflags = self.texts(key, value)?,
                _ => build.linux_capabilities = self.words(key, value)?,
            }
        }
        Ok(place.map(|()| build))
    }
}
