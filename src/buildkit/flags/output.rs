//! `--output`, `--cache-from`, `--cache-to`.

use std::collections::BTreeMap;

use super::{FlagError, fields, pair, truth, wrong};
use crate::buildkit::solve::{CacheEntry, Exporter};

/// What an `--output` says: an exporter, and where the session puts what it sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// As it was typed: `registry` is an exporter of its own here.
    pub kind: String,
    pub attrs: BTreeMap<String, String>,
    /// `dest`: a path, or `-` for standard output.
    pub destination: Option<String>,
}

/// What a destination must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Directory,
    /// One stream, standard output unless named.
    Stream,
    /// Nothing comes to us.
    None,
}

impl Output {
    /// What this output sends to us.
    pub fn sends(&self) -> Destination {
        let tar = self.attrs.get("tar").and_then(|tar| truth(tar)).unwrap_or(true);
        match self.kind.as_str() {
            "local" => Destination::Directory,
            "tar" => Destination::Stream,
            "oci" | "docker" if tar => Destination::Stream,
            "oci" | "docker" => Destination::Directory,
            _ => Destination::None,
        }
    }

    /// The exporter as the daemon knows it; none for `cacheonly`, which exports nothing.
    pub fn exporter(&self) -> Option<Exporter> {
        let mut exporter = Exporter { kind: self.kind.clone(), attrs: self.attrs.clone() };
        match self.kind.as_str() {
            "cacheonly" => return None,
            "registry" => {
                "image".clone_into(&mut exporter.kind);
                exporter.attrs.insert("push".to_owned(), "true".to_owned());
                // what is only pushed need not be unpacked
                exporter.attrs.entry("unpack".to_owned()).or_insert_with(|| "false".to_owned());
            }
            _ => {}
        }
        Some(exporter)
    }
}

/// `--output DIRECTORY`, `--output -`, `--output type=image,name=…,push=true`.
pub fn output(given: &str) -> Result<Output, FlagError> {
    const FLAG: &str = "--output";
    let fields = fields(FLAG, given)?;
    if !given.starts_with("type=") && matches!(&fields[..], [only] if only == given) {
        let kind = if given == "-" { "tar" } else { "local" }.to_owned();
        return Ok(Output { kind, attrs: BTreeMap::new(), destination: Some(given.to_owned()) });
    }
    let mut output = Output::default();
    for field in &fields {
        let (name, value) = pair(FLAG, given, field)?;
        let name = name.to_lowercase();
        match name.trim() {
            "type" => value.clone_into(&mut output.kind),
            "dest" => output.destination = Some(value.to_owned()).filter(|dest| !dest.is_empty()),
            name => drop(output.attrs.insert(name.to_owned(), value.to_owned())),
        }
    }
    if output.kind.is_empty() {
        return Err(wrong(
            FLAG,
            given,
            "say what: type=image, registry, local, tar, oci, docker or cacheonly",
        ));
    }
    Ok(output)
}

/// Whether what the output names can be: a directory exporter needs one, and it cannot be standard output.
impl Output {
    pub fn check(&self) -> Result<(), FlagError> {
        let shown = || format!("type={}", self.kind);
        match (self.sends(), self.destination.as_deref()) {
            (Destination::Directory, None) => Err(wrong("--output", &shown(), "it needs dest=DIRECTORY")),
            (Destination::Directory, Some("-")) => Err(wrong(
                "--output",
                &shown(),
                "a directory cannot go to standard output: say dest=DIRECTORY",
            )),
            _ => Ok(()),
        }
    }
}

/// `--cache-from`, `--cache-to`: images (`NAME,NAME`), or one entry, `type=local,dest=DIR`.
pub fn cache(flag: &'static str, given: &str) -> Result<Vec<CacheEntry>, FlagError> {
    let fields = fields(flag, given)?;
    if !given.contains('=') {
        if fields.iter().any(String::is_empty) {
            return Err(wrong(flag, given, "a name is empty"));
        }
        return Ok(fields.iter().map(|name| CacheEntry::registry(name)).collect());
    }
    let mut entry = CacheEntry::default();
    for field in &fields {
        let (name, value) = pair(flag, given, field)?;
        match name.to_lowercase().as_str() {
            "type" => value.clone_into(&mut entry.kind),
            name => drop(entry.attrs.insert(name.to_owned(), value.to_owned())),
        }
    }
    match entry.kind.is_empty() {
        true => Err(wrong(flag, given, "say which: type=registry, local, inline, gha, s3 or azblob")),
        false => Ok(vec![entry]),
    }
}
