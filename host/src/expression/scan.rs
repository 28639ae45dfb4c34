//! One walk over a document that checks all of it and picks up the values at the paths of a trie, with
//! no allocation. `None` where the document is not JSON, for whatever reason: then [`super::tree`] reads
//! it again and says why. The two must agree on every document; a test holds them together.
//!
//! Places are passed by value and not kept behind a reference: the walk is a chain of small steps, and
//! through memory each would wait for the one before.

use super::json::{DEPTH_MAX, unescape};
use super::path::{Node, PATHS_MAX};

/// A value at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Picked {
    #[default]
    Absent,
    /// The inside of a string, and whether there is a backslash in it.
    String {
        start: u32,
        end: u32,
        escaped: bool,
    },
    /// `integer`: written without point and exponent.
    Number {
        start: u32,
        end: u32,
        integer: bool,
    },
    Bool(bool),
    /// Null, an array or an object: left to the interpreter.
    Other,
}

pub(super) type Slots = [Picked; PATHS_MAX];

/// Walks `bytes` and puts the values at the paths of `trie` into `slots`, which are all absent before.
pub(super) fn scan(bytes: &[u8], trie: &Node, slots: &mut Slots) -> Option<()> {
    // Places are kept in 32 bits.
    u32::try_from(bytes.len()).ok()?;
    let at = wanted(bytes, 0, trie, slots, 0)?;
    end(bytes, at)
}

/// Walks `bytes` and picks up nothing.
pub(super) fn check(bytes: &[u8]) -> Option<()> {
    let at = skip(bytes, 0, 0)?;
    end(bytes, at)
}

/// Reads a value that a path goes through or ends at; returns the place behind it.
fn wanted(bytes: &[u8], at: usize, node: &Node, slots: &mut Slots, depth: u32) -> Option<usize> {
    let (byte, at) = word(bytes, at)?;
    let start = at as u32;
    let (picked, at) = match byte {
        b'"' => {
            let (end, escaped) = string(bytes, at)?;
            (
                Picked::String {
                    start: start + 1,
                    end: end as u32,
                    escaped,
                },
                end + 1,
            )
        }
        b'-' | b'0'..=b'9' => {
            let (end, integer) = number(bytes, at)?;
            (
                Picked::Number {
                    start,
                    end: end as u32,
                    integer,
                },
                end,
            )
        }
        b't' => (Picked::Bool(true), literal(bytes, at, b"true")?),
        b'f' => (Picked::Bool(false), literal(bytes, at, b"false")?),
        b'{' if !node.fields.is_empty() => (Picked::Other, object(bytes, at, node, slots, depth)?),
        b'[' if !node.elements.is_empty() => (Picked::Other, array(bytes, at, node, slots, depth)?),
        _ => (Picked::Other, skip(bytes, at, depth)?),
    };
    if let Some(slot) = node.slot.and_then(|slot| slots.get_mut(slot)) {
        *slot = picked;
    }
    Some(at)
}

fn object(bytes: &[u8], at: usize, node: &Node, slots: &mut Slots, depth: u32) -> Option<usize> {
    let (empty, mut at) = open(bytes, at, b'}', depth)?;
    if empty {
        return Some(at);
    }
    loop {
        let (byte, quote) = word(bytes, at)?;
        if byte != b'"' {
            return None;
        }
        let (end, escaped) = string(bytes, quote)?;
        let value = colon(bytes, end + 1)?;
        let child = if escaped {
            escaped_field(node, bytes.get(quote + 1..end)?)
        } else {
            node.field(bytes, quote + 1, end)
        };
        at = match child {
            Some(child) => {
                // The last of two members with one name counts, with nothing left of the first.
                forget(child.below, slots);
                wanted(bytes, value, child, slots, depth + 1)?
            }
            None => skip(bytes, value, depth + 1)?,
        };
        let (last, next) = close(bytes, at, b'}')?;
        if last {
            return Some(next);
        }
        at = next;
    }
}

