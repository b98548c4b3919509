//! The books: who gets which builder, who waits, and what a change of the pool does to those who wait.

use super::*;
use crate::buildkit::Endpoint;
use proptest::prelude::*;

const BOTH: &[&str] = &["linux/amd64", "linux/arm64"];

fn platforms(names: &[&str]) -> Vec<Platform> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn config(name: &str, max: usize) -> BuilderConfig {
    let endpoint = Endpoint { address: "unix:///x".parse().unwrap(), tls: None };
    BuilderConfig { name: name.to_owned(), endpoint, bound: Vec::new(), max }
}

fn up(reported: &[&str]) -> Result<Answer, String> {
    Ok(Answer { platforms: platforms(reported), version: Some("v1".to_owned()) })
}

/// Builders of a name, a max and what they report; all up.
fn roster(builders: &[(&str, usize, &[&str])]) -> Roster {
    let mut roster = Roster::default();
    for (id, (name, max, reported)) in (0..).zip(builders) {
        assert!(roster.add(config(name, *max)));
        roster.heard(id, up(reported), 0);
    }
    roster
}

fn want(names: &[&str]) -> Want {
    Want { platforms: platforms(names), without: BTreeSet::new() }
}

/// Whom it got; `-` while it waits.
fn got(roster: &Roster, ticket: Ticket) -> String {
    match roster.turn(ticket) {
        None => "-".to_owned(),
        Some(Turn::Replan) => "replan".to_owned(),
        Some(Turn::Builder { config, .. }) => config.name.clone(),
    }
}

#[test]
fn the_least_loaded_takes_it_and_a_full_one_nothing() {
    let mut roster = roster(&[("small", 1, BOTH), ("big", 3, BOTH)]);
    let mut names: Vec<String> = Vec::new();
    for _ in 0..4 {
        let ticket = roster.join("shop", want(BOTH));
        names.push(got(&roster, ticket));
    }
    assert_eq!(names.iter().filter(|name| *name == "small").count(), 1, "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "big").count(), 3, "{names:?}");
    // 1/1 is more than 2/3: the last two went to the big one
    assert_eq!(names[2..], ["big", "big"]);
    let waits = roster.join("blog", want(BOTH));
    assert_eq!(got(&roster, waits), "-");
    assert_eq!(roster.ahead(waits), (vec!["small".to_owned(), "big".to_owned()], 0));
}

#[test]
fn idle_equals_keep_an_apps_builds_on_the_builder_that_knows_it() {
    let mut roster = roster(&[("a", 4, BOTH), ("b", 4, BOTH), ("c", 4, BOTH)]);
    let mut home = |app: &str| {
        let ticket = roster.join(app, want(BOTH));
        let name = got(&roster, ticket);
        roster.leave(app, ticket);
        name
    };
    let apps: Vec<String> = (0..30).map(|n| format!("app{n}")).collect();
    let homes: Vec<String> = apps.iter().map(|app| home(app)).collect();
    assert_eq!(homes, apps.iter().map(|app| home(app)).collect::<Vec<_>>());
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3, "all of them are somebody's home");
}

#[test]
fn a_turn_goes_to_the_app_that_has_none_at_work() {
    let mut roster = roster(&[("a", 1, BOTH)]);
    let crowd: Vec<Ticket> = (0..50).map(|_| roster.join("shop", want(BOTH))).collect();
    let one = roster.join("blog", want(BOTH));
    assert_eq!(roster.ahead(one), (vec!["a".to_owned()], 0));
    roster.leave("shop", crowd[0]);
    assert_eq!(got(&roster, one), "a");
    assert_eq!(got(&roster, crowd[1]), "-");
}

#[test]
fn who_waits_for_a_full_builder_does_not_hold_up_who_wants_another() {
    let mut roster = roster(&[("x86", 1, &["linux/amd64"]), ("arm", 1, &["linux/arm64"])]);
    let busy = roster.join("shop", want(&["linux/amd64"]));
    let waits = roster.join("shop", want(&["linux/amd64"]));
    let passes = roster.join("shop", want(&["linux/arm64"]));
    assert_eq!([busy, waits, passes].map(|t| got(&roster, t)), ["x86", "-", "arm"]);
}

#[test]
fn what_is_down_or_drained_gets_nothing_and_who_waits_for_it_goes_elsewhere() {
    let mut roster = roster(&[("a", 1, BOTH), ("b", 1, BOTH)]);
    let first = roster.join("shop", want(BOTH));
    let second = roster.join("shop", want(BOTH));
    let waits = roster.join("shop", want(BOTH));
    assert_eq!(got(&roster, waits), "-");
    roster.heard(0, Err("gone".to_owned()), 7);
    roster.set_drained("b", true).unwrap();
    assert_eq!(got(&roster, waits), "replan");
    assert_eq!(roster.status("a").unwrap().cause.as_deref(), Some("gone"));
    assert_eq!(roster.status("b").unwrap().state, BuilderState::Draining);
    assert!(roster.split(&want(BOTH)).is_err());
    for ticket in [first, second, waits] {
        roster.leave("shop", ticket);
    }
    assert_eq!(roster.status("b").unwrap().state, BuilderState::Drained);
    roster.heard(0, up(BOTH), 9);
    let again = roster.join("shop", want(BOTH));
    assert_eq!(got(&roster, again), "a");
}

