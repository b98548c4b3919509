//! `ko://` references in Kubernetes YAML, put in the images' place as `ko resolve` does: every string of a document that begins
//! so, as a value, in a list or as a key, in any of several documents. Pure: who builds the images is the caller's affair.
//!
//! What is no reference stays byte for byte: comments, order, quotes, indentation (ko writes the whole file anew). What comes
//! out is read once more and must say what went in, but for the references.

mod document;
mod selector;

use std::collections::BTreeMap;
use std::ops::Range;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

pub use selector::{Selector, SelectorError};

/// What a reference begins with.
pub const SCHEME: &str = "ko://";
/// The largest file that is resolved.
pub const LIMIT_BYTES: usize = 8 << 20;

/// Why a file is not resolved. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("{file} is larger than {limit} bytes")]
    TooLarge { file: String, limit: usize },
    #[error("{file}:{line}:{column}: {cause}")]
    Syntax { file: String, line: usize, column: usize, cause: String },
    #[error("{file}:{line}: a control character stands here, and YAML has none")]
    Unprintable { file: String, line: usize },
    #[error("{file}:{line}:{column}: {reference:?} names no Go package: write ko:// and an import path")]
    Reference { file: String, line: usize, column: usize, reference: String },
    #[error(
        "{file}:{line}: this is no Kubernetes object, which has apiVersion and kind; a selector chooses among those"
    )]
    NoObject { file: String, line: usize },
    #[error(
        "{file}:{line}: a selector cannot narrow a List that is written in one line or without dashes of its own; give each object a document"
    )]
    List { file: String, line: usize },
    #[error("{file}:{line}:{column}: no image was built for {reference}")]
    Unresolved { file: String, line: usize, column: usize, reference: String },
    #[error("{file}: the references cannot be replaced where they stand")]
    Misplaced { file: String },
}

/// A `ko://` string and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With `ko://`, without the space around it.
    pub text: String,
    pub line: usize,
    pub column: usize,
    /// Where the parser says that it begins.
    at: usize,
    /// What is replaced.
    span: Range<usize>,
    style: ScalarStyle,
    /// Of a block of text, what follows its `|` in that line.
    tail: String,
}

impl Reference {
    /// What ko would build.
    pub fn import_path(&self) -> &str {
        self.text.strip_prefix(SCHEME).unwrap_or(&self.text)
    }
}

/// A file with its references.
#[derive(Debug, Clone)]
pub struct Manifest {
    file: String,
    text: String,
    references: Vec<Reference>,
    /// What the selector leaves of the text, in order; each begins a document or goes on with one.
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    range: Range<usize>,
    /// Begins a document that has no `---` of its own.
    bare: bool,
}

impl Manifest {
    /// Reads a file, called `file` in messages.
    pub fn read(file: &str, text: &str, selector: Option<&Selector>) -> Result<Self, ResolveError> {
        if text.len() > LIMIT_BYTES {
            return Err(ResolveError::TooLarge { file: file.to_owned(), limit: LIMIT_BYTES });
        }
        if let Some(at) = text.find(is_unprintable) {
            let above = text.get(..at).unwrap_or_default();
            let line = 1 + above.bytes().filter(|byte| *byte == b'\n').count();
            return Err(ResolveError::Unprintable { file: file.to_owned(), line });
        }
        let kept = match selector {
            None => vec![Kept { range: 0..text.len(), bare: false }],
            Some(selector) => {
                let events = events(file, text).collect::<Result<Vec<_>, _>>()?;
                document::kept(file, text, &events, selector)?
            }
        };
        let mut references = Vec::new();
        // one at a time: a small text may have very many
        for event in events(file, text) {
            let (event, span) = event?;
            let Event::Scalar(value, style, _, tag) = &event else { continue };
            let is_text =
                tag.as_deref().is_none_or(|tag| tag.is_yaml_core_schema_tag("str") || tag.suffix() == "!");
            if !is_text || !value.starts_with(SCHEME) {
                continue;
            }
            let range = bytes(&span);
            if !kept.iter().any(|kept| kept.range.contains(&range.start)) {
                continue;
            }
            let (line, column) = (span.start.line(), span.start.col() + 1);
            let reference = value.trim().to_owned();
            let path = reference.strip_prefix(SCHEME).unwrap_or_default();
            if path.is_empty() || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(ResolveError::Reference { file: file.to_owned(), line, column, reference });
            }
            let mut found = Reference {
                text: reference,
                line,
                column,
                at: range.start,
                span: range,
                style: *style,
                tail: String::new(),
            };
            if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                block(text, &mut found).ok_or_else(|| ResolveError::Misplaced { file: file.to_owned() })?;
            }
            references.push(found);
        }
        Ok(Self { file: file.to_owned(), text: text.to_owned(), references, kept })
    }

    /// Every place, in order; one program may stand in several.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The text with `images` (`ko://…` -> what the image is called) in the references' place. Ends as ko ends each file, so
    /// that several follow each other; nothing where a selector leaves nothing.
    pub fn written(&self, images: &BTreeMap<String, String>) -> Result<String, ResolveError> {
        let mut out = String::with_capacity(self.text.len() + 64 * self.references.len());
        for kept in &self.kept {
            if kept.bare && !out.is_empty() {
                out.push_str("---\n");
            }
            let mut at = kept.range.start;
            for reference in self.references.iter().filter(|found| kept.range.contains(&found.span.start)) {
                let image = images.get(&reference.text).ok_or_else(|| self.unresolved(reference))?;
                out.push_str(self.text.get(at..reference.span.start).unwrap_or_default());
                out.push_str(&in_place(reference, image));
                at = reference.span.end;
            }
            out.push_str(self.text.get(at..kept.range.end).unwrap_or_default());
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
        }
        self.verify(&out, images)?;
        if !out.is_empty() || self.kept.iter().any(|kept| !kept.range.is_empty()) {
            out.push_str("---\n");
        }
        Ok(out)
    }

    fn unresolved(&self, reference: &Reference) -> ResolveError {
        ResolveError::Unresolved {
            file: self.file.clone(),
            line: reference.line,
            column: reference.column,
            reference: reference.text.clone(),
        }
    }

    /// Whether what was written says the same, but for the references.
    fn verify(&self, written: &str, images: &BTreeMap<String, String>) -> Result<(), ResolveError> {
        let misplaced = || ResolveError::Misplaced { file: self.file.clone() };
        let mut after = scalars(&self.file, written);
        for found in scalars(&self.file, &self.text) {
            let (value, at) = found?;
            if !self.kept.iter().any(|kept| kept.range.contains(&at)) {
                continue;
            }
            let replaced = self.references.binary_search_by_key(&at, |found| found.at).is_ok();
            let image = images.get(value.trim()).filter(|_| replaced);
            let expected = image.map_or(value.as_str(), String::as_str);
            match after.next() {
                Some(Ok((value, _))) if value == expected => {}
                _ => return Err(misplaced()),
            }
        }
        if after.next().is_none() { Ok(()) } else { Err(misplaced()) }
    }
}

