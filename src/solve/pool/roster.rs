//! The pool's books, pure: which builders there are and how they are, who waits for one, and who gets which.
//!
//! A solve gets a builder that takes its platforms best, is up, is not drained and has room; of several the least
//! loaded, among equals always the same one for the same app, whose cache is warm. Turns go round the apps. Every change
//! is followed by `fill`, so that nobody waits for what is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::assign::{Capacity, Group, Unserved, assign};
use super::BuilderConfig;
use crate::model::{BuilderState, BuilderStatus, Digest, Platform};
use crate::turns::{Ticket, Turns};

/// Names a builder of the pool, also after it left; a name may come again.
pub type Id = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Unknown,
    Up { since_ms: i64 },
    Down { since_ms: i64, cause: String },
}

/// What a builder said when it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub platforms: Vec<Platform>,
    /// None: not asked this time.
    pub version: Option<String>,
}

#[derive(Debug)]
pub struct Member {
    pub id: Id,
    pub config: Arc<BuilderConfig>,
    pub health: Health,
    /// What it last said it can run.
    reported: Vec<Platform>,
    version: Option<String>,
    pub drained: bool,
    running: usize,
}

/// What a solve needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub platforms: Vec<Platform>,
    /// Builders that have failed it.
    pub without: BTreeSet<Id>,
}

/// What becomes of one that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Builder {
        id: Id,
        config: Arc<BuilderConfig>,
    },
    /// No single builder takes all of it any more.
    Replan,
}

#[derive(Debug, Default)]
pub struct Roster {
    next_id: Id,
    members: Vec<Member>,
    turns: Turns<String, Want>,
    /// Those whose turn has come, until they give it back.
    served: BTreeMap<Ticket, Turn>,
    waiting: BTreeMap<Ticket, Want>,
}

impl Member {
    fn is_usable(&self, want: &BTreeSet<Id>) -> bool {
        !self.drained && matches!(self.health, Health::Up { .. }) && !want.contains(&self.id)
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            name: self.config.name.clone(),
            bound: self.config.bound.clone(),
            reported: self.reported.clone(),
        }
    }

    fn status(&self) -> BuilderStatus {
        let (since_ms, cause) = match &self.health {
            Health::Unknown => (None, None),
            Health::Up { since_ms } => (Some(*since_ms), None),
            Health::Down { since_ms, cause } => (Some(*since_ms), Some(cause.clone())),
        };
        let state = match (&self.health, self.drained, self.running) {
            (_, true, 0) => BuilderState::Drained,
            (_, true, _) => BuilderState::Draining,
            (Health::Unknown, ..) => BuilderState::Unknown,
            (Health::Up { .. }, ..) => BuilderState::Up,
            (Health::Down { .. }, ..) => BuilderState::Down,
        };
        let bound = &self.config.bound;
        BuilderStatus {
            name: self.config.name.clone(),
            address: self.config.endpoint.address.to_string(),
            configured: true,
            state,
            since_ms,
            cause,
            platforms: if bound.is_empty() { self.reported.clone() } else { bound.clone() },
            running: self.running,
            max: self.config.max,
            version: self.version.clone(),
        }
    }
}

impl Roster {
    /// False: one of that name is there.
    pub fn add(&mut self, config: BuilderConfig) -> bool {
        if self.members.iter().any(|member| member.config.name == config.name) {
            return false;
        }
        let config = BuilderConfig { max: config.max.max(1), ..config };
        self.members.push(Member {
            id: self.next_id,
            config: Arc::new(config),
            health: Health::Unknown,
            reported: Vec::new(),
            version: None,
            drained: false,
            running: 0,
        });
        self.next_id += 1;
        true
    }

    /// What runs on it goes on; how it stood.
    pub fn remove(&mut self, name: &str) -> Option<BuilderStatus> {
        let at = self.members.iter().position(|member| member.config.name == name)?;
        let status = self.members.remove(at).status();
        self.fill();
        Some(status)
    }

    pub fn set_drained(&mut self, name: &str, drained: bool) -> Option<BuilderStatus> {
        let member = self.members.iter_mut().find(|member| member.config.name == name)?;
        member.drained = drained;
        let status = member.status();
        self.fill();
        Some(status)
    }

