//! Which frontend builds a Dockerfile: the daemon's own, or an image that the operator allows.
//!
//! A frontend image is code that runs beside everyone's builds, so a pushed file only ever chooses from the list. The
//! official image is served by the daemon's built-in frontend: no download, and no forwarding.

use super::directives;
use crate::kinds::KindError;

/// The list when the operator sets none.
pub const DEFAULT_FRONTENDS: [&str; 1] = ["docker.io/docker/dockerfile"];

const BUILT_IN: &str = "docker.io/docker/dockerfile";

/// The frontend of one Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    pub name: &'static str,
    pub image: Option<String>,
    pub note: Option<String>,
}

/// The frontend for a Dockerfile at `path`, by its syntax line and the list of allowed images.
pub(super) fn choose(source: &[u8], path: &str, allowed: &[String]) -> Result<Frontend, KindError> {
    let Some(syntax) = directives::syntax(source) else {
        return Ok(Frontend { name: "dockerfile.v0", image: None, note: None });
    };
    let line = syntax.line.max(1);
    let refuse = || KindError::Frontend {
        path: path.to_owned(),
        line,
        image: syntax.image.clone(),
        allowed: allowed.to_vec(),
    };
    let asked = Reference::parse(&syntax.image).ok_or_else(refuse)?;
    if !allowed.iter().filter_map(|text| Reference::parse(text)).any(|entry| entry.allows(&asked)) {
        return Err(refuse());
    }
    if asked.repository != BUILT_IN {
        return Ok(Frontend { name: "gateway.v0", image: Some(asked.to_string()), note: None });
    }
    let special = asked.digest.is_some() || asked.tag.as_deref().is_some_and(|tag| tag.ends_with("labs"));
    let note = special.then(|| {
        format!(
            "{path}:{line}: {} is served by the daemon's built-in Dockerfile frontend, which may lack its extras",
            syntax.image
        )
    });
    Ok(Frontend { name: "dockerfile.v0", image: None, note })
}

/// An image reference in its full form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Docker's short names written out: `docker/dockerfile` is `docker.io/docker/dockerfile`, `x` is
    /// `docker.io/library/x`. None for what is no reference.
    fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let name_at = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest.get(name_at..)?.split_once(':') {
            Some((name, tag)) => (format!("{}{name}", rest.get(..name_at)?), Some(tag)),
            None => (rest.to_owned(), None),
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            _ => ("docker.io", name.clone()),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let path = if host == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
        let repository: crate::model::ImageName = format!("{host}/{path}").parse().ok()?;
        if let Some(tag) = tag {
            tag.parse::<crate::model::Tag>().ok()?;
        }
        if let Some(digest) = digest {
            digest.parse::<crate::model::Digest>().ok()?;
        }
        Some(Self {
            repository: repository.to_string(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// An entry of the list allows what it names: a repository all of its tags, a tag or digest only itself.
    fn allows(&self, asked: &Self) -> bool {
        self.repository == asked.repository
            && (self.tag.is_none() || self.tag == asked.tag)
            && (self.digest.is_none() || self.digest == asked.digest)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}
