//! Numbers and lists as sentences have them.

use std::time::Duration;

use crate::config::{written_duration, written_size};

pub(super) fn time(duration: Duration) -> String {
    written_duration(duration)
}

pub(super) fn size(bytes: u64) -> String {
    written_size(bytes)
}

/// `1 message`, `3 messages`.
pub(super) fn count(n: u64, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Rounded down to what a person would say: whole seconds from ten seconds on.
pub(super) fn about(duration: Duration) -> String {
    let whole = if duration >= Duration::from_secs(10) {
        Duration::from_secs(duration.as_secs())
    } else {
        duration
    };
    let seconds = whole.as_secs();
    if seconds < 60 || whole.subsec_millis() != 0 {
        return written_duration(whole);
    }
    let parts = [
        (seconds / 3_600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0);
    let words: Vec<String> = parts.map(|(n, unit)| format!("{n}{unit}")).collect();
    words.join(" ")
}
