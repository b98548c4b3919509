//! The Dockerfile and the ignore file that rules, as a graph of two files that goes with the request.
//!
//! A frontend without it asks the session for the Dockerfile's directory and for the context's ignore file, each a transfer
//! with a snapshot of its own in the daemon, for every build anew. Files in a graph are known by their content: the daemon
//! makes them once. Equal files give equal bytes. Must not say what the files mean: that is the frontend's.

use std::io::Read as _;

pub use crate::buildkit::llb::Definition;
use crate::buildkit::llb::{Constraints, FileActions, LlbError, MakeFile, State};
use crate::buildkit::session::filesync::{DirSource, SourceError, find};

/// The name under which the frontend looks for the graph, and for the directory where there is none.
pub const INPUT: &str = "dockerfile";
/// The name under which the frontend asks for the context.
pub const CONTEXT: &str = "context";
/// Where the frontend looks for what is left out of a context, beside the Dockerfile; that one rules where both are there.
const IGNORE_SUFFIX: &str = ".dockerignore";
const CONTEXT_IGNORE: &str = ".dockerignore";

/// Files with more bytes are asked for: the daemon attaches the graph to every warning and failure that names a line. Nor has
/// such an ignore file a line that the frontend refuses (64 KiB), which would then call it by a name that it does not have.
const LIMIT_BYTES: u64 = 32 * 1024;

/// The graph for the Dockerfile `name` of `beside` and the ignore file of it or of `context`. None where the frontend is to
/// ask, as it finds what cannot go with the request: a file that is no regular one, or too long, or whose content git does
/// not hold. Blocks.
pub fn definition(
    beside: &dyn DirSource,
    name: &str,
    context: &dyn DirSource,
) -> Result<Option<Definition>, DefinitionError> {
    let own_ignore = format!("{name}{IGNORE_SUFFIX}");
    let ignore = match read(beside, &own_ignore)? {
        Found::Nothing => read(context, CONTEXT_IGNORE)?,
        found => found,
    };
    let ignore = match ignore {
        // one without a byte could pass for none, and the context's be asked for
        Found::Nothing => b"\n".to_vec(),
        Found::Text(text) if text.is_empty() => b"\n".to_vec(),
        Found::Text(text) => text,
        Found::Other => return Ok(None),
    };
    let Found::Text(text) = read(beside, name)? else { return Ok(None) };
    // a time of its own would make every graph another one
    let files = FileActions::new()
        .mkfile(MakeFile::new(format!("/{name}"), 0o644, text).created(0))
        .mkfile(MakeFile::new(format!("/{own_ignore}"), 0o644, ignore).created(0));
    let named = Constraints::new().custom_name(format!("[internal] load build definition from {name}"));
    Ok(Some(State::scratch().file(files, named).marshal(&Constraints::new())?))
}

#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("describing the Dockerfile to BuildKit: {0}")]
    Llb(#[from] LlbError),
}

enum Found {
    Nothing,
    Text(Vec<u8>),
    Other,
}

fn read(dir: &dyn DirSource, path: &str) -> Result<Found, SourceError> {
    let entries = dir.entries()?;
    let Some(entry) = find(&entries, path.as_bytes()).and_then(|at| entries.get(at)) else {
        return Ok(Found::Nothing);
    };
    if !entry.is_regular() || entry.missing.is_some() || entry.size > LIMIT_BYTES {
        return Ok(Found::Other);
    }
    let mut text = Vec::new();
    let content = dir.open(entry)?;
    content
        .take(LIMIT_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|cause| SourceError::Read { path: path.to_owned(), cause: cause.to_string() })?;
    if text.len() as u64 == entry.size { Ok(Found::Text(text)) } else { Ok(Found::Other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::session::filesync::LocalDir;

    /// The two files of the graph for `Dockerfile` in `app`, of a tree with these files; none where it is asked for.
    fn made(files: &[(&str, &str)]) -> Option<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let open = |dir: &std::path::Path| LocalDir::open(dir).unwrap();
        let found = definition(&open(&dir.path().join("app")), "Dockerfile", &open(dir.path())).unwrap()?;
        let lines: serde_json::Value =
            serde_json::from_str(found.to_json_lines().unwrap().lines().next().unwrap()).unwrap();
        let file = |at: usize, path: &str| {
            let file = &lines["Op"]["Op"]["file"]["actions"][at]["Action"]["mkfile"];
            assert_eq!((file["path"].as_str(), file["mode"].as_u64()), (Some(path), Some(0o644)), "{lines}");
            let data = file["data"].as_str().unwrap();
            let data = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
            String::from_utf8(data).unwrap()
        };
        let name = lines["OpMetadata"]["description"]["llb.customname"].as_str().unwrap();
        assert_eq!(name, "[internal] load build definition from Dockerfile");
        Some((file(0, "/Dockerfile"), file(1, "/Dockerfile.dockerignore")))
    }

    #[test]
    fn the_ignore_file_beside_the_dockerfile_rules_then_the_contexts() {
        let both = |ignore: &str| Some(("FROM a\n".to_owned(), ignore.to_owned()));
        let dockerfile = ("app/Dockerfile", "FROM a\n");
        let (own, contexts) = (("app/Dockerfile.dockerignore", "own\n"), (".dockerignore", "contexts\n"));
        assert_eq!(made(&[dockerfile, own, contexts]), both("own\n"));
        assert_eq!(made(&[dockerfile, contexts]), both("contexts\n"));
        // one beside the Dockerfile of the context's name is not looked at
        assert_eq!(made(&[dockerfile, ("app/.dockerignore", "not this\n")]), both("\n"));
        // an empty one of its own still rules
        assert_eq!(made(&[dockerfile, ("app/Dockerfile.dockerignore", ""), contexts]), both("\n"));
    }

    #[test]
    fn what_cannot_go_with_the_request_is_asked_for() {
        let long = "x".repeat(usize::try_from(LIMIT_BYTES).unwrap() + 1);
        assert!(made(&[("app/other", "")]).is_none(), "no Dockerfile");
        assert!(made(&[("app/Dockerfile", &long)]).is_none());
        assert!(made(&[("app/Dockerfile", "FROM a\n"), (".dockerignore", &long)]).is_none());
        assert!(made(&[("app/Dockerfile/not-a-file", "")]).is_none());
    }

    #[test]
    fn equal_files_give_equal_bytes() {
        let graph = || {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("Dockerfile"), "FROM a\n").unwrap();
            let dir = LocalDir::open(dir.path()).unwrap();
            definition(&dir, "Dockerfile", &dir).unwrap().unwrap().to_bytes()
        };
        assert_eq!(graph(), graph());
    }
}
