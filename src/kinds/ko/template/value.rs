//! Values of a template: what of Go's types its data has, and how fmt prints each.

use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A nil interface: what `index` finds where a map of anything has no entry.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// `map[string]string`
    Texts(Arc<BTreeMap<String, String>>),
    /// `map[string]any`
    Map(Arc<BTreeMap<String, Value>>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As Go names its type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Texts(_) => "map[string]string",
            Self::Map(_) => "map[string]any",
        }
    }

    /// Whether a condition holds: not empty, not zero.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Texts(map) => !map.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// What is printed in its place: nil has a text of its own, except within other values.
    pub(super) fn printed(self) -> Self {
        if self == Self::Nil { Self::text("<no value>") } else { self }
    }

    /// As `%v`; in a map nil is `<nil>`.
    pub(super) fn print(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&float(*value)),
            Self::Text(text) => out.push_str(text),
            Self::Texts(map) => {
                entries(out, map.iter(), |text, out| out.push_str(text));
            }
            Self::Map(map) => entries(out, map.iter(), Value::print),
        }
    }
}

fn entries<'a, V: 'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a String, &'a V)>,
    print: impl Fn(&V, &mut String),
) {
    out.push_str("map[");
    for (at, (key, value)) in entries.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(key);
        out.push(':');
        print(value, out);
    }
    out.push(']');
}

/// The shortest text that reads as the same number, with an exponent below -4 and from 6 on: `%v` of a float.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
