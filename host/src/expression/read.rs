//! What an expression may read of a message, and how the parsed CEL is rewritten so that each read is a
//! variable `@0`, `@1`, …: unknown names are refused here, before a message is ever seen.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo};

use super::ParseError;
use super::path::Step;

/// One thing that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Key,
    Text,
    Header(String),
    /// Empty: the whole document.
    Json(Vec<Step>),
}

/// Comprehensions (`exists`, `map`, …) inside each other; more would let a message cost more than its size.
pub(super) const COMPREHENSIONS_MAX: usize = 1;

const FUNCTIONS: [&str; 11] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bytes",
    "bool",
    "type",
];
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];
const FIELDS: [&str; 4] = ["key", "text", "json", "header(\"name\")"];
const CONSTANTS: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
    "type",
];

/// Replaces what is read of the message by variables and says what they are.
pub(super) fn rewrite(root: &mut IdedExpr, source: &SourceInfo) -> Result<Vec<Read>, ParseError> {
    let mut rewrite = Rewrite {
        source,
        reads: Vec::new(),
        bound: Vec::new(),
        comprehensions: 0,
    };
    rewrite.expr(root)?;
    Ok(rewrite.reads)
}

/// The read behind a variable of [`rewrite`].
pub(super) fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix('@')?.parse().ok()
}

struct Rewrite<'a> {
    source: &'a SourceInfo,
    reads: Vec<Read>,
    /// Names that comprehensions around the current place bind.
    bound: Vec<String>,
    comprehensions: usize,
}

