//! Files and directories that outputs name, and the environment: looked at before a build, so that a mistake is told
//! before anything is built.

use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use super::super::flags::{FlagError, Output};
use super::super::session::filesend::{DirExport, Export};

/// What is wrong with an output.
pub(super) fn refused(output: &Output, reason: impl Into<String>) -> FlagError {
    let destination = output.destination.iter().map(|dest| format!(",dest={dest}"));
    let given = format!("type={}{}", output.kind, destination.collect::<String>());
    FlagError { flag: "--output", given, reason: reason.into() }
}

/// A directory of an export, which may be deleted in only where that is safe or allowed.
pub(super) fn directory(output: &Output, path: &str, anywhere: bool) -> Result<Export, FlagError> {
    let path = Path::new(path);
    if path.exists() && !path.is_dir() {
        return Err(refused(output, "there is a file in the directory's place"));
    }
    let mode = output.attrs.get("mode").map(|mode| mode.trim().to_lowercase()).unwrap_or_default();
    let delete = match mode.as_str() {
        "" | "copy" => false,
        "delete" => true,
        other => {
            return Err(refused(output, format!("{other:?} is no mode: there are copy and delete")));
        }
    };
    if delete && !anywhere && !is_below_working_directory(path) {
        let reason = "mode=delete deletes only below the working directory, unless --allow buildx.local.delete says so";
        return Err(refused(output, reason));
    }
    Ok(Export::Dir(DirExport { path: path.to_owned(), delete, limit_bytes: None }))
}

pub(super) fn file(output: &Output, path: &str) -> Result<Export, FlagError> {
    let path = Path::new(path);
    match path.is_dir() {
        true => Err(refused(output, "there is a directory in the file's place")),
        false => Ok(Export::file(path)),
    }
}

/// Whether `path` lies in the working directory and is not itself, with every link followed.
fn is_below_working_directory(path: &Path) -> bool {
    let Ok(here) = std::env::current_dir().and_then(|dir| dir.canonicalize()) else { return false };
    let path = followed(&here.join(path));
    path.is_some_and(|path| path != here && path.starts_with(&here))
}

/// `path` with the links followed in as much of it as exists. None where the rest of it would climb.
fn followed(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let (existing, real) = existing?;
    let rest = path.strip_prefix(existing).ok()?;
    rest.components().all(|part| matches!(part, Component::Normal(_))).then(|| real.join(rest))
}

pub(super) fn is_socket(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// What a directory is called, wherever it stands.
pub(super) fn last_name(path: &str) -> Option<String> {
    let absolute = std::path::absolute(path).ok()?;
    Some(absolute.file_name()?.to_string_lossy().into_owned())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the flag names the variable, or stands for one that all clients read"
)]
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
