//! Seeded crashes: clients push, somebody dies, all come back; then nothing accepted is lost and nothing is half done.
//!
//! `LEMNOS_TEST_CRASH_SEEDS=N` runs N seeds, `LEMNOS_TEST_CRASH_SEED=K` runs one again; a seed that fails is named with its
//! schedule. What runs at the same time differs from run to run: a seed is a schedule, not a replay of every instant.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lemnos::audit::Event;
use lemnos::model::BuildState;

use crate::house::{House, PATIENCE, Records, Said};
use crate::schedule::{Crash, Kind, Op, Schedule, Victim};

const SEEDS: u64 = 300;
/// Seeds side by side: most of a run is waiting.
const WORKERS: u64 = 4;

/// E1
#[test]
fn every_accepted_push_ends_once_whoever_dies_and_whenever() {
    let wanted = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = wanted("LEMNOS_TEST_CRASH_SEED") {
        return run(seed);
    }
    let seeds = wanted("LEMNOS_TEST_CRASH_SEEDS").unwrap_or(SEEDS);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().len() > 3 {
                        return;
                    }
                    if std::panic::catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
                        eprintln!(
                            "seed {seed} failed: LEMNOS_TEST_CRASH_SEED={seed}\n{:#?}",
                            Schedule::of(seed)
                        );
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    eprintln!("{seeds} seeds in {} s", began.elapsed().as_secs());
    assert!(failed.lock().unwrap().is_empty(), "seeds that failed: {:?}", failed.lock().unwrap());
}

/// A push as its client saw it.
#[derive(Debug)]
#[expect(dead_code, reason = "shown where a seed fails")]
struct Seen {
    branch: &'static str,
    /// None: a deletion.
    commit: Option<String>,
    begin: Instant,
    end: Instant,
    outcome: Outcome,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    /// The answer was lost.
    Unknown,
}

/// What the clients of one seed share.
struct Stage {
    house: House,
    schedule: Schedule,
    /// The newest accepted commit of each branch, as clients would have fetched it.
    known: Mutex<BTreeMap<&'static str, String>>,
    seen: Mutex<Vec<Seen>>,
    /// The first client's push that runs now.
    running: Mutex<Option<Arc<Mutex<Child>>>>,
    serial: AtomicU64,
}

fn run(seed: u64) {
    let schedule = Schedule::of(seed);
    let house = House::new();
    if let Crash::AtPoint { point, hit } = schedule.crash {
        house.set_env(&[("LEMNOS_FAILPOINT", &format!("{}@{hit}:kill", point.name()))]);
    }
    house.serve();
    let stage = Stage {
        house,
        schedule,
        known: Mutex::default(),
        seen: Mutex::default(),
        running: Mutex::default(),
        serial: AtomicU64::new(0),
    };
    let restarted = stage.play();
    let house = &stage.house;
    if !restarted {
        // a point that nobody passed: the crash comes after the last answer
        house.kill();
        house.set_env(&[]);
        house.serve();
    }
    house.settles("what a crash leaves", House::leftovers);
    house.settles("builds and journal come to their ends", |house| unsettled(&house.records()));
    let records = house.records();
    let seen = stage.seen.lock().unwrap();
    let context = || format!("{:#?}\n{seen:#?}\n{}", stage.schedule, house.log());
    check(house, &records, &seen).unwrap_or_else(|problem| panic!("{problem}\n{}", context()));
    for branch in ["main", "dev"] {
        let commit = house.commit(None, &[("Dockerfile", "FROM scratch\n"), ("after", branch)], "after");
        let said = house.push(&[&format!("+{commit}:refs/heads/{branch}")]);
        assert!(said.ok, "no push of {branch} works after the crash: {}\n{}", said.text, context());
        assert_eq!(house.revision(branch), Some(commit), "{}", context());
    }
    let left = house.leftovers();
    assert!(left.is_empty(), "{left:#?}\n{}", context());
    house.kill();
    house.settles("processes of a server that was killed", House::processes);
}

