//! A TOML document with the place of every value: reading it field by field, each mistake with its line and column.
//!
//! Tables are walked in the order in which they are written, for the locked application keeps that order. Every field must be
//! asked for: what is left over is an unknown field. Must not know what any field means.

use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{At, SpinError};
use crate::model::closest::closest;

/// Deepest nesting of what is taken over as it stands.
const LIMIT_DEPTH: usize = 32;

/// The manifest's text, and what it is called in messages.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub path: &'a str,
    pub text: &'a str,
}

impl<'a> Source<'a> {
    pub fn at(&self, offset: usize) -> At {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        At { line: before.matches('\n').count() + 1, column }
    }

    pub fn error(&self, at: At, problem: impl Into<String>, hint: impl Into<String>) -> SpinError {
        SpinError::at(self.path, at, problem, hint)
    }

    /// The document, or where it is no TOML.
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>, SpinError> {
        DeTable::parse(self.text).map_err(|error| {
            let at = self.at(error.span().map_or(0, |span| span.start));
            let problem = error.message().lines().next().unwrap_or("not TOML").to_owned();
            let hint = match problem.contains("duplicate key") {
                true => "each name stands once: give the second one another, or take it out",
                false => "correct the manifest: it is read as TOML",
            };
            self.error(at, problem, hint)
        })
    }
}

