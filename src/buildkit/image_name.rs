//! Names of images: the short form that people write, and the full one that registries are asked with.
//!
//! The rules are Docker's (distribution/reference). A name that is none is told by `None`; the caller knows what it was for.

const HUB: &str = "docker.io";

pub(super) fn is_tag(text: &str) -> bool {
    !text.starts_with(['.', '-'])
        && (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// An image's name as people write it: without Docker Hub's host, `library/` and `:latest`.
pub(super) fn familiar(name: &str) -> Option<String> {
    let Parts { domain, path, tag, digest } = parts(name)?;
    let path = match path.strip_prefix("library/") {
        Some(rest) if domain == HUB && !rest.contains('/') => rest,
        _ => path,
    };
    let mut shown = if domain == HUB { path.to_owned() } else { format!("{domain}/{path}") };
    if let Some(tag) = tag.filter(|tag| *tag != "latest" || digest.is_some()) {
        shown = format!("{shown}:{tag}");
    }
    Some(digest.map_or(shown.clone(), |digest| format!("{shown}@{digest}")))
}

/// An image's name with nothing left out: host, path, and a tag or a digest.
pub(super) fn full(name: &str) -> Option<String> {
    let Parts { domain, path, tag, digest } = parts(name)?;
    let library = if domain == HUB && !path.contains('/') { "library/" } else { "" };
    let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(|tag| format!(":{tag}"));
    let digest = digest.map(|digest| format!("@{digest}"));
    Some(format!("{domain}/{library}{path}{}{}", tag.unwrap_or_default(), digest.unwrap_or_default()))
}

struct Parts<'a> {
    domain: &'a str,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

fn parts(name: &str) -> Option<Parts<'_>> {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        _ => (HUB, name),
    };
    let domain = if domain == "index.docker.io" { HUB } else { domain };
    let (path, digest) = match path.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (path, None),
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    let is_id = name.len() == 64 && name.bytes().all(hex);
    let digest_good = |d: &str| {
        d.split_once(':').is_some_and(|(a, h)| !a.is_empty() && h.len() >= 32 && h.bytes().all(hex))
    };
    if is_id
        || !path.split('/').all(is_component)
        || !tag.is_none_or(is_tag)
        || !digest.is_none_or(digest_good)
    {
        return None;
    }
    Some(Parts { domain, path, tag, digest })
}

/// Lower case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| word(*b));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    let joints = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    joints
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_of_a_full_name() {
        for (given, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("library/busybox:1", "docker.io/library/busybox:1"),
            ("user/app", "docker.io/user/app:latest"),
            ("r.example:5000/a", "r.example:5000/a:latest"),
        ] {
            assert_eq!(full(given).unwrap(), want);
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(full(&digest).unwrap(), format!("docker.io/library/{digest}"));
        assert_eq!(full("A b"), None);
    }
}
