//! How large a channel's window is: no larger than the line needs.
//!
//! A window is what a client may have under way, so a long line needs much of it. On a short one much of it does harm:
//! OpenSSH's client then reads ahead into one buffer of that size and moves its content around (200 MB over loopback:
//! 0.4 s with 2 MiB, 10 s with 16 MiB). So the window follows what was measured: four times the rate times the round trip.
//! russh refills a window when half of it is used, so half a window goes a round trip: where the window is what holds
//! back the rate, four times that doubles it.

use std::time::{Duration, Instant};

/// What OpenSSH's own server offers.
const FLOOR: u32 = 2 << 20;

/// A connection's window, and what is known of its line.
#[derive(Debug)]
pub(super) struct Window {
    ceiling: u32,
    /// The shortest time in which the client answered: its line's, since it answers some messages at once.
    round_trip: Option<Duration>,
    asked: Option<Instant>,
    refilled: Option<Instant>,
}

impl Window {
    /// What a channel begins with.
    pub(super) fn initial(ceiling: u32) -> u32 {
        ceiling.min(FLOOR)
    }

    pub(super) fn new(ceiling: u32) -> Self {
        Self { ceiling, round_trip: None, asked: None, refilled: None }
    }

    /// A message of the client's arrived, that it sent on having our answer to the one before; we answer it now.
    pub(super) fn exchange(&mut self, now: Instant) {
        if let Some(asked) = self.asked.replace(now) {
            let took = now.saturating_duration_since(asked);
            self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
        }
    }

    /// A window of `current` bytes was refilled after half of it was used; returns what it shall be from now on.
    pub(super) fn refill(&mut self, now: Instant, current: u32) -> u32 {
        let floor = Self::initial(self.ceiling);
        let (Some(before), Some(round_trip)) = (self.refilled.replace(now), self.round_trip) else {
            return floor;
        };
        let used = f64::from(current / 2);
        let rate = used / now.saturating_duration_since(before).as_secs_f64().max(1e-6);
        let wanted = (4.0 * rate * round_trip.as_secs_f64()).clamp(f64::from(floor), f64::from(self.ceiling));
        // Within u32, as both bounds are.
        wanted as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: u32 = 16 << 20;

    /// The windows of a transfer over a line with this round trip and at most this rate (bytes a second): half
    /// a window goes at best a round trip.
    fn windows(round_trip: Duration, line: f64, rounds: usize) -> Vec<u32> {
        let mut now = Instant::now();
        let mut window = Window::new(CEILING);
        for _ in 0..3 {
            window.exchange(now);
            now += round_trip;
        }
        let mut current = Window::initial(CEILING);
        let mut seen = Vec::new();
        for _ in 0..rounds {
            let half = f64::from(current / 2);
            now += Duration::from_secs_f64((half / line).max(round_trip.as_secs_f64()));
            current = window.refill(now, current);
            seen.push(current >> 20);
        }
        seen
    }

    #[test]
    fn a_long_fast_line_soon_gets_all_of_it() {
        assert_eq!(windows(Duration::from_millis(100), 1e9, 5), [2, 4, 8, 16, 16]);
    }

    #[test]
    fn a_short_or_slow_line_gets_no_more_than_it_needs() {
        assert_eq!(windows(Duration::from_micros(200), 1e9, 4), [2, 2, 2, 2]);
        assert_eq!(windows(Duration::from_millis(100), 5e6, 4), [2, 2, 2, 2]);
        assert_eq!(windows(Duration::from_millis(20), 1e8, 4), [2, 4, 7, 7]);
    }

    #[test]
    fn a_ceiling_below_the_floor_holds() {
        let mut window = Window::new(64 << 10);
        let now = Instant::now();
        window.exchange(now);
        window.exchange(now + Duration::from_secs(1));
        assert_eq!(window.refill(now, 64 << 10), 64 << 10);
        assert_eq!(window.refill(now, 64 << 10), 64 << 10);
    }

    #[test]
    fn the_quickest_answer_counts() {
        let mut window = Window::new(CEILING);
        let mut now = Instant::now();
        for ms in [0, 900, 10, 500] {
            now += Duration::from_millis(ms);
            window.exchange(now);
        }
        assert_eq!(window.round_trip, Some(Duration::from_millis(10)));
    }
}
