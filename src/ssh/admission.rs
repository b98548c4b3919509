//! Who may connect: caps in all, before login, and per source.
//!
//! Strangers are bounded so that one source can neither use up the server nor keep others out: its own cap is below the
//! number at which random early drop begins.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Config, EarlyDrop};
use crate::metrics;

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("too many connections")]
    Connections,
    #[error("too many connections that have not logged in")]
    Unauthenticated,
    #[error("too many connections of this source that have not logged in")]
    Source,
}

/// Counts connections.
pub(super) struct Admission {
    max_connections: usize,
    early_drop: EarlyDrop,
    max_per_source: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    unauthenticated: usize,
    per_source: HashMap<IpAddr, usize>,
}

impl Admission {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            max_connections: config.max_connections,
            early_drop: config.max_unauthenticated,
            max_per_source: config.max_unauthenticated_per_source,
            counts: Mutex::default(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection from `peer`, if there is one.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Full> {
        self.admit_with(peer, roll())
    }

    /// `roll` is below 100.
    fn admit_with(self: &Arc<Self>, peer: IpAddr, roll: usize) -> Result<Place, Full> {
        let source = source(peer);
        let mut counts = self.counts();
        if counts.connections >= self.max_connections {
            return Err(Full::Connections);
        }
        if drops(self.early_drop, counts.unauthenticated, roll) {
            return Err(Full::Unauthenticated);
        }
        let of_source = counts.per_source.entry(source).or_default();
        if *of_source >= self.max_per_source {
            return Err(Full::Source);
        }
        *of_source += 1;
        metrics::ssh_connection_opened();
        counts.connections += 1;
        counts.unauthenticated += 1;
        Ok(Place { admission: Arc::clone(self), stranger: Some(source) })
    }
}

/// Whether early drop hits a newcomer while `waiting` others have not logged in.
fn drops(early: EarlyDrop, waiting: usize, roll: usize) -> bool {
    if waiting < early.start {
        return false;
    }
    if waiting >= early.full {
        return true;
    }
    let rate = usize::from(early.rate.min(100));
    let beyond = waiting - early.start;
    roll < rate + (100 - rate) * beyond / (early.full - early.start)
}

/// A number below 100: good enough to spread drops, and nothing else depends on it.
fn roll() -> usize {
    usize::try_from(RandomState::new().hash_one(0u8) % 100).unwrap_or_default()
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host can choose addresses in.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(Ipv4Addr { .. }) => v4,
    }
}

/// A connection's place; given back when dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    stranger: Option<IpAddr>,
}

impl Place {
    /// The connection has logged in: it counts against strangers no more.
    pub(super) fn logged_in(&mut self) {
        if let Some(source) = self.stranger.take() {
            let mut counts = self.admission.counts();
            counts.unauthenticated = counts.unauthenticated.saturating_sub(1);
            if let Some(of_source) = counts.per_source.get_mut(&source) {
                *of_source = of_source.saturating_sub(1);
                if *of_source == 0 {
                    counts.per_source.remove(&source);
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.logged_in();
        metrics::ssh_connection_closed();
        let mut counts = self.admission.counts();
        counts.connections = counts.connections.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, early_drop: EarlyDrop, per_source: usize) -> Arc<Admission> {
        Admission::new(&Config {
            max_connections: connections,
            max_unauthenticated: early_drop,
            max_unauthenticated_per_source: per_source,
            ..Config::default()
        })
    }

    fn from(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    #[test]
    fn early_drop_rises_from_start_to_full() {
        let early = EarlyDrop { start: 10, rate: 30, full: 100 };
        assert!(!drops(early, 9, 0));
        assert!(drops(early, 10, 29) && !drops(early, 10, 30));
        assert!(drops(early, 55, 64) && !drops(early, 55, 65));
        assert!(drops(early, 99, 98) && !drops(early, 99, 99));
        assert!(drops(early, 100, 99));
        let never = EarlyDrop { start: 5, rate: 0, full: 5 };
        assert!(!drops(never, 4, 0) && drops(never, 5, 99));
    }

    #[test]
    fn one_source_cannot_keep_others_out() {
        let admission = admission(100, EarlyDrop { start: 20, rate: 30, full: 40 }, 10);
        let held: Vec<_> = (0..1000).filter_map(|_| admission.admit_with(from(1), 0).ok()).collect();
        assert_eq!(held.len(), 10);
        assert_eq!(admission.admit_with(from(1), 0).err(), Some(Full::Source));
        assert!(admission.admit_with(from(2), 0).is_ok());
        drop(held);
        assert!(admission.admit_with(from(1), 0).is_ok());
        assert!(admission.counts().per_source.is_empty());
    }

    #[test]
    fn those_who_logged_in_count_as_connections_only() {
        let admission = admission(3, EarlyDrop { start: 1, rate: 100, full: 1 }, 9);
        let mut first = admission.admit_with(from(1), 0).unwrap();
        assert_eq!(admission.admit_with(from(1), 0).err(), Some(Full::Unauthenticated));
        first.logged_in();
        let mut second = admission.admit_with(from(1), 0).unwrap();
        second.logged_in();
        let mut third = admission.admit_with(from(1), 0).unwrap();
        third.logged_in();
        assert_eq!(admission.admit_with(from(1), 0).err(), Some(Full::Connections));
        drop(first);
        assert!(admission.admit_with(from(1), 0).is_ok());
    }

    #[test]
    fn an_ipv6_host_is_one_source() {
        assert_eq!(source("2001:db8::1".parse().unwrap()), source("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(source("2001:db8::1".parse().unwrap()), source("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(source("::ffff:192.0.2.1".parse().unwrap()), from(1));
    }
}