/// What YAML does not allow in a file, and a terminal would obey.
fn is_unprintable(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')
}

/// Every scalar that stands in the text, with the place where it begins; an empty value has none.
fn scalars<'t>(
    file: &'t str,
    text: &'t str,
) -> impl Iterator<Item = Result<(String, usize), ResolveError>> + 't {
    events(file, text).filter_map(|event| match event {
        Err(error) => Some(Err(error)),
        Ok((Event::Scalar(value, ..), span)) if !bytes(&span).is_empty() => {
            Some(Ok((value.into_owned(), bytes(&span).start)))
        }
        Ok(_) => None,
    })
}

/// A block's place is its content's: what is replaced begins with the `|` or `>` of the line before.
fn block(text: &str, found: &mut Reference) -> Option<()> {
    let content = found.span.start;
    let above = text.get(..content)?.rfind('\n')?;
    let begin = text.get(..above)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(begin..above)?.trim_end_matches('\r');
    for (at, _) in line.match_indices(['|', '>']) {
        let indicators = line.get(at + 1..)?;
        let tail = indicators.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
        let comment = tail.trim_start();
        if comment.is_empty() || (comment.starts_with('#') && comment.len() < tail.len()) {
            found.span = begin + at..content + found.text.len();
            tail.clone_into(&mut found.tail);
            return Some(());
        }
    }
    None
}

/// The image as a scalar of the reference's style; a block of text becomes one line.
fn in_place(reference: &Reference, image: &str) -> String {
    let plain = image.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match reference.style {
        ScalarStyle::SingleQuoted => format!("'{image}'"),
        ScalarStyle::DoubleQuoted => format!("\"{image}\""),
        ScalarStyle::Plain if plain => image.to_owned(),
        ScalarStyle::Plain => format!("\"{image}\""),
        ScalarStyle::Literal | ScalarStyle::Folded => format!("\"{image}\"{}", reference.tail),
    }
}

/// The parser's events, up to the first error.
fn events<'t>(
    file: &'t str,
    text: &'t str,
) -> impl Iterator<Item = Result<(Event<'t>, Span), ResolveError>> + 't {
    let mut options = Options::default();
    options.set_emit_comments(false);
    Parser::new_from_str_with_options(text, options).map(|event| {
        event.map_err(|error| ResolveError::Syntax {
            file: file.to_owned(),
            line: error.marker().line(),
            column: error.marker().col() + 1,
            cause: error.info(),
        })
    })
}

fn bytes(span: &Span) -> Range<usize> {
    let offset = |marker: &granit_parser::Marker| marker.byte_offset().unwrap_or_default();
    offset(&span.start)..offset(&span.end)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzzed {
    use super::*;

    #[test]
    fn fuzzed_files_are_resolved_whole_or_refused() {
        let corpus: [&[u8]; 3] = [
            b"# c\na: ko://x.y/z # d\nl: [ko://x.y/z, 'ko://a.b/c', \"ko://d.e/f\"]\n? ko://x.y/z\n: &a ko://x.y/z\nb: *a\n",
            b"m: |\n  ko://x.y/z\nn: >-\n  ko://x.y/z\n---\n- !!str ko://x.y/z\n-   ko://x.y/z\n...\n",
            b"{\"a\": \"ko://x.y/z\", \"b\": [1, \"\\u006bo://x.y/z\"]}",
        ];
        let words: [&[u8]; 9] =
            [b"ko://", b"ko://x.y/z", b"'", b"\"", b"\n", b"---\n", b": ", b"|\n", b"\xef\xbb\xbf"];
        crate::fuzz::run("ko resolve", 4_000, &corpus, &words, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let Ok(manifest) = Manifest::read("f", text, None) else { return false };
            let images = manifest
                .references()
                .iter()
                .map(|found| (found.text.clone(), "127.0.0.1:5000/shop/z".to_owned()))
                .collect();
            let Ok(written) = manifest.written(&images) else { return false };
            let again = Manifest::read("f", &written, None).unwrap();
            assert_eq!(again.references(), [], "{written:?}");
            true
        });
    }
}
