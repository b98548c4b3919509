//! Faults of what the server stands on: database, disk, registry, builders. The push is refused before success is reported, or
//! accepted and brought to its end; and when the fault is gone, all works again.

use std::time::Duration;

use lemnos::model::BuildState;
use sqlx::{Connection as _, Executor as _};

use crate::fake::builder::FakeBuilder;
use crate::fake::registry::Fault;
use crate::house::{House, Said};

const MANIFESTS: &str = "/manifests/";

/// A house whose main is at a first commit, with tags.
pub fn standing() -> (House, String) {
    let house = House::new();
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n")], "first");
    push(&house, &first).succeeded();
    (house, first)
}

pub fn next(house: &House, parent: &str, content: &str) -> String {
    house.commit(Some(parent), &[("Dockerfile", "FROM scratch\n"), ("content", content)], content)
}

pub fn push(house: &House, commit: &str) -> Said {
    house.push(&[&format!("{commit}:refs/heads/main")])
}

#[track_caller]
pub fn stands_at(house: &House, commit: &str) {
    assert_eq!(house.refs()["refs/heads/main"], commit, "the ref");
    for tag in ["main", "latest"] {
        assert_eq!(house.revision(tag).as_deref(), Some(commit), "the tag {tag}");
    }
}

/// The standing assertion of docs/SECURITY.md: the server lives and stays within its memory, nothing is left of what was
/// refused, and each refusal of the whole test so far is on record, once.
#[track_caller]
pub fn on_record(house: &House, refused: &[(&str, &str)]) {
    assert!(house.is_up());
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.server_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 << 10, "{peak} KiB");
    // an end that the database did not take is written a second later at the soonest
    house.settles("what was refused", House::leftovers);
    let record = house.lemnos(&["audit", "--limit", "1000", "--json"]);
    let found: Vec<(String, String)> = record
        .lines()
        .filter_map(|line| {
            let one: serde_json::Value = serde_json::from_str(line).unwrap();
            let event = &one["entry"]["event"];
            let why = ["reason", "refused", "what"].iter().find_map(|field| event[*field].as_str())?;
            Some((event["type"].as_str().unwrap().to_owned(), why.to_owned()))
        })
        .collect();
    let fits = |(found, wanted): (&(String, String), &(&str, &str))| {
        found.0 == wanted.0 && found.1.contains(wanted.1)
    };
    let all = found.len() == refused.len() && found.iter().zip(refused).all(fits);
    assert!(all, "wanted {refused:#?}, on record is {found:#?}\n{}", house.log());
}

/// Another process that writes to the database and does not end.
struct Writer {
    runtime: tokio::runtime::Runtime,
    connection: sqlx::SqliteConnection,
}

impl Writer {
    fn hold(house: &House) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = house.data().join("lemnos.db");
        let connection = runtime.block_on(async {
            let url = format!("sqlite://{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            connection.execute("PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE").await.unwrap();
            connection
        });
        Self { runtime, connection }
    }

    fn release(mut self) {
        self.runtime.block_on(async { self.connection.execute("ROLLBACK").await.unwrap() });
    }
}

/// E4
#[test]
fn a_push_is_refused_while_another_process_holds_the_database() {
    let (house, first) = standing();
    let second = next(&house, &first, "second");
    let writer = Writer::hold(&house);
    push(&house, &second).failed().shows("locked by another process").shows("fuser lemnos.db");
    writer.release();
    stands_at(&house, &first);
    on_record(&house, &[("push_answered", "server error: the database is locked by another process")]);
    push(&house, &second).succeeded();
    stands_at(&house, &second);
}

