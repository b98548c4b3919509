//! Slash-separated paths, cleaned and joined as Go's `path` package does.
//!
//! Purely textual: no path here is one of this machine.

/// The shortest name of the same path; an empty one is `.`.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// Cleaned, with empty parts left out; empty where all are.
pub(super) fn join(parts: &[&str]) -> String {
    let kept: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if kept.is_empty() { String::new() } else { clean(&kept.join("/")) }
}

pub(super) fn is_absolute(path: &str) -> bool {
    path.starts_with('/')
}

/// `path` within the directory `parent`. A copy's destination keeps its closing `/` or `/.`, which says that it is a
/// directory.
pub(super) fn within(parent: &str, path: &str, keep_slash: bool) -> String {
    let mut out = clean(path);
    if !is_absolute(&out) {
        out = join(&["/", parent, &out]);
    }
    if keep_slash && path.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    } else if keep_slash && path.ends_with("/.") {
        if out != "/" {
            out.push('/');
        }
        out.push('.');
    }
    out
}
