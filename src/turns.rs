//! Turns: who goes next where several groups want more than there is. Pure: no clock, no tasks, no waiting.
//!
//! The group that has the fewest at work goes first; among equals the one whose last turn is longest ago. Inside a group,
//! first come, first served, past those for whom there is no room yet. So a group that has nothing at work waits for at
//! most one turn of each other group, however much the others want. Every ticket is either waiting or at work until it
//! is given back; nothing else is remembered, so a group that wants nothing leaves no trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names one that waits or is at work; never given twice.
pub type Ticket = u64;

/// `G` names the groups; `W` is what one of them wants.
#[derive(Debug)]
pub struct Turns<G, W> {
    next_ticket: Ticket,
    /// Counts turns and first arrivals: the smaller, the longer ago.
    clock: u64,
    groups: BTreeMap<G, Group<W>>,
    waiting: usize,
    at_work: usize,
}

#[derive(Debug)]
struct Group<W> {
    waiting: VecDeque<(Ticket, W)>,
    at_work: BTreeSet<Ticket>,
    /// When its last turn began or ended; before the first, when it came.
    served: u64,
}

impl<G, W> Default for Turns<G, W> {
    fn default() -> Self {
        Self { next_ticket: 0, clock: 0, groups: BTreeMap::new(), waiting: 0, at_work: 0 }
    }
}

