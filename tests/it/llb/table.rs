//! The committed table: every description comes to Go's bytes, metadata, source maps and dump.

use std::collections::BTreeSet;

use super::language::Description;
use super::oracle::Answer;

const TABLE: &str = include_str!("../../oracle/llb.jsonl");

fn cases() -> Vec<Description> {
    TABLE
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn every_description_of_the_table_comes_to_gos_bytes() {
    let mut wrong = Vec::new();
    for case in cases() {
        let want: Answer = serde_json::from_value(case.want.clone().expect("an answer")).unwrap();
        let difference = want.difference(&case.marshal());
        wrong.extend(difference.map(|difference| format!("{}: {difference}", case.name)));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn the_table_is_large_and_has_every_kind_of_step() {
    let cases = cases();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a name stands twice");
    let kinds: BTreeSet<&str> =
        cases.iter().flat_map(|case| &case.steps).map(|step| step.op.as_str()).collect();
    let all = [
        "blob",
        "build",
        "chain",
        "config",
        "diff",
        "file",
        "git",
        "http",
        "image",
        "import",
        "local",
        "map",
        "merge",
        "mount",
        "oci",
        "ociblob",
        "passthrough",
        "requires",
        "run",
        "scratch",
        "set",
        "source",
    ];
    assert!(kinds.iter().eq(&all), "{kinds:?}");
    let failing =
        cases.iter().filter(|case| case.want.as_ref().is_some_and(|want| want["error"].is_string()));
    assert!((5..60).contains(&failing.count()), "most cases must not be failures");
}