/// Runs a push of a commit on top of main that finds the database locked when it comes to `point`; what its client said.
fn locked_at(point: &str) -> (House, String, String, Said) {
    let (house, first) = standing();
    house.stop();
    let gate = house.home.path().join("gate");
    // the first push, of the same point, was another server's
    house.set_env(&[("LEMNOS_FAILPOINT", &format!("{point}:pause-until-file={}", gate.display()))]);
    house.serve();
    let second = next(&house, &first, "second");
    let said = std::thread::scope(|scope| {
        let pushing = scope.spawn(|| push(&house, &second));
        // built, and on its way to the point
        house.builder.until("the second solve has ended", |seen| seen.succeeded == 2);
        house.settles("the push waits", |house| {
            let passed = point != "before-finish" || house.refs().get("refs/heads/main") == Some(&second);
            if passed { Vec::new() } else { vec!["the ref has not moved".to_owned()] }
        });
        // what the build writes about itself is written
        std::thread::sleep(Duration::from_millis(300));
        let writer = Writer::hold(&house);
        std::fs::write(&gate, "").unwrap();
        let said = pushing.join().unwrap();
        writer.release();
        said
    });
    (house, first, second, said)
}

/// E4
#[test]
fn a_database_that_is_locked_at_the_commit_point_refuses_the_push() {
    let (house, first, second, said) = locked_at("before-commit");
    said.failed().shows("locked by another process");
    stands_at(&house, &first);
    on_record(&house, &[("push_answered", "server error: the database is locked by another process")]);
    push(&house, &second).succeeded();
    stands_at(&house, &second);
}

/// E4: nothing can be refused any more; the record comes to the truth by the next start at the latest.
#[test]
fn a_database_that_is_locked_at_the_end_loses_no_accepted_push() {
    let (house, _, second, said) = locked_at("before-finish");
    said.succeeded();
    stands_at(&house, &second);
    house.kill();
    house.set_env(&[]);
    house.serve();
    let records = house.records();
    assert_eq!(records.of(&second).iter().map(|row| row.state).collect::<Vec<_>>(), [BuildState::Succeeded]);
    let third = next(&house, &second, "third");
    push(&house, &third).succeeded();
    stands_at(&house, &third);
}

/// E7
#[test]
fn a_registry_that_fails_now_and_then_costs_retries_and_no_push() {
    let (house, first) = standing();
    let faults = [
        ("504 every second", Fault::Status(504, "", "")),
        ("429", Fault::Status(429, "Retry-After: 0", "")),
        ("reset", Fault::Reset),
        ("lost answer", Fault::ResetAfterEffect),
    ];
    let mut at = first;
    for (name, fault) in faults {
        house.registry.take_log();
        house.registry.fail_every("PUT", MANIFESTS, 2, fault);
        let commit = next(&house, &at, name);
        push(&house, &commit).succeeded();
        house.registry.heal();
        house.settles(name, |house| house.records().journal.iter().map(|e| format!("{e:?}")).collect());
        stands_at(&house, &commit);
        let puts = house.registry.take_log().iter().filter(|line| line.starts_with("PUT ")).count();
        // two images, the builder's index, ours, three tags; each at most twice, as every second one works
        assert!(puts <= 2 * 7, "{name}: {puts} PUTs");
        at = commit;
    }
}

/// E2
#[test]
fn a_tag_that_does_not_stand_after_its_put_is_seen_and_mended() {
    let (house, first) = standing();
    let foreign = r#"{"schemaVersion":2,"manifests":[]}"#;
    let mut at = first;
    for (name, fault) in [("lost", Fault::Forget), ("overwritten", Fault::Overwritten(foreign))] {
        house.registry.fail("PUT", "/manifests/main", 1, fault);
        let commit = next(&house, &at, name);
        push(&house, &commit).succeeded().shows("still to be moved");
        house.settles(name, |house| house.records().journal.iter().map(|e| format!("{e:?}")).collect());
        stands_at(&house, &commit);
        at = commit;
    }
}

