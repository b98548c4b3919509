//! The main packages of a tree, as `go list ./...` would find them, without running `go`.
//!
//! Left out as there: `vendor`, `testdata`, directories that begin with `_` or `.`, other modules, what a go.mod ignores.
//! Bounded by the number of directories.

use super::constraint::Target;
use super::errors::KoError;
use super::modules::{Module, Workspace, module_of};
use super::source::{Package, package};
use crate::kinds::KindError;
use crate::model::{EntryKind, Tree};

/// Go's own repository has some 2,000, a large monorepo some 10,000.
const LIMIT_DIRS: usize = 30_000;
/// More main packages than anybody would want named.
const LIMIT_MAINS: usize = 500;
const LIMIT_DEPTH: usize = 64;

/// A package that makes a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Main {
    pub dir: String,
    pub import_path: String,
}

/// Every main package of the root's module, or of the workspace's modules, in the order of their directories.
pub fn mains(tree: &dyn Tree, target: &Target) -> Result<Vec<Main>, KindError> {
    let mut left = LIMIT_DIRS;
    let mut found = Vec::new();
    for module in modules(tree)? {
        walk(tree, &module, target, &module.dir, 0, &mut left, &mut found)?;
    }
    found.sort_by(|a, b| a.dir.cmp(&b.dir));
    found.dedup();
    Ok(found)
}

/// The modules that are built from the root.
pub fn modules(tree: &dyn Tree) -> Result<Vec<Module>, KindError> {
    let dirs = match Workspace::read(tree)? {
        Some(workspace) => workspace.dirs,
        None => vec![String::new()],
    };
    let mut modules = Vec::new();
    for dir in dirs {
        modules.extend(Module::read(tree, &dir)?);
    }
    Ok(modules)
}

fn walk(
    tree: &dyn Tree,
    module: &Module,
    target: &Target,
    dir: &str,
    depth: usize,
    left: &mut usize,
    found: &mut Vec<Main>,
) -> Result<(), KindError> {
    *left = left.checked_sub(1).ok_or(KoError::TooManyDirs { limit: LIMIT_DIRS })?;
    if depth > LIMIT_DEPTH || found.len() >= LIMIT_MAINS {
        return Ok(());
    }
    // one file names a package; the others are looked into when it is a program's
    let is_main = |package: &Package| matches!(package, Package::Named(name) if name == "main");
    if is_main(&package(tree, dir, target, false)?) && is_main(&package(tree, dir, target, true)?) {
        found.push(Main { dir: dir.to_owned(), import_path: module.import_path(dir) });
    }
    for entry in tree.list(dir)? {
        let name = &entry.name;
        let left_out = entry.kind != EntryKind::Dir
            || name.starts_with(['_', '.'])
            || name == "testdata"
            || name == "vendor";
        if left_out {
            continue;
        }
        let below = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        if module.ignores(&below) || tree.entry(&format!("{below}/go.mod"))?.is_some() {
            continue;
        }
        walk(tree, module, target, &below, depth + 1, left, found)?;
    }
    Ok(())
}

fn not_main(dir: &str, target: &Target, place: &str, why: String) -> KindError {
    let (place, dir, platform) = (place.to_owned(), dir.to_owned(), target.platform.clone());
    KoError::NotMain { place, dir, platform, why }.into()
}

/// Refuses a directory that holds no main package, and says why. `place`: who named it.
pub fn main_package(tree: &dyn Tree, dir: &str, target: &Target, place: &str) -> Result<(), KindError> {
    match package(tree, dir, target, true)? {
        Package::Named(name) if name == "main" => Ok(()),
        Package::Named(name) => Err(not_main(dir, target, place, format!("its package is {name}"))),
        Package::None(why) | Package::Broken(why) => Err(not_main(dir, target, place, why)),
    }
}

