//! Named contexts: what stands for an image's or a stage's name in a Dockerfile.

use std::collections::BTreeMap;

use lemnos_proto::pb;

use super::SolveRequest;

/// Where the files of a named context come from.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedContext {
    /// An image in a registry.
    Image(String),
    /// A git or HTTP address.
    Remote(String),
    /// Another stage of the same Dockerfile.
    Target(String),
    /// A directory that the session offers by this name; `shared_key` names the daemon's mirror of it.
    Local { dir: String, shared_key: Option<String> },
    /// An image in an OCI layout that the session offers as `oci:STORE`.
    OciLayout { store: String, digest: String },
    /// A build graph, such as another target's result.
    Input(pb::Definition),
    /// Anything else that a frontend may know.
    Other(String),
}

/// Puts a named context into the attributes, and into the inputs where it is a graph.
pub(super) fn apply(name: &str, context: &NamedContext, request: &mut SolveRequest) {
    let value = match context {
        NamedContext::Image(reference) => format!("docker-image://{reference}"),
        NamedContext::Remote(address) | NamedContext::Other(address) => address.clone(),
        NamedContext::Target(target) => format!("target:{target}"),
        NamedContext::Local { dir, shared_key } => {
            if let Some(key) = shared_key {
                // the frontend looks for it by the context's name
                request.frontend_attrs.insert(format!("sharedkey:localdir:{name}"), key.clone());
            }
            format!("local:{dir}")
        }
        NamedContext::OciLayout { store, digest } => format!("oci-layout://{store}@{digest}"),
        NamedContext::Input(definition) => {
            request.frontend_inputs.insert(name.to_owned(), definition.clone());
            format!("input:{name}")
        }
    };
    request.frontend_attrs.insert(format!("context:{name}"), value);
}

/// What a frontend must be able to do for these contexts: a frontend that cannot then says so, instead of building without.
pub(super) fn capabilities<'a>(
    contexts: &'a BTreeMap<String, NamedContext>,
    main: Option<&'a str>,
) -> Vec<&'static str> {
    let queried =
        |address: &str| address.split('#').next().is_some_and(|repository| repository.contains('?'));
    let mut needed = Vec::new();
    if !contexts.is_empty() {
        needed.push("moby.buildkit.frontend.contexts+forward");
    }
    if main.is_some_and(queried) {
        needed.push("moby.buildkit.frontend.gitquerystring");
    }
    if contexts.values().any(|c| matches!(c, NamedContext::Remote(address) if queried(address))) {
        needed.push("moby.buildkit.frontend.gitquerystring+forward");
    }
    needed
}
