//! go.mod and go.work: which directories are modules, under which paths, and the Go that they ask for.
//!
//! Source: the Go modules reference. Nothing is resolved here: what a module requires is `go`'s to say.

use super::errors::{KoError, shown_dir};
use crate::kinds::KindError;
use crate::kinds::errors::shown;
use crate::model::Tree;
use crate::model::tree::clean_path;

const LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// A module of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// Its directory, `""` for the root.
    pub dir: String,
    /// `example.com/app`
    pub path: String,
    pub versions: Versions,
    /// Directories that `./...` leaves out: relative to the module (`./x`) or anywhere (`x`).
    pub ignored: Vec<String>,
}

/// The Go that a file asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions {
    /// `1.24.3`, of a `go` line.
    pub go: Option<String>,
    /// `go1.25.1`, of a `toolchain` line.
    pub toolchain: Option<String>,
}

/// A `go.work` at the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workspace {
    /// Directories of its modules.
    pub dirs: Vec<String>,
    pub versions: Versions,
}

/// One directive of such a file.
struct Directive<'a> {
    line: u64,
    verb: &'a str,
    arguments: Vec<String>,
}

fn wrong(file: &str, line: u64, problem: impl Into<String>) -> KoError {
    KoError::Module { file: file.to_owned(), line, problem: problem.into() }
}

/// The words of a line; comments are gone, quotes are taken off.
fn words(file: &str, number: u64, line: &str) -> Result<Vec<String>, KoError> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with("//") {
        let first = rest.chars().next().unwrap_or_default();
        let end = match first {
            '"' | '`' => {
                let inner = rest.get(1..).unwrap_or_default();
                let end = inner
                    .find(first)
                    .ok_or_else(|| wrong(file, number, "a text in quotes without an end"))?;
                words.push(inner.get(..end).unwrap_or_default().to_owned());
                rest = inner.get(end + 1..).unwrap_or_default().trim_start();
                continue;
            }
            '(' | ')' => 1,
            _ => {
                let space = rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
                let comment = rest.match_indices("//").find(|(at, _)| {
                    *at > 0 && rest.get(..*at).is_some_and(|b| b.ends_with(char::is_whitespace))
                });
                space.unwrap_or(rest.len()).min(comment.map_or(rest.len(), |(at, _)| at))
            }
        };
        let (word, after) = rest.split_at(end);
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

/// A file's directives, those in blocks too.
fn directives<'a>(file: &str, text: &'a str) -> Result<Vec<Directive<'a>>, KoError> {
    let mut found = Vec::new();
    let mut block: Option<&str> = None;
    for (number, line) in (1u64..).zip(text.lines()) {
        let verb = line.split_whitespace().next().unwrap_or_default();
        let verb = verb.split_once('(').map_or(verb, |(verb, _)| verb);
        let mut words = words(file, number, line)?;
        match (block, words.first().map(String::as_str)) {
            (_, None) => {}
            (Some(_), Some(")")) if words.len() == 1 => block = None,
            (Some(verb), Some(_)) => found.push(Directive { line: number, verb, arguments: words }),
            (None, Some(_)) if words.get(1).map(String::as_str) == Some("(") => {
                if words.len() == 2 {
                    block = Some(verb);
                } else if words.get(2).map(String::as_str) != Some(")") {
                    return Err(wrong(file, number, "a block begins on a line of its own"));
                }
            }
            (None, Some(_)) => {
                words.remove(0);
                found.push(Directive { line: number, verb, arguments: words });
            }
        }
    }
    Ok(found)
}

/// `1.24`, `1.24.3`, `1.25rc1`
fn is_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let number = |part: &str| !part.is_empty() && part.len() <= 5 && part.bytes().all(|b| b.is_ascii_digit());
    let last = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (digits, rest) = part.split_at(end);
        let pre = rest.strip_prefix("rc").or_else(|| rest.strip_prefix("beta"));
        number(digits) && (rest.is_empty() || pre.is_some_and(number))
    };
    match (parts.next(), parts.next(), parts.next()) {
        (Some(major), None, None) => number(major),
        (Some(major), Some(minor), None) => number(major) && last(minor),
        (Some(major), Some(minor), Some(patch)) => number(major) && number(minor) && last(patch),
        _ => false,
    }
}

