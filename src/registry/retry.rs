//! How often and how long a call is tried again. Pure: the caller holds the clock.

use std::time::Duration;

use super::RegistryConfig;

/// The pause before the next try, or none when the call ends here.
///
/// `tried` tries have been made over `spent`; `asked` is the server's Retry-After. A pause that would not leave time within
/// the total is not begun, since the caller would only learn later what it can learn now.
pub fn pause(
    config: &RegistryConfig,
    tried: u32,
    spent: Duration,
    asked: Option<Duration>,
) -> Option<Duration> {
    if tried >= config.attempts {
        return None;
    }
    let doubled =
        config.retry_pause.saturating_mul(1_u32.checked_shl(tried.saturating_sub(1)).unwrap_or(u32::MAX));
    let pause = asked.map_or(doubled, |asked| asked.max(config.retry_pause));
    (spent.saturating_add(pause) < config.retry_total).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let config = RegistryConfig::default();
        let after = |tried, spent_s, asked: Option<u64>| {
            pause(&config, tried, Duration::from_secs(spent_s), asked.map(Duration::from_secs))
        };
        assert_eq!(after(1, 0, None), Some(Duration::from_millis(200)));
        assert_eq!(after(2, 0, None), Some(Duration::from_millis(400)));
        assert_eq!(after(3, 0, None), Some(Duration::from_millis(800)));
        assert_eq!(after(4, 0, None), None, "four tries are all");
        assert_eq!(after(1, 30, None), None, "the time is used up");
        assert_eq!(after(1, 0, Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(after(1, 0, Some(3600)), None, "an hour is not waited for");
        assert_eq!(after(1, 0, Some(0)), Some(Duration::from_millis(200)), "never a busy loop");
    }
}
