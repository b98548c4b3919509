//! A moment by a daemon's clock, to the nanosecond, because that is what a daemon says.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since 1970, until the year 2262.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    pub fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    pub fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// By this machine's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    pub fn ns(self) -> i64 {
        self.0
    }

    pub fn ms(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As far ahead as `by` says, or back.
    pub fn shifted(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl From<prost_types::Timestamp> for Moment {
    fn from(at: prost_types::Timestamp) -> Self {
        Self(at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos)))
    }
}

impl fmt::Display for Moment {
    /// As in RFC 3339, in UTC, without zeros at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0)).map_err(|_| fmt::Error)?;
        f.write_str(&at.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_go_prints_them() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500_000_000, "1970-01-01T00:00:01.5Z"),
            (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(Moment::from_ns(ns).to_string(), text);
        }
        assert_eq!(Moment::from_ms(3).since(Moment::from_ms(5)), Duration::ZERO);
        assert_eq!(Moment::from_ns(-1).ms(), -1);
    }
}
