//! Holds a tree against a shape: every key known, every value of its type and in its range, `${…}`
//! substituted, defaults filled in. Finds everything that is wrong in one go. What a value means beside
//! others is not looked at here (that is [`super::build`]).

use std::net::SocketAddr;
use std::time::Duration;

use super::problem::{Code, Place, Problems};
use super::scalar::{self, Substituted, Unset};
use super::shape::{Block, Choice, Field, Kind, Need, Rule};
use super::yaml::{Content, Key, Node};
use crate::expression::{Expression, nearest};

/// A value that has the shape it was held against.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) value: Value,
    /// `None` for a default.
    pub(super) place: Option<Place>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Left out, and it has no default.
    Absent,
    /// A problem says why.
    Invalid,
    Bool(bool),
    Integer(u64),
    Number(f64),
    Duration(Duration),
    Size(u64),
    Text(String),
    Choice(&'static str),
    Expression(Box<Expression>),
    Address(SocketAddr),
    Timestamp(i64),
    List(Vec<Checked>),
    Block(Vec<(&'static str, Checked)>),
    Named(Vec<(Key, Checked)>),
}

/// The environment and what there is to complain to.
pub(super) struct Check<'a> {
    pub(super) problems: &'a mut Problems,
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Nothing is required.
    pub(super) partial: bool,
}

impl Checked {
    const INVALID: Self = Self {
        value: Value::Invalid,
        place: None,
    };

    const fn default(value: Value) -> Self {
        Self { value, place: None }
    }
}

impl Check<'_> {
    /// `name` is what messages call the value.
    pub(super) fn value(&mut self, node: &Node, kind: &'static Kind, name: &str) -> Checked {
        let value = self.value_of(node, kind, name).unwrap_or(Value::Invalid);
        Checked {
            value,
            place: Some(node.place.clone()),
        }
    }

    fn value_of(&mut self, node: &Node, kind: &'static Kind, name: &str) -> Option<Value> {
        if node.is_null() {
            let message = format!("`{name}` is empty");
            let help = format!(
                "expected {}; remove the key to leave it out",
                expected(kind)
            );
            self.problems
                .error(Code::WrongType, &node.place, message, help);
            return None;
        }
        match kind {
            Kind::Block(block) => self.block(node, block, name),
            Kind::Partial(block) => {
                self.partial = true;
                let value = self.block(node, block, name);
                self.partial = false;
                value
            }
            Kind::List { of, min, max } => self.list(node, of, *min, *max, name),
            Kind::Named { names, of, max } => self.named(node, names, of, *max, name),
            Kind::Texts { max } => self.texts(node, *max, name),
            Kind::Either { single, map } => match node.content {
                Content::Map(_) => self.value_of(node, map, name),
                Content::Scalar { .. } => self.value_of(node, single, name),
                Content::List(_) => self.wrong_type(node, kind, name),
            },
            _ => self.scalar(node, kind, name),
        }
    }

    fn wrong_type<T>(&mut self, node: &Node, kind: &Kind, name: &str) -> Option<T> {
        if node.get("secret").is_some() {
            let message = format!("`{name}` takes no secret");
            let help = "secrets have no use in this version; take the value from the environment with `${NAME}`, if it is not secret";
            self.problems
                .error(Code::Secret, &node.place, message, help);
            return None;
        }
        let message = format!("`{name}` is {}", node.kind());
        self.problems.error(
            Code::WrongType,
            &node.place,
            message,
            format!("expected {}", expected(kind)),
        );
        None
    }

    fn block(&mut self, node: &Node, block: &'static Block, name: &str) -> Option<Value> {
        let Content::Map(entries) = &node.content else {
            let message = format!("`{name}` is {}", node.kind());
            let help = format!("expected a map with {}", names(block));
            self.problems
                .error(Code::WrongType, &node.place, message, help);
            return None;
        };
        let top = self.partial && block.name == super::fields::PIPELINE.name;
        for (key, _) in entries {
            if top && key.text == "name" {
                let help = "a name belongs to one pipeline; remove it";
                self.problems.error(
                    Code::UnknownKey,
                    &key.place,
                    "`defaults` takes no `name`",
                    help,
                );
            } else if !block.fields.iter().any(|field| field.name == key.text) {
                self.unknown_key(key, block, name);
            }
        }
        let mut fields = Vec::with_capacity(block.fields.len());
        for field in block.fields {
            let checked = match node.get(field.name) {
                Some(value) => self.value(value, &field.kind, field.name),
                None => self.left_out(node, field, block, name),
            };
            fields.push((field.name, checked));
        }
        Some(Value::Block(fields))
    }

    fn unknown_key(&mut self, key: &Key, block: &'static Block, name: &str) {
        let place = &key.place;
        if let Some(later) = block.later.iter().find(|later| later.name == key.text) {
            let message = format!(
                "`{}` is not in this version: it has no {}",
                key.text,
                without_article(later.what)
            );
            self.problems
                .error(Code::NotInThisVersion, place, message, "remove it");
            return;
        }
        if key.text == "<<" {
            let help = "use `defaults`, or an alias for the whole value";
            self.problems
                .error(Code::Syntax, place, "merge keys are not used here", help);
            return;
        }
        let message = format!("`{}` is not a key of `{name}`", key.text);
        let near = nearest(&key.text, block.fields.iter().map(|field| field.name));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if block.fields.is_empty() => "expected no keys".to_owned(),
            None => format!("expected {}", names(block)),
        };
        self.problems.error(Code::UnknownKey, place, message, help);
    }

    fn left_out(
        &mut self,
        node: &Node,
        field: &'static Field,
        block: &Block,
        name: &str,
    ) -> Checked {
        match field.need {
            Need::Optional(_) => Checked::default(Value::Absent),
            Need::Default(text) => self.default_of(&field.kind, text),
            Need::Required if self.partial => Checked::default(Value::Absent),
            Need::Required => {
                // A key of a later version is complained about already and may be what stands for it.
                let instead = block
                    .later
                    .iter()
                    .any(|later| node.get(later.name).is_some());
                if !(instead && block.name == "connection") {
                    let place = head(node);
                    let message = format!("`{name}` has no `{}`", field.name);
                    let help = format!("add `{}:` with {}", field.name, expected(&field.kind));
                    self.problems.error(Code::MissingKey, &place, message, help);
                }
                Checked::INVALID
            }
        }
    }

    /// Defaults are written as in YAML; `{}` and `[]` are the only collections among them.
    fn default_of(&mut self, kind: &'static Kind, text: &str) -> Checked {
        let value = match kind {
            Kind::Block(block) => {
                let fields = block.fields.iter().map(|field| match field.need {
                    Need::Default(text) => (field.name, self.default_of(&field.kind, text)),
                    _ => (field.name, Checked::default(Value::Absent)),
                });
                Value::Block(fields.collect())
            }
            Kind::Partial(_) => Value::Absent,
            Kind::List { .. } => Value::List(Vec::new()),
            Kind::Named { .. } | Kind::Texts { .. } => Value::Named(Vec::new()),
            Kind::Either { single, .. } => return self.default_of(single, text),
            _ => parse(text, kind).unwrap_or(Value::Invalid),
        };
        Checked::default(value)
    }

    fn list(
        &mut self,
        node: &Node,
        of: &'static Kind,
        min: usize,
        max: usize,
        name: &str,
    ) -> Option<Value> {
        let Content::List(elements) = &node.content else {
            let message = format!("`{name}` is {}", node.kind());
            let help = format!(
                "expected a list of {}; write `{name}: [ … ]`",
                without_article(&expected(of))
            );
            self.problems
                .error(Code::WrongType, &node.place, message, help);
            return None;
        };
        self.count(node, elements.len(), min, max, name)?;
        let element_name = singular(name);
        Some(Value::List(
            elements
                .iter()
                .map(|element| self.value(element, of, element_name))
                .collect(),
        ))
    }

    fn named(
        &mut self,
        node: &Node,
        rule: &'static Rule,
        of: &'static Kind,
        max: usize,
        name: &str,
    ) -> Option<Value> {
        let Content::Map(entries) = &node.content else {
            let message = format!("`{name}` is {}", node.kind());
            let help = format!(
                "expected a map from names to {}",
                without_article(&expected(of))
            );
            self.problems
                .error(Code::WrongType, &node.place, message, help);
            return None;
        };
        self.count(node, entries.len(), 0, max, name)?;
        let mut values = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if !(rule.fits)(&key.text) {
                let message = format!("`{}` is not {}", key.text, rule.what);
                self.problems.error(
                    Code::BadValue,
                    &key.place,
                    message,
                    format!("expected {}", rule.expected),
                );
            }
            values.push((key.clone(), self.value(value, of, &key.text)));
        }
        Some(Value::Named(values))
    }

    fn texts(&mut self, node: &Node, max: usize, name: &str) -> Option<Value> {
        let Content::Map(entries) = &node.content else {
            let message = format!("`{name}` is {}", node.kind());
            self.problems.error(
                Code::WrongType,
                &node.place,
                message,
                "expected a map from names to texts",
            );
            return None;
        };
        self.count(node, entries.len(), 0, max, name)?;
        let mut values = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let value = match &value.content {
                Content::Scalar { text, .. } if !value.is_null() => {
                    let text = self.substituted(value, text).map(|s| Value::Text(s.text));
                    Checked {
                        value: text.unwrap_or(Value::Invalid),
                        place: Some(value.place.clone()),
                    }
                }
                _ => {
                    let kind = &Kind::Text(&ANY_TEXT);
                    let invalid: Option<Value> = self.wrong_type(value, kind, &key.text);
                    Checked {
                        value: invalid.unwrap_or(Value::Invalid),
                        place: None,
                    }
                }
            };
            values.push((key.clone(), value));
        }
        Some(Value::Named(values))
    }

    fn count(
        &mut self,
        node: &Node,
        count: usize,
        min: usize,
        max: usize,
        name: &str,
    ) -> Option<()> {
        if (min..=max).contains(&count) {
            return Some(());
        }
        let message = format!("`{name}` has {count} entries");
        let help = format!("expected {min} to {max}");
        self.problems
            .error(Code::OutOfRange, &node.place, message, help);
        None
    }

    fn scalar(&mut self, node: &Node, kind: &'static Kind, name: &str) -> Option<Value> {
        let Content::Scalar { text, plain } = &node.content else {
            return self.wrong_type(node, kind, name);
        };
        let substituted = self.substituted(node, text)?;
        if let Kind::Expression = kind {
            return self.expression(node, &substituted);
        }
        let is_word = matches!(
            kind,
            Kind::Bool | Kind::Integer { .. } | Kind::Number { .. }
        );
        if is_word && !plain && !substituted.whole {
            let message = format!("`{name}` is a text in quotes");
            self.problems.error(
                Code::WrongType,
                &node.place,
                message,
                format!("expected {}; remove the quotes", expected(kind)),
            );
            return None;
        }
        match parse(&substituted.text, kind) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let shown = if substituted.from_environment {
                    format!("what the environment gives for `{text}`")
                } else {
                    format!("`{}`", shortened(&substituted.text))
                };
                let (code, message, help) =
                    wrong.message(name, &shown, kind, substituted.from_environment);
                self.problems.error(code, &node.place, message, help);
                None
            }
        }
    }

    fn expression(&mut self, node: &Node, substituted: &Substituted) -> Option<Value> {
        match Expression::parse(&substituted.text) {
            Ok(expression) => Some(Value::Expression(Box::new(expression))),
            Err(error) => {
                let place = self.within(node, &substituted.text, error.offset);
                let help = "an expression is CEL over `message.json`, `message.key`, `message.text` and `message.header(\"name\")`";
                self.problems
                    .error(Code::BadExpression, &place, error.message, help);
                None
            }
        }
    }

    /// The place of a character inside a scalar, when the scalar stands in the file as it is.
    fn within(&self, node: &Node, text: &str, offset: usize) -> Place {
        let span = node.place.span.clone();
        let written = self
            .problems
            .sources
            .get(node.place.file)
            .and_then(|s| s.text.get(span.clone()));
        let lead = match written {
            Some(written) if written == text => 0,
            Some(written) if written.get(1..written.len().saturating_sub(1)) == Some(text) => 1,
            _ => return node.place.clone(),
        };
        let at = text
            .char_indices()
            .nth(offset)
            .map_or(text.len(), |(at, _)| at);
        let start = (span.start + lead + at).min(span.end);
        Place {
            file: node.place.file,
            span: start..span.end.saturating_sub(lead).max(start),
        }
    }

    fn substituted(&mut self, node: &Node, text: &str) -> Option<Substituted> {
        match scalar::substitute(text, self.env) {
            Ok(substituted) => Some(substituted),
            Err(unset) => {
                let (message, help) = match unset {
                    Unset::Unclosed => ("`${` has no `}`".to_owned(), "close it, or write `$${` for the two characters themselves".to_owned()),
                    Unset::BadName(inside) => (
                        format!("`${{{}}}` is not a substitution", shortened(&inside)),
                        "expected `${NAME}`, `${NAME:-default}` or `${NAME:?message}` with a name of letters, digits and `_`".to_owned(),
                    ),
                    Unset::Missing(name) => (
                        format!("the environment has no `{name}`"),
                        format!("set it, or give a default: `${{{name}:-default}}`"),
                    ),
                    Unset::Required(name, message) => {
                        let message = if message.is_empty() { "required".to_owned() } else { message };
                        (format!("the environment has no `{name}`: {message}"), "set it".to_owned())
                    }
                };
                self.problems
                    .error(Code::Substitution, &node.place, message, help);
                None
            }
        }
    }
}

