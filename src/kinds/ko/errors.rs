//! Why a tree cannot be built as ko would; what to do about each is decided in `error::ko`.

use super::template::TemplateError;
use crate::model::{ImageName, Invalid, Platform, Refusal};

/// At most this many directories or programs are named in one message.
const NAMED: usize = 8;

fn listed(paths: &[String]) -> String {
    some_of(&paths.iter().map(|path| shown_dir(path)).collect::<Vec<_>>())
}

fn some_of(names: &[String]) -> String {
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn no_yaml(path: &str, dir: bool) -> String {
    if dir {
        format!("{} has no *.yaml and no *.json", shown_dir(path))
    } else {
        format!("there is no {} in the tree", crate::kinds::errors::shown(path))
    }
}

/// A directory of the tree as `go` takes it.
pub(super) fn shown_dir(path: &str) -> String {
    let path = crate::kinds::errors::shown(path);
    if path.is_empty() { ".".to_owned() } else { format!("./{path}") }
}

#[derive(Debug, thiserror::Error)]
pub enum KoError {
    #[error("{file}:{line}:{column}: {problem}")]
    Config { file: String, line: u64, column: u64, problem: String },
    #[error("{place}: there is no {path} in the tree")]
    NoConfig { place: String, path: String },
    #[error("{place}: {cause}")]
    Template { place: String, cause: TemplateError },
    #[error("{place}: {flag:?} is refused: it would have every tool of the build run another program")]
    ToolExec { place: String, flag: String },
    #[error("{file}:{line}: {problem}")]
    Module { file: String, line: u64, problem: String },
    #[error("{place} needs a Go module, and there is no go.mod in {} or above", shown_dir(.dir))]
    NoModule { place: String, dir: String },
    #[error("no directory of the tree holds a main package for {platform}")]
    NoMain { platform: Platform },
    #[error("the tree has {} main packages: {}", .dirs.len(), listed(.dirs))]
    SeveralMains { dirs: Vec<String> },
    #[error("{place}: {} holds no main package for {platform}: {why}", shown_dir(.dir))]
    NotMain { place: String, dir: String, platform: Platform, why: String },
    #[error("the tree has more than {limit} directories, too many to look for main packages")]
    TooManyDirs { limit: usize },
    #[error("{place}: the image {image:?} is refused: {}", .refusal.policy())]
    Image { place: String, image: String, refusal: Refusal },
    #[error("{place}: {:?} is not a valid {}", .problem.given, .problem.what)]
    Value { place: String, problem: Invalid },
    #[error("{found} main packages are to be built at once; {limit} are the most")]
    TooManyImages { found: usize, limit: usize },
    #[error("{import_path} makes no image name: {problem}")]
    Name { import_path: String, problem: Invalid },
    #[error(
        "{place}: ko_config.destinations: {image} is neither {own} nor below it, and not in push_destinations of this server"
    )]
    Destination { place: String, image: ImageName, own: ImageName },
    #[error("{place}: ko_config.resolve: {}", no_yaml(.path, *.dir))]
    NoYaml { place: String, path: String, dir: bool },
    #[error("ko_config.resolve: more than {limit} {what}")]
    TooMuchYaml { limit: usize, what: &'static str },
    #[error("{file}:{line}: {reference} is not built by this push, which builds {}", some_of(.built))]
    NotBuilt { file: String, line: usize, reference: String, built: Vec<String> },
    #[error(transparent)]
    Resolve(#[from] super::resolve::ResolveError),
    #[error("{place}: {platform} cannot be built: {why}")]
    Platform { place: String, platform: Platform, why: &'static str },
}
