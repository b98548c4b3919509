//! The server's clock steps back over a restart: files that changed are still seen as changed, and builds keep their order.

use crate::house::House;

/// Debian's libfaketime shifts what the program takes for the time of day; what it measures durations with stays.
fn hours_back(house: &mut House, hours: u32) {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("tests/run installs faketime");
    house.set_env(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME", &format!("-{hours}h")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
}

/// The content of a file that the last build of main copied, as a build says it.
fn built(house: &House, dir: &std::path::Path, content: &str) {
    house.commit(dir, &[("file", content)], content);
    house.push(dir, &["main"]).succeeded().shows(&format!("the file says {content}"));
}

#[test]
fn a_clock_that_steps_back_hides_no_change_and_keeps_the_order() {
    let mut house = House::start("clock");
    house.app("shop");
    let dockerfile = "FROM busybox\nCOPY file /file\nRUN echo the file says $(cat /file)\n";
    let dir = house.repository("shop", &[("Dockerfile", dockerfile), ("file", "0")]);
    built(&house, &dir, "1");
    let now_ms = || {
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
            .unwrap()
    };
    for hours in [1, 48] {
        house.kill_server();
        hours_back(&mut house, hours);
        house.serve();
        house.git(&dir, &["remote", "set-url", "builder", &house.url("shop")]).succeeded();
        // of one size, so that only the time tells them apart; and back to what a build before had
        for content in ["2", "3", "1"] {
            built(&house, &dir, &format!("{content}{hours:02}"));
        }
        let newest = &house.builds("shop")[0];
        let began = newest["started_at_ms"].as_i64().unwrap();
        assert!(began < now_ms() - 1_800_000, "the server's clock was not shifted: {newest}");
    }
    let said: Vec<String> =
        house.builds("shop").iter().map(|build| build["commit"].as_str().unwrap().to_owned()).collect();
    let log = house.git(&dir, &["log", "--format=%H", "-7"]).succeeded().stdout;
    assert_eq!(said, log.lines().collect::<Vec<_>>(), "newest first");
}
