//! What a configuration came to: every value after files, overlays, defaults and variables, each with
//! where it is from. A secret is its name; its value is not known here.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::check::{Checked, Value};
use super::problem::Place;
use super::yaml::Key;
use super::{Loaded, scalar};

/// A resolved value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// A text, number or truth value.
    Single {
        value: Json,
        origin: Origin,
    },
    List(Vec<Self>),
    /// Keys that were left out and have no default are not among them.
    Map(Vec<(String, Self)>),
}

impl From<Json> for Shown {
    fn from(value: Json) -> Self {
        match value {
            Json::Array(elements) => Self::List(elements.into_iter().map(Self::from).collect()),
            Json::Object(entries) => {
                Self::Map(entries.into_iter().map(|(k, v)| (k, v.into())).collect())
            }
            value => Self::Single {
                value,
                origin: Origin::Default,
            },
        }
    }
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        /// 1-based.
        line: usize,
    },
    /// `${…}` in that file.
    Environment {
        names: Vec<String>,
        path: PathBuf,
        line: usize,
    },
}

impl Loaded {
    /// The whole configuration in the order of the reference. `env` says what the environment has, as
    /// it did for loading.
    #[must_use]
    pub fn shown(&self, env: &dyn Fn(&str) -> Option<String>) -> Shown {
        let view = View { loaded: self, env };
        let resolved = &self.resolved;
        let version = Shown::Single {
            value: json!(1),
            origin: Origin::Default,
        };
        let pipelines = resolved.pipelines.iter().filter_map(|p| view.of(p));
        let mut root = vec![("version".to_owned(), version)];
        root.extend(
            view.of(&resolved.host)
                .map(|host| ("host".to_owned(), host)),
        );
        root.push(("connections".to_owned(), view.named(&resolved.connections)));
        root.push(("pipelines".to_owned(), Shown::List(pipelines.collect())));
        Shown::Map(root)
    }
}

struct View<'a> {
    loaded: &'a Loaded,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl View<'_> {
    fn of(&self, checked: &Checked) -> Option<Shown> {
        let value = match &checked.value {
            Value::Absent | Value::Invalid => return None,
            Value::Block(fields) => {
                let fields = fields.iter();
                let shown = fields.filter_map(|(name, v)| Some(((*name).to_owned(), self.of(v)?)));
                return Some(Shown::Map(shown.collect()));
            }
            Value::Named(entries) => return Some(self.named(entries)),
            Value::List(elements) => {
                return Some(Shown::List(
                    elements.iter().filter_map(|e| self.of(e)).collect(),
                ));
            }
            Value::Bool(b) => json!(b),
            Value::Integer(n) => json!(n),
            Value::Number(n) => json!(n),
            Value::Duration(d) => json!(scalar::written_duration(*d)),
            Value::Size(bytes) => json!(scalar::written_size(*bytes)),
            Value::Text(text) => json!(text),
            Value::Choice(name) => json!(name),
            Value::Expression(expression) => json!(expression.source()),
            Value::Address(address) => json!(address.to_string()),
            Value::Timestamp(ms) => json!(ms),
        };
        let origin = checked.place.as_ref();
        Some(Shown::Single {
            value,
            origin: origin.map_or(Origin::Default, |place| self.origin(place)),
        })
    }

    fn named(&self, entries: &[(Key, Checked)]) -> Shown {
        let shown = entries
            .iter()
            .filter_map(|(key, value)| Some((key.text.clone(), self.of(value)?)));
        Shown::Map(shown.collect())
    }

    fn origin(&self, place: &Place) -> Origin {
        let Some(source) = self.loaded.sources.get(place.file) else {
            return Origin::Default;
        };
        let before = source.text.get(..place.span.start).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let path = source.path.clone();
        let written = source.text.get(place.span.clone()).unwrap_or_default();
        let mut names: Vec<String> = substituted(written)
            .filter(|name| self.has(name))
            .map(str::to_owned)
            .collect();
        names.dedup();
        if names.is_empty() {
            Origin::File { path, line }
        } else {
            Origin::Environment { names, path, line }
        }
    }

    fn has(&self, name: &str) -> bool {
        let in_file = self
            .loaded
            .from_files
            .iter()
            .any(|(known, _)| known == name);
        in_file || (self.env)(name).is_some()
    }
}

/// The names in `${NAME…}`; `$${` is no substitution.
fn substituted(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("${").filter_map(|(at, _)| {
        if text.get(..at)?.ends_with('$') {
            return None;
        }
        let rest = text.get(at + 2..)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest.get(..end.unwrap_or(rest.len()))
    })
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { names, path, line } => {
                let names = names.join(", ");
                write!(f, "environment {names}, in {}:{line}", path.display())
            }
        }
    }
}

impl Shown {
    /// As JSON; with `origins`, each single value is `{"value": …, "origin": "…"}`.
    #[must_use]
    pub fn json(&self, origins: bool) -> Json {
        match self {
            Self::Single { value, origin } if origins => {
                json!({"value": value, "origin": origin.to_string()})
            }
            Self::Single { value, .. } => value.clone(),
            Self::List(elements) => elements.iter().map(|e| e.json(origins)).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(k, v)| (k.clone(), v.json(origins)));
                Json::Object(entries.collect::<Map<_, _>>())
            }
        }
    }

    /// As YAML that loads to the same; with `origins`, each single value has its own as a comment.
    #[must_use]
    pub fn yaml(&self, origins: bool) -> String {
        let mut out = String::new();
        self.write(&mut out, 0, origins);
        out
    }

    fn write(&self, out: &mut String, indent: usize, origins: bool) {
        let pad = " ".repeat(indent);
        match self {
            Self::Single { .. } => {
                out.push_str(&pad);
                self.tail(out, origins);
            }
            Self::Map(entries) => {
                for (key, value) in entries {
                    out.push_str(&format!("{pad}{}:", yaml_text(key)));
                    value.behind(out, indent + 2, origins);
                }
            }
            Self::List(elements) => {
                for element in elements {
                    let mut inside = String::new();
                    element.write(&mut inside, indent + 2, origins);
                    let inside = inside.get(indent + 2..).unwrap_or("{}\n");
                    out.push_str(&format!("{pad}- {inside}"));
                }
            }
        }
    }

    /// The value of a key that was written.
    fn behind(&self, out: &mut String, indent: usize, origins: bool) {
        match self {
            Self::Single { .. } => {
                out.push(' ');
                self.tail(out, origins);
            }
            Self::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
            Self::List(elements) if elements.is_empty() => out.push_str(" []\n"),
            Self::Map(_) | Self::List(_) => {
                out.push('\n');
                self.write(out, indent, origins);
            }
        }
    }

    fn tail(&self, out: &mut String, origins: bool) {
        let Self::Single { value, origin } = self else {
            return;
        };
        match value {
            Json::String(text) => out.push_str(&yaml_text(&text.replace("${", "$${"))),
            other => out.push_str(&other.to_string()),
        }
        if origins {
            out.push_str(&format!("  # {}", origin.to_string().escape_debug()));
        }
        out.push('\n');
    }
}

/// Plain where YAML reads it as the same text, else in quotes.
fn yaml_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    let duration_or_size = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && scalar::duration(text).is_some() | scalar::size(text).is_some();
    if plain || duration_or_size {
        text.to_owned()
    } else {
        // A JSON text is a YAML text in double quotes.
        Json::String(text.to_owned()).to_string()
    }
}
