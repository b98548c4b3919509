//! docs/reference/build.md against buildx's own list of flags, the command, and the tests that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::CommandFactory as _;
use lemnos::cli::Cli;
use serde_json::Value;

const TABLE: &str = include_str!("../../docs/reference/build.md");
const LIVE: &str = include_str!("../live/build_command.rs");
/// Of lemnos, and of no other.
const OURS: [&str; 2] = ["data", "plain-http"];

/// Name, what is said of it, and the test's name.
fn rows() -> BTreeMap<String, (String, String)> {
    let rows = TABLE.lines().filter(|line| line.starts_with("| `--"));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [flag, state, test] = cells[..] else { panic!("{line}") };
        (flag.trim_matches(['`', '-']).to_owned(), (state.to_owned(), test.trim_matches('`').to_owned()))
    });
    rows.collect()
}

/// buildx's flags with their short forms.
fn buildx() -> BTreeMap<String, String> {
    let list: Vec<Value> = serde_json::from_str(include_str!("../oracle/buildx/names.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter().map(|flag| (text(&flag["name"]), text(&flag["short"]))).collect()
}

fn tests_below(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&tests_below(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn every_flag_of_buildx_has_a_row_and_no_row_is_made_up() {
    let (rows, buildx) = (rows(), buildx());
    assert!(buildx.len() > 45, "{buildx:?}");
    let known: BTreeSet<&str> = buildx.keys().map(String::as_str).chain(OURS).chain(["help"]).collect();
    let told: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    assert_eq!(told, known);
    for (flag, (state, _)) in &rows {
        let said = ["works", "refused", "lemnos's own"].iter().any(|word| state.starts_with(word));
        assert!(said, "--{flag}: {state}");
        assert_eq!(OURS.contains(&flag.as_str()), state.starts_with("lemnos's own"), "--{flag}: {state}");
    }
}

#[test]
fn the_command_takes_every_flag_by_its_name_and_short_form() {
    let command = Cli::command();
    let mut build = command.get_subcommands().find(|c| c.get_name() == "build").unwrap().clone();
    build.build();
    let arguments = build.get_arguments().filter_map(|argument| {
        let short = argument.get_short().map(String::from).unwrap_or_default();
        Some((argument.get_long()?.to_owned(), short))
    });
    let ours: BTreeMap<String, String> =
        arguments.filter(|(name, _)| !OURS.contains(&name.as_str()) && name != "help").collect();
    let mut theirs = buildx();
    theirs.remove("help");
    assert_eq!(ours, theirs);
}

#[test]
fn every_row_names_a_test_that_is_there() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text =
        [LIVE, &tests_below(&sources.join("cli")), &std::fs::read_to_string(sources.join("cli.rs")).unwrap()]
            .concat();
    let missing: Vec<String> = rows()
        .into_iter()
        .filter(|(_, (_, test))| !text.contains(&format!("fn {test}(")))
        .map(|(flag, (_, test))| format!("--{flag}: {test}"))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
