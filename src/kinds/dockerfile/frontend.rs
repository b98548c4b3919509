//! Which frontend builds a Dockerfile: the daemon's own, or an image that the operator allows.
//!
//! A frontend image is code that runs beside everyone's builds, so a pushed file only ever chooses from the list. The
//! official image is served by the daemon's built-in frontend: no download, and no forwarding.

use super::directives;
use super::recipe::RECIPE;
use crate::kinds::KindError;
use crate::kinds::errors::shown;

/// The frontend of one Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontend {
    pub name: &'static str,
    pub image: Option<String>,
    pub note: Option<String>,
}

/// The frontend for a Dockerfile at `path`, by its syntax line and the list of allowed images.
pub(super) fn choose(
    source: &[u8],
    path: &str,
    allowed: &[String],
    by_digest: bool,
) -> Result<Frontend, KindError> {
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
    if asked.repository != RECIPE.built_in {
        if by_digest && asked.digest.is_none() {
            let image = syntax.image.clone();
            return Err(KindError::FrontendByTag { path: path.to_owned(), line, image });
        }
        return Ok(Frontend { name: "gateway.v0", image: Some(asked.to_string()), note: None });
    }
    let special = asked.digest.is_some() || asked.tag.as_deref().is_some_and(|tag| tag.ends_with("labs"));
    let note = special.then(|| {
        format!(
            "{path}:{line}: {} is served by the daemon's built-in Dockerfile frontend, which may lack its extras",
            shown(&syntax.image)
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

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn short_names_are_written_out() {
        for (text, full) in [
            ("docker/dockerfile", Some("docker.io/docker/dockerfile")),
            ("docker/dockerfile:1.7-labs", Some("docker.io/docker/dockerfile:1.7-labs")),
            ("index.docker.io/docker/dockerfile", Some("docker.io/docker/dockerfile")),
            ("docker.io/dockerfile", Some("docker.io/library/dockerfile")),
            ("dockerfile", Some("docker.io/library/dockerfile")),
            ("localhost:5000/x/y:z", Some("localhost:5000/x/y:z")),
            ("localhost/x", Some("localhost/x")),
            ("ghcr.io/x/y", Some("ghcr.io/x/y")),
            ("x:1/y", Some("x:1/y")),
            ("", None),
            (":1", None),
            ("Docker/Dockerfile", None),
            ("docker/dockerfile:", None),
            ("docker/dockerfile@sha256:12", None),
            ("docker/dockerfile@", None),
            ("docker//dockerfile", None),
            ("docker/dockerfile:a:b", None),
            ("../docker/dockerfile", None),
        ] {
            assert_eq!(Reference::parse(text).map(|r| r.to_string()).as_deref(), full, "{text:?}");
        }
        let pinned = format!("docker/dockerfile:1@{DIGEST}");
        assert_eq!(Reference::parse(&pinned).unwrap().to_string(), format!("docker.io/{pinned}"));
    }

    fn chosen(syntax: &str, allowed: &[&str]) -> Result<Frontend, KindError> {
        let source = format!("# syntax={syntax}\nFROM x\n");
        let allowed: Vec<String> = allowed.iter().map(|s| (*s).to_owned()).collect();
        choose(source.as_bytes(), "Dockerfile", &allowed, false)
    }

    #[test]
    fn d1_a_frontend_image_can_be_required_by_digest() {
        let allowed = ["ghcr.io/x/y".to_owned(), "docker.io/docker/dockerfile".to_owned()];
        let choose = |syntax: &str| {
            let source = format!("# syntax={syntax}\nFROM x\n");
            choose(source.as_bytes(), "Dockerfile", &allowed, true)
        };
        assert!(matches!(choose("ghcr.io/x/y:1"), Err(KindError::FrontendByTag { line: 1, .. })));
        assert!(choose(&format!("ghcr.io/x/y:1@{DIGEST}")).unwrap().image.is_some());
        // served by the daemon's own frontend: no image is pulled
        assert!(choose("docker/dockerfile:1").unwrap().image.is_none());
    }

    #[test]
    fn the_official_image_is_the_daemon_s_own_frontend() {
        let official = ["docker.io/docker/dockerfile"];
        for syntax in ["docker/dockerfile", "docker.io/docker/dockerfile:1", "docker/dockerfile:1.7 x=y"] {
            let frontend = chosen(syntax, &official).unwrap();
            assert_eq!(frontend, Frontend { name: "dockerfile.v0", image: None, note: None }, "{syntax}");
        }
        for special in ["docker/dockerfile:1.7-labs".to_owned(), format!("docker/dockerfile@{DIGEST}")] {
            let frontend = chosen(&special, &official).unwrap();
            assert_eq!((frontend.name, frontend.image), ("dockerfile.v0", None));
            assert!(frontend.note.unwrap().starts_with(&format!("Dockerfile:1: {special} is served")));
        }
    }

    #[test]
    fn other_images_only_from_the_list() {
        let official = ["docker.io/docker/dockerfile"];
        for (syntax, allowed) in [
            ("evil/frontend", &official[..]),
            ("docker/dockerfile-upstream:master", &official),
            ("evil.example/docker/dockerfile", &official),
            ("docker.io.evil.example/docker/dockerfile", &official),
            ("docker/dockerfile", &[]),
            ("docker/dockerfile:2", &["docker/dockerfile:1"]),
            ("x/y:1", &["x/y:2", "x/y@sha256:12"]),
            ("   ", &official),
        ] {
            let error = chosen(syntax, allowed).unwrap_err().to_string();
            assert!(error.starts_with("Dockerfile:1: the frontend image"), "{syntax}: {error}");
        }
        let pinned = format!("x/y@{DIGEST}");
        for (syntax, allowed, image) in [
            ("ghcr.io/x/y:1 a b", "ghcr.io/x/y", "ghcr.io/x/y:1".to_owned()),
            (&pinned, &pinned, format!("docker.io/{pinned}")),
        ] {
            let frontend = chosen(syntax, &[allowed]).unwrap();
            assert_eq!((frontend.name, frontend.image), ("gateway.v0", Some(image)));
        }
    }
}
