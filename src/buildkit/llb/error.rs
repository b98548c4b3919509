//! Why a graph cannot be described or marshalled.
//!
//! Every message names the operation's own word (reference, path, target), so that it can be found in the caller's code.

/// What is wrong with a graph. Cloneable, as a mistake is kept with its operation until the graph is marshalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlbError {
    #[error("image reference {reference:?} cannot be used: {reason}")]
    Reference { reference: String, reason: String },
    #[error("git source {url:?} cannot be used: {reason}")]
    Git { url: String, reason: String },
    #[error("a source needs an identifier, such as docker-image://docker.io/library/alpine:latest")]
    NoIdentifier,
    #[error("a command needs words: give Run::args or Run::shell_words")]
    NoArguments,
    #[error("the words of {line:?} end within {within}")]
    Words { line: String, within: &'static str },
    #[error("the command {args:?} has no working directory")]
    NoDirectory { args: Vec<String> },
    #[error("the tmpfs at {target} must start empty: leave out its source")]
    TmpfsSource { target: String },
    #[error("nothing can be built on the mount at {target}: it is {what}")]
    NoOutput { target: String, what: &'static str },
    #[error("a chain of file actions is empty: add one to FileActions")]
    NoActions,
    #[error("{what} are nested more than {limit} deep")]
    TooDeep { what: &'static str, limit: usize },
    #[error("a nested build needs a state that holds its definition: scratch holds none")]
    NoBuildInput,
    #[error("a passthrough {reason}")]
    Passthrough { reason: &'static str },
    #[error("the daemon cannot do {what} (it lacks {cap}): {remedy}")]
    Unsupported { what: &'static str, cap: &'static str, remedy: &'static str },
    #[error("the image configuration cannot be read: {reason}")]
    ImageConfig { reason: String },
    #[error("the definition cannot be used: {reason}")]
    Definition { reason: String },
    #[error("{given:?} is no platform: write os/architecture or os/architecture/variant")]
    Platform { given: String },
}