impl<G: Ord + Clone, W> Turns<G, W> {
    /// Takes a place at the end of the group's line.
    pub fn join(&mut self, group: &G, wants: W) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let now = self.tick();
        let group = self.groups.entry(group.clone()).or_insert_with(|| Group {
            waiting: VecDeque::new(),
            at_work: BTreeSet::new(),
            served: now,
        });
        group.waiting.push_back((ticket, wants));
        self.waiting += 1;
        ticket
    }

    /// Gives the next turn to one for whom there is room; the ticket is at work from then on.
    pub fn grant(&mut self, mut room: impl FnMut(&G, &W) -> bool) -> Option<(Ticket, W)> {
        let mut order: Vec<(usize, u64, &G)> = self
            .groups
            .iter()
            .filter(|(_, group)| !group.waiting.is_empty())
            .map(|(name, group)| (group.at_work.len(), group.served, name))
            .collect();
        order.sort_unstable();
        let found = order.into_iter().find_map(|(_, _, name)| {
            let at = self.groups.get(name)?.waiting.iter().position(|(_, wants)| room(name, wants))?;
            Some((name.clone(), at))
        });
        let (name, at) = found?;
        let now = self.tick();
        let group = self.groups.get_mut(&name)?;
        let (ticket, wants) = group.waiting.remove(at)?;
        group.at_work.insert(ticket);
        group.served = now;
        self.waiting -= 1;
        self.at_work += 1;
        Some((ticket, wants))
    }

    /// Gives a ticket back, whether it waits or is at work; says whether it was at work. A second time changes nothing.
    pub fn leave(&mut self, group: &G, ticket: Ticket) -> bool {
        let now = self.tick();
        let Some(entry) = self.groups.get_mut(group) else { return false };
        let worked = entry.at_work.remove(&ticket);
        let before = entry.waiting.len();
        entry.waiting.retain(|(other, _)| *other != ticket);
        self.waiting -= before - entry.waiting.len();
        self.at_work -= usize::from(worked);
        if worked {
            entry.served = now;
        }
        if entry.waiting.is_empty() && entry.at_work.is_empty() {
            self.groups.remove(group);
        }
        worked
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn waiting_of(&self, group: &G) -> usize {
        self.groups.get(group).map_or(0, |group| group.waiting.len())
    }

    pub fn at_work(&self) -> usize {
        self.at_work
    }

    /// Those who wait, in the order in which they would be served if all they wanted were the same and nobody else came
    /// or left.
    pub fn order(&self) -> Vec<Ticket> {
        let mut groups: BTreeSet<(usize, u64, &G)> = self
            .groups
            .iter()
            .filter(|(_, group)| !group.waiting.is_empty())
            .map(|(name, group)| (group.at_work.len(), group.served, name))
            .collect();
        let mut taken: BTreeMap<&G, usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(self.waiting);
        let mut clock = self.clock;
        while let Some((at_work, _, name)) = groups.pop_first() {
            let Some(group) = self.groups.get(name) else { continue };
            let taken = taken.entry(name).or_default();
            let Some((ticket, _)) = group.waiting.get(*taken) else { continue };
            order.push(*ticket);
            *taken += 1;
            clock += 1;
            if *taken < group.waiting.len() {
                groups.insert((at_work + 1, clock, name));
            }
        }
        order
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Line = Turns<u8, u8>;

    fn served(line: &mut Line) -> Option<Ticket> {
        line.grant(|_, _| true).map(|(ticket, _)| ticket)
    }

    #[test]
    fn one_groups_fifty_do_not_hold_up_anothers_one() {
        let mut line = Line::default();
        let many: Vec<Ticket> = (0..50).map(|_| line.join(&1, 0)).collect();
        let busy: Vec<Ticket> = (0..4).filter_map(|_| served(&mut line)).collect();
        assert_eq!(busy, many[..4]);
        let one = line.join(&2, 0);
        assert_eq!(line.order()[0], one);
        line.leave(&1, busy[0]);
        assert_eq!(served(&mut line), Some(one));
    }

    #[test]
    fn who_finds_no_room_lets_others_pass_and_keeps_the_place() {
        let mut line = Line::default();
        let big = line.join(&1, 9);
        let small = line.join(&1, 1);
        assert_eq!(line.grant(|_, wants| *wants < 5), Some((small, 1)));
        assert_eq!(line.grant(|_, wants| *wants < 5), None);
        assert_eq!(line.grant(|_, _| true), Some((big, 9)));
    }

    #[test]
    fn equals_take_turns() {
        let mut line = Line::default();
        let tickets: Vec<(u8, Ticket)> = [1, 1, 1, 2, 2, 3].map(|g| (g, line.join(&g, 0))).to_vec();
        let group = |ticket| tickets.iter().find(|(_, t)| *t == ticket).unwrap().0;
        let mut order = Vec::new();
        while let Some(ticket) = served(&mut line) {
            order.push(group(ticket));
            line.leave(&group(ticket), ticket);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Join(u8),
        Leave(prop::sample::Index),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0u8..5).prop_map(Act::Join),
            2 => any::<prop::sample::Index>().prop_map(Act::Leave),
        ];
        prop::collection::vec(act, 1..120)
    }

    proptest! {
        /// With `capacity` slots that are filled after every act: no slot stays free while somebody waits, none is lost,
        /// nobody is served twice, and what is served next is what `order` said.
        #[test]
        fn slots_are_never_idle_lost_or_given_twice(acts in acts(), capacity in 1usize..5) {
            let mut line = Line::default();
            let mut waiting: Vec<(u8, Ticket)> = Vec::new();
            let mut working: Vec<(u8, Ticket)> = Vec::new();
            for act in acts {
                match act {
                    Act::Join(group) => waiting.push((group, line.join(&group, 0))),
                    Act::Leave(index) => {
                        let all: Vec<_> = waiting.iter().chain(&working).copied().collect();
                        if all.is_empty() { continue }
                        let (group, ticket) = all[index.index(all.len())];
                        let worked = working.iter().any(|(_, t)| *t == ticket);
                        prop_assert_eq!(line.leave(&group, ticket), worked);
                        prop_assert!(!line.leave(&group, ticket));
                        waiting.retain(|(_, t)| *t != ticket);
                        working.retain(|(_, t)| *t != ticket);
                    }
                }
                while line.at_work() < capacity {
                    let first = line.order().first().copied();
                    let Some(ticket) = served(&mut line) else { break };
                    prop_assert_eq!(first, Some(ticket));
                    let at = waiting.iter().position(|(_, t)| *t == ticket);
                    prop_assert!(at.is_some(), "served twice, or after it left");
                    working.push(waiting.remove(at.unwrap()));
                }
                prop_assert_eq!((line.waiting(), line.at_work()), (waiting.len(), working.len()));
                prop_assert!(working.len() == capacity || waiting.is_empty());
                let mut order = line.order();
                order.sort_unstable();
                let mut expected: Vec<Ticket> = waiting.iter().map(|(_, t)| *t).collect();
                expected.sort_unstable();
                prop_assert_eq!(order, expected);
            }
            for (group, ticket) in waiting.into_iter().chain(working) {
                line.leave(&group, ticket);
            }
            prop_assert!(line.groups.is_empty());
        }

        /// Whatever the others want and however much came before: one that has nothing at work is served before any other
        /// group has been served twice.
        #[test]
        fn nobody_starves(crowd in prop::collection::vec(0u8..5, 1..60), capacity in 1usize..4, leaves in prop::collection::vec(any::<prop::sample::Index>(), 60)) {
            let mut line = Line::default();
            let mut working: Vec<(u8, Ticket)> = Vec::new();
            let mut who: BTreeMap<Ticket, u8> = BTreeMap::new();
            for group in crowd {
                who.insert(line.join(&group, 0), group);
                if line.at_work() < capacity && let Some(ticket) = served(&mut line) {
                    working.push((who[&ticket], ticket));
                }
            }
            let one = line.join(&9, 0);
            let mut turns: BTreeMap<u8, usize> = BTreeMap::new();
            for leave in leaves {
                if line.at_work() >= capacity {
                    let (group, ticket) = working.swap_remove(leave.index(working.len()));
                    line.leave(&group, ticket);
                }
                let ticket = served(&mut line).unwrap();
                if ticket == one {
                    return Ok(());
                }
                // the crowd never ends
                who.insert(line.join(&who[&ticket], 0), who[&ticket]);
                working.push((who[&ticket], ticket));
                let turn = turns.entry(who[&ticket]).or_default();
                *turn += 1;
                prop_assert!(*turn <= 1, "group {} was served twice before", who[&ticket]);
            }
            prop_assert!(false, "never served");
        }
    }
}
