//! Go's text/template, as far as flags and ldflags of `.ko.yaml` use it.
//!
//! What is taken gives Go's bytes, letter for letter; what is not (`range`, `define`, `template`, `block`, `break`,
//! `continue`, `call`, some of printf's verbs) is refused by name, never guessed at. A missing key is an error, as ko sets it. Values
//! come in as data. Every text that is made is bounded. Source of the rules: text/template, text/template/parse and fmt
//! of Go 1.26; `tests/oracle/ko` holds them to the letter.

mod evaluate;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

pub use value::Value;

/// Above every template that is written by hand.
const LIMIT_TEMPLATE_BYTES: usize = 64 * 1024;
/// What a template may make: a command line takes about this much.
const LIMIT_TEXT_BYTES: usize = 128 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the template {template:?} cannot be read: {problem}")]
    Syntax { template: String, problem: String },
    /// Go takes it, this does not.
    #[error("the template {template:?} uses {what}, which is not supported here")]
    Unsupported { template: String, what: String },
    #[error("the template {template:?} has no value: {problem}")]
    Value { template: String, problem: String },
}

/// A fault without the template's own text.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Syntax(String),
    Unsupported(String),
    Value(String),
}

impl Fault {
    fn syntax(problem: impl Into<String>) -> Self {
        Self::Syntax(problem.into())
    }

    fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(what.into())
    }

    fn value(problem: impl Into<String>) -> Self {
        Self::Value(problem.into())
    }

    fn within(self, template: &str) -> TemplateError {
        let template = template.chars().take(200).collect();
        match self {
            Self::Syntax(problem) => TemplateError::Syntax { template, problem },
            Self::Unsupported(what) => TemplateError::Unsupported { template, what },
            Self::Value(problem) => TemplateError::Value { template, problem },
        }
    }
}

/// What `template` makes of `data`.
pub fn render(template: &str, data: &Value) -> Result<String, TemplateError> {
    // most flags are none
    if !template.contains("{{") {
        return Ok(template.to_owned());
    }
    let too_long = || Fault::syntax(format!("it has more than {LIMIT_TEMPLATE_BYTES} bytes"));
    let made = if template.len() > LIMIT_TEMPLATE_BYTES { Err(too_long()) } else { lex::tokens(template) }
        .and_then(parse::parse)
        .and_then(|nodes| evaluate::run(&nodes, data));
    made.map_err(|fault| fault.within(template))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzzed {
    use super::tests::data;
    use super::*;

    #[test]
    fn fuzzed_templates_come_to_an_end() {
        let corpus: [&[u8]; 4] = [
            b"-X main.v={{.Git.Tag}} {{- if eq .Env.NAME \"a\" }}b{{else}}{{printf \"%5d|%q\" .Timestamp .Date}}{{end}}",
            b"{{$x := index .Env \"NAME\"}}{{with $x | len}}{{.}}{{end -}} x {{/* c */}}",
            b"{{slice .Git.FullCommit 0 7 | html | urlquery}}{{and (or 1 0) (not false)}}",
            b"{{'\\u00e9'}}{{0x1F}}{{1.5e3}}{{`raw`}}{{\"q\\x41\\n\"}}",
        ];
        let words: [&[u8]; 10] = [b"{{", b"}}", b"-", b"(", b")", b"|", b"\"", b" ", b"\\", b"\xc3\xa9"];
        crate::fuzz::run("ko templates", 20_000, &corpus, &words, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return false };
            let made = render(text, &data());
            if let Ok(made) = &made {
                assert!(made.len() <= LIMIT_TEXT_BYTES.max(text.len()));
            }
            made.is_ok()
        });
    }
}
