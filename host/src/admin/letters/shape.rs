//! The shape of an error text: what is left when numbers, ids and quoted strings become placeholders, so
//! that dead letters with the same cause fall into one failure group. Pure and bounded. Not here: which
//! letters there are (`groups.rs`).

use sha2::{Digest, Sha256};

/// Bytes of a shape.
pub const SHAPE_BYTES_MAX: usize = 200;
/// Characters of a failure group's ID.
pub const GROUP_ID_LEN: usize = 10;

/// `order 'o-17' has 3 lines` → `order <text> has <n> lines`.
///
/// A word with a digit in it is a number (`503`, `0x1f`, `1.5s` → `<n>s`) or else an ID. Runs of white
/// space are one space.
#[must_use]
pub fn shape(error: &str) -> String {
    let mut out = String::with_capacity(error.len().min(SHAPE_BYTES_MAX));
    let mut rest = error.trim();
    let mut before = None;
    while let Some(first) = rest.chars().next() {
        if out.len() >= SHAPE_BYTES_MAX {
            break;
        }
        let len = if let Some(len) = quoted(rest, before) {
            out.push_str("<text>");
            len
        } else if is_word(first) {
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, _) = rest.split_at(len);
            push_word(word, &mut out);
            len
        } else if first.is_whitespace() {
            out.push(' ');
            rest.find(|c: char| !c.is_whitespace())
                .unwrap_or(rest.len())
        } else {
            out.push(first);
            first.len_utf8()
        };
        let (eaten, left) = rest.split_at(len);
        before = eaten.chars().next_back();
        rest = left;
    }
    let cut = out.floor_char_boundary(SHAPE_BYTES_MAX);
    out.truncate(cut);
    out
}

/// The ID of the failure group of dead letters of a pipeline and consumer group with a reason and a shape.
#[must_use]
pub fn group_id(pipeline: &str, consumer_group: &str, reason: &str, shape: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [pipeline, consumer_group, reason, shape] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    id.truncate(GROUP_ID_LEN);
    id
}

/// Bytes of the quoted string that `text` begins with, its quotes included.
fn quoted(text: &str, before: Option<char>) -> Option<usize> {
    let first = text.chars().next()?;
    let close = match first {
        '"' | '`' => first,
        // An apostrophe (`can't`) opens nothing.
        '\'' if !before.is_some_and(char::is_alphanumeric) => first,
        '“' => '”',
        '‘' => '’',
        '«' => '»',
        _ => return None,
    };
    let inner = text.get(first.len_utf8()..)?;
    let end = inner.find(close)?;
    Some(first.len_utf8() + end + close.len_utf8())
}

/// `-` and `.` hold words such as `o-17` and `10.0.0.1` together.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn push_word(word: &str, out: &mut String) {
    // What surrounds it is punctuation: `failed.` and `-5`.
    let inner = word.trim_matches(['-', '.']);
    let start = word.find(inner).unwrap_or(0);
    let (lead, tail) = (
        word.get(..start).unwrap_or_default(),
        word.get(start + inner.len()..).unwrap_or_default(),
    );
    out.push_str(lead);
    if !inner.contains(|c: char| c.is_ascii_digit()) {
        out.push_str(inner);
    } else if let Some(unit) = unit_of(inner) {
        out.push_str("<n>");
        out.push_str(unit);
    } else {
        out.push_str("<id>");
    }
    out.push_str(tail);
}

/// What follows the number that `word` begins with, when it is a number: nothing, or a short unit.
fn unit_of(word: &str) -> Option<&str> {
    let hex = word.strip_prefix("0x").or(word.strip_prefix("0X"));
    if hex.is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit())) {
        return Some("");
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let unit = word.trim_start_matches(is_number);
    let number = word.strip_suffix(unit)?;
    let dots = number.matches('.').count();
    let is_unit = unit.len() <= 3 && unit.chars().all(|c| c.is_ascii_alphabetic());
    (!number.is_empty() && dots <= 1 && is_unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_differs_between_messages_becomes_a_placeholder() {
        for (error, expected) in [
            ("order 'o-17' has 3 lines", "order <text> has <n> lines"),
            ("order o-17 is unknown", "order <id> is unknown"),
            (
                "http 503 from https://a.example/v1/x",
                "http <n> from https://a.example/<id>/x",
            ),
            ("timed out after 1.5s", "timed out after <n>s"),
            ("no host 10.0.0.1:5432", "no host <id>:<n>"),
            ("key \"a \\ b\" and `c`", "key <text> and <text>"),
            ("can't parse, doesn't end", "can't parse, doesn't end"),
            (
                "id 5f0c6d3a-8f2e-4d6f-9a55-1d2f3c4b5a69 failed.",
                "id <id> failed.",
            ),
            ("at 0x1f2b  in\n\tmain", "at <n> in main"),
            ("balance -5 is negative", "balance -<n> is negative"),
            ("unclosed ' quote 7", "unclosed ' quote <n>"),
            ("", ""),
        ] {
            assert_eq!(shape(error), expected, "{error}");
        }
    }

    #[test]
    fn letters_of_one_cause_are_one_group_and_of_another_pipeline_another() {
        let id = |pipeline, error| group_id(pipeline, "g", "rejected", &shape(error));
        assert_eq!(id("p", "user 1 is gone"), id("p", "user 22 is gone"));
        assert_ne!(id("p", "user 1 is gone"), id("q", "user 1 is gone"));
        assert_ne!(id("p", "user 1 is gone"), id("p", "user 1 is late"));
        assert_eq!(id("p", "x").len(), GROUP_ID_LEN);
    }

    proptest! {
        #[test]
        fn a_shape_is_bounded_and_its_own_length_does_not_panic(error in "\\PC{0,400}") {
            prop_assert!(shape(&error).len() <= SHAPE_BYTES_MAX);
        }

        #[test]
        fn digits_never_survive(error in "[a-z0-9 '.:-]{0,80}") {
            prop_assert!(!shape(&error).contains(|c: char| c.is_ascii_digit()), "{}", shape(&error));
        }
    }
}
