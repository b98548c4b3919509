//! The oracle's table, and what a table cannot say: bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

/// As in tests/oracle/ko/templates.go.
pub(super) fn data() -> Value {
    let texts = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Value::Texts(Arc::new(pairs.collect()))
    };
    let map = |pairs: Vec<(&str, Value)>| {
        let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value));
        Value::Map(Arc::new(pairs.collect::<BTreeMap<_, _>>()))
    };
    let env = [
        ("LDFLAGS", ""),
        ("NAME", "shop & co"),
        ("EMPTY", ""),
        ("QUOTED", "a\"b'c\\d<e>=f"),
        ("VERSION", "v1.2.3"),
    ];
    map(vec![
        ("Env", texts(&env)),
        ("GoEnv", texts(&[("GOOS", "linux"), ("GOARCH", "arm64")])),
        (
            "Git",
            map(vec![
                ("Branch", Value::text("main")),
                ("Tag", Value::text("v1.2.3")),
                ("ShortCommit", Value::text("0123456")),
                ("FullCommit", Value::text("0123456789abcdef0123456789abcdef01234567")),
                ("CommitDate", Value::text("2023-11-14T22:13:20Z")),
                ("CommitTimestamp", Value::Int(1_700_000_000)),
                ("IsDirty", Value::Bool(false)),
                ("IsClean", Value::Bool(true)),
                ("TreeState", Value::text("clean")),
            ]),
        ),
        ("Date", Value::text("2023-11-14T22:13:20Z")),
        ("Timestamp", Value::Int(1_700_000_000)),
    ])
}

/// Whatever Go makes, we make too, or refuse by name; whatever Go refuses, we refuse.
#[test]
fn templates_are_gos() {
    let table = include_str!("../../../../tests/oracle/ko/templates.jsonl");
    let (mut equal, mut refused, mut errors) = (0, 0, 0);
    let mut wrong = Vec::new();
    for line in table.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let template = case["template"].as_str().unwrap();
        match (render(template, &data()), case["out"].as_str()) {
            (Ok(made), Some(expect)) if made == expect => equal += 1,
            (Err(TemplateError::Unsupported { .. }), Some(_)) => refused += 1,
            (Err(_), None) => errors += 1,
            (made, expect) => wrong.push(format!("{template:?}\n  ours {made:?}\n  Go's {expect:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.lines().count(), wrong.join("\n"));
    assert!(equal > 430 && errors > 300, "{equal} equal, {errors} errors");
    assert!(refused < 80, "{refused} of what Go makes are refused");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let mut said = String::new();
    for template in [
        "{{range .Env}}x{{end}}",
        "{{define \"a\"}}x{{end}}",
        "{{call .Date}}",
        "{{printf \"%d\" \"a\"}}",
        "{{.Env.NOPE}}",
        "{{.Nope}}",
        "{{nope}}",
        "{{.Date",
        "{{.Date.X}}",
        "{{eq 1 \"a\"}}",
        "{{printf \"%2000d\" 1}}",
        "{{eq .Env .Env}}",
    ] {
        said.push_str(&format!("{}\n", render(template, &data()).unwrap_err()));
    }
    insta::assert_snapshot!(said, @r#"
    the template "{{range .Env}}x{{end}}" uses {{range}}, which is not supported here
    the template "{{define \"a\"}}x{{end}}" uses {{define}}, which is not supported here
    the template "{{call .Date}}" uses call, which is not supported here
    the template "{{printf \"%d\" \"a\"}}" uses printf with %d for a string, which is not supported here
    the template "{{.Env.NOPE}}" has no value: map has no entry for key "NOPE"
    the template "{{.Nope}}" has no value: map has no entry for key "Nope"
    the template "{{nope}}" cannot be read: function "nope" not defined
    the template "{{.Date" cannot be read: unclosed action
    the template "{{.Date.X}}" has no value: can't evaluate field X in type string
    the template "{{eq 1 \"a\"}}" has no value: incompatible types for comparison
    the template "{{printf \"%2000d\" 1}}" uses printf with a width of 2000, which is not supported here
    the template "{{eq .Env .Env}}" uses a comparison with a map or with nil, which is not supported here
    "#);
}

#[test]
fn what_grows_without_end_is_stopped() {
    let doubling = "{{$x := \"0123456789\"}}".to_owned() + &"{{$x = print $x $x}}".repeat(40) + "{{len $x}}";
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    let nested = "{{if true}}".repeat(5000) + &"{{end}}".repeat(5000);
    let long = "{{.Date}}".repeat(8000);
    let printed = "{{$x := .Env}}".to_owned() + &"{{$x}}".repeat(9000);
    for template in [doubling, deep, nested, long, printed] {
        assert!(render(&template, &data()).is_err(), "{}", &template[..40]);
    }
}