impl Stage {
    /// Runs the clients and the crash; whether the server was started again.
    fn play(&self) -> bool {
        std::thread::scope(|scope| {
            let clients: Vec<_> = self.schedule.clients.iter().enumerate().collect();
            let clients: Vec<_> = clients
                .into_iter()
                .map(|(at, ops)| scope.spawn(move || ops.iter().for_each(|op| self.push(at, op))))
                .collect();
            let mut restarted = self.strike();
            while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                restarted |= self.revive();
                std::thread::sleep(Duration::from_millis(4));
            }
            restarted | self.revive()
        })
    }

    /// Kills whom the schedule names at a time; whether the server was started again.
    fn strike(&self) -> bool {
        let Crash::At { victim, after_ms } = self.schedule.crash else { return false };
        std::thread::sleep(Duration::from_millis(after_ms));
        let away = Duration::from_millis(self.schedule.away_ms);
        let house = &self.house;
        match victim {
            Victim::Server => {
                house.kill();
                return self.revive();
            }
            Victim::Builder => {
                house.builder.kill();
                std::thread::sleep(away);
                house.builder.restart();
            }
            Victim::Registry => {
                house.registry.kill();
                std::thread::sleep(away);
                house.registry.restart();
            }
            Victim::Client => {
                let running = self.running.lock().unwrap().clone();
                if let Some(client) = running {
                    kill_group(&client.lock().unwrap());
                }
            }
        }
        false
    }

    /// Starts the server again when it is dead.
    fn revive(&self) -> bool {
        if self.house.is_up() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(self.schedule.away_ms));
        self.house.set_env(&[]);
        self.house.serve();
        true
    }

    fn push(&self, client: usize, op: &Op) {
        let (commit, refspec) = self.refspec(op);
        let begin = Instant::now();
        let child = self.house.push_command(&[&refspec]).spawn().unwrap();
        let child = Arc::new(Mutex::new(child));
        if client == 0 {
            *self.running.lock().unwrap() = Some(child.clone());
        }
        let said = finish(&child);
        let end = Instant::now();
        let refused = said.text.contains("[remote rejected]") || said.text.contains("[rejected]");
        let outcome = match (said.ok, refused) {
            (true, _) => Outcome::Accepted,
            // it says of itself that it goes on
            (false, true) if said.text.contains("could not be moved yet") => Outcome::Unknown,
            (false, true) => Outcome::Refused,
            (false, false) => Outcome::Unknown,
        };
        if outcome == Outcome::Accepted {
            let mut known = self.known.lock().unwrap();
            match &commit {
                Some(commit) => drop(known.insert(op.branch, commit.clone())),
                None => drop(known.remove(op.branch)),
            }
        }
        let (branch, text) = (op.branch, said.text);
        self.seen.lock().unwrap().push(Seen { branch, commit, begin, end, outcome, text });
    }

    fn refspec(&self, op: &Op) -> (Option<String>, String) {
        let branch = op.branch;
        if op.kind == Kind::Delete {
            return (None, format!(":refs/heads/{branch}"));
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut dockerfile = String::from("FROM scratch\n");
        for order in &op.orders {
            dockerfile.push_str(&format!("# fake: {order}\n"));
        }
        let known = self.known.lock().unwrap().get(branch).cloned();
        let parent = known.filter(|_| op.kind == Kind::Plain);
        let files = [("Dockerfile", dockerfile.as_str()), ("serial", &serial.to_string())];
        let commit = self.house.commit(parent.as_deref(), &files, &format!("commit {serial}"));
        let force = if op.kind == Kind::Force { "+" } else { "" };
        (Some(commit.clone()), format!("{force}{commit}:refs/heads/{branch}"))
    }
}

