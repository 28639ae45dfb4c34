//! Holds a tree against a shape: every key known, every value of its type and in its range, `${…}`
//! substituted, defaults filled in. Finds everything that is wrong in one go. What a value means beside
//! others is not looked at here (that is [`super::build`]).

use std::net::SocketAddr;
use std::time::Duration;

use super::literal::{
    expected, names, parse, plural, required, shortened, singular, without_article,
};
use super::problem::{Code, Place, Problems};
use super::scalar::{self, Substituted, Unset};
use super::shape::{Block, Field, Kind, Need, Rule};
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
            let help = "secrets are taken where docs/configuration.md says so; take the value from the environment with `${NAME}`, if it is not secret";
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
                "`{}` is not in this version, which has no {}",
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
        let message = format!("`{}` is not a key of `{name}`", shortened(&key.text));
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
                if !is_stood_for(node, field, block) {
                    let place = head(node);
                    let message = format!("`{name}` has no `{}`", field.name);
                    let help = format!("add `{}:` with {}", field.name, required(&field.kind));
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
            let help = format!("expected a list of {}; write `{name}: [ … ]`", plural(of));
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
            let help = format!("expected a map from names to {}", plural(of));
            self.problems
                .error(Code::WrongType, &node.place, message, help);
            return None;
        };
        self.count(node, entries.len(), 0, max, name)?;
        let mut values = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if !(rule.fits)(&key.text) {
                let message = format!("`{}` is not {}", shortened(&key.text), rule.what);
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
        let rest = text.get(at..).unwrap_or_default();
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = word.unwrap_or(rest.len()).max(1).min(rest.len());
        let start = (span.start + lead + at).min(span.end);
        Place {
            file: node.place.file,
            span: start..(start + word).min(span.end),
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

/// Whether a key that is complained about already was probably meant to be `field`.
fn is_stood_for(node: &Node, field: &Field, block: &Block) -> bool {
    let Content::Map(entries) = &node.content else {
        return false;
    };
    entries.iter().any(|(key, _)| {
        let known = block.fields.iter().map(|field| field.name);
        let later = block.later.iter().any(|later| later.name == key.text);
        let unknown = !later && !block.fields.iter().any(|field| field.name == key.text);
        (later && block.name == "connection")
            || (unknown && nearest(&key.text, known) == Some(field.name))
    })
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
