//! Our graphs and BuildKit's own programs: what buildctl dumps, and what the daemon finds in its cache after a build from
//! the bytes of Go's client.

#[path = "../it/llb/describe.rs"]
mod describe;
#[path = "../it/llb/go.rs"]
mod go;
#[path = "../it/llb/language.rs"]
mod language;
#[path = "../it/llb/sources.rs"]
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lemnos::buildkit::llb::{
    Caps, Constraints, Copy, Definition, FileActions, MakeDir, MakeFile, Platform, State, cap, merge,
};
use serde_json::Value;

use super::support::engines;
use language::Description;

const TABLE: &str = include_str!("../oracle/llb.jsonl");

/// buildctl with `input`; its two outputs.
fn buildctl(args: &[&str], input: &[u8]) -> (Vec<u8>, String) {
    let mut child = Command::new(&engines().buildctl)
        .args(["--addr", &engines().buildkit])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // apart, as it may write before it has read all
    let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "buildctl {args:?}: {stderr}");
    (out.stdout, stderr)
}

fn same_lines(ours: &str, theirs: &[u8]) {
    let theirs = std::str::from_utf8(theirs).unwrap();
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn dumps_are_letter_for_letter_those_of_buildctl() {
    // one definition that holds every operation of the table: a dump does not ask how they hang together
    let mut all = Definition::default();
    for line in TABLE.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let ops = case["want"]["ops"].as_array().cloned().unwrap_or_default();
        all.ops.extend(ops.iter().map(|op| STANDARD.decode(op.as_str().unwrap()).unwrap()));
        let description: Description = serde_json::from_value(case).unwrap();
        all.metadata.extend(description.marshal().map(|ours| ours.metadata).unwrap_or_default());
    }
    assert!(all.ops.len() > 500, "{}", all.ops.len());
    let bytes = all.to_bytes();
    same_lines(&all.to_json_lines().unwrap(), &buildctl(&["debug", "dump-llb"], &bytes).0);
    same_lines(&all.to_dot().unwrap(), &buildctl(&["debug", "dump-llb", "--dot"], &bytes).0);
}

/// Solves a definition; each vertex by digest, and whether it was found in the cache.
fn solve(definition: &[u8], more: &[&str]) -> BTreeMap<String, bool> {
    let args: Vec<&str> = ["build", "--progress=rawjson"].iter().chain(more).copied().collect();
    let (_, progress) = buildctl(&args, definition);
    let mut vertices = BTreeMap::new();
    for line in progress.lines() {
        let status: Value = serde_json::from_str(line).unwrap_or_default();
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let digest = vertex["digest"].as_str().unwrap().to_owned();
            *vertices.entry(digest).or_default() |= vertex["cached"].as_bool().unwrap_or_default();
        }
    }
    vertices
}

fn unique() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos().to_string()
}

/// Every kind of operation that needs no network but the registry's.
fn graph() -> Description {
    let steps = serde_json::json!([
        {"op": "image", "ref": "busybox"},
        {"op": "set", "set": [["env", "WORD", unique()], ["dir", "/work"]]},
        {"op": "local", "id": "context", "include": ["*.txt"], "hint": "llb"},
        {"op": "file", "on": 2, "actions": [
            {"kind": "mkdir", "path": ".", "mode": 0o755, "flags": ["parents"]},
            {"kind": "copy", "from": 3, "path": "/", "to": "in/",
             "flags": ["contents_only", "create_target_path", "wildcard"], "owner": "root"},
            {"kind": "mkfile", "path": "note", "mode": 0o600, "data": "é\n", "created": "1000000000"},
            {"kind": "symlink", "path": "note", "to": "/work/link"}
        ]},
        {"op": "run", "on": 4, "args": ["sh", "-c", "echo $WORD > /out/word && cat in/a.txt >> /out/word && cat link"],
         "mounts": [
            {"kind": "bind", "target": "/out"},
            {"kind": "cache", "target": "/cache", "id": "llb-live", "sharing": "locked"},
            {"kind": "tmpfs", "target": "/scratch", "size": 1 << 20},
            {"kind": "bind", "target": "/base", "from": 1, "path": "bin", "flags": ["readonly"]}
         ],
         "set": [["network", "none"], ["ulimit", "nofile", "64", "64"], ["hostname", "here"]],
         "c": {"name": "a command", "group": ["g", "a group", ""]}},
        {"op": "mount", "on": 5, "target": "/out"},
        {"op": "run", "on": 4, "shell": "touch '/work/a b'", "codes": [0, 3]},
        {"op": "diff", "in": [4, 7]},
        {"op": "merge", "in": [6, 8], "c": {"desc": [["k", "v"]]}},
        {"op": "import"},
        {"op": "file", "actions": [{"kind": "rm", "path": "/nothing*", "flags": ["wildcard", "allow_not_found"]}]}
    ]);
    let marshal = serde_json::json!({"platform": {"os": "linux", "arch": "amd64"}, "unique": "llb-live"});
    serde_json::from_value(serde_json::json!({"steps": steps, "marshal": marshal})).unwrap()
}

