//! What of a source tree becomes an image's `/var/run/ko`: the walk over `kodata`, links followed.
//!
//! A symbolic link becomes what it points to, a directory with all that is in it. No link may lead out of the root that is
//! allowed, and none into a directory that is being walked already: such a tree would have no end. Entries come as ko packs
//! them: a directory before what it holds, names in the order of their bytes. Reads through `Source` alone.

use std::collections::BTreeMap;
use std::io::Read;

use super::KoError;

/// Where kodata lies in the image.
pub const KODATA_ROOT: &str = "/var/run/ko";

/// More entries, or more bytes, are refused: links multiply what a small tree holds.
const ENTRIES_LIMIT: usize = 100_000;
const BYTES_LIMIT: u64 = 4 << 30;
/// Links met while one path is resolved, as Go counts them, and directories in directories.
const LINKS_LIMIT: usize = 255;
const DEPTH_LIMIT: usize = 255;

/// What stands at a path of a source tree; never what a link points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A submodule that is not checked out counts as an empty one.
    Directory,
    File {
        size: u64,
    },
    Link {
        target: String,
    },
}

/// A source tree, read-only. Paths are relative, `/`-separated, without `.` and `..`; `""` is the root.
pub trait Source {
    /// What stands at `path`; none where nothing does. Links are not followed, not in the middle of a path either.
    fn node(&self, path: &str) -> std::io::Result<Option<Node>>;
    /// The names in the directory `path`, in any order.
    fn names(&self, path: &str) -> std::io::Result<Vec<String>>;
    /// The content of the regular file `path`.
    fn open(&self, path: &str) -> std::io::Result<Box<dyn Read + '_>>;
}

/// A source tree in memory: for small trees, for tests.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    nodes: BTreeMap<String, (Node, Vec<u8>)>,
}

impl MemorySource {
    /// Adds a regular file, and the directories above it.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        self.put(path, Node::File { size: content.len() as u64 }, content);
        self
    }
    /// Adds a symbolic link, and the directories above it.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.put(path, Node::Link { target: target.to_owned() }, Vec::new());
        self
    }
    /// Adds a directory, and those above it.
    #[must_use]
    pub fn directory(mut self, path: &str) -> Self {
        self.put(path, Node::Directory, Vec::new());
        self
    }

    fn put(&mut self, path: &str, node: Node, content: Vec<u8>) {
        let mut parent = path;
        while let Some((above, _)) = parent.rsplit_once('/') {
            self.nodes.entry(above.to_owned()).or_insert((Node::Directory, Vec::new()));
            parent = above;
        }
        self.nodes.insert(path.to_owned(), (node, content));
    }
}

impl Source for MemorySource {
    fn node(&self, path: &str) -> std::io::Result<Option<Node>> {
        if path.is_empty() {
            return Ok(Some(Node::Directory));
        }
        Ok(self.nodes.get(path).map(|(node, _)| node.clone()))
    }
    fn names(&self, path: &str) -> std::io::Result<Vec<String>> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let inside = self.nodes.keys().filter_map(|key| key.strip_prefix(&prefix));
        Ok(inside.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect())
    }
    fn open(&self, path: &str) -> std::io::Result<Box<dyn Read + '_>> {
        match self.nodes.get(path) {
            Some((Node::File { .. }, content)) => Ok(Box::new(content.as_slice())),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole path in the image.
    pub name: String,
    /// Where a file's content is in the source, and its size; none for a directory.
    pub file: Option<(String, u64)>,
}

/// The entries of the directory `kodata` of `source`, which may be missing: the layer is then the empty one.
/// `allowed_root` is the directory that no link may leave: `kodata` itself for ko v0.19.1, the root of the repository (`""`)
/// for later ones.
pub fn kodata(source: &dyn Source, kodata: &str, allowed_root: &str) -> Result<Vec<Entry>, KoError> {
    match look(source, kodata)? {
        None => return Ok(Vec::new()),
        Some(Node::Directory) => {}
        // ko packs nothing then, and says nothing
        Some(Node::Link { .. }) => {
            return Err(KoError::KodataRoot { path: kodata.to_owned(), what: "a symbolic link" });
        }
        Some(Node::File { .. }) => {
            return Err(KoError::KodataRoot { path: kodata.to_owned(), what: "a file" });
        }
    }
    let mut walk = Walk { source, allowed_root, entries: Vec::new(), bytes: 0, open: Vec::new() };
    walk.directory(kodata, KODATA_ROOT)?;
    Ok(walk.entries)
}

fn look(source: &dyn Source, path: &str) -> Result<Option<Node>, KoError> {
    source.node(path).map_err(|cause| KoError::Read { name: path.to_owned(), cause })
}

struct Walk<'a> {
    source: &'a dyn Source,
    allowed_root: &'a str,
    entries: Vec<Entry>,
    bytes: u64,
    /// The real paths of the directories that are being walked, outermost first.
    open: Vec<String>,
}