fn array(bytes: &[u8], at: usize, node: &Node, slots: &mut Slots, depth: u32) -> Option<usize> {
    let (empty, mut at) = open(bytes, at, b']', depth)?;
    if empty {
        return Some(at);
    }
    let mut index = 0_usize;
    loop {
        at = match node.elements.iter().find(|(i, _)| *i == index) {
            Some((_, child)) => wanted(bytes, at, child, slots, depth + 1)?,
            None => skip(bytes, at, depth + 1)?,
        };
        let (last, next) = close(bytes, at, b']')?;
        if last {
            return Some(next);
        }
        at = next;
        index += 1;
    }
}

/// Reads a value of no interest; returns the place behind it.
#[inline(always)]
fn skip(bytes: &[u8], at: usize, depth: u32) -> Option<usize> {
    let (byte, at) = word(bytes, at)?;
    match byte {
        b'"' => string(bytes, at).map(|(end, _)| end + 1),
        b'-' | b'0'..=b'9' => number(bytes, at).map(|(end, _)| end),
        _ => skip_other(bytes, at, byte, depth),
    }
}

#[inline(never)]
fn skip_other(bytes: &[u8], at: usize, byte: u8, depth: u32) -> Option<usize> {
    match byte {
        b'{' => skip_object(bytes, at, depth),
        b'[' => skip_array(bytes, at, depth),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => None,
    }
}

fn skip_object(bytes: &[u8], at: usize, depth: u32) -> Option<usize> {
    let (empty, mut at) = open(bytes, at, b'}', depth)?;
    if empty {
        return Some(at);
    }
    loop {
        let (byte, quote) = word(bytes, at)?;
        if byte != b'"' {
            return None;
        }
        let (end, _) = string(bytes, quote)?;
        let value = colon(bytes, end + 1)?;
        let (last, next) = close(bytes, skip(bytes, value, depth + 1)?, b'}')?;
        if last {
            return Some(next);
        }
        at = next;
    }
}

fn skip_array(bytes: &[u8], at: usize, depth: u32) -> Option<usize> {
    let (empty, mut at) = open(bytes, at, b']', depth)?;
    if empty {
        return Some(at);
    }
    loop {
        let (last, next) = close(bytes, skip(bytes, at, depth + 1)?, b']')?;
        if last {
            return Some(next);
        }
        at = next;
    }
}

/// The next byte that is not white space, and its place.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let byte = *bytes.get(at)?;
    if byte > b' ' {
        Some((byte, at))
    } else {
        word_after_space(bytes, at)
    }
}

#[inline(never)]
fn word_after_space(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    while matches!(bytes.get(at)?, b' ' | b'\n' | b'\t' | b'\r') {
        at += 1;
    }
    bytes.get(at).map(|byte| (*byte, at))
}

/// Nothing but white space may follow.
fn end(bytes: &[u8], at: usize) -> Option<()> {
    let rest = bytes.get(at..)?;
    rest.iter()
        .all(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r'))
        .then_some(())
}

/// Reads an opening bracket; says whether the closing one follows at once, then read too.
#[inline(always)]
fn open(bytes: &[u8], at: usize, closing: u8, depth: u32) -> Option<(bool, usize)> {
    // The values inside are one level deeper.
    if depth >= DEPTH_MAX {
        return None;
    }
    let (byte, at) = word(bytes, at + 1)?;
    let empty = byte == closing;
    Some((empty, at + usize::from(empty)))
}

/// Reads a comma or the closing bracket; says whether it was the bracket.
#[inline(always)]
fn close(bytes: &[u8], at: usize, closing: u8) -> Option<(bool, usize)> {
    let (byte, at) = word(bytes, at)?;
    (byte == b',' || byte == closing).then_some((byte == closing, at + 1))
}

#[inline(always)]
fn colon(bytes: &[u8], at: usize) -> Option<usize> {
    let (byte, at) = word(bytes, at)?;
    (byte == b':').then_some(at + 1)
}

#[inline(always)]
fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let end = at + word.len();
    (bytes.get(at..end)? == word).then_some(end)
}

