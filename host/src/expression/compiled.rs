//! The compiled form of the expressions people write for keys: paths, `string(path)`, headers, key, text
//! and literals, alone or joined by `+`. One scan of the payload answers them. Whatever is not plainly
//! so (a value absent, null or of an unfit type) is left to the interpreter, which gives the reason.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue};

use super::json::{NumberToken, unescape};
use super::path::{Node, PATHS_MAX};
use super::read::{Read, number_of};
use super::scan::{Picked, Slots, scan};
use super::tree::{Json, number};
use super::value::{Tag, write};
use crate::message::MessageRef;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compiled {
    parts: Vec<Part>,
    /// The paths in `parts`; `None` when they read no document.
    trie: Option<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Key,
    Text,
    Header(String),
    /// `stringified`: inside `string(…)`.
    Path {
        slot: usize,
        stringified: bool,
    },
}

impl Compiled {
    /// `None` when the expression has another shape. The root has been rewritten.
    pub(super) fn new(root: &IdedExpr, reads: &[Read]) -> Option<Self> {
        let mut parts = Vec::new();
        collect(root, reads, &mut parts)?;
        let mut trie: Option<Node> = None;
        for (slot, read) in reads.iter().enumerate() {
            if let Read::Json(path) = read {
                if slot >= PATHS_MAX {
                    return None;
                }
                trie.get_or_insert_default().insert(path, slot);
            }
        }
        Some(Self { parts, trie })
    }

    pub(super) fn joins_headers(&self) -> bool {
        self.parts.len() > 1
            && self
                .parts
                .iter()
                .any(|part| matches!(part, Part::Header(_)))
    }

    /// Appends the canonical form of the value, or leaves `out` as it was and returns `None` when the
    /// interpreter must decide.
    pub(super) fn canonical(&self, message: &MessageRef<'_>, out: &mut Vec<u8>) -> Option<()> {
        let begin = out.len();
        let payload = message.payload.unwrap_or_default();
        let mut slots = Slots::default();
        if let Some(trie) = &self.trie {
            scan(message.payload?, trie, &mut slots)?;
        }
        let done = match self.parts.as_slice() {
            [part] => single(part, message, payload, &slots, out),
            parts => {
                out.push(Tag::String as u8);
                parts
                    .iter()
                    .try_for_each(|part| text(part, message, payload, &slots, out))
            }
        };
        if done.is_none() || out.len() <= begin + 1 {
            out.truncate(begin);
            return None;
        }
        Some(())
    }
}

fn collect(node: &IdedExpr, reads: &[Read], parts: &mut Vec<Part>) -> Option<()> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => {
            parts.push(Part::Literal(text.inner().to_owned()))
        }
        Expr::Ident(name) => parts.push(read_part(name, reads, false)?),
        Expr::Call(call) => match (
            call.func_name.as_str(),
            call.target.as_deref(),
            call.args.as_slice(),
        ) {
            ("_+_", None, [left, right]) => {
                collect(left, reads, parts)?;
                collect(right, reads, parts)?;
            }
            (
                "string",
                None,
                [
                    IdedExpr {
                        expr: Expr::Ident(name),
                        ..
                    },
                ],
            ) => {
                parts.push(read_part(name, reads, true)?);
            }
            _ => return None,
        },
        _ => return None,
    }
    Some(())
}

fn read_part(name: &str, reads: &[Read], stringified: bool) -> Option<Part> {
    let slot = number_of(name)?;
    Some(match reads.get(slot)? {
        Read::Key => Part::Key,
        Read::Text => Part::Text,
        Read::Header(name) => Part::Header(name.clone()),
        Read::Json(_) => Part::Path { slot, stringified },
    })
}

/// The value of an expression that is one part keeps its type.
fn single(
    part: &Part,
    message: &MessageRef<'_>,
    payload: &[u8],
    slots: &Slots,
    out: &mut Vec<u8>,
) -> Option<()> {
    if let Part::Path {
        slot,
        stringified: false,
    } = part
    {
        match *slots.get(*slot)? {
            Picked::Number {
                start,
                end,
                integer,
            } => {
                let token = token(start, end, integer);
                return write(&number(payload, token).to_cel()?, out).ok();
            }
            Picked::Bool(value) => return write(&cel::Value::Bool(value), out).ok(),
            _ => {}
        }
    }
    out.push(Tag::String as u8);
    text(part, message, payload, slots, out)
}

/// Appends a part that is text.
fn text(
    part: &Part,
    message: &MessageRef<'_>,
    payload: &[u8],
    slots: &Slots,
    out: &mut Vec<u8>,
) -> Option<()> {
    match part {
        Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
        Part::Key => out.extend_from_slice(utf8(message.key?)?),
        Part::Text => out.extend_from_slice(utf8(message.payload?)?),
        Part::Header(name) => {
            let value = message.headers.last(name).and_then(utf8);
            out.extend_from_slice(value.unwrap_or_default());
        }
        Part::Path { slot, stringified } => match *slots.get(*slot)? {
            Picked::String {
                start,
                end,
                escaped,
            } => {
                let inside = payload.get(start as usize..end as usize)?;
                if escaped {
                    unescape(inside, out);
                } else {
                    out.extend_from_slice(inside);
                }
            }
            Picked::Number {
                start,
                end,
                integer: true,
            } if *stringified => {
                let token = token(start, end, true);
                let digits = payload.get(token.start..token.end)?;
                // Eighteen digits always fit; "-0" is 0.
                if digits.len() <= 18 && digits != b"-0" {
                    out.extend_from_slice(digits);
                } else {
                    match number(payload, token) {
                        Json::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
                        Json::UInt(value) => out.extend_from_slice(value.to_string().as_bytes()),
                        _ => return None,
                    }
                }
            }
            Picked::Bool(value) if *stringified => {
                out.extend_from_slice(if value { b"true" } else { b"false" });
            }
            _ => return None,
        },
    }
    Some(())
}

const fn token(start: u32, end: u32, integer: bool) -> NumberToken {
    NumberToken {
        start: start as usize,
        end: end as usize,
        integer,
    }
}

fn utf8(bytes: &[u8]) -> Option<&[u8]> {
    std::str::from_utf8(bytes).ok().map(str::as_bytes)
}
