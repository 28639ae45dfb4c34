//! The full evaluation: CEL by the interpreter, over variables that are read when they are asked for.
//! It decides whatever the compiled form leaves open, every error among it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, IdedExpr, Value};

use super::Error;
use super::path::Step;
use super::read::{Read, number_of};
use super::tree::{Found, Json};
use crate::message::MessageRef;

/// The standard functions, without the optional syntax.
pub(super) static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// Evaluates a rewritten expression.
pub(super) fn evaluate(
    expr: &IdedExpr,
    reads: &[Read],
    message: &MessageRef<'_>,
) -> Result<Value, Error> {
    let variables = Variables {
        message,
        reads,
        document: OnceLock::new(),
        absent: AtomicBool::new(false),
        failure: OnceLock::new(),
    };
    let mut context = Context::with_env(Arc::clone(&ENV));
    context.set_variable_resolver(&variables);
    let result = Value::resolve(expr, &context);
    drop(context);
    result.map_err(|error| variables.error(&error))
}

/// The interpreter wants `Sync`, hence the locks; one thread uses them.
struct Variables<'m> {
    message: &'m MessageRef<'m>,
    reads: &'m [Read],
    document: OnceLock<Option<Json>>,
    /// Something read was not there or null.
    absent: AtomicBool,
    /// The first read that failed.
    failure: OnceLock<Error>,
}

impl Variables<'_> {
    fn error(&self, error: &ExecutionError) -> Error {
        match self.failure.get() {
            Some(not_json @ Error::NotJson(_)) => not_json.clone(),
            _ if self.absent.load(Ordering::Relaxed) => Error::Missing,
            Some(failure) => failure.clone(),
            None => Error::Failed(reason(error)),
        }
    }

    fn fail(&self, error: Error) -> Option<Value> {
        self.failure.get_or_init(|| error);
        None
    }

    fn missing(&self) -> Option<Value> {
        self.absent.store(true, Ordering::Relaxed);
        None
    }

    fn null(&self) -> Option<Value> {
        self.absent.store(true, Ordering::Relaxed);
        Some(Value::Null)
    }

    fn text(bytes: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Value::String(Arc::new(text.to_owned())))
    }

    fn read(&self, read: &Read) -> Option<Value> {
        match read {
            Read::Key => match self.message.key {
                None => self.null(),
                Some(key) => Self::text(key).or_else(|| Some(Value::Bytes(Arc::new(key.to_vec())))),
            },
            Read::Text => match self.message.payload {
                None => self.null(),
                Some(payload) => Self::text(payload)
                    .or_else(|| self.fail(Error::Failed("the payload is not UTF-8 text".into()))),
            },
            Read::Header(name) => {
                let value = self.message.headers.last(name).and_then(Self::text);
                Some(value.unwrap_or_else(|| Value::String(Arc::default())))
            }
            Read::Json(path) => self.json(path),
        }
    }

    fn json(&self, path: &[Step]) -> Option<Value> {
        let Some(payload) = self.message.payload else {
            return if path.is_empty() {
                self.null()
            } else {
                self.missing()
            };
        };
        let document = self.document.get_or_init(|| match Json::parse(payload) {
            Ok(document) => Some(document),
            Err(invalid) => {
                self.failure
                    .get_or_init(|| Error::NotJson(invalid.to_string()));
                None
            }
        });
        match document.as_ref()?.find(path) {
            Found::Absent => self.missing(),
            Found::Value(Json::Null) => self.null(),
            Found::Value(value) => value.to_cel().or_else(|| {
                self.fail(Error::Failed(format!(
                    "{} holds a number that fits no 64 bits",
                    written(path)
                )))
            }),
            Found::NotInside(kind) => self.fail(Error::Failed(format!(
                "{} goes through {kind}",
                written(path)
            ))),
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let read = self.reads.get(number_of(variable)?)?;
        let value: Box<dyn Val> = self.read(read)?.try_into().ok()?;
        Some(CowVal::Owned(value))
    }
}

fn written(path: &[Step]) -> String {
    path.iter()
        .fold("message.json".to_owned(), |text, step| match step {
            Step::Field(name) => format!("{text}.{name}"),
            Step::Element(index) => format!("{text}[{index}]"),
        })
}

/// The interpreter's message without values of the message, which may be secret or long.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => format!("{overload}"),
        ExecutionError::NoSuchKey(name) => format!("no such key: {name}"),
        ExecutionError::UnexpectedType { got, want } => format!("expected {want}, got {got}"),
        ExecutionError::ValuesNotComparable(..) => "values of different types are compared".into(),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("`{operator}` does not take these types")
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".into()
        }
        ExecutionError::Overflow(operator, ..) => format!("`{operator}` overflows 64 bits"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".into(),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{function}` does not take this value")
        }
        _ => "the expression cannot be evaluated on this message".into(),
    }
}