/// One value, with the names that lead to it.
#[derive(Clone)]
pub(super) struct Item<'a> {
    source: Source<'a>,
    /// `component.api.build`; empty: the document.
    pub name: String,
    span: Range<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    pub fn at(&self) -> At {
        self.source.at(self.span.start)
    }

    pub fn fail(&self, problem: impl std::fmt::Display, hint: impl Into<String>) -> SpinError {
        self.source.error(self.at(), format!("{}: {problem}", self.name), hint)
    }

    fn wrong_type(&self, expected: &str) -> SpinError {
        self.fail(
            format!("{} where {expected} is expected", self.value.type_str()),
            format!("write {expected} for {}", self.name),
        )
    }

    pub fn is_text(&self) -> bool {
        self.value.is_str()
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub fn integer(&self) -> Option<&str> {
        self.value.as_integer().filter(|n| n.radix() == 10).map(toml::de::DeInteger::as_str)
    }

    pub fn text(&self) -> Result<String, SpinError> {
        self.value.as_str().map(str::to_owned).ok_or_else(|| self.wrong_type("a string"))
    }

    pub fn flag(&self) -> Result<bool, SpinError> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// The items of an array, in order.
    pub fn list(&self) -> Result<Vec<Self>, SpinError> {
        let array = self.value.as_array().ok_or_else(|| self.wrong_type("an array"))?;
        let item = |(n, value): (usize, &'a Spanned<DeValue<'a>>)| Self {
            source: self.source,
            name: format!("{}[{n}]", self.name),
            span: value.span(),
            value: value.get_ref(),
        };
        Ok(array.iter().enumerate().map(item).collect())
    }

    pub fn texts(&self) -> Result<Vec<String>, SpinError> {
        self.list()?.iter().map(Self::text).collect()
    }

    pub fn table(&self) -> Result<Fields<'a>, SpinError> {
        let table = self.value.as_table().ok_or_else(|| self.wrong_type("a table"))?;
        Ok(Fields::new(self.source, self.name.clone(), self.span.start, table))
    }

    /// A table of strings.
    pub fn text_map(&self) -> Result<Vec<(String, Item<'a>)>, SpinError> {
        let entries = self.table()?.rest();
        entries.iter().try_for_each(|(_, item)| item.text().map(drop))?;
        Ok(entries)
    }

    /// The value as JSON, tables sorted by name: how a locked application holds what only a trigger understands.
    pub fn json(&self) -> Result<Json, SpinError> {
        self.json_at(0)
    }

    fn json_at(&self, depth: usize) -> Result<Json, SpinError> {
        if depth > LIMIT_DEPTH {
            return Err(self.fail(format!("more than {LIMIT_DEPTH} levels deep"), "nest it less deeply"));
        }
        Ok(match self.value {
            DeValue::String(text) => Json::String(text.to_string()),
            DeValue::Boolean(flag) => Json::Bool(*flag),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                let parsed = i64::from_str_radix(&digits, number.radix());
                Json::from(parsed.map_err(|_| self.fail("a number beyond 64 bits", "use a smaller one"))?)
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().replace('_', "").parse().ok();
                let parsed = parsed.and_then(serde_json::Number::from_f64).map(Json::Number);
                parsed.ok_or_else(|| {
                    self.fail("infinity and NaN have no place in a locked application", "use a number")
                })?
            }
            DeValue::Datetime(_) => {
                return Err(self.fail("a date has no place in a locked application", "put it in quotes"));
            }
            DeValue::Array(_) => {
                let items = self.list()?;
                Json::Array(items.iter().map(|item| item.json_at(depth + 1)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(_) => {
                let entries = self.table()?.rest();
                let json = |(key, item): (String, Item<'a>)| Ok((key, item.json_at(depth + 1)?));
                Json::Object(entries.into_iter().map(json).collect::<Result<_, SpinError>>()?)
            }
        })
    }
}

/// A table whose fields are asked for one by one.
pub(super) struct Fields<'a> {
    source: Source<'a>,
    name: String,
    start: usize,
    /// In the order written.
    left: Vec<(String, usize, Item<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub fn of_document(source: Source<'a>, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(source, String::new(), 0, document.get_ref())
    }

    fn new(source: Source<'a>, name: String, start: usize, table: &'a DeTable<'a>) -> Self {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        let mut left: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let name = format!("{prefix}{}", key.get_ref());
                let item = Item { source, name, span: value.span(), value: value.get_ref() };
                (key.get_ref().to_string(), key.span().start, item)
            })
            .collect();
        left.sort_by_key(|(_, start, _)| *start);
        Self { source, name, start, left, known: Vec::new() }
    }

    pub fn at(&self) -> At {
        self.source.at(self.start)
    }

    pub fn optional(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let place = self.left.iter().position(|(name, ..)| name == key)?;
        Some(self.left.remove(place).2)
    }

    pub fn required(&mut self, key: &'static str) -> Result<Item<'a>, SpinError> {
        self.optional(key).ok_or_else(|| {
            let near = closest(key, self.left.iter().map(|(name, ..)| name.as_str()));
            if let Some((misspelt, start, _)) =
                self.left.iter().find(|(name, ..)| Some(name.as_str()) == near)
            {
                let (at, hint) = (self.source.at(*start), format!("did you mean {key}?"));
                return self.source.error(at, format!("{} has no field {misspelt:?}", self.called()), hint);
            }
            let of = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
            self.source.error(self.at(), format!("{of}{key} is missing"), format!("add {key}"))
        })
    }

    fn called(&self) -> &str {
        if self.name.is_empty() { "the manifest" } else { &self.name }
    }

    /// The string at `key`, empty where there is none.
    pub fn text_or_empty(&mut self, key: &'static str) -> Result<String, SpinError> {
        self.optional(key).map_or_else(|| Ok(String::new()), |item| item.text())
    }

    /// The strings at `key`, none where there is nothing.
    pub fn texts_or_none(&mut self, key: &'static str) -> Result<Vec<String>, SpinError> {
        self.optional(key).map_or_else(|| Ok(Vec::new()), |item| item.texts())
    }

    /// All that has not been asked for, in the order written.
    pub fn rest(self) -> Vec<(String, Item<'a>)> {
        self.left.into_iter().map(|(key, _, item)| (key, item)).collect()
    }

    /// An error where something has not been asked for.
    pub fn finish(self) -> Result<(), SpinError> {
        let Some((key, start, _)) = self.left.first() else { return Ok(()) };
        let of = self.called();
        let hint = match closest(key, self.known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("take it out; {of} has {}", self.known.join(", ")),
        };
        Err(self.source.error(self.source.at(*start), format!("{of} has no field {key:?}"), hint))
    }
}
