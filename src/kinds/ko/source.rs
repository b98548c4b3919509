//! Go files and the packages that directories of them make.
//!
//! Only as much of a file is read as decides: constraints, the package clause, whether it needs cgo. Source: go/build.

use super::constraint::Target;
use crate::model::{EntryKind, Tree, TreeError};

/// A file above this is not looked into; generated ones can be larger, and stand beside others.
const LIMIT_FILE_BYTES: u64 = 1024 * 1024;

/// What a directory holds for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Package {
    Named(String),
    /// No file that is built; the text says why, as a clause.
    None(String),
    /// Files that `go` refuses.
    Broken(String),
}

/// The package in `dir`. `whole`: all of its files are looked into, not only as many as name it.
pub fn package(tree: &dyn Tree, dir: &str, target: &Target, whole: bool) -> Result<Package, TreeError> {
    let entries = tree.list(dir)?;
    let is_source =
        |name: &str| name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with(['_', '.']);
    let all: Vec<&str> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }) && is_source(&entry.name))
        .map(|entry| entry.name.as_str())
        .collect();
    let mut named: Option<(String, &str)> = None;
    for name in all.iter().copied().filter(|name| target.takes_name(name)) {
        let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        let bytes = match tree.read(&path, LIMIT_FILE_BYTES) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(TreeError::TooLarge { .. } | TreeError::NotAFile { .. } | TreeError::Symlink { .. }) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let found = match source(&String::from_utf8_lossy(&bytes), target) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(problem) => return Ok(Package::Broken(format!("{name}: {problem}"))),
        };
        match &named {
            Some((known, file)) if *known != found => {
                return Ok(Package::Broken(format!(
                    "packages {known} ({file}) and {found} ({name}) in one directory"
                )));
            }
            _ => named = Some((found, name)),
        }
        if !whole {
            break;
        }
    }
    Ok(match named {
        Some((name, _)) => Package::Named(name),
        None if all.is_empty() => Package::None("there are no Go files in it".to_owned()),
        None => {
            Package::None(format!("build constraints leave out all of its Go files for {}", target.platform))
        }
    })
}

/// The name of the package that a file is part of; none where it is not built for the target.
fn source(content: &str, target: &Target) -> Result<Option<String>, &'static str> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    if !target.takes_header(content)? {
        return Ok(None);
    }
    let mut words = Words { rest: content };
    if words.next()? != Some("package") {
        return Err("expected 'package'");
    }
    let name = match words.next()? {
        Some(name) if name.starts_with(|c: char| c == '_' || c.is_alphabetic()) => name.to_owned(),
        _ => return Err("expected a package's name"),
    };
    if words.ends_statement()? {
        if !target.cgo && words.imports_c()? || name == "documentation" {
            return Ok(None);
        }
        return Ok(Some(name));
    }
    Err("expected ';' after the package clause")
}

/// The words and signs of the beginning of a Go file, without its comments.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// Skips spaces and comments; whether a line ended there.
    fn skip(&mut self) -> Result<bool, &'static str> {
        let mut line_ended = false;
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
            line_ended |= self.rest.get(..self.rest.len() - trimmed.len()).unwrap_or_default().contains('\n');
            self.rest = trimmed;
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment.find('\n').and_then(|at| comment.get(at..)).unwrap_or_default();
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let (inside, after) = comment.split_once("*/").ok_or("comment not terminated")?;
                line_ended |= inside.contains('\n');
                self.rest = after;
            } else {
                return Ok(line_ended);
            }
        }
    }

    /// The next word, text in quotes, or sign; none at the end.
    fn next(&mut self) -> Result<Option<&'a str>, &'static str> {
        self.skip()?;
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let end = match first {
            '"' | '`' => {
                let inner = self.rest.get(1..).unwrap_or_default();
                let end = inner.find(first).ok_or("string literal not terminated")?;
                end + 2
            }
            c if c == '_' || c.is_alphanumeric() => {
                self.rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(self.rest.len())
            }
            '\0' => return Err("illegal character NUL"),
            c => c.len_utf8(),
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Some(word))
    }

    /// Whether a statement ends here: at a line's end, at a `;`, at the end of the file.
    fn ends_statement(&mut self) -> Result<bool, &'static str> {
        if self.skip()? || self.rest.is_empty() {
            return Ok(true);
        }
        match self.rest.strip_prefix(';') {
            Some(rest) => {
                self.rest = rest;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Whether one of the imports is `"C"`.
    fn imports_c(&mut self) -> Result<bool, &'static str> {
        let is_text = |word: &str| word.starts_with(['"', '`']);
        let is_c = |word: &str| word == "\"C\"" || word == "`C`";
        loop {
            let before = self.rest;
            match self.next()? {
                Some(";") => {}
                Some("import") => match self.next()? {
                    Some("(") => loop {
                        match self.next()? {
                            Some(")") => break,
                            Some(word) if is_c(word) => return Ok(true),
                            Some(_) => {}
                            None => return Err("unterminated import"),
                        }
                    },
                    Some(word) if is_c(word) => return Ok(true),
                    Some(word) if is_text(word) => {}
                    // a name before the path
                    Some(_) => match self.next()? {
                        Some(word) if is_c(word) => return Ok(true),
                        Some(word) if is_text(word) => {}
                        _ => return Err("an import's path is a text in quotes"),
                    },
                    None => return Err("an import without a path"),
                },
                _ => {
                    self.rest = before;
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::MemoryTree;

    /// `tests/oracle/ko` wrote what go/build makes of each; whether a file's rest can be read is not looked at here.
    #[test]
    fn packages_are_what_go_finds() {
        let table = include_str!("../../../tests/oracle/ko/sources.jsonl");
        let mut wrong = Vec::new();
        for line in table.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let tags = case["tags"].as_array().cloned().unwrap_or_default();
            let target = Target {
                platform: case["platform"].as_str().unwrap().parse().unwrap(),
                cgo: case["cgo"].as_bool().unwrap(),
                tags: tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect(),
                minor: 26,
            };
            let mut tree = MemoryTree::default();
            for (name, text) in case["files"].as_object().unwrap() {
                tree = tree.with(name, text.as_str().unwrap());
            }
            let expect = match (case["name"].as_str().unwrap(), case["error"].as_bool()) {
                (_, Some(true)) => "error",
                ("", _) => "none",
                (name, _) => name,
            };
            let found = match package(&tree, "", &target, true).unwrap() {
                Package::Named(name) => name,
                Package::None(_) => "none".to_owned(),
                Package::Broken(_) => "error".to_owned(),
            };
            if found != expect {
                wrong.push(format!("{found} where Go says {expect}: {} {}", case["platform"], case["files"]));
            }
        }
        assert!(table.lines().count() > 300);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