impl Versions {
    /// Takes a `go` or `toolchain` line; whether it was one.
    fn take(&mut self, file: &str, directive: &Directive<'_>) -> Result<bool, KoError> {
        let Directive { line, verb, arguments } = directive;
        let place = match *verb {
            "go" => &mut self.go,
            "toolchain" => &mut self.toolchain,
            _ => return Ok(false),
        };
        let [version] = arguments.as_slice() else {
            return Err(wrong(file, *line, format!("{verb} takes one version")));
        };
        let valid = match *verb {
            "go" => is_version(version),
            // a suffix names a toolchain of somebody's own
            _ => {
                version == "default"
                    || version
                        .strip_prefix("go")
                        .is_some_and(|v| is_version(v.split('-').next().unwrap_or_default()))
            }
        };
        if !valid {
            return Err(wrong(file, *line, format!("{:?} is no version of Go", shown(version))));
        }
        if place.replace(version.clone()).is_some() {
            return Err(wrong(file, *line, format!("repeated {verb} statement")));
        }
        Ok(true)
    }
}

impl Module {
    /// The `go.mod` in `dir`; none where there is none.
    pub fn read(tree: &dyn Tree, dir: &str) -> Result<Option<Self>, KindError> {
        let file = if dir.is_empty() { "go.mod".to_owned() } else { format!("{dir}/go.mod") };
        let Some(bytes) = tree.read(&file, LIMIT_BYTES)? else { return Ok(None) };
        Ok(Some(Self::parse(dir, &file, &String::from_utf8_lossy(&bytes))?))
    }

    fn parse(dir: &str, file: &str, text: &str) -> Result<Self, KoError> {
        let mut module = Self { dir: dir.to_owned(), ..Self::default() };
        for directive in directives(file, text)? {
            if module.versions.take(file, &directive)? {
                continue;
            }
            match (directive.verb, directive.arguments.as_slice()) {
                ("module", [path]) if module.path.is_empty() => module.path.clone_from(path),
                ("module", [_]) => return Err(wrong(file, directive.line, "repeated module statement")),
                ("module", _) => return Err(wrong(file, directive.line, "module takes one path")),
                ("ignore", paths) => module.ignored.extend(paths.iter().cloned()),
                _ => {}
            }
        }
        if !is_import_path(&module.path) {
            return Err(wrong(
                file,
                1,
                match module.path.as_str() {
                    "" => "no module statement".to_owned(),
                    path => format!("{:?} is no module path", shown(path)),
                },
            ));
        }
        Ok(module)
    }

    /// The import path of a directory in it.
    pub fn import_path(&self, dir: &str) -> String {
        let inside = dir.strip_prefix(self.dir.as_str()).unwrap_or(dir).trim_start_matches('/');
        if inside.is_empty() { self.path.clone() } else { format!("{}/{inside}", self.path) }
    }

    /// Whether an `ignore` line leaves `dir` out of `./...`.
    pub(super) fn ignores(&self, dir: &str) -> bool {
        let inside = dir.strip_prefix(self.dir.as_str()).unwrap_or(dir).trim_start_matches('/');
        self.ignored.iter().any(|pattern| match pattern.strip_prefix("./") {
            Some(path) => inside == path.trim_end_matches('/'),
            None => {
                let pattern = pattern.trim_matches('/');
                inside == pattern || inside.ends_with(&format!("/{pattern}"))
            }
        })
    }
}

