//! SIGTERM on a full house: fifty pushes under way and twenty builds at work, of which some end within the grace and some do not.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use lemnos::model::BuildState;

use crate::faults::on_record;
use crate::house::{APP, House, PATIENCE, Records, Said};

/// What a solve waits for: one that the test opens within the grace, one that it opens after the restart.
const DAY: &str = "FROM scratch\n# fake: await day\n";
const NIGHT: &str = "FROM scratch\n# fake: await night\n";
const STOPPING: &str = "the server is stopping";

/// Pushes of one sort, each a commit on a branch of its own.
struct Sort {
    commits: Vec<(String, String)>,
    clients: Vec<Child>,
}

impl Sort {
    fn begin(house: &House, name: &str, count: usize, dockerfile: &str, options: &[&str]) -> Self {
        Self::begin_with(house, name, count, dockerfile, options, &[])
    }

    fn begin_with(
        house: &House,
        name: &str,
        count: usize,
        dockerfile: &str,
        options: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let commit = |n| {
            let branch = format!("{name}-{n}");
            (house.commit(None, &[("Dockerfile", dockerfile), ("branch", &branch)], &branch), branch)
        };
        let commits: Vec<(String, String)> = (0..count).map(commit).collect();
        let begin = |(commit, branch): &(String, String)| {
            let refspec = format!("{commit}:refs/heads/{branch}");
            let mut command = house.push_command(&[options, &[&refspec]].concat());
            command.env("BRANCH", branch).envs(env.iter().copied()).spawn().unwrap()
        };
        let clients = commits.iter().map(begin).collect();
        Self { commits, clients }
    }

    /// What each client said in the end.
    fn said(&mut self) -> Vec<Said> {
        self.clients.drain(..).map(|client| Said::of(client.wait_with_output().unwrap())).collect()
    }

    /// Of each commit the one record that it has.
    #[track_caller]
    fn are(&self, records: &Records, state: BuildState) {
        for (commit, branch) in &self.commits {
            let rows = records.of(commit);
            let states: Vec<BuildState> = rows.iter().map(|row| row.state).collect();
            assert_eq!(states, [state], "{branch}: {rows:#?}");
        }
    }

    /// Whether the branches stand at their commits, and their tags too.
    #[track_caller]
    fn stand(&self, house: &House, (refs, tags): (bool, bool)) {
        let found = house.refs();
        for (commit, branch) in &self.commits {
            let at = found.get(&format!("refs/heads/{branch}"));
            assert_eq!(at, Some(commit).filter(|_| refs), "{branch}");
            assert_eq!(house.revision(branch).as_ref(), Some(commit).filter(|_| tags), "the tag {branch}");
        }
    }
}

fn count(records: &Records, state: BuildState) -> usize {
    records.builds.iter().filter(|build| build.state == state).count()
}

