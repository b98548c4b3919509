//! lemnos.toml: found, read, and taken apart into raw values with their lines.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::ConfigError;
use super::layer::{Layer, Origin, Raw};
use super::settings::{SETTINGS, Setting, Shape};
use crate::model::closest::closest;

const LIMIT_BYTES: u64 = 1 << 20;

/// The file to read: --config or LEMNOS_CONFIG, which must exist, else lemnos.toml in the data directory, which may not.
pub(super) fn find(
    flag: Option<&Path>,
    environment: &Environment,
    data_dir: &Path,
) -> Result<Option<PathBuf>, ConfigError> {
    let named = flag.map(Path::to_owned).or_else(|| environment.get("LEMNOS_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        let absolute = std::path::absolute(&path).map_err(|cause| ConfigError::ReadFile { path, cause })?;
        return Ok(Some(absolute));
    }
    let path = data_dir.join(super::FILE_NAME);
    match path.try_exists() {
        Ok(exists) => Ok(exists.then_some(path)),
        // a data directory that is a file is refused where it is to be used
        Err(cause) if cause.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(cause) => Err(ConfigError::ReadFile { path, cause }),
    }
}

pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let failed = |cause| ConfigError::ReadFile { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LIMIT_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(ConfigError::FileTooLarge { path: path.to_owned(), limit_bytes: LIMIT_BYTES });
    }
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let source = Source { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: source.line(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut layer = Layer::default();
    source.table("", table.get_ref(), &mut layer)?;
    Ok(layer)
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(offset) }
    }

    /// Takes a table apart; `section` is "" or "limits.".
    fn table(&self, section: &str, table: &DeTable<'_>, layer: &mut Layer) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{section}{}", name.get_ref());
            let origin = self.origin(name.span().start);
            if let Some(setting) = Setting::find(&key) {
                let raw = self.raw(setting, value, &origin)?;
                layer.insert(setting.key, raw, origin);
                continue;
            }
            let inner = format!("{key}.");
            match value.get_ref() {
                DeValue::Table(table) if SETTINGS.iter().any(|s| s.key.starts_with(&inner)) => {
                    self.table(&inner, table, layer)?;
                }
                _ => {
                    let sections = ["limits", "ssh_limits"];
                    let known = SETTINGS.iter().map(|setting| setting.key).chain(sections);
                    let suggestion = closest(&key, known).map(str::to_owned);
                    return Err(ConfigError::UnknownKey { place: origin, key, suggestion });
                }
            }
        }
        Ok(())
    }

    fn raw(
        &self,
        setting: &'static Setting,
        value: &Spanned<DeValue<'_>>,
        origin: &Origin,
    ) -> Result<Raw, ConfigError> {
        let bad = |expected: &str| ConfigError::BadValue {
            place: origin.clone(),
            key: setting.key,
            given: self.text.get(value.span()).unwrap_or_default().chars().take(120).collect(),
            expected: expected.to_owned(),
        };
        match (setting.shape, value.get_ref()) {
            (Shape::Number { .. }, DeValue::Integer(number)) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                Ok(Raw::Texts(vec![parsed.map_err(|_| bad("a whole number"))?.to_string()]))
            }
            (Shape::Number { .. }, _) => Err(bad("a whole number")),
            (Shape::Text, DeValue::String(text)) => Ok(Raw::Texts(vec![text.to_string()])),
            (Shape::Path, DeValue::String(text)) => Ok(Raw::Texts(vec![self.path_here(text)])),
            (Shape::Text | Shape::Path, _) => Err(bad("a string")),
            (Shape::List, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().map(Raw::Texts).ok_or_else(|| bad("an array of strings"))
            }
            (Shape::List, _) => Err(bad("an array of strings")),
            (Shape::Builders, DeValue::Array(items)) => items
                .iter()
                .map(|item| self.builder(item.get_ref()).ok_or_else(|| bad(BUILDERS_RULE)))
                .collect::<Result<_, _>>()
                .map(Raw::Builders),
            (Shape::Builders, _) => Err(bad(BUILDERS_RULE)),
        }
    }

    /// A builder's parts, from a spec in one string or from a table.
    fn builder(&self, value: &DeValue<'_>) -> Option<Vec<(String, String)>> {
        match value {
            DeValue::String(spec) => Some(super::builder::parts(spec)),
            DeValue::Table(table) => {
                let mut parts = Vec::new();
                for (name, value) in table {
                    let name = match &**name.get_ref() {
                        "server_name" => "servername",
                        "platforms" => "platform",
                        other => other,
                    };
                    let path = matches!(name, "ca" | "cert" | "key");
                    let mut push = |text: &str| {
                        let text = if path { self.path_here(text) } else { text.to_owned() };
                        parts.push((name.to_owned(), text));
                    };
                    match value.get_ref() {
                        DeValue::String(text) => push(text),
                        DeValue::Integer(number) => push(number.as_str()),
                        DeValue::Array(items) => {
                            for item in items.iter() {
                                push(item.get_ref().as_str()?);
                            }
                        }
                        _ => return None,
                    }
                }
                Some(parts)
            }
            _ => None,
        }
    }

    /// A path in the file counts from the file's directory.
    fn path_here(&self, text: &str) -> String {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        dir.join(text).to_string_lossy().into_owned()
    }
}

const BUILDERS_RULE: &str = "an array of builders, each \"ADDR[,platform=P]…\" or a table of strings (address, platforms, name, max, ca, cert, key, server_name)";
