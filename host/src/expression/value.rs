//! The canonical form of a value: a tag for its type, then its text, so that `1` and `"1"` differ and
//! equal values are equal bytes. The text alone is what a handler is given.

use std::io::Write;

use cel::Value;

use super::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    String = b's',
    /// Signed or not: decimal digits.
    Integer = b'i',
    Bool = b'b',
    /// Shortest digits that read back as the same double; zero has no sign.
    Double = b'd',
    /// Lower-case hexadecimal.
    Bytes = b'x',
}

/// Appends the canonical form; on an error nothing is appended.
pub(super) fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Null => return Err(Error::Missing),
        Value::String(s) if s.is_empty() => return Err(Error::Missing),
        Value::Bytes(b) if b.is_empty() => return Err(Error::Missing),
        Value::String(s) => {
            out.push(Tag::String as u8);
            out.extend_from_slice(s.as_bytes());
        }
        Value::Int(i) => format(Tag::Integer, format_args!("{i}"), out),
        Value::UInt(u) => format(Tag::Integer, format_args!("{u}"), out),
        Value::Bool(b) => format(Tag::Bool, format_args!("{b}"), out),
        Value::Float(d) if d.is_finite() => {
            let unsigned_zero = d + 0.0;
            format(Tag::Double, format_args!("{unsigned_zero:?}"), out);
        }
        Value::Float(_) => return Err(Error::Failed("the result is not a finite number".into())),
        Value::Bytes(bytes) => {
            out.push(Tag::Bytes as u8);
            for byte in bytes.iter() {
                append(format_args!("{byte:02x}"), out);
            }
        }
        other => {
            let kind = other.type_of();
            return Err(Error::Failed(format!(
                "the result is a {kind}; make it a string, a number, a boolean or bytes"
            )));
        }
    }
    Ok(())
}

fn format(tag: Tag, text: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    out.push(tag as u8);
    append(text, out);
}

fn append(text: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _written: std::io::Result<()> = out.write_fmt(text);
}