#[track_caller]
fn until(house: &House, what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE * 2, "in vain until {what}\n{}", house.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Pushes whose clients have seen the server's refs and send nothing until `gate` is there: returned when all have come so far.
fn held(house: &House, gate: &Path) -> Sort {
    let dir = house.home.path().join("held");
    std::fs::create_dir(&dir).unwrap();
    let hook = dir.join("pre-push");
    let script =
        format!("#!/bin/sh\n: > $HERE-$BRANCH\nuntil [ -e {} ]; do sleep 0.05; done\n", gate.display());
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (here, hooks) = (dir.join("here").display().to_string(), dir.display().to_string());
    let env = [
        ("HERE", here.as_str()),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", &hooks),
    ];
    let sort = Sort::begin_with(house, "held", HELD, DAY, &[], &env);
    let come = || sort.commits.iter().all(|(_, branch)| Path::new(&format!("{here}-{branch}")).exists());
    until(house, "the held clients have come", come);
    sort
}

/// 12 and 4 that are built, 28 that wait in line, 6 that have not sent their objects yet: fifty. With 2 and 2 detached ones
/// twenty are built; 10 more detached ones wait.
const HELD: usize = 6;

/// E10
#[test]
fn sigterm_in_the_middle_of_fifty_pushes_and_twenty_builds_loses_none() {
    let house = House::new();
    house.lemnos(&["apps", "set", APP, "branches=*"]);
    house.set_env(&[
        ("LEMNOS_CONCURRENT_BUILDS", "20"),
        ("LEMNOS_SOLVES_PER_BUILDER", "20"),
        ("LEMNOS_SHUTDOWN_GRACE_SECONDS", "24"),
    ]);
    house.serve();
    let gate = house.home.path().join("gate");
    let detach: &[&str] = &["-o", "detach"];
    // who is first is built: the rest finds the twenty places taken
    let mut later =
        [Sort::begin(&house, "dawn", 2, DAY, detach), Sort::begin(&house, "owl", 2, NIGHT, detach)];
    for sort in &mut later {
        sort.said().into_iter().for_each(|said| drop(said.succeeded()));
    }
    let mut day = Sort::begin(&house, "day", 12, DAY, &[]);
    let mut night = Sort::begin(&house, "night", 4, NIGHT, &[]);
    house.builder.until("twenty builds are at work", |seen| seen.running == 20);
    let mut waiting = Sort::begin(&house, "waiting", 28, DAY, &[]);
    let mut patient = Sort::begin(&house, "patient", 10, DAY, detach);
    patient.said().into_iter().for_each(|said| drop(said.succeeded()));
    let mut held = held(&house, &gate);
    until(&house, "the rest waits in line", || count(&house.records(), BuildState::Queued) == 38);

    house.terminate();
    until(&house, "it stops", || house.log().contains("SIGTERM: no new pushes"));
    let late = house.commit(None, &[("Dockerfile", DAY), ("branch", "late")], "late");
    house.push(&[&format!("{late}:refs/heads/late")]).failed();
    // those that were connected and had sent nothing are new pushes too
    std::fs::write(gate, "").unwrap();
    for said in held.said().into_iter().chain(waiting.said()) {
        said.failed().shows(STOPPING).shows("hint: push again in a moment");
    }
    house.builder.open("day");
    day.said().into_iter().for_each(|said| drop(said.succeeded()));
    night.said().into_iter().for_each(|said| drop(said.failed().shows(STOPPING)));
    let status = house.await_end();
    assert_eq!(status.code(), Some(0), "{status}\n{}", house.log());
    house.settles("processes of a server that has ended", House::processes);
    let seen = house.builder.seen();
    assert_eq!((seen.begun, seen.running, seen.peak), (20, 0, 20), "nobody who waited was begun");
    let locked = |path: &String| path.ends_with(".lock") || !path.contains("/refs/lemnos/builds/");
    assert_eq!(house.leftovers().into_iter().find(locked), None);

    let records = house.records();
    assert_eq!(records.journal, []);
    let [dawn, owl] = &later;
    for (sort, state, stands) in [
        (&day, BuildState::Succeeded, (true, true)),
        (dawn, BuildState::Succeeded, (true, true)),
        (owl, BuildState::Queued, (true, false)),
        (&patient, BuildState::Queued, (true, false)),
        (&night, BuildState::Interrupted, (false, false)),
        (&waiting, BuildState::Interrupted, (false, false)),
        (&held, BuildState::Interrupted, (false, false)),
    ] {
        sort.are(&records, state);
        sort.stand(&house, stands);
    }
    assert!(records.of(&late).is_empty());

    house.builder.open("night");
    house.serve();
    until(&house, "what nobody waits for has ended", || count(&house.records(), BuildState::Queued) == 0);
    until(&house, "nothing runs", || count(&house.records(), BuildState::Running) == 0);
    let records = house.records();
    for sort in [owl, &patient, dawn, &day] {
        sort.are(&records, BuildState::Succeeded);
        sort.stand(&house, (true, true));
    }
    for sort in [&night, &waiting, &held] {
        sort.are(&records, BuildState::Interrupted);
        sort.stand(&house, (false, false));
    }
    on_record(&house, &[("push_answered", STOPPING); 28 + 4 + HELD]);
    // as the hint says
    for sort in [&night, &waiting, &held] {
        let (commit, branch) = &sort.commits[0];
        house.push(&[&format!("{commit}:refs/heads/{branch}")]).succeeded();
        assert_eq!(house.revision(branch).as_ref(), Some(commit));
    }
    house.stop();
    house.settles("processes of a server that has ended", House::processes);
}
