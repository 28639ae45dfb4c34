//! Texts read as values of a kind, and what a kind is called in messages.

use std::time::Duration;

use super::check::Value;
use super::problem::Code;
use super::scalar;
use super::shape::{Block, Choice, Kind, Need};
use crate::expression::{Expression, nearest};

/// Why a text is not of a kind.
pub(super) enum Wrong {
    /// Not of the type.
    Type,
    /// Of the type, outside of its limits.
    Range,
    /// A choice that this version has not.
    Later(&'static Choice),
}

impl Wrong {
    /// Code, message and help. `hidden`: the text came from the environment and is not shown.
    pub(super) fn message(
        &self,
        name: &str,
        shown: &str,
        kind: &Kind,
        hidden: bool,
    ) -> (Code, String, String) {
        match self {
            Self::Type => {
                let near = match kind {
                    _ if hidden => None,
                    Kind::Choice(choices) => {
                        nearest(shown.trim_matches('`'), choices.iter().map(|c| c.name))
                    }
                    Kind::Bool => spelt_bool(shown.trim_matches('`')),
                    _ => None,
                };
                let help = match near {
                    Some(near) => format!("did you mean `{near}`? expected {}", expected(kind)),
                    None => format!("expected {}", expected(kind)),
                };
                let what = match kind {
                    Kind::Text(rule) => format!("is not {}: {shown}", rule.what),
                    _ => format!("cannot be {shown}"),
                };
                (Code::BadValue, format!("`{name}` {what}"), help)
            }
            Self::Range => (
                Code::OutOfRange,
                format!("`{name}` cannot be {shown}"),
                format!("expected {}", expected(kind)),
            ),
            Self::Later(choice) => {
                let message = format!(
                    "`{name}: {}` is not in this version: {}",
                    choice.name, choice.doc
                );
                (
                    Code::NotInThisVersion,
                    message,
                    format!("expected {}", expected(kind)),
                )
            }
        }
    }
}

fn spelt_bool(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "y" => Some("true"),
        "no" | "off" | "false" | "n" => Some("false"),
        _ => None,
    }
}

/// Reads a text as a single value.
pub(super) fn parse(text: &str, kind: &'static Kind) -> Result<Value, Wrong> {
    let ranged = |number: u64, min: &u64, max: &u64| {
        (*min..=*max)
            .contains(&number)
            .then_some(number)
            .ok_or(Wrong::Range)
    };
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Wrong::Type),
        },
        Kind::Integer { min, max } => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(Wrong::Type);
            }
            let number = text.parse::<u64>().map_err(|_| Wrong::Range)?;
            ranged(number, min, max).map(Value::Integer)
        }
        Kind::Number { min, max } => {
            let plain = text
                .bytes()
                .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let number = text
                .parse::<f64>()
                .ok()
                .filter(|_| plain)
                .ok_or(Wrong::Type)?;
            if (*min..=*max).contains(&number) {
                Ok(Value::Number(number))
            } else {
                Err(Wrong::Range)
            }
        }
        Kind::Duration { min, max } => {
            let duration = scalar::duration(text).ok_or(Wrong::Type)?;
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            ranged(ms, min, max).map(|_| Value::Duration(duration))
        }
        Kind::Size { min, max } => {
            let size = scalar::size(text).ok_or(Wrong::Type)?;
            ranged(size, min, max).map(Value::Size)
        }
        Kind::Text(rule) => {
            if (rule.fits)(text) {
                Ok(Value::Text(text.to_owned()))
            } else {
                Err(Wrong::Type)
            }
        }
        Kind::Choice(choices) => match choices.iter().find(|choice| choice.name == text) {
            Some(choice) if choice.now => Ok(Value::Choice(choice.name)),
            Some(choice) => Err(Wrong::Later(choice)),
            None => Err(Wrong::Type),
        },
        Kind::Path => {
            if text.is_empty() || text.contains('\0') {
                Err(Wrong::Type)
            } else {
                Ok(Value::Text(text.to_owned()))
            }
        }
        Kind::Address => text.parse().map(Value::Address).map_err(|_| Wrong::Type),
        Kind::Timestamp => scalar::timestamp(text)
            .map(Value::Timestamp)
            .ok_or(Wrong::Type),
        Kind::Expression => Expression::parse(text)
            .map(|e| Value::Expression(Box::new(e)))
            .map_err(|_| Wrong::Type),
        _ => Err(Wrong::Type),
    }
}