    /// Whether it was up before and is now: what changed is worth a line in the log.
    pub fn heard(&mut self, id: Id, answer: Result<Answer, String>, now_ms: i64) -> Option<(bool, bool)> {
        let member = self.members.iter_mut().find(|member| member.id == id)?;
        let was_up = matches!(member.health, Health::Up { .. });
        let is_up = answer.is_ok();
        match (answer, &mut member.health) {
            (Ok(answer), health) => {
                member.reported = answer.platforms;
                member.version = answer.version.or(member.version.take());
                if !was_up {
                    *health = Health::Up { since_ms: now_ms };
                }
            }
            (Err(why), Health::Down { cause, .. }) => *cause = why,
            (Err(cause), health) => *health = Health::Down { since_ms: now_ms, cause },
        }
        self.fill();
        Some((was_up, is_up))
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn statuses(&self) -> Vec<BuilderStatus> {
        self.members.iter().map(Member::status).collect()
    }

    pub fn status(&self, name: &str) -> Option<BuilderStatus> {
        self.members.iter().find(|member| member.config.name == name).map(Member::status)
    }

    /// The platform on which a graph of ours runs, where that does not matter to its result: one that builders run without an
    /// emulator, of several the one with the most room.
    pub fn own_platform(&self) -> Option<Platform> {
        let mut room: BTreeMap<&Platform, usize> = BTreeMap::new();
        for member in self.members.iter().filter(|member| member.is_usable(&BTreeSet::new())) {
            let bound = &member.config.bound;
            let native = member.reported.iter().find(|platform| bound.is_empty() || bound.contains(platform));
            if let Some(platform) = native.or(bound.first()) {
                *room.entry(platform).or_default() += member.config.max;
            }
        }
        // of equals the first by name
        let most = room.into_iter().rev().max_by_key(|(_, room)| *room);
        most.map(|(platform, _)| platform.clone())
    }

    /// Which platforms go together, as things are.
    pub fn split(&self, want: &Want) -> Result<Vec<Vec<Platform>>, Unserved> {
        let (_, groups) = self.groups(want)?;
        Ok(groups.into_iter().map(|group| group.platforms).collect())
    }

    /// The usable builders, and groups that name them by their places among these.
    fn groups(&self, want: &Want) -> Result<(Vec<&Member>, Vec<Group>), Unserved> {
        let usable: Vec<&Member> = self.members.iter().filter(|m| m.is_usable(&want.without)).collect();
        let capacities: Vec<Capacity> = usable.iter().map(|member| member.capacity()).collect();
        let groups = assign(&capacities, &want.platforms)?;
        Ok((usable, groups))
    }

    /// The builders that would take all of it, full ones too; none where it must be planned anew.
    fn takers(&self, want: &Want) -> Option<Vec<&Member>> {
        let (usable, groups) = self.groups(want).ok()?;
        match groups.as_slice() {
            [group] => Some(group.builders.iter().filter_map(|at| usable.get(*at).copied()).collect()),
            _ => None,
        }
    }

    fn choose(&self, app: &str, want: &Want) -> Option<Turn> {
        let Some(takers) = self.takers(want) else { return Some(Turn::Replan) };
        let best =
            takers.into_iter().filter(|member| member.running < member.config.max).min_by(|a, b| {
                // a.running / a.max against b.running / b.max
                let (left, right) = (a.running * b.config.max, b.running * a.config.max);
                left.cmp(&right).then_with(|| affinity(app, a).cmp(&affinity(app, b)))
            })?;
        Some(Turn::Builder { id: best.id, config: best.config.clone() })
    }

    pub fn join(&mut self, app: &str, want: Want) -> Ticket {
        let ticket = self.turns.join(&app.to_owned(), want.clone());
        self.waiting.insert(ticket, want);
        self.fill();
        ticket
    }

    pub fn leave(&mut self, app: &str, ticket: Ticket) {
        self.turns.leave(&app.to_owned(), ticket);
        self.waiting.remove(&ticket);
        if let Some(Turn::Builder { id, .. }) = self.served.remove(&ticket)
            && let Some(member) = self.members.iter_mut().find(|member| member.id == id)
        {
            member.running = member.running.saturating_sub(1);
        }
        self.fill();
    }

    /// None: it waits.
    pub fn turn(&self, ticket: Ticket) -> Option<&Turn> {
        self.served.get(&ticket)
    }

    /// The names of the builders that one waits for, and how many are served before it by one of them.
    pub fn ahead(&self, ticket: Ticket) -> (Vec<String>, usize) {
        let takers = |ticket: &Ticket| -> BTreeMap<Id, String> {
            let members = self.waiting.get(ticket).and_then(|want| self.takers(want)).unwrap_or_default();
            members.iter().map(|member| (member.id, member.config.name.clone())).collect()
        };
        let mine = takers(&ticket);
        let before = self.turns.order().into_iter().take_while(|other| *other != ticket);
        let before = before.filter(|other| takers(other).keys().any(|id| mine.contains_key(id))).count();
        (mine.into_values().collect(), before)
    }

    fn fill(&mut self) {
        // one at a time: each that is served changes what is left for the next
        loop {
            let mut turns = std::mem::take(&mut self.turns);
            let mut chosen = None;
            let granted = turns.grant(|app, want| {
                chosen = self.choose(app, want);
                chosen.is_some()
            });
            self.turns = turns;
            let (Some((ticket, _)), Some(turn)) = (granted, chosen) else { return };
            if let Turn::Builder { id, .. } = &turn
                && let Some(member) = self.members.iter_mut().find(|member| member.id == *id)
            {
                member.running += 1;
            }
            self.waiting.remove(&ticket);
            self.served.insert(ticket, turn);
        }
    }
}

/// The same for the same app and builder, and different for others: smaller is nearer.
fn affinity(app: &str, member: &Member) -> Digest {
    Digest::of(format!("{app}\n{}", member.config.name).as_bytes())
}

#[cfg(test)]
mod tests;
