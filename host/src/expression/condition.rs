//! Conditions: expressions that are true or false. Comparisons of a scanned value with a literal, joined by
//! `&&`, `||` and `!`, are answered without the interpreter. What they leave open (values absent, of another
//! type than the literal) the interpreter decides.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue};

use super::compiled::Compiled;
use super::read::Read;
use super::{Error, Expression, value};
use crate::message::MessageRef;

/// A checked expression with a truth value.
#[derive(Debug, Clone)]
pub struct Condition {
    expression: Expression,
    compiled: Option<Test>,
}

#[derive(Debug, Clone)]
enum Test {
    Equals {
        scanned: Compiled,
        /// Canonical.
        literal: Vec<u8>,
    },
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
}

impl Condition {
    /// Of an expression that was parsed.
    #[must_use]
    pub fn new(expression: Expression) -> Self {
        let compiled = test(&expression.root, &expression.reads);
        Self {
            expression,
            compiled,
        }
    }

    #[must_use]
    pub fn source(&self) -> &str {
        self.expression.source()
    }

    /// Whether scans answer it; otherwise each message costs a parse and an interpretation.
    #[must_use]
    pub const fn is_scanned(&self) -> bool {
        self.compiled.is_some()
    }

    /// Its value on a message; `scratch` is cleared first.
    pub fn holds(&self, message: &MessageRef<'_>, scratch: &mut Vec<u8>) -> Result<bool, Error> {
        if let Some(test) = &self.compiled
            && let Some(holds) = test.holds(message, scratch)
        {
            return Ok(holds);
        }
        scratch.clear();
        self.expression.interpret(message, scratch)?;
        match scratch.as_slice() {
            b"btrue" => Ok(true),
            b"bfalse" => Ok(false),
            _ => Err(Error::Failed("the result is neither true nor false".into())),
        }
    }
}

impl Test {
    /// `None`: the interpreter must decide.
    fn holds(&self, message: &MessageRef<'_>, scratch: &mut Vec<u8>) -> Option<bool> {
        match self {
            Self::Equals { scanned, literal } => {
                scratch.clear();
                scanned.canonical(message, scratch)?;
                // Values of two types may be equal in other ways.
                (scratch.first() == literal.first()).then(|| scratch == literal)
            }
            Self::Not(test) => Some(!test.holds(message, scratch)?),
            Self::And(left, right) => {
                Some(left.holds(message, scratch)? && right.holds(message, scratch)?)
            }
            Self::Or(left, right) => {
                Some(left.holds(message, scratch)? || right.holds(message, scratch)?)
            }
        }
    }
}

fn test(node: &IdedExpr, reads: &[Read]) -> Option<Test> {
    let Expr::Call(call) = &node.expr else {
        return None;
    };
    let boxed = |node| test(node, reads).map(Box::new);
    match (call.func_name.as_str(), call.args.as_slice()) {
        ("!_", [one]) => Some(Test::Not(boxed(one)?)),
        ("_&&_", [left, right]) => Some(Test::And(boxed(left)?, boxed(right)?)),
        ("_||_", [left, right]) => Some(Test::Or(boxed(left)?, boxed(right)?)),
        ("_==_", [left, right]) => equals(left, right, reads),
        ("_!=_", [left, right]) => Some(Test::Not(Box::new(equals(left, right, reads)?))),
        _ => None,
    }
}

fn equals(left: &IdedExpr, right: &IdedExpr, reads: &[Read]) -> Option<Test> {
    let (scanned, literal) = match (literal(left), literal(right)) {
        (None, Some(literal)) => (left, literal),
        (Some(literal), None) => (right, literal),
        _ => return None,
    };
    Some(Test::Equals {
        scanned: Compiled::new(scanned, reads)?,
        literal,
    })
}

/// The canonical form of a literal that has one.
fn literal(node: &IdedExpr) -> Option<Vec<u8>> {
    let Expr::Literal(literal) = &node.expr else {
        return None;
    };
    let literal = match literal {
        LiteralValue::String(text) => cel::Value::String(text.inner().to_owned().into()),
        LiteralValue::Int(number) => cel::Value::Int(*number.inner()),
        LiteralValue::Boolean(truth) => cel::Value::Bool(*truth.inner()),
        _ => return None,
    };
    let mut canonical = Vec::new();
    value::write(&literal, &mut canonical).ok()?;
    Some(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HeadersBuf;

    fn holds(source: &str, payload: &str) -> Result<bool, Error> {
        let mut headers = HeadersBuf::new();
        assert!(headers.push("kind", Some(b"order")));
        let message = MessageRef {
            key: Some(b"k"),
            payload: Some(payload.as_bytes()),
            headers: headers.as_headers(),
            timestamp_ms: 0,
        };
        let condition = Condition::new(Expression::parse(source).unwrap());
        let found = condition.holds(&message, &mut Vec::new());
        // The interpreter says the same.
        let slow = Condition {
            compiled: None,
            ..condition
        };
        assert_eq!(found, slow.holds(&message, &mut Vec::new()), "{source}");
        found
    }

    #[test]
    fn comparisons_with_literals_are_scanned_and_agree_with_the_interpreter() {
        let payload = r#"{"kind": "a", "n": 7, "ok": true, "none": null}"#;
        for (source, expected) in [
            (r#"message.header("kind") == "order""#, true),
            (r#"message.header("kind") != "order""#, false),
            (r#""order" == message.header("kind")"#, true),
            (r#"message.json.kind == "a" && message.json.n == 7"#, true),
            (
                r#"message.json.kind == "b" || message.json.ok == true"#,
                true,
            ),
            (r#"!(message.json.n == 8) && message.key == "k""#, true),
            (r#"message.json.n == "7""#, false),
        ] {
            let condition = Condition::new(Expression::parse(source).unwrap());
            assert!(condition.is_scanned(), "{source}");
            assert_eq!(holds(source, payload), Ok(expected), "{source}");
        }
    }

    #[test]
    fn other_shapes_are_interpreted() {
        for source in ["message.json.n > 5", "message.json.kind in [\"a\"]"] {
            let condition = Condition::new(Expression::parse(source).unwrap());
            assert!(!condition.is_scanned(), "{source}");
            assert_eq!(
                holds(source, r#"{"kind": "a", "n": 7}"#),
                Ok(true),
                "{source}"
            );
        }
    }

    #[test]
    fn what_is_absent_no_json_or_no_truth_value_fails() {
        assert_eq!(holds("message.json.gone == 1", "{}"), Err(Error::Missing));
        assert!(matches!(
            holds("message.json.n == 1", "nonsense"),
            Err(Error::NotJson(_))
        ));
        assert!(matches!(
            holds("message.json.n", r#"{"n": 7}"#),
            Err(Error::Failed(_))
        ));
    }
}
