//! The paths of an incoming tree: each must be clean, stand below the root, and come in order.
//!
//! Invariant: what passes names a place whose directories have all been announced before, as directories. Pure; knows
//! nothing of what is on disk.

use crate::buildkit::session::filesync::{sending_order, shown};

/// As long as the kernel takes a path.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
const MAX_DEPTH: usize = 256;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the path \"{0}\" is not a clean path below the directory")]
    Unclean(String),
    #[error("the path \"{0}\" is too long or too deep")]
    TooLong(String),
    #[error("\"{0}\" comes out of order")]
    Order(String),
    #[error("\"{0}\" stands in a directory that was not announced")]
    NoParent(String),
}

/// What has been announced so far, as far as it matters for what may follow.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The directories around the last path, from the outside.
    above: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Order {
    /// Takes the next path.
    pub fn take(&mut self, path: &[u8], is_dir: bool) -> Result<(), OrderError> {
        check(path)?;
        if !self.last.is_empty() && sending_order(&self.last, path) != std::cmp::Ordering::Less {
            return Err(OrderError::Order(shown(path)));
        }
        let (parent, _) = split(path);
        while self.above.last().is_some_and(|dir| dir.as_slice() != parent) {
            self.above.pop();
        }
        if self.above.is_empty() && !parent.is_empty() {
            return Err(OrderError::NoParent(shown(path)));
        }
        if is_dir {
            self.above.push(path.to_vec());
        }
        self.last = path.to_vec();
        Ok(())
    }
}

/// The directory and the name; the directory is empty for what stands at the root.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => {
            let (dir, name) = path.split_at(slash);
            (dir, name.get(1..).unwrap_or_default())
        }
        None => (b"", path),
    }
}

/// Whether `path` is one that can be walked name by name without leaving the root.
pub(super) fn check(path: &[u8]) -> Result<(), OrderError> {
    if path.len() > MAX_PATH || path.split(|b| *b == b'/').count() > MAX_DEPTH {
        return Err(OrderError::TooLong(shown(path.get(..MAX_NAME).unwrap_or(path))));
    }
    for name in path.split(|b| *b == b'/') {
        if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
            return Err(OrderError::Unclean(shown(path)));
        }
        if name.len() > MAX_NAME {
            return Err(OrderError::TooLong(shown(path.get(..MAX_NAME).unwrap_or(path))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/` at the end marks a directory.
    fn order(paths: &[&str]) -> Result<(), OrderError> {
        let mut order = Order::default();
        paths.iter().try_for_each(|path| {
            let dir = path.strip_suffix('/');
            order.take(dir.unwrap_or(path).as_bytes(), dir.is_some())
        })
    }

    #[test]
    fn parents_come_first_and_siblings_by_name() {
        order(&["a/", "a/b", "a/c/", "a/c/d", "a.txt", "b"]).unwrap();
        let unclean = |path: &str| Err(OrderError::Unclean(path.into()));
        for path in ["", "/", "/etc/passwd", "..", "../x", "a//b", "./a", "a/.", "a/../../b", "a/\0"] {
            let shown = if path == "a/\0" { "a/\\0" } else { path };
            assert!(
                matches!(order(&["a/", path.trim_end_matches('\u{1}')]), Err(OrderError::Unclean(_)))
                    || order(&[path]) == unclean(shown),
                "{path:?}"
            );
        }
        assert_eq!(order(&["b", "a"]), Err(OrderError::Order("a".into())));
        assert_eq!(order(&["a", "a"]), Err(OrderError::Order("a".into())));
        assert_eq!(order(&["a.txt", "a/"]), Err(OrderError::Order("a".into())));
        assert_eq!(order(&["a", "a/b"]), Err(OrderError::NoParent("a/b".into())), "a file is no parent");
        assert_eq!(order(&["a/", "a/b", "a.c", "a/d"]), Err(OrderError::Order("a/d".into())));
        assert_eq!(order(&["x/y"]), Err(OrderError::NoParent("x/y".into())));
        assert!(matches!(order(&[&"n".repeat(256)]), Err(OrderError::TooLong(_))));
        assert!(matches!(order(&[&"d/".repeat(300)]), Err(OrderError::TooLong(_))));
    }

    proptest::proptest! {
        /// Whatever passes stays below the root when it is walked name by name.
        #[test]
        fn no_path_that_passes_leaves_the_root(path in "(/|\\.|\\.\\.|a|b|\\x00|é|\\\\){0,12}") {
            if check(path.as_bytes()).is_ok() {
                for name in path.split('/') {
                    proptest::prop_assert!(!name.is_empty() && name != "." && name != "..");
                }
                proptest::prop_assert!(!path.starts_with('/') && !path.contains('\0'));
            }
        }
    }
}
