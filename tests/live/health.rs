//! What `/readyz` says of a whole server: ready, and not, with every reason.

use serde_json::Value;

use crate::house::House;

fn readyz(house: &House) -> (u16, Value) {
    let url = format!("http://{}/readyz", house.ready()["http"].as_str().unwrap());
    let output = house.command("curl").args(["-sS", "-w", "\n%{http_code}", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn checks(answer: &Value) -> Vec<&str> {
    answer["reasons"].as_array().unwrap().iter().map(|r| r["check"].as_str().unwrap()).collect()
}

#[test]
fn a_server_that_would_serve_a_push_is_ready() {
    let house = House::start("ready");
    let (status, answer) = readyz(&house);
    assert_eq!((status, &answer["ready"]), (200, &Value::Bool(true)), "{answer}");
}

#[test]
fn every_reason_for_not_being_ready_is_said() {
    // nothing listens on port 1
    let mut house = House::start_on("unready", "127.0.0.1:1", &[], &[]);
    let (status, answer) = readyz(&house);
    assert_eq!((status, checks(&answer)), (503, vec!["registry"]), "{answer}");

    // reading still works: only a write shows it
    let database = house.data().join("lemnos.db");
    let mut holder = house
        .command("sqlite3")
        .arg(&database)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut asking = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut asking, b"BEGIN IMMEDIATE; SELECT 'held';\n").unwrap();
    let mut said = String::new();
    let mut answers = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut answers, &mut said).unwrap();
    assert_eq!(said, "held\n");
    house.until("the store counts", |house| checks(&readyz(house).1).contains(&"store"));
    drop(asking);
    holder.wait().unwrap();
    house.until("the store is well again", |house| !checks(&readyz(house).1).contains(&"store"));
}
