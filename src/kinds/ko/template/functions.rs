//! The functions that text/template has built in. Source: text/template/funcs.go.

use std::cmp::Ordering;

use super::Fault;
use super::evaluate::bounded;
use super::printf::printf;
use super::value::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Html,
    Js,
    UrlQuote,
}

const NAMES: [(&str, Function); 18] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("len", Function::Len),
    ("index", Function::Index),
    ("slice", Function::Slice),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
    ("html", Function::Html),
    ("js", Function::Js),
    ("urlquery", Function::UrlQuote),
];

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

/// `and` and `or` look at their arguments one by one, and are not called here.
pub(super) fn call(function: Function, arguments: &[Value]) -> Result<Value, Fault> {
    let count = |least: usize, most: usize| {
        let wrong = !(least..=most).contains(&arguments.len());
        wrong.then(|| {
            Fault::value(format!(
                "wrong number of args for {}: want {}{least} got {}",
                function.name(),
                if most > least { "at least " } else { "" },
                arguments.len()
            ))
        })
    };
    let (least, most) = match function {
        Function::Not | Function::Len => (1, 1),
        Function::Ne | Function::Lt | Function::Le | Function::Gt | Function::Ge => (2, 2),
        Function::Eq | Function::Index | Function::Slice | Function::Printf => (1, usize::MAX),
        _ => (0, usize::MAX),
    };
    if let Some(fault) = count(least, most) {
        return Err(fault);
    }
    let (first, rest) =
        arguments.split_first().map_or((&Value::Nil, arguments), |(first, rest)| (first, rest));
    let second = rest.first().unwrap_or(&Value::Nil);
    match function {
        Function::And | Function::Or => Err(Fault::syntax("a condition without arguments")),
        Function::Not => Ok(Value::Bool(!first.is_true())),
        Function::Eq => equals_any(first, rest).map(Value::Bool),
        Function::Ne => equals(first, second).map(|same| Value::Bool(!same)),
        Function::Lt => order(first, second).map(|order| Value::Bool(order == Ordering::Less)),
        Function::Le => order(first, second).map(|order| Value::Bool(order != Ordering::Greater)),
        Function::Gt => order(first, second).map(|order| Value::Bool(order == Ordering::Greater)),
        Function::Ge => order(first, second).map(|order| Value::Bool(order != Ordering::Less)),
        Function::Len => length(first),
        Function::Index => index(first, rest),
        Function::Slice => slice(first, rest),
        Function::Print => bounded(sprint(arguments)),
        Function::Println => bounded(sprintln(arguments)),
        Function::Printf => match first {
            Value::Text(format) => bounded(printf(format, rest)?),
            other => {
                Err(Fault::value(format!("wrong type for value; expected string; got {}", other.type_name())))
            }
        },
        Function::Html => bounded(html(&joined(arguments))),
        Function::Js => bounded(js(&joined(arguments))?),
        Function::UrlQuote => bounded(url_query(&joined(arguments))),
    }
}

fn equals_any(first: &Value, rest: &[Value]) -> Result<bool, Fault> {
    if rest.is_empty() {
        return Err(Fault::value("missing argument for comparison"));
    }
    for other in rest {
        if equals(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equals(a: &Value, b: &Value) -> Result<bool, Fault> {
    Ok(match (a, b) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Nil | Value::Texts(_) | Value::Map(_), _)
        | (_, Value::Nil | Value::Texts(_) | Value::Map(_)) => {
            return Err(Fault::unsupported("a comparison with a map or with nil"));
        }
        _ => return Err(Fault::value("incompatible types for comparison")),
    })
}

fn order(a: &Value, b: &Value) -> Result<Ordering, Fault> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.as_bytes().cmp(b.as_bytes())),
        (Value::Float(a), Value::Float(b)) => {
            a.partial_cmp(b).ok_or_else(|| Fault::unsupported("a comparison of what is no number"))
        }
        (
            Value::Int(_) | Value::Text(_) | Value::Float(_),
            Value::Int(_) | Value::Text(_) | Value::Float(_),
        ) => Err(Fault::value("incompatible types for comparison")),
        _ => Err(Fault::value("invalid type for comparison")),
    }
}

fn length(value: &Value) -> Result<Value, Fault> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Texts(map) => map.len(),
        Value::Map(map) => map.len(),
        Value::Nil => return Err(Fault::value("len of nil pointer")),
        other => return Err(Fault::value(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, Fault> {
    let mut found = value.clone();
    for key in keys {
        found = match (&found, key) {
            // a missing entry is the zero value here, not an error
            (Value::Texts(map), Value::Text(key)) => Value::Text(map.get(key).cloned().unwrap_or_default()),
            (Value::Map(map), Value::Text(key)) => map.get(key).cloned().unwrap_or(Value::Nil),
            (Value::Text(text), Value::Int(at)) => {
                let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                let byte = byte.ok_or_else(|| Fault::value(format!("index out of range: {at}")))?;
                Value::Int(i64::from(*byte))
            }
            (Value::Texts(_) | Value::Map(_), key) => {
                return Err(Fault::value(format!("value has type {}; should be string", key.type_name())));
            }
            (Value::Text(_), key) => {
                return Err(Fault::value(format!("cannot index slice/array with type {}", key.type_name())));
            }
            (Value::Nil, _) => return Err(Fault::value("index of untyped nil")),
            (other, _) => {
                return Err(Fault::value(format!("can't index item of type {}", other.type_name())));
            }
        };
    }
    Ok(found)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Fault> {
    let Value::Text(text) = value else {
        return Err(Fault::value(format!("can't slice item of type {}", value.type_name())));
    };
    if bounds.len() > 2 {
        return Err(Fault::value("cannot 3-index slice a string"));
    }
    let mut at = [0, text.len()];
    for (place, bound) in at.iter_mut().zip(bounds) {
        let Value::Int(bound) = bound else {
            return Err(Fault::value(format!("cannot index slice/array with type {}", bound.type_name())));
        };
        let fits = usize::try_from(*bound).ok().filter(|bound| *bound <= text.len());
        *place = fits.ok_or_else(|| Fault::value(format!("index out of range: {bound}")))?;
    }
    let [from, to] = at;
    if from > to {
        return Err(Fault::value(format!("invalid slice index: {from} > {to}")));
    }
    match text.get(from..to) {
        Some(part) => Ok(Value::text(part)),
        None => Err(Fault::unsupported("a slice in the middle of a character")),
    }
}

/// `fmt.Sprint`: a space between two values when neither is a text.
fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        let texts = |value: &Value| matches!(value, Value::Text(_));
        if before.is_some_and(|before| !texts(before) && !texts(value)) {
            out.push(' ');
        }
        value.print(&mut out);
        before = Some(value);
    }
    out
}

fn sprintln(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        value.print(&mut out);
    }
    out.push('\n');
    out
}

/// The arguments of an escaping function as one text.
fn joined(values: &[Value]) -> String {
    match values {
        [Value::Text(text)] => text.clone(),
        values => sprint(&values.iter().cloned().map(Value::printed).collect::<Vec<_>>()),
    }
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> Result<String, Fault> {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_ascii() || c.is_alphanumeric() => out.push(c),
            c => return Err(Fault::unsupported(format!("js of {c:?}"))),
        }
    }
    Ok(out)
}

fn url_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
