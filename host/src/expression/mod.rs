//! CEL expressions over a message (`message.json.order_id`, `message.header("kind")`): parsed and
//! checked once, compiled to a scan of the payload where they are plain paths. Pure.
//!
//! What an expression sees:
//! - `message.header("name")`: the last value of that header as UTF-8 text; empty when the header is
//!   not there, null or not UTF-8.
//! - `message.key`: text when it is UTF-8, else bytes; null when there is none.
//! - `message.text`: the payload as UTF-8 text; null when there is none; an error when it is not UTF-8.
//! - `message.json`, `message.json.a.b`, `message.json["a b"]`, `message.json.items[0]`: the payload as
//!   JSON (RFC 8259, UTF-8, at most 127 levels, no lone surrogates). Integers are exact 64-bit values,
//!   of members with one name the last counts.
//!
//! An expression that reads something absent or null and therefore cannot be evaluated is
//! [`Error::Missing`], as is a result that is null or empty.

mod compiled;
mod condition;
mod interpret;
mod json;
mod nearest;
mod path;
mod read;
mod scan;
mod tree;
mod value;

use cel::IdedExpr;

use crate::message::MessageRef;
use compiled::Compiled;
pub use condition::Condition;
pub(crate) use nearest::nearest;
use read::Read;

/// Bytes of the text of an expression.
pub const SOURCE_LEN_MAX: usize = 4096;

/// Why an expression has no value on a message. No variant carries contents of the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It read something absent or null, or its result is empty.
    #[error("the value is missing")]
    Missing,
    /// It reads `message.json` and the payload is not JSON; says where.
    #[error("the payload is {0}")]
    NotJson(String),
    #[error("{0}")]
    Failed(String),
}

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (column {column})")]
pub struct ParseError {
    pub message: String,
    /// Characters before the place, within the expression.
    pub offset: usize,
    /// 1-based, `offset + 1`.
    pub column: usize,
}

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
    root: IdedExpr,
    reads: Vec<Read>,
    compiled: Option<Compiled>,
}

/// What an expression takes from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reads {
    pub key: bool,
    pub text: bool,
    pub header: bool,
    pub json: bool,
}

/// A value in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluated<'a> {
    canonical: &'a [u8],
}

impl Expression {
    /// Parses and checks: syntax, names of variables and functions, literal header names.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        if source.len() > SOURCE_LEN_MAX {
            let message = format!("the expression is longer than {SOURCE_LEN_MAX} bytes");
            return Err(ParseError::new(message, 0));
        }
        let program = interpret::ENV
            .compile(source)
            .map_err(|errors| syntax(source, &errors))?;
        let mut root = program.expression().clone();
        let reads = read::rewrite(&mut root, program.source_info())?;
        let compiled = Compiled::new(&root, &reads);
        Ok(Self {
            source: source.to_owned(),
            root,
            reads,
            compiled,
        })
    }

    /// As written in the configuration.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    #[must_use]
    pub fn reads(&self) -> Reads {
        let mut reads = Reads::default();
        for read in &self.reads {
            match read {
                Read::Key => reads.key = true,
                Read::Text => reads.text = true,
                Read::Header(_) => reads.header = true,
                Read::Json(_) => reads.json = true,
            }
        }
        reads
    }

    #[must_use]
    pub fn uses_json(&self) -> bool {
        self.reads().json
    }

    /// Whether one scan of the payload answers it; otherwise each message costs a parse and an
    /// interpretation.
    #[must_use]
    pub const fn is_scanned(&self) -> bool {
        self.compiled.is_some()
    }

    /// Whether a value shows that the payload is JSON, so that [`json_is_valid`] need not look again. True
    /// of a scan that reads `message.json`: it checks the whole document.
    #[must_use]
    pub fn proves_json(&self) -> bool {
        self.is_scanned() && self.uses_json()
    }

    /// Whether it joins a header to something else, so that a header that is not there goes unseen.
    #[must_use]
    pub fn joins_headers(&self) -> bool {
        self.compiled.as_ref().is_some_and(Compiled::joins_headers)
    }

    /// Appends the canonical form of the value to `out`: a tag for the type (`s`tring, `i`nteger, `b`ool,
    /// `d`ouble, he`x` of bytes) and its text. On an error `out` is as it was.
    pub fn canonical(&self, message: &MessageRef<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(compiled) = &self.compiled
            && compiled.canonical(message, out).is_some()
        {
            return Ok(());
        }
        self.interpret(message, out)
    }

    /// The value in `scratch`, which is cleared first.
    pub fn evaluate<'s>(
        &self,
        message: &MessageRef<'_>,
        scratch: &'s mut Vec<u8>,
    ) -> Result<Evaluated<'s>, Error> {
        scratch.clear();
        self.canonical(message, scratch)?;
        Ok(Evaluated { canonical: scratch })
    }

    /// The text of the value.
    pub fn evaluate_text(&self, message: &MessageRef<'_>) -> Result<String, Error> {
        let mut scratch = Vec::new();
        self.evaluate(message, &mut scratch)
            .map(|value| value.text().to_owned())
    }

    fn interpret(&self, message: &MessageRef<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let value = interpret::evaluate(&self.root, &self.reads, message)?;
        value::write(&value, out)
    }
}

impl<'a> Evaluated<'a> {
    /// Equal exactly when the values are equal and of one type.
    #[must_use]
    pub const fn canonical(&self) -> &'a [u8] {
        self.canonical
    }

    /// The value, when it is an integer of 64 bits with a sign.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        let is_integer = self.canonical.first() == Some(&(value::Tag::Integer as u8));
        is_integer.then(|| self.text().parse().ok()).flatten()
    }

    /// For people and handlers: `1` and `"1"` read alike here.
    #[must_use]
    pub fn text(&self) -> &'a str {
        let text = self.canonical.get(1..).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl ParseError {
    fn new(message: String, offset: usize) -> Self {
        Self {
            message,
            offset,
            column: offset + 1,
        }
    }
}

/// Checks that `bytes` are one JSON document, as `message.json` would read it; says where they are not.
pub fn json_is_valid(bytes: &[u8]) -> Result<(), String> {
    if scan::check(bytes).is_some() {
        return Ok(());
    }
    match tree::Json::parse(bytes) {
        Ok(_) => Ok(()),
        Err(invalid) => Err(invalid.to_string()),
    }
}

/// The first syntax error, in one line.
fn syntax(source: &str, errors: &cel::ParseErrors) -> ParseError {
    let Some(first) = errors.errors.first() else {
        return ParseError::new("not an expression".into(), 0);
    };
    let (line, column) = first.pos;
    let before = source
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0));
    let offset: usize = before.map(|line| line.chars().count()).sum();
    let offset = offset + usize::try_from(column).unwrap_or(0);
    let message = first.msg.lines().next().unwrap_or_default();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting ").next().unwrap_or(message);
    let message = match message {
        "mismatched input '<EOF>'" => "it ends too early",
        other => other,
    };
    ParseError::new(format!("not an expression: {message}"), offset)
}

#[cfg(test)]
mod tests;
