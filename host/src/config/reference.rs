//! docs/configuration.md: the tables of `fields` set into the text of reference.in.md.

use std::fmt::Write;
use std::time::Duration;

use super::fields::{ROOT, tables};
use super::literal::{expected, plural};
use super::problem::Code;
use super::scalar::{written_duration, written_size};
use super::shape::{Block, Choice, Field, Kind, Need};

const TEXT: &str = include_str!("reference.in.md");

/// A bound that need not be told.
const LARGE: u64 = 1 << 48;

/// The whole page.
#[must_use]
pub fn reference() -> String {
    TEXT.replace("{{keys}}", &keys())
        .replace("{{codes}}", &codes())
}

fn keys() -> String {
    let mut out = String::new();
    section(&ROOT, &mut out);
    for (block, partial) in tables() {
        if !partial && !block.fields.is_empty() {
            section(block, &mut out);
        }
    }
    out.trim_end().to_owned()
}

fn section(block: &Block, out: &mut String) {
    let rows: String = block.fields.iter().map(row).collect();
    let later: Vec<_> = block
        .later
        .iter()
        .map(|later| format!("`{}`", later.name))
        .collect();
    let later = match later.as_slice() {
        [] => String::new(),
        names => format!(
            "\nNot in this version, and refused by name: {}.\n",
            names.join(", ")
        ),
    };
    // Writing to a string cannot fail.
    let _written: std::fmt::Result = write!(
        out,
        "### {}\n\n{}\n\n| Key | Takes | Left out | Meaning |\n| --- | --- | --- | --- |\n{rows}{later}\n",
        block.name, block.doc
    );
}

fn row(field: &Field) -> String {
    let left_out = match field.need {
        Need::Required => "**required**".to_owned(),
        Need::Default("{}" | "[]") if !matches!(field.kind, Kind::Block(_)) => "none".to_owned(),
        Need::Default("{}") => "its defaults".to_owned(),
        Need::Default(text) => format!("`{text}`"),
        Need::Optional(absent) => absent.to_owned(),
    };
    let choices = match &field.kind {
        Kind::Choice(choices)
        | Kind::Either {
            single: Kind::Choice(choices),
            ..
        } => meanings(choices),
        _ => String::new(),
    };
    let meaning = format!("{}{choices}", field.doc);
    format!(
        "| `{}` | {} | {left_out} | {} |\n",
        field.name,
        takes(&field.kind),
        meaning.replace('|', "\\|")
    )
}

fn meanings(choices: &[Choice]) -> String {
    let now = choices
        .iter()
        .filter(|c| c.now)
        .map(|c| format!(" `{}`: {}.", c.name, c.doc));
    let later = choices
        .iter()
        .filter(|c| !c.now)
        .map(|c| format!(" Not in this version: `{}`.", c.name));
    now.chain(later).collect()
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Block(block) | Kind::Partial(block) if block.fields.is_empty() => "`{}`".into(),
        Kind::Block(block) => format!("[{0}](#{0})", block.name),
        Kind::Partial(block) => format!("keys of [{0}](#{0})", block.name),
        Kind::List {
            of: Kind::Block(block),
            max,
            ..
        } => format!("list of [{0}](#{0}), at most {max}", block.name),
        Kind::List { of, min, max } => format!("list of {}, {min} to {max}", plural(of)),
        Kind::Named {
            of: Kind::Block(block),
            names,
            max,
        } => {
            let name = names
                .what
                .split_once(' ')
                .map_or(names.what, |(_, name)| name);
            format!("map from {name} to [{0}](#{0}), at most {max}", block.name)
        }
        Kind::Either { single, map } => format!("{}, or {}", takes(single), takes(map)),
        Kind::Integer { min, max: LARGE.. } => format!("integer from {min}"),
        Kind::Integer { min, max } if min != max => format!("integer, {min} to {max}"),
        Kind::Number { min, max } => format!("number, {min} to {max}"),
        Kind::Duration { min, max } => {
            let written = |ms: &u64| written_duration(Duration::from_millis(*ms));
            format!("duration, {} to {}", written(min), written(max))
        }
        Kind::Size { min, max } => {
            format!("size, {} to {}", written_size(*min), written_size(*max))
        }
        Kind::Texts { max } => format!("map from names to texts, at most {max}"),
        _ => expected(kind),
    }
}

fn codes() -> String {
    let row = |code: &Code| format!("| `{}` | {} |\n", code.as_str(), code.doc());
    let rows: String = Code::ALL.iter().map(row).collect();
    format!("| Code | Meaning |\n| --- | --- |\n{rows}")
        .trim_end()
        .to_owned()
}
