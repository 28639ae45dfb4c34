//! Bytes of strangers as text for a terminal: UTF-8 where it is, base64 where it is not, and nothing
//! that a terminal would obey. Not here: JSON (`admin/wire.rs`).

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What stands in a table where there is no value.
pub(super) const NONE: &str = "-";
/// Characters of a value in a table cell.
pub(super) const CELL_CHARS_MAX: usize = 60;

/// A key, payload or header value on one line: escaped text, or `base64:…`.
#[must_use]
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape(text).into_owned(),
        Err(_) => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

/// `text` with everything escaped that moves a cursor, ends a line or turns the reading direction.
#[must_use]
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) || c == '\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if is_unsafe(c) => {
                // Writing to a String cannot fail.
                let _written = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// As [`escape`], but keeps line ends: for text of our own that quotes strangers.
#[must_use]
pub(super) fn escape_lines(text: &str) -> String {
    text.lines()
        .map(|line| {
            line.chars()
                .map(|c| if is_unsafe(c) { '\u{fffd}' } else { c })
                .collect::<String>()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Cuts `text` for a table cell; what is cut shows as `…`.
#[must_use]
pub(super) fn cell(text: &str) -> String {
    if text.chars().count() <= CELL_CHARS_MAX {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    cut.push('…');
    cut
}

/// `1234567` as `1,234,567`.
#[must_use]
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a binary unit and one decimal.
#[must_use]
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = UNITS[0];
    let (mut whole, mut rest) = (bytes, 0);
    for next in &UNITS[1..] {
        if whole < 1_024 {
            break;
        }
        (rest, whole) = (whole % 1_024, whole / 1_024);
        unit = next;
    }
    if unit == "B" {
        return format!("{whole} B");
    }
    format!("{whole}.{} {unit}", rest * 10 / 1_024)
}

/// C0, DEL, C1, line and paragraph separators, and what turns or hides text (Unicode bidi and
/// zero-width controls, tags).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_whatever_reach_the_terminal_as_a_control_character(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!of_bytes(&bytes).chars().any(is_unsafe));
        }

        #[test]
        fn two_different_texts_never_look_the_same(a in ".{0,8}", b in ".{0,8}") {
            prop_assert_eq!(a == b, escape(&a) == escape(&b));
        }
    }

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(of_bytes(b"\x1b[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(of_bytes("a\tb\nc\\".as_bytes()), "a\\tb\\nc\\\\");
        assert_eq!(
            of_bytes("\u{202e}abc\u{9b}31m".as_bytes()),
            "\\u{202e}abc\\u{9b}31m"
        );
        assert_eq!(of_bytes("süß 日本".as_bytes()), "süß 日本");
    }

    #[test]
    fn what_is_not_text_is_base64() {
        assert_eq!(of_bytes(&[0xff, 0x00]), "base64:/wA=");
        assert_eq!(of_bytes(b""), "");
    }

    #[test]
    fn numbers_and_sizes_read_easily() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(54_011), "54,011");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }

    #[test]
    fn a_long_cell_is_cut_and_says_so() {
        let text = "x".repeat(CELL_CHARS_MAX + 1);
        assert_eq!(cell(&text).chars().count(), CELL_CHARS_MAX);
        assert!(cell(&text).ends_with('…'));
        assert_eq!(cell("short"), "short");
    }
}