#[test]
fn after_a_build_from_gos_bytes_ours_is_cached_throughout() {
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("a.txt"), "a").unwrap();
    let local = format!("context={}", context.path().display());
    let local = ["--local", local.as_str()];
    let graph = graph();
    let ours = graph.marshal().unwrap();
    let theirs = go::definition(&graph.line()).expect("Go is installed: tests/run provides it");

    let first = solve(&theirs, &local);
    let fresh = first.values().filter(|cached| !**cached).count();
    assert!(fresh >= 5, "the graph is new to the daemon: {first:?}");

    let second = solve(&ours.to_bytes(), &local);
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    let mut digests: BTreeSet<String> = ours.digests().into_iter().collect();
    digests.remove(ours.digests().last().unwrap());
    assert_eq!(second.keys().cloned().collect::<BTreeSet<_>>(), digests, "the daemon's digests are ours");
    // sources are looked up again, whoever asks
    let sources = sources_of(&ours);
    let missed: Vec<_> =
        second.iter().filter(|(digest, cached)| !**cached && !sources.contains(digest)).collect();
    assert!(missed.is_empty(), "not in the cache: {missed:?} of {second:?}");
}

fn sources_of(definition: &Definition) -> Vec<String> {
    let lines = definition.to_json_lines().unwrap();
    let ops = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let sources = ops.filter(|op| op["Op"]["Op"]["source"].is_object());
    sources.map(|op| op["Digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_merge_made_of_copies_leaves_what_a_merge_leaves() {
    let file = |path: &str, text: &str| {
        let text = format!("{text} {}", unique());
        FileActions::new().mkdir(MakeDir::new("/d", 0o755)).mkfile(MakeFile::new(path, 0o640, text))
    };
    let on_scratch = |actions| State::scratch().file(actions, Constraints::new());
    let states = [
        on_scratch(file("/d/a", "first").mkfile(MakeFile::new("/both", 0o644, "first"))),
        on_scratch(file("/d/b", "second").mkfile(MakeFile::new("/both", 0o600, "second"))),
        on_scratch(file("/c", "third").mkdir(MakeDir::new("/d/e", 0o700))),
    ];
    let merged = merge(&states, Constraints::new());
    // what is exported is what is in it, not when it was made
    let merged = State::scratch().file(
        FileActions::new().copy(Copy::new(&merged, "/", "/").contents_only().created(0)),
        Constraints::new(),
    );
    let ground = Constraints::new().platform(Platform::new("linux", "amd64"));
    let copied = [cap::FILE_BASE, cap::FILE_COPY_ALWAYS_REPLACE];
    let trees = [ground.clone(), ground.caps(Caps::new(copied))].map(|ground| {
        let definition = merged.marshal(&ground).unwrap();
        let merges = definition.to_dot().unwrap().contains("invtriangle");
        let (tar, _) =
            buildctl(&["build", "--progress=rawjson", "--output", "type=tar"], &definition.to_bytes());
        let mut archive = tar::Archive::new(&tar[..]);
        let entries: BTreeMap<_, _> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().into_owned();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
                (path, (entry.header().mode().unwrap(), entry.header().entry_type(), text))
            })
            .collect();
        (merges, entries)
    });
    let [(true, merged), (false, copied)] = trees else { panic!("one with a merge, one without: {trees:?}") };
    assert!(merged.len() >= 5, "{merged:?}");
    assert_eq!(merged, copied);
}