/// The main package in `dir`, of the module that it lies in; an error says why there is none. `place`: who named it.
pub fn main_in(tree: &dyn Tree, dir: &str, target: &Target, place: &str) -> Result<Main, KindError> {
    main_package(tree, dir, target, place)?;
    let no_module = || KoError::NoModule { place: place.to_owned(), dir: dir.to_owned() };
    let module = module_of(tree, dir)?.ok_or_else(no_module)?;
    if let Some(workspace) = Workspace::read(tree)?
        && !workspace.dirs.contains(&module.dir)
    {
        let why = format!("the module {} is not used by go.work", module.path);
        return Err(not_main(dir, target, place, why));
    }
    Ok(Main { dir: dir.to_owned(), import_path: module.import_path(dir) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::MemoryTree;

    const MAIN: &str = "package main\n\nfunc main() {}\n";

    fn target() -> Target {
        Target { platform: "linux/amd64".parse().unwrap(), cgo: false, tags: Vec::new(), minor: 26 }
    }

    fn tree(files: &[(&str, &str)]) -> MemoryTree {
        files.iter().fold(MemoryTree::default(), |tree, (path, text)| tree.with(path, text))
    }

    fn found(tree: &MemoryTree) -> Vec<String> {
        mains(tree, &target()).unwrap().into_iter().map(|main| main.import_path).collect()
    }

    #[test]
    fn what_go_leaves_out_is_left_out() {
        let all = tree(&[
            ("go.mod", "module example.com/app\nignore ./generated\n"),
            ("main.go", MAIN),
            ("cmd/b/main.go", MAIN),
            ("cmd/a/x.go", "// +build !linux\n\npackage other\n"),
            ("cmd/a/y.go", MAIN),
            ("cmd/windows/x_windows.go", MAIN),
            ("cmd/tests/x_test.go", MAIN),
            ("cmd/mixed/a.go", MAIN),
            ("cmd/mixed/b.go", "package lib\n"),
            ("lib/lib.go", "package lib\n"),
            ("vendor/example.com/x/main.go", MAIN),
            ("cmd/vendor/x/main.go", MAIN),
            ("testdata/main.go", MAIN),
            ("_old/main.go", MAIN),
            (".hidden/main.go", MAIN),
            ("generated/main.go", MAIN),
            ("other/go.mod", "module example.com/other\n"),
            ("other/main.go", MAIN),
        ]);
        assert_eq!(found(&all), ["example.com/app", "example.com/app/cmd/a", "example.com/app/cmd/b"]);
        let workspace = all.with("go.work", "use ./other\n");
        assert_eq!(found(&workspace), ["example.com/other"]);
        assert!(found(&tree(&[("main.go", MAIN)])).is_empty(), "no module");
    }

    #[test]
    fn a_directory_that_is_named_is_a_program_or_says_why_not() {
        let all = tree(&[
            ("go.mod", "module example.com/app\n"),
            ("go.work", "use .\n"),
            ("a/main.go", MAIN),
            ("lib/lib.go", "package lib\n"),
            ("win/x_windows.go", MAIN),
            ("other/go.mod", "module example.com/other\n"),
            ("other/main.go", MAIN),
        ]);
        assert_eq!(main_in(&all, "a", &target(), "here").unwrap().import_path, "example.com/app/a");
        let mut said = String::new();
        for dir in ["lib", "win", "nope", "other"] {
            said.push_str(&format!("{}\n", main_in(&all, dir, &target(), "here").unwrap_err()));
        }
        said.push_str(
            &main_in(&tree(&[("a/main.go", MAIN)]), "a", &target(), "here").unwrap_err().to_string(),
        );
        assert_eq!(said, "\
here: ./lib holds no main package for linux/amd64: its package is lib
here: ./win holds no main package for linux/amd64: build constraints leave out all of its Go files for linux/amd64
here: ./nope holds no main package for linux/amd64: there are no Go files in it
here: ./other holds no main package for linux/amd64: the module example.com/other is not used by go.work
here needs a Go module, and there is no go.mod in ./a or above");
    }
}
