//! `--build-context NAME=WHERE`.

use super::{FlagError, wrong};
use crate::buildkit::image_name::{familiar, is_tag};
use crate::buildkit::solve::NamedContext;

/// Where the files of a named context are, before anything is opened.
#[derive(Debug, Clone, PartialEq)]
pub enum Context {
    /// What the daemon fetches itself.
    Remote(NamedContext),
    /// An image in an OCI layout on disk.
    OciLayout { path: String, tag: Option<String>, digest: Option<String> },
    /// A directory.
    Directory(String),
}

/// The name, in the short form by which a Dockerfile's `FROM` finds it, and where it is.
pub fn build_context(given: &str) -> Result<(String, Context), FlagError> {
    const FLAG: &str = "--build-context";
    let (name, place) = given.split_once('=').ok_or_else(|| wrong(FLAG, given, "write NAME=WHERE"))?;
    let name = familiar(name).ok_or_else(|| {
        wrong(FLAG, given, format!("{name:?} is no name: write it as an image's, in lower case"))
    })?;
    Ok((name, context(place)))
}

fn context(place: &str) -> Context {
    if let Some(reference) = place.strip_prefix("docker-image://") {
        return Context::Remote(NamedContext::Image(reference.to_owned()));
    }
    if let Some(target) = place.strip_prefix("target:") {
        return Context::Remote(NamedContext::Target(target.to_owned()));
    }
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        return layout_of(layout);
    }
    match is_remote(place) {
        true => Context::Remote(NamedContext::Remote(place.to_owned())),
        false => Context::Directory(place.to_owned()),
    }
}

/// Whether the daemon fetches what stands at `place` itself: a git or HTTP address.
pub fn is_remote(place: &str) -> bool {
    const SCHEMES: [&str; 4] = ["https://", "http://", "git://", "ssh://"];
    SCHEMES.iter().any(|scheme| place.starts_with(scheme))
        || is_secure_copy(place)
        || place.starts_with("github.com/")
}

/// `USER@HOST:PATH`, as git's ssh addresses are often written.
fn is_secure_copy(place: &str) -> bool {
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    place.split_once('@').is_some_and(|(user, rest)| {
        word(user, b"-_") && rest.split_once(':').is_some_and(|(host, _)| word(host, b"-."))
    })
}

/// `PATH[:TAG][@DIGEST]`.
fn layout_of(text: &str) -> Context {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) if digest.contains(':') => (rest, Some(digest.to_owned())),
        _ => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    Context::OciLayout { path: path.to_owned(), tag, digest }
}
