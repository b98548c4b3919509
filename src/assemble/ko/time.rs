//! Points in time: `SOURCE_DATE_EPOCH` and `KO_DATA_DATE_EPOCH`, and the form in which Go writes times to JSON.

use std::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::model::Invalid;

/// What Go writes for a time that nobody set.
pub(super) const UNSET: &str = "0001-01-01T00:00:00Z";

/// Whole seconds since 1970, from year 1 (where Go's unset time is, which is excluded) to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(i64);

const FIRST: i64 = -62_135_596_799;
const LAST: i64 = 253_402_300_799;

impl Epoch {
    /// None outside of the years 1 to 9999.
    pub fn new(seconds: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&seconds).then_some(Self(seconds))
    }
    pub fn seconds(self) -> i64 {
        self.0
    }
    /// `2006-01-02T15:04:05Z`
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.0)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_else(|| UNSET.to_owned())
    }
}

impl FromStr for Epoch {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let seconds = text.parse().ok().and_then(Self::new);
        seconds.ok_or_else(|| {
            Invalid::new(
                "epoch",
                text,
                "whole seconds since January 1st 1970, 00:00 UTC, up to the year 9999",
            )
        })
    }
}

/// A time of a base image's config, as Go writes it back: no zeros at the end of a fraction, `Z` for UTC. None for what is no time.
pub(super) fn rewritten(text: &str) -> Option<String> {
    OffsetDateTime::parse(text, &Rfc3339).ok()?.format(&Rfc3339).ok()
}

/// In UTC and whole seconds, the form of an SPDX document.
pub(super) fn in_utc(text: &str) -> Option<String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(UtcOffset::UTC);
    time.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!("0".parse::<Epoch>().unwrap().rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!("1700000000".parse::<Epoch>().unwrap().rfc3339(), "2023-11-14T22:13:20Z");
        for bad in ["", "now", "1.5", "99999999999999", "-62135596800"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
        for (given, written) in [
            ("2020-01-02T03:04:05.000000000Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.120Z", "2020-01-02T03:04:05.12Z"),
            ("2020-01-02T03:04:05+00:00", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05+02:00", "2020-01-02T03:04:05+02:00"),
            (UNSET, UNSET),
        ] {
            assert_eq!(rewritten(given).as_deref(), Some(written));
        }
        assert_eq!(rewritten("yesterday"), None);
        assert_eq!(in_utc("2020-01-02T03:04:05.5+02:00").as_deref(), Some("2020-01-02T01:04:05Z"));
        assert_eq!(in_utc(UNSET).as_deref(), Some(UNSET));
    }
}
