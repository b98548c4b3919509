//! The shape of the house, held by a table: who may import whom, how long a file may be, what every module opens with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each top module under src/ and what it may name with `crate::`. Downward only; a missing row is an error.
fn table() -> BTreeMap<&'static str, &'static [&'static str]> {
    const ALL: &[&str] = &["*"];
    BTreeMap::from([
        ("model", &[] as &[&str]),
        ("event", &["model"]),
        ("turns", &[]),
        ("metrics", &["model"]),
        // adapters
        ("buildkit", &[]),
        ("failpoint", &[]),
        ("owner", &[]),
        ("fuzz", &[]),
        ("registry", &["model", "metrics"]),
        ("fetch", &["model", "registry"]),
        ("store", &["model", "event"]),
        ("engine", &["model"]),
        ("audit", &["model", "metrics", "event", "store"]),
        // pure stages and kinds
        ("kinds", &["model", "plan"]),
        ("detect", &["model", "kinds", "plan"]),
        ("plan", &["model", "kinds", "detect"]),
        // stages with effects
        ("receive", &["model", "metrics", "event", "audit", "owner"]),
        ("solve", &["model", "event", "turns", "buildkit", "kinds", "registry", "owner"]),
        ("assemble", &["model", "event", "registry", "failpoint", "kinds", "fetch"]),
        ("tag", &["model", "metrics", "event", "registry", "store", "failpoint", "owner"]),
        ("notify", &["model", "event"]),
        (
            "pipeline",
            &[
                "metrics",
                "model",
                "event",
                "error",
                "receive",
                "detect",
                "plan",
                "kinds",
                "solve",
                "assemble",
                "tag",
                "store",
                "registry",
                "fetch",
                "failpoint",
            ],
        ),
        (
            "jobs",
            &[
                "metrics",
                "model",
                "event",
                "error",
                "turns",
                "pipeline",
                "receive",
                "notify",
                "store",
                "plan",
                "tag",
                "failpoint",
                "audit",
            ],
        ),
        ("backup", &["receive", "store", "config"]),
        ("doctor", &["model", "admin", "engine", "registry", "buildkit", "store"]),
        ("housekeeping", &["receive", "store", "engine", "owner"]),
        // what doors share
        ("error", ALL),
        ("config", &["model", "buildkit"]),
        ("admin", &["audit", "model", "event", "error", "store", "notify", "config", "plan", "fetch"]),
        ("console", &["audit", "model", "event", "error", "admin", "notify", "plan"]),
        // doors
        ("ssh", &["model", "metrics", "receive", "audit"]),
        ("http", &["audit", "metrics", "model", "event", "error", "jobs", "store", "admin"]),
        ("cli", ALL),
    ])
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file under `dir`, with its text.
fn rust_files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}

/// The top module that a file under src/ belongs to.
fn top_module(path: &Path) -> String {
    let inside = path.strip_prefix(src()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Top modules named after `crate::` outside of `#[cfg(test)]`, with braces and nesting of `use crate::{a::B, c}`.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let before = line[..at].chars().last();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            assert!(!rest.starts_with('{'), "write one `use crate::module` a line: {line}");
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

#[test]
fn imports_point_downward() {
    let table = table();
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&src()) {
        let module = top_module(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{module}: no row in the table"));
            continue;
        };
        for import in imports(&text) {
            if import != module && !allowed.contains(&"*") && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} may not import {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_stages_touch_neither_clock_nor_network_nor_files() {
    const BANNED: [&str; 8] =
        ["tokio", "std::time::", "std::fs", "std::env", "std::net", "std::process", "SystemTime", "git2"];
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&src()) {
        let pure = ["detect", "plan", "kinds", "model"].contains(&top_module(&path).as_str())
            || path.starts_with(src().join("assemble/ko"))
            || path == src().join("assemble/ko.rs");
        if !pure {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for banned in BANNED.iter().filter(|b| line.contains(**b)) {
                wrong.push(format!("{}: {banned}: {}", path.display(), line.trim()));
            }
        }
    }
    // addresses are values, parsed and printed
    wrong.retain(|w| !w.contains("std::net::Ip") && !w.contains("std::net::SocketAddr"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_opens_with_what_it_is_for_and_none_is_called_mod() {
    for (path, text) in rust_files(&src()) {
        assert!(text.starts_with("//!"), "{} opens without //!", path.display());
        assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", path.display());
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(lines <= 700, "{} has {lines} lines before its tests: split it", path.display());
    }
}

#[test]
fn every_test_file_is_declared() {
    for suite in ["it", "crash", "live"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(suite);
        let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|e| e == "rs") && name != "main" {
                assert!(main.contains(&format!("mod {name};")), "tests/{suite}/{name}.rs is never compiled");
            }
        }
    }
}

#[test]
fn the_import_scan_sees_what_it_must() {
    let code =
        "use crate::store::Store;\nlet x = crate::tag::y();\n// crate::ssh\n#[cfg(test)]\nuse crate::cli;";
    assert_eq!(imports(code), ["store", "tag"]);
}

#[test]
fn the_codemap_names_what_is_there_and_leaves_no_module_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let codemap = text.split("## Codemap").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut named = Vec::new();
    for place in codemap.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()) {
        for path in place.split('`').filter(|path| path.contains('/')) {
            let there = root.join(path).exists() || root.join(format!("{path}.rs")).exists();
            assert!(there, "docs/ARCHITECTURE.md names {path}, which is not there");
            named.push(path.trim_end_matches('/').to_owned());
        }
    }
    for module in table().keys().filter(|module| !["failpoint", "fuzz"].contains(module)) {
        assert!(named.contains(&format!("src/{module}")), "docs/ARCHITECTURE.md has no src/{module}");
    }
}

#[test]
fn the_security_page_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let code: String =
        ["src", "tests"].iter().flat_map(|dir| rust_files(&root.join(dir))).map(|(_, text)| text).collect();
    let mut rows = 0;
    let mut missing = Vec::new();
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| row") && !line.starts_with("| -"))
    {
        rows += 1;
        let tests: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        missing.extend(tests.into_iter().filter(|test| !code.contains(&format!("fn {test}("))));
    }
    assert!(rows > 20, "{rows} rows were read");
    assert!(missing.is_empty(), "docs/SECURITY.md names tests that are not there: {missing:?}");
}
