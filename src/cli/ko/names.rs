//! What is built, and what it is called: import paths as they are given, platforms, pairs of names and values. Pure.

use std::collections::BTreeMap;

use crate::error::Report;
use crate::model::Platform;

/// `KEY=VALUE`s; a later one of the same key wins.
pub fn pairs(flag: &str, given: &[String]) -> Result<BTreeMap<String, String>, Report> {
    let pair = |text: &String| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let wrong = || Report::user(format!("{flag} {text:?} is not KEY=VALUE"));
        pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(wrong)
    };
    given.iter().map(pair).collect()
}

/// An import path as the tree below the project's root has it. `place`: where it stands, for messages; `below`: where the command
/// was given, from the root.
pub fn import_path(given: &str, place: &str, below: &str) -> Result<String, Report> {
    let path = given.strip_prefix("ko://").unwrap_or(given);
    if path.contains("...") {
        return Err(Report::user(format!("{place} names several packages"))
            .hint("name each main package: ko takes patterns only where they come to one"));
    }
    if path.starts_with('/') {
        return Err(Report::user(format!("{place} is an absolute path"))
            .hint("name main packages as ./cmd/app from here, or by their import paths"));
    }
    if !(path == "." || path == ".." || path.starts_with("./") || path.starts_with("../")) {
        return Ok(path.to_owned());
    }
    let mut parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => {
                return Err(Report::user(format!("{place} lies outside of the module"))
                    .hint("change to its own directory"));
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { format!("./{}", parts.join("/")) })
}

/// What a base's entry is compiled for.
pub fn platform(base: &crate::assemble::ko::BasePlatform) -> Result<Platform, Report> {
    let parts = [&base.os, &base.architecture, &base.variant];
    let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    Ok(parts.join("/").parse::<Platform>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_paths_are_told_from_the_root() {
        let of = |given: &str, below: &str| import_path(given, given, below).map_err(|report| report.message);
        for (given, below, path) in [
            (".", "", "."),
            ("./cmd/app/", "", "./cmd/app"),
            ("ko://example.com/shop/cmd/app", "cmd", "example.com/shop/cmd/app"),
            ("./app", "cmd", "./cmd/app"),
            ("..", "cmd", "."),
            ("../web", "cmd/app", "./cmd/web"),
            (".", "cmd/app", "./cmd/app"),
        ] {
            assert_eq!(of(given, below).unwrap(), path, "{given} in {below:?}");
        }
        for bad in ["./...", "../..", "/srv/app"] {
            assert!(of(bad, "cmd").is_err(), "{bad}");
        }
    }
}
