//! Image references as ko takes them: Docker Hub and `latest` being understood.
//!
//! Source: google/go-containerregistry, pkg/name (weak validation). Must not resolve anything.

use crate::model::Digest;
use crate::model::image::is_registry_host;

/// `docker.io/library/name:tag` of a reference, or what is wrong with it.
pub fn full(text: &str) -> Result<String, &'static str> {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => {
            digest.parse::<Digest>().map_err(|_| "a digest is sha256: and 64 hexadecimal digits")?;
            (named, Some(digest))
        }
        None => (text, None),
    };
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let tag_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.bytes().all(tag_char)) {
        return Err("a tag is 1 to 128 letters, digits, '_', '-' and '.'");
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (host, path),
        _ => ("docker.io", name),
    };
    if !is_registry_host(host) {
        return Err("its registry is no host name");
    }
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let path =
        if host == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let path_char =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'/');
    if !(2..=255).contains(&path.len()) || !path.bytes().all(path_char) || path.split('/').any(str::is_empty)
    {
        return Err("its name is 2 to 255 lower-case letters, digits, '_', '-', '.' and '/'");
    }
    Ok(match (tag, digest) {
        // ko looks at the digest alone where there is one
        (_, Some(digest)) => format!("{host}/{path}@{digest}"),
        (Some(tag), None) => format!("{host}/{path}:{tag}"),
        (None, None) => format!("{host}/{path}:latest"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed_and_what_is_none_is_refused() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expect) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("index.docker.io/team/app", "docker.io/team/app:latest"),
            ("localhost:5000/base", "localhost:5000/base:latest"),
            ("cgr.dev/chainguard/static:latest", "cgr.dev/chainguard/static:latest"),
        ] {
            assert_eq!(full(text).unwrap(), expect);
        }
        assert_eq!(full(&format!("r.example/app:1@{digest}")).unwrap(), format!("r.example/app@{digest}"));
        for wrong in [
            "",
            "UPPER",
            "a b",
            "r.example/",
            "r.example//a",
            "a:",
            "a:b c",
            "a@sha256:1",
            "a@b@c",
            "r.example:x/a",
        ] {
            assert!(full(wrong).is_err(), "{wrong}");
        }
    }
}