impl Rewrite<'_> {
    fn expr(&mut self, node: &mut IdedExpr) -> Result<(), ParseError> {
        if let Some(read) = self.read(node)? {
            let known = self.reads.iter().position(|r| *r == read);
            let number = known.unwrap_or_else(|| {
                self.reads.push(read);
                self.reads.len() - 1
            });
            node.expr = Expr::Ident(format!("@{number}"));
            return Ok(());
        }
        let id = node.id;
        match &mut node.expr {
            Expr::Unspecified => Err(self.error(id, "expected an expression".into())),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                if self.bound.contains(name) || CONSTANTS.contains(&name.as_str()) {
                    Ok(())
                } else {
                    let message = unknown("variable", name, &["message"]);
                    Err(self.error(id, message))
                }
            }
            Expr::Call(call) => {
                let name = &call.func_name;
                if name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !FUNCTIONS.contains(&name.as_str())
                {
                    let known: Vec<_> = FUNCTIONS.iter().chain(&MACROS).copied().collect();
                    let message = unknown("function", name, &known);
                    return Err(self.call_error(id, name, message));
                }
                call.target
                    .iter_mut()
                    .try_for_each(|target| self.expr(target))?;
                call.args.iter_mut().try_for_each(|arg| self.expr(arg))
            }
            Expr::Select(select) => self.expr(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|e| self.expr(e)),
            Expr::Map(map) => map
                .entries
                .iter_mut()
                .try_for_each(|entry| match &mut entry.expr {
                    EntryExpr::MapEntry(e) => {
                        self.expr(&mut e.key).and_then(|()| self.expr(&mut e.value))
                    }
                    EntryExpr::StructField(f) => self.expr(&mut f.value),
                }),
            Expr::Struct(s) => {
                let message = format!("there are no types to build, `{}` neither", s.type_name);
                Err(self.error(id, message))
            }
            Expr::Comprehension(_) => self.comprehension(node),
        }
    }

    fn comprehension(&mut self, node: &mut IdedExpr) -> Result<(), ParseError> {
        let id = node.id;
        let Expr::Comprehension(c) = &mut node.expr else {
            return Ok(());
        };
        if c.iter_var == "message" {
            return Err(self.error(id, "`message` is taken; name the element otherwise".into()));
        }
        self.expr(&mut c.iter_range)?;
        self.expr(&mut c.accu_init)?;
        if self.comprehensions == COMPREHENSIONS_MAX {
            let message = "`exists`, `all`, `map` and `filter` cannot stand inside each other";
            return Err(self.error(id, message.into()));
        }
        self.comprehensions += 1;
        let before = self.bound.len();
        self.bound.extend([c.iter_var.clone(), c.accu_var.clone()]);
        self.bound.extend(c.iter_var2.clone());
        self.expr(&mut c.loop_cond)?;
        self.expr(&mut c.loop_step)?;
        self.expr(&mut c.result)?;
        self.bound.truncate(before);
        self.comprehensions -= 1;
        Ok(())
    }

    /// What `node` as a whole reads of the message, when it is such a read.
    fn read(&self, node: &IdedExpr) -> Result<Option<Read>, ParseError> {
        match &node.expr {
            Expr::Ident(name) if name == "message" => {
                let message = format!(
                    "`message` alone is nothing; use one of {}",
                    FIELDS.map(|f| format!("message.{f}")).join(", ")
                );
                Err(self.error(node.id, message))
            }
            Expr::Select(select) if !select.test => {
                if is_message(&select.operand) {
                    return match select.field.as_str() {
                        "key" => Ok(Some(Read::Key)),
                        "text" => Ok(Some(Read::Text)),
                        "json" => Ok(Some(Read::Json(Vec::new()))),
                        "header" | "headers" => {
                            Err(self.error(node.id, "write message.header(\"name\")".into()))
                        }
                        other => {
                            Err(self.error(node.id, unknown("field of `message`", other, &FIELDS)))
                        }
                    };
                }
                self.step(&select.operand, Step::Field(select.field.clone()))
            }
            Expr::Call(call) => self.call(node.id, call),
            _ => Ok(None),
        }
    }

    fn call(&self, id: u64, call: &cel::common::ast::CallExpr) -> Result<Option<Read>, ParseError> {
        if let ("_[_]", [operand, index]) = (call.func_name.as_str(), call.args.as_slice()) {
            return match &index.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    self.step(operand, Step::Field(name.inner().to_owned()))
                }
                Expr::Literal(LiteralValue::Int(at)) => match usize::try_from(*at.inner()) {
                    Ok(at) => self.step(operand, Step::Element(at)),
                    Err(_) => Ok(None),
                },
                _ => Ok(None),
            };
        }
        if !call.target.as_deref().is_some_and(is_message) {
            return Ok(None);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (
                "header",
                [
                    IdedExpr {
                        expr: Expr::Literal(LiteralValue::String(name)),
                        ..
                    },
                ],
            ) => Ok(Some(Read::Header(name.inner().to_owned()))),
            ("header", _) => {
                let message = "`message.header` takes one name in quotes".into();
                Err(self.call_error(id, "header", message))
            }
            (other, _) => {
                let message = unknown("function of `message`", other, &["header"]);
                Err(self.call_error(id, other, message))
            }
        }
    }

    /// `step` taken from `operand`, when that is a path into the document.
    fn step(&self, operand: &IdedExpr, step: Step) -> Result<Option<Read>, ParseError> {
        match operand.expr {
            Expr::Select(_) | Expr::Call(_) => Ok(match self.read(operand)? {
                Some(Read::Json(mut path)) => {
                    path.push(step);
                    Some(Read::Json(path))
                }
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    /// An error at the name of a call; the place of the call itself is its parenthesis.
    fn call_error(&self, id: u64, name: &str, message: String) -> ParseError {
        let mut error = self.error(id, message);
        let before: String = self.source.source.chars().take(error.offset).collect();
        if before.trim_end().ends_with(name) {
            let offset = before.trim_end().chars().count() - name.chars().count();
            error = ParseError::new(error.message, offset);
        }
        error
    }

    fn error(&self, id: u64, message: String) -> ParseError {
        let offset = self
            .source
            .offset_for(id)
            .map_or(0, |(start, _)| start as usize);
        ParseError::new(message, offset)
    }
}

fn is_message(node: &IdedExpr) -> bool {
    matches!(&node.expr, Expr::Ident(name) if name == "message")
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest = super::nearest(name, known.iter().copied());
    match nearest {
        Some(near) => format!("unknown {what} `{name}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{name}`; known: {}", known.join(", ")),
    }
}
