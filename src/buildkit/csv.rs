//! One record of comma-separated values, as BuildKit's clients and frontends write attributes of attributes.
//!
//! Quotes stand around a whole field, doubled inside it. Not for files: a record is one line.

use std::collections::BTreeMap;

/// Why a record is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    #[error("it is empty")]
    Empty,
    #[error("a quote stands inside a field: put the whole field in quotes, and double those inside it")]
    Quote,
    #[error("a quote is never closed")]
    Open,
}

/// The fields of a record. A newline at its end is passed over.
pub(super) fn fields(record: &str) -> Result<Vec<String>, CsvError> {
    let record = record.strip_suffix('\n').unwrap_or(record);
    let mut rest = record.strip_suffix('\r').filter(|r| r.len() + 1 == record.len()).unwrap_or(record);
    if rest.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(CsvError::Quote);
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let (field, more) = unquote(quoted)?;
        fields.push(field);
        match more.strip_prefix(',') {
            Some(more) => rest = more,
            None if more.is_empty() => return Ok(fields),
            None => return Err(CsvError::Quote),
        }
    }
}

/// A field up to its closing quote, and what follows.
fn unquote(mut rest: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    loop {
        let (before, after) = rest.split_once('"').ok_or(CsvError::Open)?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, after)),
        }
    }
}

/// `name=value` pairs as one record.
pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let field = |(name, value): (&str, &str)| {
        let pair = format!("{name}={value}");
        match pair.contains([',', '"']) {
            true => format!("\"{}\"", pair.replace('"', "\"\"")),
            false => pair,
        }
    };
    pairs.into_iter().map(field).collect::<Vec<String>>().join(",")
}

/// The pairs of a map as one record, in the order of their names.
pub(super) fn map(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        for values in [
            vec![("a", "1")],
            vec![("a", ""), ("b", "x=y")],
            vec![("a", "1,2"), ("b", "say \"no\""), ("c", "3")],
            vec![("a", "\""), ("b", ",")],
        ] {
            let record = pairs(values.clone());
            let want: Vec<String> = values.iter().map(|(n, v)| format!("{n}={v}")).collect();
            assert_eq!(fields(&record).unwrap(), want, "{record}");
        }
        assert_eq!(fields("a,,b\r\n").unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn what_is_no_record() {
        for (record, error) in [
            ("", CsvError::Empty),
            ("\n", CsvError::Empty),
            ("a\"b", CsvError::Quote),
            ("\"a", CsvError::Open),
            ("\"a\"b", CsvError::Quote),
        ] {
            assert_eq!(fields(record), Err(error), "{record}");
        }
    }
}
