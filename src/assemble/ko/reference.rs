//! The reference of a base image, in the forms in which it stands in annotations and in SBOMs.
//!
//! Read by the rules of go-containerregistry, which ko uses: Docker Hub is the host where none is named and is called
//! `index.docker.io`, its one-part repositories lie in `library/`, the tag is `latest`, and a digest beats a tag.

use std::str::FromStr;

use crate::model::{Digest, Invalid, Tag};

const HUB: &str = "index.docker.io";
const RULE: &str = "HOST[:PORT]/REPOSITORY[:TAG|@sha256:…] with a lower-case repository";

/// A base image's reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseReference {
    host: String,
    repository: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tag(String),
    Digest(Digest),
}

impl BaseReference {
    /// Host and repository, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
    /// The tag, where the reference goes by one.
    pub fn tag(&self) -> Option<&str> {
        match &self.place {
            Place::Tag(tag) => Some(tag),
            Place::Digest(_) => None,
        }
    }
    /// The digest, where the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        match &self.place {
            Place::Tag(_) => None,
            Place::Digest(digest) => Some(digest),
        }
    }
}

/// The whole of it: `org.opencontainers.image.base.name`.
impl std::fmt::Display for BaseReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Tag(tag) => write!(f, "{}:{tag}", self.repository()),
            Place::Digest(digest) => write!(f, "{}@{digest}", self.repository()),
        }
    }
}

impl FromStr for BaseReference {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("base image", text, RULE);
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (repository, tag) = match named.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.parse::<Tag>()?)),
            _ => (named, None),
        };
        let (host, repository) = match repository.split_once('/') {
            Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
            _ => (HUB, repository),
        };
        let host = if host == "docker.io" { HUB } else { host };
        let host_ok = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        let path_ok = (2..=255).contains(&repository.len())
            && repository
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b))
            && repository.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !host_ok || !path_ok {
            return Err(refuse());
        }
        let library = host == HUB && !repository.contains('/');
        let repository = if library { format!("library/{repository}") } else { repository.to_owned() };
        let place = match digest {
            Some(digest) => Place::Digest(digest),
            None => Place::Tag(tag.map_or_else(|| "latest".to_owned(), |tag| tag.to_string())),
        };
        Ok(Self { host: host.to_owned(), repository, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        let digest = Digest::of(b"");
        for (given, whole) in [
            ("alpine", "index.docker.io/library/alpine:latest"),
            ("docker.io/alpine:3", "index.docker.io/library/alpine:3"),
            ("team/shop", "index.docker.io/team/shop:latest"),
            ("localhost/shop", "localhost/shop:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("cgr.dev/chainguard/static", "cgr.dev/chainguard/static:latest"),
        ] {
            let reference: BaseReference = given.parse().unwrap();
            assert_eq!(reference.to_string(), whole);
            assert!(reference.digest().is_none());
        }
        let pinned: BaseReference = format!("cgr.dev/a/static:tag@{digest}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("cgr.dev/a/static@{digest}"));
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(&digest)));
        for bad in ["", "a", "UPPER/x", "host.io/", "a/b:", "a/b:-", "host.io/a//b", "a@sha256:12", "a b/c"] {
            assert!(bad.parse::<BaseReference>().is_err(), "{bad}");
        }
    }
}
