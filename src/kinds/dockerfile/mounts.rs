//! Whose cache mounts and cached steps a build may meet.
//!
//! Two name spaces. That of cache mounts is a ref's own, always: what one branch left in a mount is never read by another, so
//! that nobody who may push some branch can put something into what the main branch builds with. That of cached steps is
//! the app's, so that a new branch finds the main branch's steps, unless the Dockerfile may use cache mounts: BuildKit leaves
//! mounts out of a step's key, and a step that ran over one branch's mount would serve another. Then it is the ref's own, too.

use crate::model::{Digest, RefName};

/// Where cache mounts live.
pub(in crate::kinds) fn cache_namespace(app_id: &str, reference: Option<&RefName>, dry_try: bool) -> String {
    // what a try runs may be narrower and is nobody's release: it has mounts of its own, also one of the main branch
    let which = if dry_try { "try of" } else { "ref" };
    let reference = reference.map_or("(directory)", RefName::as_str);
    digest(&format!("lemnos cache mounts of app {app_id}, {which} {reference}"))
}

/// What stands in the key of every step that runs.
pub(super) fn step_namespace(app_id: &str, cache_namespace: &str, uses_mounts: bool) -> String {
    if uses_mounts { cache_namespace.to_owned() } else { digest(&format!("lemnos steps of app {app_id}")) }
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).as_str().chars().skip("sha256:".len()).take(32).collect()
}

/// Whether steps of this Dockerfile may use cache mounts: all that is not plainly another kind of mount counts. That is enough:
/// what a hostile branch hides from this puts its steps under the app's key, and those of a main branch whose own file is
/// honest are under its ref's.
pub(super) fn may_use_cache_mounts(source: &[u8]) -> bool {
    let text = String::from_utf8_lossy(source).to_ascii_lowercase();
    // a flag may be written over several lines
    let text = text.replace("\\\n", "").replace("\\\r\n", "").replace("`\n", "");
    text.match_indices("--mount").any(|(at, _)| {
        let word = text.get(at..).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        let options = word.strip_prefix("--mount=").unwrap_or_default();
        let types: Vec<&str> = options.split(',').filter_map(|option| option.strip_prefix("type=")).collect();
        !matches!(types.as_slice(), ["bind" | "secret" | "ssh" | "tmpfs"])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plainly_no_cache_mount_is_none() {
        for (line, expect) in [
            ("RUN make", false),
            ("RUN --mount=type=secret,id=a --mount=type=ssh cat /run/secrets/a", false),
            ("run --mount=id=a,type=bind,target=/x,from=cache make", false),
            ("RUN --mount=target=/x,type=tmpfs make", false),
            ("RUN --mount=type=cache,target=/x make", true),
            ("RUN --mount=type=secret,id=a --mount=target=/x,type=CACHE make", true),
            ("RUN --mount=type=$T,target=/x make", true),
            ("RUN --mount=target=/x make", true),
            ("RUN --mount=type=secret,type=cache,target=/x make", true),
            ("RUN --mount=\"type=cache\",target=/x make", true),
            ("RUN --mount=\\\n  type=cache,target=/x make", true),
            ("RUN --mo\\\nunt=type=cache,target=/x make", true),
            ("ONBUILD RUN --mount=type=cache,target=/x make", true),
        ] {
            let source = format!("FROM busybox\n{line}\n");
            assert_eq!(may_use_cache_mounts(source.as_bytes()), expect, "{line}");
        }
    }

    #[test]
    fn every_ref_and_every_try_has_mounts_of_its_own() {
        let [main, other, tag]: [RefName; 3] =
            ["refs/heads/main", "refs/heads/x", "refs/tags/main"].map(|name| name.parse().unwrap());
        let spaces = [
            cache_namespace("a1", Some(&main), false),
            cache_namespace("a1", Some(&main), true),
            cache_namespace("a1", Some(&other), false),
            cache_namespace("a1", Some(&tag), false),
            cache_namespace("a1", None, false),
            cache_namespace("a2", Some(&main), false),
            step_namespace("a1", "unused", false),
            step_namespace("a2", "unused", false),
        ];
        let distinct: std::collections::BTreeSet<_> = spaces.iter().collect();
        assert_eq!(distinct.len(), spaces.len());
        assert_eq!(step_namespace("a1", "of the ref", true), "of the ref");
    }
}