/// Reads a string, whose opening quote is at `at`: the place of the closing quote, and whether there is a
/// backslash before it. Eight bytes at a time, until one is a quote, a backslash, a control character or
/// not ASCII.
#[inline(always)]
fn string(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let start = at + 1;
    let mut at = start;
    while let Some((chunk, _)) = bytes.get(at..)?.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let stop = stops(word);
        if stop == 0 {
            at += 8;
            continue;
        }
        let bits = stop.trailing_zeros() & !7;
        at += (bits / 8) as usize;
        if (word >> bits) & 0xFF == u64::from(b'"') {
            return Some((at, false));
        }
        break;
    }
    string_from(bytes, start, at)
}

/// Goes on with a string byte by byte.
#[inline(never)]
fn string_from(bytes: &[u8], start: usize, mut at: usize) -> Option<(usize, bool)> {
    let (mut escaped, mut ascii) = (false, true);
    loop {
        match *bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at = escape(bytes, at + 1)?;
            }
            byte => {
                ascii &= byte.is_ascii();
                at += 1;
                if byte < b' ' {
                    return None;
                }
            }
        }
    }
    if !ascii {
        std::str::from_utf8(bytes.get(start..at)?).ok()?;
    }
    Some((at, escaped))
}

/// Reads what follows a backslash.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => match super::json::hex(bytes.get(at + 1..at + 5)?)? {
            0xD800..=0xDBFF => {
                let paired = bytes.get(at + 5..at + 7)? == b"\\u"
                    && (0xDC00..=0xDFFF).contains(&super::json::hex(bytes.get(at + 7..at + 11)?)?);
                paired.then_some(at + 11)
            }
            0xDC00..=0xDFFF => None,
            _ => Some(at + 5),
        },
        _ => None,
    }
}

/// Reads a number: the place behind it, and whether it is written as an integer. Short integers in one
/// step.
#[inline(always)]
fn number(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    if let Some((chunk, _)) = bytes.get(at..)?.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let sign = u32::from(word & 0xFF == u64::from(b'-'));
        let word = word >> (8 * sign);
        let digits = digits(word);
        if (1..8 - sign).contains(&digits) {
            let next = (word >> (8 * digits)) & 0xFF;
            let plain = next != u64::from(b'.') && next | 0x20 != u64::from(b'e');
            let leading_zero = word & 0xFF == u64::from(b'0') && digits > 1;
            if plain && !leading_zero {
                return Some((at + (sign + digits) as usize, true));
            }
        }
    }
    number_from(bytes, at)
}

#[inline(never)]
fn number_from(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let mut cursor = super::json::Cursor { bytes, at };
    cursor.number().ok().map(|token| (token.end, token.integer))
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of a word that a string does not simply go over; the lowest mark is exact, as only a
/// byte that is marked itself can carry over into those above it.
#[inline(always)]
const fn stops(word: u64) -> u64 {
    // High bit of each ASCII byte: set unless it is the one looked for (or, of the last, below a space).
    let not_quote = (word ^ (ONES * b'"' as u64)).wrapping_add(ONES * 0x7F);
    let not_backslash = (word ^ (ONES * b'\\' as u64)).wrapping_add(ONES * 0x7F);
    let not_control = word.wrapping_add(ONES * 0x60);
    (!(not_quote & not_backslash & not_control) | word) & HIGHS
}

/// How many of the lowest bytes of a word are digits, at most 8.
#[inline(always)]
const fn digits(word: u64) -> u32 {
    let x = word ^ (ONES * b'0' as u64);
    // A byte over 9 gets its high bit, or has it; the sum of a byte cannot carry over into the next.
    let others = ((x & !HIGHS) + ONES * (0x80 - 10)) | x;
    (others & HIGHS).trailing_zeros() / 8
}

#[inline(always)]
fn forget(mut below: u32, slots: &mut Slots) {
    while below != 0 {
        if let Some(slot) = slots.get_mut(below.trailing_zeros() as usize) {
            *slot = Picked::Absent;
        }
        below &= below - 1;
    }
}

#[cold]
fn escaped_field<'n>(node: &'n Node, written: &[u8]) -> Option<&'n Node> {
    let mut name = Vec::with_capacity(written.len());
    unescape(written, &mut name);
    node.field(&name, 0, name.len())
}
