//! The server's log: in either format one line an event, and one id on all lines of a push, whichever task wrote them.

use serde_json::Value;

use crate::house::House;

/// What each part of the server says of a push that is built.
const STAGES: [(&str, &str); 7] = [
    ("ssh", "git request served"),
    ("receive", "received"),
    ("jobs", "build runs"),
    ("solve", "solved"),
    ("assemble", "assembled"),
    ("tag", "commit point passed"),
    ("jobs", "build ended"),
];

/// A push that is built, and a request with control characters in it; the push's id in the audit record.
fn log_of_a_push(house: &mut House) -> (String, String) {
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let git_ssh = house.ssh_command("id");
    let url = format!("ssh://git@{}/sh\u{1b}[31m\u{7}op.git", house.ready()["ssh"].as_str().unwrap());
    house.git_with(&dir, &[("GIT_SSH_COMMAND", &git_ssh)], &["ls-remote", &url]).failed();
    house.push(&dir, &["HEAD:refs/heads/main"]).succeeded();
    let id = house.audited("push_answered")[0]["entry"]["request"].as_str().unwrap().to_owned();
    house.until("the request's end is logged", |house| house.server_log().contains("git request served"));
    house.stop_server();
    let log = house.server_log();
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "a raw control character: {line:?}");
    }
    (id, log)
}

#[test]
fn json_lines_of_a_push_have_one_id() {
    let mut house = House::start_with("logs-json", &["--log-format", "json"], &[]);
    let (id, log) = log_of_a_push(&mut house);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{log}");
    let of_the_push = |line: &&Value| {
        let spans = line["spans"].as_array();
        spans.is_some_and(|spans| spans.iter().any(|span| span["push"] == id.as_str()))
    };
    let said: Vec<&str> =
        lines.iter().filter(of_the_push).filter_map(|line| line["fields"]["message"].as_str()).collect();
    for (stage, message) in STAGES {
        assert!(said.contains(&message), "{stage}: {message:?} is not among {said:?}\n{log}");
    }
    let another = |line: &Value| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        spans.iter().any(|span| span["push"].as_str().is_some_and(|push| push != id))
    };
    assert!(!lines.iter().any(another), "there was one push only:\n{log}");
}

#[test]
fn text_lines_of_a_push_have_one_id() {
    let mut house = House::start("logs-text");
    let (id, log) = log_of_a_push(&mut house);
    let span = format!("push{{push={id}}}");
    for (stage, message) in STAGES {
        let found = log.lines().any(|line| line.contains(message) && line.contains(&span));
        assert!(found, "{stage}: no line with {message:?} and {span}:\n{log}");
    }
}
