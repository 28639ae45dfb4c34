//! A whole document as a tree, for what the scan cannot answer. Integers keep their digits: one that
//! 64 bits cannot hold is kept as such instead of becoming a float. Of two members with one name the
//! last counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::json::{Cursor, DEPTH_MAX, Invalid, NumberToken, StringToken, unescape};
use super::path::Step;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    Double(f64),
    /// No 64-bit integer and no finite double.
    OutOfRange,
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What a path leads to.
pub(super) enum Found<'a> {
    Value(&'a Json),
    /// A member or an element is not there, or something on the way is null.
    Absent,
    /// Something on the way has no members or elements; its kind.
    NotInside(&'static str),
}

impl Json {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut cursor = Cursor::new(bytes);
        let value = value(&mut cursor, 0)?;
        cursor.end()?;
        Ok(value)
    }

    pub(super) fn find(&self, path: &[Step]) -> Found<'_> {
        let mut here = self;
        for step in path {
            let next = match (step, here) {
                (_, Self::Null) => None,
                (Step::Field(name), Self::Object(members)) => members
                    .iter()
                    .rev()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v),
                (Step::Element(index), Self::Array(elements)) => elements.get(*index),
                (_, other) => return Found::NotInside(other.kind()),
            };
            match next {
                Some(value) => here = value,
                None => return Found::Absent,
            }
        }
        Found::Value(here)
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) | Self::Double(_) | Self::OutOfRange => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// `None` when a number in it is out of range.
    pub(super) fn to_cel(&self) -> Option<cel::Value> {
        Some(match self {
            Self::Null => cel::Value::Null,
            Self::Bool(b) => cel::Value::Bool(*b),
            Self::Int(i) => cel::Value::Int(*i),
            Self::UInt(u) => cel::Value::UInt(*u),
            Self::Double(d) => cel::Value::Float(*d),
            Self::OutOfRange => return None,
            Self::String(s) => cel::Value::String(Arc::new(s.clone())),
            Self::Array(elements) => {
                let list: Option<Vec<_>> = elements.iter().map(Self::to_cel).collect();
                cel::Value::List(Arc::new(list?))
            }
            Self::Object(members) => {
                let map: Option<HashMap<_, _>> = members
                    .iter()
                    .map(|(n, v)| Some((cel::objects::Key::from(n.as_str()), v.to_cel()?)))
                    .collect();
                cel::Value::Map(cel::objects::Map {
                    map: Arc::new(map?),
                })
            }
        })
    }
}

fn value(cursor: &mut Cursor<'_>, depth: u32) -> Result<Json, Invalid> {
    match cursor.next_word() {
        Some(b'{') => object(cursor, depth),
        Some(b'[') => array(cursor, depth),
        Some(b'"') => {
            let token = cursor.string()?;
            Ok(Json::String(text(cursor.bytes, token)))
        }
        Some(b't') => cursor.literal("true").map(|()| Json::Bool(true)),
        Some(b'f') => cursor.literal("false").map(|()| Json::Bool(false)),
        Some(b'n') => cursor.literal("null").map(|()| Json::Null),
        Some(b'-' | b'0'..=b'9') => cursor.number().map(|token| number(cursor.bytes, token)),
        _ => Err(cursor.invalid("a value")),
    }
}

fn object(cursor: &mut Cursor<'_>, depth: u32) -> Result<Json, Invalid> {
    if depth >= DEPTH_MAX {
        return Err(cursor.invalid("less nesting"));
    }
    cursor.at += 1;
    let mut members = Vec::new();
    if cursor.next_word() == Some(b'}') {
        cursor.at += 1;
        return Ok(Json::Object(members));
    }
    loop {
        if cursor.next_word() != Some(b'"') {
            return Err(cursor.invalid("a member name in quotes"));
        }
        let token = cursor.string()?;
        let name = text(cursor.bytes, token);
        if cursor.next_word() != Some(b':') {
            return Err(cursor.invalid(":"));
        }
        cursor.at += 1;
        members.push((name, value(cursor, depth + 1)?));
        match cursor.next_word() {
            Some(b',') => cursor.at += 1,
            Some(b'}') => break,
            _ => return Err(cursor.invalid(", or }")),
        }
    }
    cursor.at += 1;
    Ok(Json::Object(members))
}

fn array(cursor: &mut Cursor<'_>, depth: u32) -> Result<Json, Invalid> {
    if depth >= DEPTH_MAX {
        return Err(cursor.invalid("less nesting"));
    }
    cursor.at += 1;
    let mut elements = Vec::new();
    if cursor.next_word() == Some(b']') {
        cursor.at += 1;
        return Ok(Json::Array(elements));
    }
    loop {
        elements.push(value(cursor, depth + 1)?);
        match cursor.next_word() {
            Some(b',') => cursor.at += 1,
            Some(b']') => break,
            _ => return Err(cursor.invalid(", or ]")),
        }
    }
    cursor.at += 1;
    Ok(Json::Array(elements))
}

fn text(bytes: &[u8], token: StringToken) -> String {
    let inside = bytes.get(token.start..token.end).unwrap_or_default();
    let mut out = Vec::with_capacity(inside.len());
    unescape(inside, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The value of a checked number.
pub(super) fn number(bytes: &[u8], token: NumberToken) -> Json {
    let digits = bytes.get(token.start..token.end).unwrap_or_default();
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    if token.integer {
        return match (digits.parse::<i64>(), digits.parse::<u64>()) {
            (Ok(i), _) => Json::Int(i),
            (_, Ok(u)) => Json::UInt(u),
            _ => Json::OutOfRange,
        };
    }
    match digits.parse::<f64>() {
        Ok(d) if d.is_finite() => Json::Double(d),
        _ => Json::OutOfRange,
    }
}
