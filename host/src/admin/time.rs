//! Points in time and spans as people type and read them: RFC 3339 in UTC, Unix milliseconds,
//! `10m`. Proleptic Gregorian, no leap seconds; years 0001 to 9999.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;

/// Now, Unix ms.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Unix ms as `2013-01-31T05:15:00.000Z`.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = date_of(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

/// Reads `2013-01-31`, `2013-01-31T05:15:00Z`, with a fraction or an offset such as `+01:00`, as Unix ms.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        None => (text, None),
        Some((date, clock)) => (date, Some(clock)),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let sane = (1..=9_999).contains(&year) && (1..=12).contains(&month);
    if parts.next().is_some() || !sane || day < 1 || day > days_in(year, month) {
        return None;
    }
    let midnight = days_from(year, month, day) * DAY_MS;
    match clock {
        None => Some(midnight),
        Some(clock) => Some(midnight + parse_clock(clock)?),
    }
}

/// Reads `250ms`, `10s`, `5m`, `2h`, `7d`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    Some(Duration::from_millis(ms))
}

/// A span of ms in one or two units: `850ms`, `12s`, `3m 20s`, `2h 5m`, `4d 1h`.
#[must_use]
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (large, small, names) = match seconds {
        0 => return format!("{ms}ms"),
        1..60 => return format!("{seconds}s"),
        60..3_600 => (seconds / 60, seconds % 60, ("m", "s")),
        3_600..86_400 => (seconds / 3_600, seconds / 60 % 60, ("h", "m")),
        _ => (seconds / 86_400, seconds / 3_600 % 24, ("d", "h")),
    };
    match small {
        0 => format!("{large}{}", names.0),
        _ => format!("{large}{} {small}{}", names.0, names.1),
    }
}

fn parse_clock(clock: &str) -> Option<i64> {
    let zone_at = clock.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = clock.split_at(zone_at);
    let (clock, fraction_ms) = match clock.split_once('.') {
        None => (clock, 0),
        Some((clock, fraction)) => (clock, parse_fraction(fraction)?),
    };
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let second = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let ms = ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms;
    Some(ms - parse_zone(zone)?)
}

/// The offset from UTC in ms.
fn parse_zone(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hour, minute) = zone.get(1..)?.split_once(':')?;
    let (hour, minute) = (digits(hour, 2)?, digits(minute, 2)?);
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 60 + minute) * 60_000)
}

fn parse_fraction(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<3}").get(..3)?.parse().ok()
}

fn digits(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01; years begin in March so that the leap day is the last (H. Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn days_from(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_was_shown(ms in -60_000_000_000_000i64..250_000_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _parsed = (parse_rfc3339(&text), parse_span(&text));
        }
    }

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(parse_rfc3339("2013-01-31"), Some(1_359_590_400_000));
        assert_eq!(
            parse_rfc3339("2013-01-31T05:15:00.25Z"),
            Some(1_359_609_300_250)
        );
        assert_eq!(
            parse_rfc3339("2013-01-31T06:15+01:00"),
            Some(1_359_609_300_000)
        );
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2013",
            "2013-02-29",
            "2013-13-01",
            "2013-1-1",
            "2013-01-01T",
            "2013-01-01T25:00:00Z",
            "2013-01-01T05:00:00",
            "2013-01-01T05:00:00+1:00",
            "2013-01-01T05:00:60Z",
            "éééé-01-01",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_read_and_shown() {
        assert_eq!(parse_span("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_span("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "10", "m", "10 m", "-1s", "99999999999999999999s", "1y"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
        assert_eq!(span(850), "850ms");
        assert_eq!(span(12_300), "12s");
        assert_eq!(span(200_000), "3m 20s");
        assert_eq!(span(7_200_000), "2h");
        assert_eq!(span(349_200_000), "4d 1h");
    }
}