impl Walk<'_> {
    /// What the directory at the real path `path` holds, as `name`; its own entry is there already.
    fn directory(&mut self, path: &str, name: &str) -> Result<(), KoError> {
        if self.open.len() >= DEPTH_LIMIT {
            return Err(KoError::KodataLimit { path: path.to_owned(), what: "255 directories deep" });
        }
        self.open.push(path.to_owned());
        let mut names =
            self.source.names(path).map_err(|cause| KoError::Read { name: path.to_owned(), cause })?;
        names.sort_unstable();
        for entry in names {
            self.entry(&join(path, &entry), format!("{name}/{entry}"))?;
        }
        self.open.pop();
        Ok(())
    }

    fn entry(&mut self, path: &str, name: String) -> Result<(), KoError> {
        if name.contains('\u{fffd}') {
            return Err(KoError::Name { name });
        }
        let gone = || KoError::KodataLink { path: path.to_owned(), problem: "nothing is there".to_owned() };
        let (real, node) = match look(self.source, path)?.ok_or_else(gone)? {
            Node::Link { .. } => self.follow(path)?,
            node => (path.to_owned(), node),
        };
        match node {
            Node::File { size } => {
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > BYTES_LIMIT {
                    return Err(KoError::KodataLimit { path: path.to_owned(), what: "4 GiB" });
                }
                self.add(Entry { name, file: Some((real, size)) }, path)
            }
            _ => {
                self.add(Entry { name: name.clone(), file: None }, path)?;
                self.directory(&real, &name)
            }
        }
    }

    fn add(&mut self, entry: Entry, path: &str) -> Result<(), KoError> {
        if self.entries.len() >= ENTRIES_LIMIT {
            return Err(KoError::KodataLimit { path: path.to_owned(), what: "100000 entries" });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The real path that the link at `path` comes to, and what is there: never another link.
    fn follow(&self, path: &str) -> Result<(String, Node), KoError> {
        let refuse = |problem: String| KoError::KodataLink { path: path.to_owned(), problem };
        let mut parts: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut real = String::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." if real.is_empty() => {
                    return Err(refuse("it leaves the repository".to_owned()));
                }
                ".." => {
                    real = real.rsplit_once('/').map_or(String::new(), |(above, _)| above.to_owned());
                    continue;
                }
                _ => {}
            }
            let next = join(&real, &part);
            match look(self.source, &next)? {
                None => return Err(refuse(format!("{next} does not exist"))),
                Some(Node::Link { target }) => {
                    links += 1;
                    if links > LINKS_LIMIT {
                        return Err(refuse("more than 255 links lead to it".to_owned()));
                    }
                    if target.starts_with('/') {
                        return Err(refuse(format!("{target} is an absolute path")));
                    }
                    parts.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(Node::File { .. }) if !parts.is_empty() => {
                    return Err(refuse(format!("{next} is not a directory")));
                }
                Some(_) => real = next,
            }
        }
        if !within(&real, self.allowed_root) {
            let root = if self.allowed_root.is_empty() { "the repository" } else { self.allowed_root };
            return Err(refuse(format!("it comes to {real:?}, outside of {root}")));
        }
        let node = look(self.source, &real)?.ok_or_else(|| refuse(format!("{real} does not exist")))?;
        if node == Node::Directory && self.open.contains(&real) {
            return Err(refuse(format!("it comes back to {real:?}, so there is no end")));
        }
        Ok((real, node))
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn within(path: &str, root: &str) -> bool {
    root.is_empty() || path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(source: &MemorySource, allowed_root: &str) -> Vec<String> {
        let entries = kodata(source, "cmd/kodata", allowed_root).unwrap();
        entries.into_iter().map(|entry| entry.name.trim_start_matches("/var/run/ko/").to_owned()).collect()
    }

    fn refusal(source: &MemorySource, allowed_root: &str) -> String {
        kodata(source, "cmd/kodata", allowed_root).unwrap_err().to_string()
    }

    #[test]
    fn links_become_what_they_point_to() {
        let source = MemorySource::default()
            .file("cmd/kodata/b", "two")
            .file("cmd/kodata/B", "one")
            .file("cmd/kodata/dir/in", "three")
            .link("cmd/kodata/again", "dir")
            .link("cmd/kodata/dir/up", "../b")
            .link("cmd/kodata/chain", "./again/../dir//in")
            .directory("cmd/kodata/empty");
        let found = ["B", "again", "again/in", "again/up", "b", "chain", "dir", "dir/in", "dir/up", "empty"];
        assert_eq!(names(&source, "cmd/kodata"), found);
        let entries = kodata(&source, "cmd/kodata", "cmd/kodata").unwrap();
        let up = entries.iter().find(|entry| entry.name.ends_with("again/up")).unwrap();
        assert_eq!(up.file, Some(("cmd/kodata/b".to_owned(), 3)));
    }

    /// A source that lists its names in the wrong order.
    struct Backwards(MemorySource);

    impl Source for Backwards {
        fn node(&self, path: &str) -> std::io::Result<Option<Node>> {
            self.0.node(path)
        }
        fn names(&self, path: &str) -> std::io::Result<Vec<String>> {
            self.0.names(path).map(|names| names.into_iter().rev().collect())
        }
        fn open(&self, path: &str) -> std::io::Result<Box<dyn Read + '_>> {
            self.0.open(path)
        }
    }

    #[test]
    fn the_order_is_of_bytes_whatever_the_source_says() {
        let source =
            MemorySource::default().file("k/b", "").file("k/a/c", "").file("k/a-", "").file("k/B", "");
        let sorted = kodata(&source, "k", "").unwrap();
        let names: Vec<&str> = sorted.iter().map(|entry| entry.name.as_str()).collect();
        let expected = ["B", "a", "a/c", "a-", "b"].map(|name| format!("/var/run/ko/{name}"));
        assert_eq!(names, expected);
        assert_eq!(kodata(&Backwards(source), "k", "").unwrap(), sorted);
    }

    #[test]
    fn no_link_leaves_the_allowed_root() {
        let source =
            MemorySource::default().file(".git/HEAD", "x").link("cmd/kodata/HEAD", "../../.git/HEAD");
        assert_eq!(names(&source, ""), ["HEAD"]);
        assert!(refusal(&source, "cmd/kodata").contains("outside of cmd/kodata"));
        // a name that only begins like the root's is outside of it
        let source = MemorySource::default().file("cmd/kodata2/x", "").link("cmd/kodata/x", "../kodata2/x");
        assert!(refusal(&source, "cmd/kodata").contains("outside"));
        for (target, said) in [
            ("../../../etc/passwd", "leaves the repository"),
            ("/etc/passwd", "an absolute path"),
            ("missing", "does not exist"),
            ("file/", "is not a directory"),
            ("file/x", "is not a directory"),
            ("me", "more than 255 links"),
        ] {
            let source = MemorySource::default().file("cmd/kodata/file", "").link("cmd/kodata/me", target);
            assert!(refusal(&source, "").contains(said), "{target}: {}", refusal(&source, ""));
        }
    }

    #[test]
    fn a_tree_without_an_end_is_refused() {
        for (links, path) in [
            (&[("cmd/kodata/a/up", "..")][..], "cmd/kodata"),
            (&[("cmd/kodata/self", ".")], "cmd/kodata"),
            (&[("cmd/kodata/a/b", "../b"), ("cmd/kodata/b/a", "../a")], "cmd/kodata/a"),
            (&[("cmd/kodata/x", "../../y/z"), ("y/z/back", "..")], "y"),
        ] {
            let mut source = MemorySource::default().directory("cmd/kodata/a").directory("cmd/kodata/b");
            source = source.directory("y/z");
            for (at, target) in links {
                source = source.link(at, target);
            }
            let said = refusal(&source, "");
            assert!(said.contains("there is no end") && said.contains(&format!("{path:?}")), "{said}");
        }
    }

    #[test]
    fn a_small_tree_cannot_become_a_huge_one() {
        let mut source = MemorySource::default();
        for level in 0..20 {
            for side in ["l", "r"] {
                let at = format!("bomb/{level}/{side}");
                source = source.link(&at, &format!("../{}", level + 1));
            }
        }
        let source = source.file("bomb/20/x", "").link("cmd/kodata/start", "../../bomb/0");
        assert!(refusal(&source, "").contains("100000 entries"));
        let source = MemorySource::default();
        assert_eq!(kodata(&source, "cmd/kodata", "").unwrap(), []);
        let source = source.link("cmd/kodata", "../data").directory("data");
        assert!(refusal(&source, "").contains("is a symbolic link"));
    }

    proptest! {
        /// Whatever links there are: the walk ends, stays under its root, and nothing is packed before its directory.
        #[test]
        fn any_links_are_walked_or_refused(
            links in prop::collection::vec(("[a-d]", "[a-d]", "(\\.\\./){0,3}[a-d](/[a-d])?"), 0..8),
        ) {
            let mut source = MemorySource::default().file("kodata/a/a", "1").file("kodata/b/c", "2").file("d/d", "3");
            for (dir, name, target) in &links {
                let at = format!("kodata/{dir}/{name}");
                if source.node(&at).unwrap().is_none() {
                    source = source.link(&at, target);
                }
            }
            if let Ok(entries) = kodata(&source, "kodata", "kodata") {
                let mut seen = vec![KODATA_ROOT.to_owned()];
                for entry in entries {
                    prop_assert!(seen.contains(&entry.name.rsplit_once('/').unwrap().0.to_owned()));
                    if let Some((path, _)) = &entry.file {
                        prop_assert!(path.starts_with("kodata/"));
                    }
                    prop_assert!(!seen.contains(&entry.name));
                    seen.push(entry.name);
                }
            }
        }
    }
}