/// What a kind takes, with its article.
pub(super) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Integer { min, max } if min == max => format!("{min}"),
        Kind::Integer { min, max: u64::MAX } => format!("an integer from {min}"),
        Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
        Kind::Number { min, max } => format!("a number from {min} to {max}"),
        Kind::Duration { min, max } => {
            let written = |ms: &u64| scalar::written_duration(Duration::from_millis(*ms));
            format!(
                "a duration such as 500ms, 10s, 1m or 24h, from {} to {}",
                written(min),
                written(max)
            )
        }
        Kind::Size { min, max } => format!(
            "a size such as 512B, 64KiB, 128MiB or 2GiB, from {} to {}",
            scalar::written_size(*min),
            scalar::written_size(*max)
        ),
        Kind::Text(rule) if rule.expected == rule.what => rule.what.into(),
        Kind::Text(rule) => format!("{}: {}", rule.what, rule.expected),
        Kind::Choice(choices) => {
            let names: Vec<_> = choices
                .iter()
                .filter(|c| c.now)
                .map(|c| format!("`{}`", c.name))
                .collect();
            either(&names)
        }
        Kind::Expression => "a CEL expression over `message`".into(),
        Kind::Path => "a path".into(),
        Kind::Address => "an IP address and a port such as 127.0.0.1:4180".into(),
        Kind::Timestamp => "a time such as 2026-01-31T08:00:00Z, or Unix milliseconds".into(),
        Kind::List { of, .. } => format!("a list of {}", plural(of)),
        Kind::Block(block) | Kind::Partial(block) if block.fields.is_empty() => "`{}`".into(),
        Kind::Block(block) | Kind::Partial(block) => format!("a map with {}", names(block)),
        Kind::Named { of, .. } => format!("a map from names to {}", plural(of)),
        Kind::Texts { .. } => "a map from names to texts".into(),
        Kind::Either { single, map } => format!("{}, or {}", expected(single), expected(map)),
    }
}

/// What must be written for a required key.
pub(super) fn required(kind: &Kind) -> String {
    let Kind::Block(block) = kind else {
        return expected(kind);
    };
    let required = block
        .fields
        .iter()
        .filter(|field| field.need == Need::Required);
    let required: Vec<_> = required.map(|field| format!("`{}`", field.name)).collect();
    if required.is_empty() {
        return expected(kind);
    }
    format!("a map with at least {}", required.join(", "))
}

/// What several of a kind are called.
pub(super) fn plural(kind: &Kind) -> String {
    match kind {
        Kind::Text(rule) => format!("{}s", without_article(rule.what)),
        Kind::Expression => "CEL expressions over `message`".into(),
        Kind::Block(block) | Kind::Partial(block) => format!("maps with {}", names(block)),
        _ => without_article(&expected(kind)).to_owned(),
    }
}

pub(super) fn names(block: &Block) -> String {
    let names: Vec<_> = block
        .fields
        .iter()
        .map(|field| format!("`{}`", field.name))
        .collect();
    names.join(", ")
}

fn either(names: &[String]) -> String {
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

pub(super) fn without_article(text: &str) -> &str {
    text.strip_prefix("a ")
        .or_else(|| text.strip_prefix("an "))
        .unwrap_or(text)
}

pub(super) fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

/// Text of the user as messages show it: on one line, at most so long.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let plain = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let mut shown: String = text.chars().take(SHOWN).map(plain).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
