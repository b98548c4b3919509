//! The values of build flags, as `docker buildx build` takes them, read into types.
//!
//! Syntax and meaning are buildx's (v0.36, util/buildflags and commands/build.go); tests/oracle/buildx made the table that
//! they are compared with. Nothing here touches files, environment or clock: `src=FILE` is a name and no more. Every error
//! names the flag, what was given, and what it should look like.

mod annotation;
mod context;
mod limits;
mod output;
mod session;

use std::collections::BTreeMap;

pub use annotation::annotation;
pub use context::{Context, build_context, is_remote};
pub use limits::{add_host, bytes, resource, shm_size, ulimit};
pub use output::{Destination, Output, cache, output};
pub use session::{AllowedFlag, Secret, SecretFrom, Ssh, allow, secret, ssh};

use super::csv;
use super::gateway::Call;
use super::image_name;
use super::solve::{Attestation, Platform};

/// Why a flag's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {given:?}: {reason}")]
pub struct FlagError {
    /// As it is typed, `--output`.
    pub flag: &'static str,
    pub given: String,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

fn wrong(flag: &'static str, given: &str, reason: impl Into<String>) -> FlagError {
    FlagError { flag, given: given.to_owned(), reason: reason.into() }
}

fn fields(flag: &'static str, given: &str) -> Result<Vec<String>, FlagError> {
    csv::fields(given).map_err(|e| wrong(flag, given, e.to_string()))
}

fn pair<'a>(flag: &'static str, given: &str, field: &'a str) -> Result<(&'a str, &'a str), FlagError> {
    field.split_once('=').ok_or_else(|| wrong(flag, given, format!("{field:?} is no NAME=VALUE")))
}

/// What Go's `strconv.ParseBool` takes.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `--attest type=sbom,generator=IMAGE`.
pub fn attest(given: &str) -> Result<Attestation, FlagError> {
    attestation("--attest", given, given)
}

/// `--provenance true`, `false`, or attributes: `mode=max,builder-id=URL`.
pub fn provenance(given: &str) -> Result<Attestation, FlagError> {
    shorthand("--provenance", "provenance", given)
}

/// `--sbom true`, `false`, or attributes: `generator=IMAGE`.
pub fn sbom(given: &str) -> Result<Attestation, FlagError> {
    shorthand("--sbom", "sbom", given)
}

fn shorthand(flag: &'static str, kind: &str, given: &str) -> Result<Attestation, FlagError> {
    match truth(given) {
        Some(wanted) => Ok(Attestation { kind: kind.to_owned(), disabled: !wanted, attrs: BTreeMap::new() }),
        None if given.is_empty() => Err(wrong(flag, given, "say true, false, or NAME=VALUE attributes")),
        None => attestation(flag, given, &format!("type={kind},{given}")),
    }
}

fn attestation(flag: &'static str, given: &str, record: &str) -> Result<Attestation, FlagError> {
    let mut attestation = Attestation::default();
    for field in fields(flag, record).map_err(|e| wrong(flag, given, e.reason))? {
        let (name, value) = pair(flag, given, &field)?;
        match name.to_lowercase().trim() {
            "type" => value.clone_into(&mut attestation.kind),
            "disabled" => {
                let read = truth(value).ok_or_else(|| wrong(flag, given, "disabled is true or false"))?;
                attestation.disabled = read;
            }
            _ => drop(attestation.attrs.insert(name.to_owned(), value.to_owned())),
        }
    }
    match attestation.kind.is_empty() {
        true => Err(wrong(flag, given, "say which: type=provenance or type=sbom")),
        false => Ok(attestation),
    }
}

/// `--platform linux/amd64,linux/arm64`; `local` is the platform of this program.
pub fn platforms(given: &str) -> Result<Vec<Platform>, FlagError> {
    let one = |text: &str| match text.eq_ignore_ascii_case("local") {
        true => Ok(Platform::host()),
        false => text.parse().map_err(|e| wrong("--platform", given, format!("{e}"))),
    };
    given.split(',').map(one).collect()
}

/// `--tag NAME[:TAG]`, as it was given.
pub fn tag(given: &str) -> Result<String, FlagError> {
    full_name(given).map(|_| given.to_owned())
}

/// An image's name with nothing left out: host, path, and a tag or a digest.
pub fn full_name(given: &str) -> Result<String, FlagError> {
    let reason = "it is no image's name: write [HOST[:PORT]/]PATH[:TAG] in lower case";
    image_name::full(given).ok_or_else(|| wrong("--tag", given, reason))
}

/// `--call METHOD[,format=json][,ignorestatus=BOOL]`. The method `build` is no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFlag {
    pub call: Call,
    /// `json`, or empty for text.
    pub format: String,
    /// Whether the frontend's status code is not the command's.
    pub ignore_status: bool,
}

/// `--call check,format=json`; none for `build`, which is what happens without it.
pub fn call(given: &str) -> Result<Option<CallFlag>, FlagError> {
    const FLAG: &str = "--call";
    let mut name = None;
    let (mut format, mut ignore_status) = (String::new(), false);
    for field in fields(FLAG, given)? {
        match field.split_once('=') {
            Some(("format", value)) => value.clone_into(&mut format),
            Some(("ignorestatus", value)) => {
                let reason = "ignorestatus is true or false";
                ignore_status = truth(value).ok_or_else(|| wrong(FLAG, given, reason))?;
            }
            Some((other, _)) => {
                let reason = format!("{other:?} is no option: there are format and ignorestatus");
                return Err(wrong(FLAG, given, reason));
            }
            None if name.is_some() => return Err(wrong(FLAG, given, "name one method")),
            None => name = Some(field),
        }
    }
    let name = name.ok_or_else(|| wrong(FLAG, given, "name a method: check, outline, targets"))?;
    let call = match name.as_str() {
        "build" => return Ok(None),
        "check" | "lint" => Call::Check,
        "outline" => Call::Outline,
        "targets" => Call::Targets,
        "subrequests.describe" => Call::Describe,
        other => Call::Other(other.to_owned()),
    };
    Ok(Some(CallFlag { call, format, ignore_status }))
}