/// Reads a client to its end without holding it, so that it can be killed meanwhile.
fn finish(child: &Mutex<Child>) -> Said {
    use std::io::Read as _;
    let (mut stdout, mut stderr) = {
        let mut child = child.lock().unwrap();
        (child.stdout.take().unwrap(), child.stderr.take().unwrap())
    };
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = child.lock().unwrap().try_wait().unwrap() {
            return Said { ok: status.success(), text };
        }
        assert!(began.elapsed() < PATIENCE, "a client that has closed its screen does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill_group(client: &Child) {
    let group = rustix::process::Pid::from_raw(i32::try_from(client.id()).unwrap()).unwrap();
    // it may have ended just now
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
}

fn unsettled(records: &Records) -> Vec<String> {
    let live = records.builds.iter().filter(|build| build.state.is_live()).map(|build| format!("{build:?}"));
    live.chain(records.journal.iter().map(|entry| format!("{entry:?}"))).collect()
}

/// Everything that must hold once all is at rest.
fn check(house: &House, records: &Records, seen: &[Seen]) -> Result<(), String> {
    for push in seen {
        let Some(commit) = &push.commit else { continue };
        let rows = records.of(commit);
        let succeeded = rows.iter().filter(|row| row.state == BuildState::Succeeded).count();
        match push.outcome {
            Outcome::Accepted if rows.len() != 1 || succeeded != 1 => {
                return Err(format!("an accepted push has these records: {rows:?}"));
            }
            Outcome::Refused if succeeded > 0 => {
                return Err(format!("a refused push has these records: {rows:?}"));
            }
            _ => {}
        }
    }
    on_record_once(records, seen)?;
    let refs = house.refs();
    for branch in ["main", "dev"] {
        let at = refs.get(&format!("refs/heads/{branch}"));
        in_order(branch, at, seen)?;
        let shared: &[&str] = if branch == "main" { &["main", "latest"] } else { &["dev"] };
        match at {
            Some(commit) => agree(house, records, commit, shared)?,
            // a deleted branch leaves its last image where it was
            None => {
                for revision in shared.iter().filter_map(|tag| house.revision(tag)) {
                    if !records.of(&revision).iter().any(|row| row.state == BuildState::Succeeded) {
                        return Err(format!("a tag stands at {revision}, which was never accepted"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The audit record is whole. It has each answer at most once (the last words of a server that was killed may be lost), and
/// none that its client would deny.
fn on_record_once(records: &Records, seen: &[Seen]) -> Result<(), String> {
    if !records.verdict.faults.is_empty() {
        return Err(format!("the audit record: {:?}", records.verdict));
    }
    for push in seen.iter().filter(|push| push.commit.is_some()) {
        let answers = records.audit.iter().filter_map(|logged| match &logged.entry.event {
            Event::PushAnswered { new, refused, .. } if Some(new) == push.commit.as_ref() => Some(refused),
            _ => None,
        });
        let answers: Vec<_> = answers.collect();
        let denied = match (answers.as_slice(), push.outcome) {
            ([] | [_], Outcome::Unknown) | ([], _) => false,
            ([refused], outcome) => refused.is_none() != (outcome == Outcome::Accepted),
            _ => true,
        };
        if denied {
            return Err(format!("{push:?} is on record as {answers:?}"));
        }
    }
    Ok(())
}

/// The branch stands where some push put it that no accepted push came after.
fn in_order(branch: &str, at: Option<&String>, seen: &[Seen]) -> Result<(), String> {
    let of_branch = || seen.iter().filter(|push| push.branch == branch);
    let accepted_after = |moment: Option<Instant>| {
        of_branch()
            .any(|push| push.outcome == Outcome::Accepted && moment.is_none_or(|moment| push.begin > moment))
    };
    // before any push there was no branch
    if at.is_none() && !accepted_after(None) {
        return Ok(());
    }
    let explained = of_branch().filter(|push| push.commit.as_ref() == at).any(|push| match push.outcome {
        Outcome::Accepted => !accepted_after(Some(push.end)),
        Outcome::Unknown => true,
        Outcome::Refused => false,
    });
    if explained {
        Ok(())
    } else {
        Err(format!("{branch} stands at {at:?}, which no accepted push explains"))
    }
}

/// Ref, tags and record say the same.
fn agree(house: &House, records: &Records, commit: &str, shared: &[&str]) -> Result<(), String> {
    let rows = records.of(commit);
    let [row] = rows.as_slice() else { return Err(format!("the records of {commit}: {rows:?}")) };
    if row.state != BuildState::Succeeded {
        return Err(format!("the ref stands at {commit}, but its record says {row:?}"));
    }
    let unshared = format!("git-{}", &commit[..12]);
    for tag in shared.iter().copied().chain([unshared.as_str()]) {
        if house.revision(tag).as_deref() != Some(commit) {
            return Err(format!("tag {tag} is of {:?}, the ref at {commit}", house.revision(tag)));
        }
        if row.digest.as_ref().map(ToString::to_string) != house.tag(tag) {
            return Err(format!("tag {tag} is {:?}, its record says {row:?}", house.tag(tag)));
        }
    }
    Ok(())
}