#[test]
fn a_builder_that_comes_is_taken_by_who_waits_and_one_that_goes_is_not() {
    let mut roster = roster(&[("a", 1, BOTH)]);
    let _busy = roster.join("shop", want(BOTH));
    let waits = roster.join("shop", want(BOTH));
    roster.add(config("b", 1));
    assert_eq!(got(&roster, waits), "-", "it has not said what it can");
    roster.heard(1, up(BOTH), 1);
    assert_eq!(got(&roster, waits), "b");
    roster.remove("b").unwrap();
    roster.leave("shop", waits);
    assert_eq!(roster.statuses().len(), 1);
    // the same name is another builder
    assert!(roster.add(config("b", 1)));
    assert!(!roster.add(config("b", 1)));
    assert_eq!(roster.heard(1, up(BOTH), 2), None);
}

#[test]
fn the_one_that_failed_it_is_left_out() {
    let roster = roster(&[("a", 4, BOTH), ("b", 4, BOTH)]);
    let without = Want { without: BTreeSet::from([0]), ..want(BOTH) };
    let takers = roster.takers(&without).unwrap();
    assert_eq!(takers.iter().map(|m| m.config.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let neither = Want { without: BTreeSet::from([0, 1]), ..want(BOTH) };
    assert!(roster.split(&neither).is_err());
}

#[derive(Debug, Clone)]
enum Act {
    Join(u8, bool),
    Leave(prop::sample::Index),
    Down(u8),
    Up(u8),
    Drain(u8, bool),
}

proptest! {
    /// Whatever comes: no builder has more than it takes, the count of what runs is true, and nobody waits while a builder
    /// that takes it has room.
    #[test]
    fn the_books_are_true(acts in prop::collection::vec(prop_oneof![
        4 => (0u8..3, any::<bool>()).prop_map(|(app, both)| Act::Join(app, both)),
        3 => any::<prop::sample::Index>().prop_map(Act::Leave),
        1 => (0u8..3).prop_map(Act::Down),
        1 => (0u8..3).prop_map(Act::Up),
        1 => (0u8..3, any::<bool>()).prop_map(|(b, on)| Act::Drain(b, on)),
    ], 1..80)) {
        let reports: [&[&str]; 3] = [BOTH, BOTH, &["linux/arm64"]];
        let mut roster = roster(&[("0", 1, reports[0]), ("1", 2, reports[1]), ("2", 1, reports[2])]);
        let mut tickets: Vec<(String, Ticket)> = Vec::new();
        for act in acts {
            match act {
                Act::Join(app, both) => {
                    let app = format!("app{app}");
                    let ticket = roster.join(&app, want(if both { BOTH } else { &BOTH[..1] }));
                    tickets.push((app, ticket));
                }
                Act::Leave(index) if !tickets.is_empty() => {
                    let (app, ticket) = tickets.swap_remove(index.index(tickets.len()));
                    roster.leave(&app, ticket);
                }
                Act::Leave(_) => {}
                Act::Down(id) => { roster.heard(id.into(), Err("x".to_owned()), 0); }
                Act::Up(id) => { roster.heard(id.into(), up(reports[usize::from(id)]), 0); }
                Act::Drain(id, on) => { roster.set_drained(&id.to_string(), on); }
            }
            let mut running: BTreeMap<String, usize> = BTreeMap::new();
            for (_, ticket) in &tickets {
                match roster.turn(*ticket) {
                    Some(Turn::Builder { config, .. }) => *running.entry(config.name.clone()).or_default() += 1,
                    Some(Turn::Replan) => {}
                    None => {
                        let takers = roster.takers(&roster.waiting[ticket]).unwrap();
                        prop_assert!(takers.iter().all(|m| m.running >= m.config.max), "waits for what is free");
                    }
                }
            }
            for member in roster.members() {
                prop_assert!(member.running <= member.config.max);
                prop_assert_eq!(member.running, running.get(&member.config.name).copied().unwrap_or(0));
            }
        }
        for (app, ticket) in tickets {
            roster.leave(&app, ticket);
        }
        prop_assert!(roster.members().iter().all(|m| m.running == 0));
        prop_assert!(roster.served.is_empty() && roster.waiting.is_empty());
        prop_assert_eq!((roster.turns.waiting(), roster.turns.at_work()), (0, 0));
    }
}

#[test]
fn a_graph_of_ours_runs_where_most_room_is_without_an_emulator() {
    assert_eq!(roster(&[]).own_platform(), None);
    let arm = &["linux/arm64", "linux/amd64"];
    let own = |roster: &Roster| roster.own_platform().map(|platform| platform.to_string());
    let mut both = roster(&[("intel", 2, BOTH), ("arm", 2, arm)]);
    assert_eq!(own(&both).as_deref(), Some("linux/amd64"), "of equals the first by name");
    both.add(config("arm2", 1));
    both.heard(2, up(arm), 0);
    assert_eq!(own(&both).as_deref(), Some("linux/arm64"));
    both.heard(1, Err("away".to_owned()), 1);
    assert_eq!(own(&both).as_deref(), Some("linux/amd64"), "one that is away has no room");
    both.set_drained("intel", true);
    assert_eq!(own(&both).as_deref(), Some("linux/arm64"));
    let mut bound = Roster::default();
    bound.add(BuilderConfig { bound: platforms(&["linux/arm64"]), ..config("bound", 1) });
    bound.heard(0, up(BOTH), 0);
    assert_eq!(own(&bound).as_deref(), Some("linux/arm64"), "what it is bound to, and nothing else");
}
