//! The audit record of a whole server: who did what, and who was kept from it.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::house::{House, Said};

fn ssh(house: &House, key: &str, more: &[&str]) -> Said {
    let line = house.ssh_command(key);
    let mut words = line.split(' ');
    let address = house.ready()["ssh"].as_str().unwrap().to_owned();
    let (host, port) = address.rsplit_once(':').unwrap();
    let output = house
        .command(words.next().unwrap())
        .args(words)
        .args(["-p", port, &format!("git@{host}")])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said::of(output)
}

#[test]
fn a_push_is_on_record_from_the_login_to_its_answer() {
    let house = House::start("audit-push");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    house.push(&dir, &["HEAD:refs/heads/side"]).succeeded();
    let record = house.audit();
    let of_ada: Vec<&Value> =
        record.iter().map(|one| &one["entry"]).filter(|e| e["actor"]["name"] == "ada").collect();
    let types: Vec<_> = of_ada.iter().map(|e| e["event"]["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["logged_in", "request_accepted", "push_answered"], "{record:?}");
    for entry in &of_ada {
        assert!(entry["key"].as_str().unwrap().starts_with("SHA256:"), "{entry}");
        assert!(entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
    }
    assert_eq!(of_ada[1]["request"], of_ada[2]["request"], "one id for all of it");
    assert_eq!(of_ada[2]["event"]["reference"], "refs/heads/side");
    assert_eq!(of_ada[2]["event"]["refused"], Value::Null);
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout;
    assert_eq!(of_ada[2]["event"]["new"], commit.trim());

    let one = house.lemnos(&["audit", "--request", of_ada[1]["request"].as_str().unwrap()]).succeeded();
    assert_eq!(one.stdout.lines().count(), 2, "{}", one.stdout);
    one.shows("git-receive-pack").shows("pushed refs/heads/side");
}

#[test]
fn each_refusal_is_one_entry() {
    let house = House::start("audit-refusals");
    house.app("shop");
    let dir = house.repository("shop", &[("README", "hello\n")]);
    house.generate_key("stranger");

    ssh(&house, "stranger", &["help"]).failed();
    assert_eq!(house.audited("login_refused").len(), 1, "{:?}", house.audit());
    let refused = house.audited("login_refused").remove(0);
    assert_eq!(refused["entry"]["event"]["reason"], "unknown-key");
    assert_eq!(refused["entry"]["actor"], json!({ "kind": "anonymous" }));

    ssh(&house, "id", &["rm", "-rf", "/"]).failed();
    ssh(&house, "id", &["git-receive-pack", "--help"]).failed();
    ssh(&house, "id", &["git-receive-pack", "nothing.git"]).failed();
    assert_eq!(house.audited("request_refused").len(), 3, "{:?}", house.audit());

    ssh(&house, "id", &["-s", "sftp"]).failed();
    assert_eq!(house.audited("channel_refused").len(), 1);

    // ours, then git's own
    house.push(&dir, &["HEAD:refs/heads/x;id"]).failed();
    assert_eq!(house.audited("push_refused").len(), 1, "{:?}", house.audit());
    house.push(&dir, &["HEAD:refs/heads/main"]).failed().shows("Dockerfile");
    let answered = house.audited("push_answered");
    assert_eq!(answered.len(), 1);
    assert!(answered[0]["entry"]["event"]["refused"].as_str().is_some(), "{answered:?}");

    house.lemnos(&["apps", "grant", "shop", "nobody"]).failed();
    let last = house.audit().pop().unwrap();
    assert_eq!(last["entry"]["event"]["action"], "grant");
    assert_eq!(last["entry"]["event"]["refused"], "there is no user nobody");
}

#[test]
fn changes_are_on_record_with_and_without_a_server_and_nobody_rewrites_them() {
    let mut house = House::start("audit-changes");
    house.app("shop");
    house.stop_server();
    house.lemnos(&["apps", "revoke", "shop", "ada"]).succeeded();
    let actions: Vec<_> = house
        .audited("administered")
        .iter()
        .map(|one| one["entry"]["event"]["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["add_keys", "create_app", "grant", "revoke"]);
    let text = house.lemnos(&["audit", "--app", "shop", "--since", "1h"]).succeeded().stdout;
    assert!(text.contains("operator") && text.contains("revoke ada"), "{text}");
    house.lemnos(&["audit", "--verify"]).succeeded().shows("as they were written");

    let database = house.data().join("lemnos.db");
    let sql = |text: &str| Said::of(house.command("sqlite3").arg(&database).arg(text).output().unwrap());
    sql("DELETE FROM audit").failed().shows("the audit record is not removed");
    sql("DROP TRIGGER audit_is_not_removed; DELETE FROM audit WHERE seq = 2").succeeded();
    house.lemnos(&["audit", "--verify"]).failed().shows("entries 2 to 2 are missing");
}

#[test]
fn the_record_is_followed_as_it_grows() {
    let house = House::start("audit-follow");
    let mut following = house
        .command(env!("CARGO_BIN_EXE_lemnos"))
        .args(["audit", "-f", "--limit", "1", "--data", house.data().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(following.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("add_keys"));
    house.app("shop");
    assert!(lines.next().unwrap().unwrap().contains("create_app"));
    assert!(lines.next().unwrap().unwrap().contains("grant ada"));
    following.kill().unwrap();
    following.wait().unwrap();
}
