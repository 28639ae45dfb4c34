//! Guest log lines: made safe to print, bounded, rate-limited for the whole pipeline. Where the lines
//! go is not decided here.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use wasmtime::component::{ComponentType, Lift};

use super::lock;

/// Longest text of a line in bytes, after escaping.
pub const LOG_TEXT_MAX: usize = 8 * 1024;
/// Most lines an instance holds until they are taken.
pub const LOG_LINES_HELD_MAX: usize = 256;
/// Most of a guest's last error that a fault quotes, in bytes.
const LAST_ERROR_MAX: usize = 700;

/// As in handler.wit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum LogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// One line that a guest wrote. Control characters are escaped, so a line cannot forge another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    /// Index in the batch of the message that the line is about.
    pub about: Option<u32>,
    /// At most [`LOG_TEXT_MAX`] bytes.
    pub text: String,
}

/// `limits.log_lines` for all instances of a pipeline together: that many at once, refilled evenly.
#[derive(Debug)]
pub(super) struct LineRate {
    per_second: u32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl LineRate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let bucket = Mutex::new(Bucket {
            tokens: f64::from(per_second),
            filled_at: now,
        });
        Self { per_second, bucket }
    }

    /// Takes one line's worth, if there is one.
    fn take(&self, now: Instant) -> bool {
        let mut bucket = lock(&self.bucket);
        let rate = f64::from(self.per_second);
        let gained = now
            .saturating_duration_since(bucket.filled_at)
            .as_secs_f64()
            * rate;
        bucket.tokens = (bucket.tokens + gained).min(rate);
        bucket.filled_at = now;
        let taken = bucket.tokens >= 1.0;
        if taken {
            bucket.tokens -= 1.0;
        }
        taken
    }
}

/// Lines of one instance.
#[derive(Debug, Default)]
pub(super) struct LogBuffer {
    held: Vec<LogLine>,
    /// Lines that were over a limit and of which nobody was told yet.
    dropped: u64,
    last_error: String,
}

impl LogBuffer {
    pub(super) fn begin_call(&mut self) {
        self.last_error.clear();
    }

    pub(super) fn line(
        &mut self,
        rate: &LineRate,
        level: LogLevel,
        about: Option<u32>,
        text: &str,
    ) {
        if level == LogLevel::Error {
            self.last_error = escape(text, LAST_ERROR_MAX);
        }
        self.push(rate, level, about, text);
    }

    /// A line of standard error: all of them together explain a fault.
    pub(super) fn stderr_line(&mut self, rate: &LineRate, text: &str) {
        let room = LAST_ERROR_MAX.saturating_sub(self.last_error.len());
        if room > 3 && !text.trim().is_empty() {
            if !self.last_error.is_empty() {
                self.last_error.push_str(" | ");
            }
            self.last_error.push_str(&escape(text, room - 3));
        }
        self.push(rate, LogLevel::Warn, None, text);
    }

    pub(super) fn stdout_line(&mut self, rate: &LineRate, text: &str) {
        self.push(rate, LogLevel::Info, None, text);
    }

    /// The error that the guest wrote in this call, if any.
    pub(super) fn last_error(&self) -> Option<&str> {
        (!self.last_error.is_empty()).then_some(self.last_error.as_str())
    }

    /// The lines, and one about those that were dropped when the rate allows it.
    pub(super) fn take(&mut self, rate: &LineRate) -> Vec<LogLine> {
        if self.dropped > 0 && rate.take(Instant::now()) {
            let dropped = std::mem::take(&mut self.dropped);
            self.held.push(LogLine {
                level: LogLevel::Warn,
                about: None,
                text: format!("{dropped} lines of the handler were dropped (limits.log_lines)"),
            });
        }
        std::mem::take(&mut self.held)
    }

    fn push(&mut self, rate: &LineRate, level: LogLevel, about: Option<u32>, text: &str) {
        if self.held.len() >= LOG_LINES_HELD_MAX || !rate.take(Instant::now()) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.held.push(LogLine {
            level,
            about,
            text: escape(text, LOG_TEXT_MAX),
        });
    }
}

/// Escapes what could steer a terminal or break a line, and cuts at `max` bytes with `…`.
pub(super) fn escape(text: &str, max: usize) -> String {
    const CUT: char = '…';
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let before = out.len();
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_layout(c) => {
                // Writing to a String cannot fail.
                let written = write!(out, "\\u{{{:x}}}", u32::from(c));
                debug_assert!(written.is_ok());
            }
            c => out.push(c),
        }
        if out.len() > max {
            out.truncate(before);
            out.truncate(out.floor_char_boundary(max.saturating_sub(CUT.len_utf8())));
            if max >= CUT.len_utf8() {
                out.push(CUT);
            }
            break;
        }
    }
    out
}

/// Line and paragraph separators, and the characters that reorder text.
const fn is_layout(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_line_cannot_forge_another_or_steer_a_terminal() {
        assert_eq!(
            escape("a\nERROR b\r\u{1b}[31m\u{202e}\u{85}ü", 100),
            "a\\nERROR b\\r\\u{1b}[31m\\u{202e}\\u{85}ü"
        );
    }

    proptest! {
        #[test]
        fn escaped_text_keeps_its_limit(text in ".{0,60}", max in 0usize..80) {
            let out = escape(&text, max);
            prop_assert!(out.len() <= max);
            prop_assert!(!out.chars().any(char::is_control));
        }
    }

    #[test]
    fn the_rate_is_shared_and_refills_evenly() {
        let start = Instant::now();
        let rate = LineRate::new(10, start);
        assert_eq!((0..50).filter(|_| rate.take(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..50).filter(|_| rate.take(later)).count(), 5);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..50).filter(|_| rate.take(much_later)).count(), 10);
    }

    #[test]
    fn lines_over_a_limit_are_counted_and_dropped() {
        let rate = LineRate::new(100_000, Instant::now());
        let mut buffer = LogBuffer::default();
        for _ in 0..LOG_LINES_HELD_MAX + 7 {
            buffer.line(&rate, LogLevel::Info, None, "x");
        }
        let lines = buffer.take(&rate);
        assert_eq!(lines.len(), LOG_LINES_HELD_MAX + 1);
        let last = lines.last().unwrap();
        assert!(last.text.starts_with("7 lines"), "{last:?}");
        assert_eq!(buffer.take(&rate), []);
    }

    #[test]
    fn the_last_error_is_kept_even_when_the_line_is_dropped() {
        let rate = LineRate::new(0, Instant::now());
        let mut buffer = LogBuffer::default();
        buffer.line(&rate, LogLevel::Error, None, "boom");
        assert_eq!(buffer.last_error(), Some("boom"));
        assert_eq!(buffer.take(&rate), []);
        buffer.begin_call();
        assert_eq!(buffer.last_error(), None);
    }
}