/// E2
#[test]
fn of_racing_pushes_the_older_that_ends_last_moves_nothing() {
    let (house, mut at) = standing();
    for round in 0..8 {
        let gate = format!("gate-{round}");
        let dockerfile = format!("FROM scratch\n# fake: await {gate}\n");
        let begun = house.builder.seen().begun;
        let older = house.commit(Some(&at), &[("Dockerfile", &dockerfile)], "older");
        let newer = next(&house, &at, &format!("newer {round}"));
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| push(&house, &older));
            house.builder.until("the older build has begun", |seen| seen.begun > begun);
            push(&house, &newer).succeeded();
            house.builder.open(&gate);
            slow.join().unwrap().failed();
        });
        stands_at(&house, &newer);
        at = newer;
    }
    on_record(&house, &[("push_answered", "superseded by "); 8]);
}

/// E6
#[test]
fn a_platform_that_fails_leaves_the_tags_alone() {
    let house = House::new();
    let arm = FakeBuilder::start_for(&house.home.path().join("arm.sock"), vec![("arm64", "")]);
    house.set_args(&["--builder", &format!("{},platform=linux/arm64", arm.address())]);
    house.serve();
    let first = house.commit(None, &[("Dockerfile", "FROM scratch\n")], "first");
    push(&house, &first).succeeded();
    assert_eq!(arm.seen().succeeded, 1);
    arm.order("fail");
    let second = next(&house, &first, "second");
    push(&house, &second).failed().shows("exit code: 2");
    stands_at(&house, &first);
    assert_eq!(house.tag(&format!("git-{}", &second[..12])), None);
    on_record(&house, &[("push_answered", "build failed: RUN make")]);
    push(&house, &second).succeeded();
    stands_at(&house, &second);
}

/// D8: what a builder says that it made is looked up, counted and compared before anything of it has a name.
#[test]
fn what_a_builder_returns_and_did_not_make_is_not_published() {
    let (house, first) = standing();
    let wanted = [
        ("nowhere", "the registry has no such repository or manifest"),
        ("half", "the builders made no image for linux/arm64"),
        ("another", "linux/riscv64, which the plan does not hold"),
    ];
    for (lie, told) in wanted {
        house.builder.order(&format!("lie {lie}"));
        let second = next(&house, &first, lie);
        push(&house, &second).failed().shows(told);
        stands_at(&house, &first);
        assert_eq!(house.tag(&format!("git-{}", &second[..12])), None, "{lie}");
    }
    let refused: Vec<(&str, &str)> = wanted.iter().map(|(_, told)| ("push_answered", *told)).collect();
    on_record(&house, &refused);
    let third = next(&house, &first, "true");
    push(&house, &third).succeeded();
    stands_at(&house, &third);
}

/// E5: another takes over, which is nobody's refusal; where there is none, the push is refused, once.
#[test]
fn a_builder_that_dies_costs_a_push_only_where_it_was_the_last() {
    let (house, first) = standing();
    house.stop();
    let other =
        FakeBuilder::start_for(&house.home.path().join("other.sock"), vec![("amd64", ""), ("arm64", "")]);
    house.set_args(&["--builder", &format!("{},name=other", other.address())]);
    house.serve();
    let gate = "FROM scratch\n# fake: await go\n";
    let second = house.commit(Some(&first), &[("Dockerfile", gate)], "second");
    let before = (house.builder.seen().begun, other.seen().begun);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| push(&house, &second));
        house.settles("it is begun", |house| {
            let begun = (house.builder.seen().begun, other.seen().begun) != before;
            if begun { Vec::new() } else { vec!["not yet".to_owned()] }
        });
        let (lost, left) = match other.seen().begun > before.1 {
            true => (&other, &house.builder),
            false => (&house.builder, &other),
        };
        left.open("go");
        lost.kill();
        pushing.join().unwrap().succeeded().shows("another builder takes over");
        left.order("die");
    });
    stands_at(&house, &second);
    on_record(&house, &[]);
    let third = next(&house, &second, "third");
    push(&house, &third).failed().shows(" lost");
    stands_at(&house, &second);
    on_record(&house, &[("push_answered", " lost")]);
    house.builder.restart();
    other.restart();
    push(&house, &third).succeeded();
    stands_at(&house, &third);
}