fn is_import_path(path: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/' | '+');
    !path.is_empty()
        && path.len() <= 512
        && path.chars().all(ok)
        && !path.starts_with(['/', '-'])
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

impl Workspace {
    /// The `go.work` at the root, which `go` finds from every directory below.
    pub fn read(tree: &dyn Tree) -> Result<Option<Self>, KindError> {
        let Some(bytes) = tree.read("go.work", LIMIT_BYTES)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut workspace = Self::default();
        for directive in directives("go.work", &text)? {
            if workspace.versions.take("go.work", &directive)? || directive.verb != "use" {
                continue;
            }
            let [path] = directive.arguments.as_slice() else {
                return Err(wrong("go.work", directive.line, "use takes one directory").into());
            };
            let dir = clean_path(path).map_err(|_| {
                wrong("go.work", directive.line, format!("{:?} is not in this repository", shown(path)))
            })?;
            if workspace.dirs.contains(&dir) {
                return Err(wrong(
                    "go.work",
                    directive.line,
                    format!("{} stands here twice", shown_dir(&dir)),
                )
                .into());
            }
            workspace.dirs.push(dir);
        }
        Ok(Some(workspace))
    }
}

/// The module that `dir` is in: of the nearest go.mod in it or above.
pub fn module_of(tree: &dyn Tree, dir: &str) -> Result<Option<Module>, KindError> {
    let mut at = dir;
    loop {
        if let Some(module) = Module::read(tree, at)? {
            return Ok(Some(module));
        }
        if at.is_empty() {
            return Ok(None);
        }
        at = at.rsplit_once('/').map_or("", |(above, _)| above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::MemoryTree;

    #[test]
    fn modules_and_workspaces_are_read() {
        let text = "// Package x\nmodule example.com/app // c\n\ngo 1.24.3\n\ntoolchain go1.25.1\n\nrequire (\n\texample.com/a v1.0.0\n\tgo.example.com/b v2.0.0 // indirect\n)\nrequire example.com/c v1.0.0\nreplace example.com/a => ../a\nignore (\n\t./web\n\tnode_modules\n)\nexclude ()\n";
        let tree = MemoryTree::default()
            .with("go.mod", text)
            .with("sub/go.mod", "module \"example.com/sub\"\ngo 1.22\n")
            .with("go.work", "go 1.26rc1\nuse ./sub\nuse (\n  . // here\n  \"./tools\"\n)\n");
        let module = Module::read(&tree, "").unwrap().unwrap();
        assert_eq!(module.path, "example.com/app");
        assert_eq!(module.versions.go.as_deref(), Some("1.24.3"));
        assert_eq!(module.versions.toolchain.as_deref(), Some("go1.25.1"));
        assert_eq!(module.import_path("cmd/a"), "example.com/app/cmd/a");
        assert!(module.ignores("web") && module.ignores("x/node_modules") && !module.ignores("x/web"));
        let sub = module_of(&tree, "sub/cmd/x").unwrap().unwrap();
        assert_eq!(
            (sub.dir.as_str(), sub.import_path("sub/cmd/x").as_str()),
            ("sub", "example.com/sub/cmd/x")
        );
        let workspace = Workspace::read(&tree).unwrap().unwrap();
        assert_eq!(workspace.dirs, ["sub", "", "tools"]);
        assert_eq!(workspace.versions.go.as_deref(), Some("1.26rc1"));
        assert_eq!(module_of(&MemoryTree::default(), "a").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_line() {
        let mut said = String::new();
        for text in [
            "go 1.24\n",
            "module a b\n",
            "module example.com/a\nmodule example.com/b\n",
            "module example.com/a\ngo one\n",
            "module example.com/a\n\ngo 1.24\ngo 1.25\n",
            "module example.com/a\ntoolchain 1.25\n",
            "module \"example.com/a\n",
            "module ../a\n",
            "module example.com/a\nrequire ( a v1\n",
        ] {
            let tree = MemoryTree::default().with("go.mod", text);
            said.push_str(&format!("{}\n", Module::read(&tree, "").unwrap_err()));
        }
        let tree = MemoryTree::default().with("go.work", "go 1.24\nuse ../other\n");
        said.push_str(&format!("{}\n", Workspace::read(&tree).unwrap_err()));
        assert_eq!(
            said,
            "\
go.mod:1: no module statement
go.mod:1: module takes one path
go.mod:2: repeated module statement
go.mod:2: \"one\" is no version of Go
go.mod:4: repeated go statement
go.mod:2: \"1.25\" is no version of Go
go.mod:1: a text in quotes without an end
go.mod:1: \"../a\" is no module path
go.mod:2: a block begins on a line of its own
go.work:2: \"../other\" is not in this repository
"
        );
    }
}
