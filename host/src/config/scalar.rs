//! Single values: durations, sizes, points in time, and the substitution of `${…}`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `500ms`, `10s`, `1m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// `512B`, `64KiB`, `128MiB`, `2GiB`, `1TiB`, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    with_unit(text, &SIZE_UNITS)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// As it would be written in a configuration: `1500ms`, `1m`.
#[must_use]
pub fn written_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Days are not how people write 24h.
    written(ms, DURATION_UNITS.get(..4).unwrap_or_default())
}

/// As it would be written in a configuration: `64KiB`.
#[must_use]
pub fn written_size(bytes: u64) -> String {
    written(bytes, &SIZE_UNITS)
}

fn written(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units
        .iter()
        .rev()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (unit, factor) = fits.or(units.first()).copied().unwrap_or(("", 1));
    format!("{}{unit}", value / factor)
}

/// Unix milliseconds of an RFC 3339 time with a zone, or of plain digits.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let (fraction, zone) = split_fraction(rest)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let seconds =
        days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - zone_seconds(zone)?;
    Some(seconds * 1_000 + fraction)
}

fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Milliseconds of a fraction, and the zone behind it.
fn split_fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(fraction) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, zone) = fraction.split_at_checked(digits)?;
    let padded = format!("{digits:0<3}");
    Some((
        padded
            .get(..3)?
            .parse()
            .ok()
            .filter(|_| !digits.is_empty())?,
        zone,
    ))
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Count years from March, so that the leap day is the last of a year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468
}

/// Why a `${…}` cannot be substituted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unset {
    Unclosed,
    BadName(String),
    Missing(String),
    /// `${VAR:?message}`.
    Required(String, String),
}

/// A text after substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Substituted {
    pub(super) text: String,
    /// The text was one `${…}` and nothing else.
    pub(super) whole: bool,
    /// Something came out of the environment, so the text is not to be shown.
    pub(super) from_environment: bool,
}

/// Replaces `${VAR}`, `${VAR:-default}`, `${VAR:?message}`; `$${` stands for `${`. As in a shell, the
/// forms with a colon take an empty variable for an unset one.
pub(super) fn substitute(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Substituted, Unset> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut parts, mut from_environment) = (0_usize, false);
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after.get(2..).unwrap_or_default();
            continue;
        }
        out.push_str(before);
        let inside = after.get(2..).unwrap_or_default();
        let end = inside.find('}').ok_or(Unset::Unclosed)?;
        let (inside, tail) = inside.split_at(end);
        let (value, found) = variable(inside, env)?;
        out.push_str(&value);
        from_environment |= found;
        parts += 1;
        rest = tail.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    let whole = parts == 1 && text.starts_with("${") && text.find('}') == Some(text.len() - 1);
    Ok(Substituted {
        text: out,
        whole,
        from_environment,
    })
}

/// The value of what stands between the braces, and whether the environment gave it.
fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), Unset> {
    let (name, otherwise) = match inside.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (inside, None),
    };
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let default = otherwise.and_then(|o| o.strip_prefix('-'));
    let message = otherwise.and_then(|o| o.strip_prefix('?'));
    if !is_name || (otherwise.is_some() && default.is_none() && message.is_none()) {
        return Err(Unset::BadName(inside.to_owned()));
    }
    let value = env(name).filter(|value| otherwise.is_none() || !value.is_empty());
    match (value, default, message) {
        (Some(value), _, _) => Ok((value, true)),
        (None, Some(default), _) => Ok((default.to_owned(), false)),
        (None, None, Some(message)) => Err(Unset::Required(name.to_owned(), message.to_owned())),
        (None, None, None) => Err(Unset::Missing(name.to_owned())),
    }
}
