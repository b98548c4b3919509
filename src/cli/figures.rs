//! Numbers of the commands that speak to builders: ages, durations and sizes as they are printed and typed.

use std::time::Duration;

use crate::buildkit::{Moment, flags};

/// `3 seconds ago`, `2 hours ago`.
pub fn ago(at: Moment, now: Moment) -> String {
    const UNITS: [(u64, &str); 5] =
        [(365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute")];
    let seconds = now.since(at).as_secs();
    let (count, unit) = UNITS
        .iter()
        .find(|(length, _)| seconds >= *length)
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, *unit));
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `2.5s`, `3m 05s`.
pub fn took(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        seconds => format!("{}m {:02}s", seconds / 60, seconds % 60),
    }
}

/// A time span as Go's tools take it: `90s`, `1h30m`, `0.5h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write a number and h, m, s or ms, as in 24h or 1h30m";
    let unit_seconds = |unit: &str| match unit {
        "h" => Some(3_600.0),
        "m" => Some(60.0),
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" | "µs" => Some(1e-6),
        "ns" => Some(1e-9),
        _ => None,
    };
    let number_ends = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(number_ends(rest));
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| HINT.to_owned())?;
        seconds += number * unit_seconds(unit).ok_or(HINT)?;
        rest = after;
    }
    // what a daemon counts in is signed nanoseconds
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !text.is_empty() && i64::try_from(duration.as_nanos()).is_ok() => Ok(duration),
        _ => Err(HINT.to_owned()),
    }
}

/// A number of bytes with a binary unit, as buildx takes it: `512`, `64m`, `1.5GiB`.
pub fn space(text: &str) -> Result<i64, String> {
    let bytes = flags::bytes("", text).map_err(|e| e.reason)?;
    i64::try_from(bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_durations_are_short() {
        let now = Moment::from_ms(400 * 86_400_000);
        for (seconds, text) in [
            (0, "0 seconds ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (7_300, "2 hours ago"),
            (86_400, "1 day ago"),
            (80 * 86_400, "2 months ago"),
            (370 * 86_400, "1 year ago"),
        ] {
            assert_eq!(ago(Moment::from_ms(now.ms() - seconds * 1000), now), text);
        }
        assert_eq!(ago(Moment::from_ms(now.ms() + 5000), now), "0 seconds ago", "clocks differ");
        for (ms, text) in [(0, "0.0s"), (2_540, "2.5s"), (59_940, "59.9s"), (185_000, "3m 05s")] {
            assert_eq!(took(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [
            ("0", 0),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("0.5h", 1_800_000),
            ("90s", 90_000),
            ("1.5s250ms", 1_750),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "h", "5", "5d", "-1h", "1h-", "1..2s", "∞", "9999999999h", "1 h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spaces_have_binary_units() {
        assert_eq!((space("2g"), space("512")), (Ok(2 << 30), Ok(512)));
        assert!(space("-1").is_err() && space("much").is_err() && space("").is_err());
    }
}
