//! Of strangers' entries only so many are written a minute: the first ones whole, the rest as one that says how many.
//!
//! Whoever has logged in is answerable for what they do, and is always written whole. Pure: time is handed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Entry, Event, Who};

const WINDOW: Duration = Duration::from_secs(60);
/// Entries of one kind and source that are written whole in a window.
const WHOLE_PER_SOURCE: u32 = 10;
/// Entries of all strangers that are written whole in a window.
const WHOLE: u32 = 100;
/// Kinds and sources that are told apart in a window; the rest is one source.
const SOURCES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    event: &'static str,
    reason: String,
    /// None: one of too many sources.
    source: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct Seen {
    whole: u32,
    /// The last one that was held back, standing for all of them.
    held: Option<Entry>,
}

#[derive(Debug, Default)]
pub(super) struct Flood {
    since: Option<Instant>,
    whole: u32,
    seen: HashMap<Kind, Seen>,
}

impl Flood {
    /// The entry, if it is to be written now.
    pub(super) fn pass(&mut self, entry: Entry, now: Instant) -> Option<Entry> {
        if entry.actor != Who::Anonymous {
            return Some(entry);
        }
        self.since.get_or_insert(now);
        let mut kind = Kind {
            event: entry.event.name(),
            reason: reason(&entry.event),
            source: entry.peer.map(|peer| peer.ip()),
        };
        if self.seen.len() >= SOURCES && !self.seen.contains_key(&kind) {
            // a client chooses neither the event's name nor the reason: these are few
            kind.source = None;
        }
        let one_of_many = kind.source.is_none() && entry.peer.is_some();
        let seen = self.seen.entry(kind).or_default();
        if seen.whole < WHOLE_PER_SOURCE && self.whole < WHOLE && !one_of_many {
            seen.whole += 1;
            self.whole += 1;
            return Some(entry);
        }
        let before = seen.held.as_ref().map_or(0, |held| held.times);
        let times = before.saturating_add(entry.times);
        let peer = entry.peer.filter(|_| !one_of_many);
        seen.held = Some(Entry { times, peer, ..entry });
        None
    }

    /// What was held back: at the window's end, or at once.
    pub(super) fn release(&mut self, now: Instant, at_once: bool) -> Vec<Entry> {
        let over = self.since.is_some_and(|since| now.duration_since(since) >= WINDOW);
        if !over && !at_once {
            return Vec::new();
        }
        let mut held: Vec<_> = self.seen.values_mut().filter_map(|seen| seen.held.take()).collect();
        held.sort_by_key(|entry| entry.at_ms);
        if over {
            *self = Self::default();
        }
        held
    }
}

/// What tells refusals of one kind apart, in words of ours.
fn reason(event: &Event) -> String {
    event.refusal().unwrap_or_default().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: u8, ssh_user: &str) -> Entry {
        let event = Event::LoginRefused {
            ssh_user: ssh_user.to_owned(),
            algorithm: "ssh-ed25519".to_owned(),
            reason: "unknown-key".to_owned(),
        };
        Entry::new(1, Who::Anonymous, event).peer(format!("192.0.2.{source}:1").parse().unwrap())
    }

    #[test]
    fn the_first_ones_are_whole_and_the_rest_is_counted() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let whole = (0..1_000).filter_map(|n| flood.pass(refused(1, &n.to_string()), now)).count();
        assert_eq!(whole, 10);
        assert_eq!(flood.pass(refused(2, "x"), now), Some(refused(2, "x")), "another source has its own");
        assert_eq!(flood.release(now + WINDOW / 2, false), []);
        assert_eq!(flood.release(now + WINDOW, false), [refused(1, "999").times(990)]);
        assert_eq!(flood.release(now + WINDOW, false), []);
        assert!(flood.pass(refused(1, "again"), now + WINDOW).is_some());
    }

    #[test]
    fn a_thousand_sources_are_a_hundred_entries_and_one_sum() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let mut whole = 0;
        for _ in 0..10 {
            for source in 0..250 {
                whole += usize::from(flood.pass(refused(source, "root"), now).is_some());
            }
        }
        let held = flood.release(now, true);
        assert!(whole <= 100 && held.len() <= SOURCES + 1, "{whole} {}", held.len());
        let sum: u64 = held.iter().map(|entry| entry.times).sum();
        assert_eq!(whole as u64 + sum, 2_500, "none is forgotten");
        assert!(held.iter().any(|entry| entry.peer.is_none()), "the rest is nobody's in particular");
    }

    #[test]
    fn who_has_logged_in_is_always_whole() {
        let (mut flood, now) = (Flood::default(), Instant::now());
        let actor = Who::User { name: "ada".parse().unwrap() };
        let entry = Entry::new(1, actor, Event::ChannelRefused { what: "x11".to_owned() });
        assert!((0..1_000).all(|_| flood.pass(entry.clone(), now).is_some()));
    }
}
