//! What a build is called in lists, after what its frontend was given; as buildx calls it where it keeps no notes of its own.

use std::collections::BTreeMap;

/// Empty where nothing names it.
pub fn name(attrs: &BTreeMap<String, String>) -> String {
    let attr = |key: &str| attrs.get(key).map(String::as_str).filter(|value| !value.is_empty());
    if let Some(name) = attr("build-arg:BUILDKIT_BUILD_NAME") {
        return name.to_owned();
    }
    let elsewhere = |key: &str| attr(key).filter(|dir| *dir != ".");
    let file = attr("filename").filter(|file| *file != "Dockerfile");
    let file = match (elsewhere("vcs:localdir:dockerfile"), file) {
        (Some(dir), Some(file)) => format!("{}/{file}", dir.trim_end_matches('/')),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => String::new(),
    };
    let file = file.strip_suffix("/Dockerfile").unwrap_or(&file);
    let place = attr("context").or_else(|| elsewhere("vcs:localdir:context")).unwrap_or(file);
    match (place, attr("target")) {
        ("", None) => attr("vcs:source").unwrap_or_default().to_owned(),
        ("", Some(target)) => target.to_owned(),
        (place, None) => place.to_owned(),
        (place, Some(target)) => format!("{place} ({target})"),
    }
}

/// The end of a long name.
pub fn shortened(name: &str, width: usize) -> String {
    let count = name.chars().count();
    match count > width {
        true => format!("..{}", name.chars().skip(count + 2 - width).collect::<String>()),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_called_as_buildx_calls_them() {
        for (attrs, called) in [
            (&[][..], ""),
            (&[("build-arg:BUILDKIT_BUILD_NAME", "mine"), ("target", "t")], "mine"),
            (&[("filename", "Dockerfile")], ""),
            (&[("filename", "a/Dockerfile")], "a"),
            (&[("filename", "dev.Dockerfile"), ("vcs:localdir:dockerfile", "hack/")], "hack/dev.Dockerfile"),
            (&[("vcs:localdir:dockerfile", "hack"), ("vcs:localdir:context", ".")], "hack"),
            (&[("vcs:localdir:context", "frontend"), ("target", "dev")], "frontend (dev)"),
            (
                &[("context", "https://git.example/a.git#main"), ("filename", "x")],
                "https://git.example/a.git#main",
            ),
            (&[("target", "dev")], "dev"),
            (&[("vcs:source", "https://git.example/a.git")], "https://git.example/a.git"),
        ] {
            let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(name(&attrs), called, "{attrs:?}");
        }
    }

    #[test]
    fn of_a_long_name_the_end_is_kept() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("äbcdefg", 6), "..defg");
    }
}