static ANY_TEXT: Rule = Rule {
    what: "a text",
    pattern: "",
    expected: "a text",
    fits: |_| true,
};

enum Wrong {
    /// Not of the type.
    Type,
    /// Of the type, outside of its limits.
    Range,
    /// A choice that this version has not.
    Later(&'static Choice),
}

impl Wrong {
    fn message(
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
fn parse(text: &str, kind: &'static Kind) -> Result<Value, Wrong> {
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
        Kind::Text(rule) => rule.expected.into(),
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
        Kind::List { of, .. } => format!("a list of {}", without_article(&expected(of))),
        Kind::Block(block) | Kind::Partial(block) if block.fields.is_empty() => "`{}`".into(),
        Kind::Block(block) | Kind::Partial(block) => format!("a map with {}", names(block)),
        Kind::Named { of, .. } => format!("a map from names to {}", without_article(&expected(of))),
        Kind::Texts { .. } => "a map from names to texts".into(),
        Kind::Either { single, map } => format!("{}, or {}", expected(single), expected(map)),
    }
}

fn names(block: &Block) -> String {
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

fn without_article(text: &str) -> &str {
    text.strip_prefix("a ")
        .or_else(|| text.strip_prefix("an "))
        .unwrap_or(text)
}

fn singular(name: &str) -> &str {
    name.strip_suffix('s').unwrap_or(name)
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Where a map begins: its first key, or itself.
fn head(node: &Node) -> Place {
    match &node.content {
        Content::Map(entries) => entries
            .first()
            .map_or_else(|| node.place.clone(), |(key, _)| key.place.clone()),
        _ => node.place.clone(),
    }
}
