//! What is wrong with a configuration, and where: for people through [`render`], for programs as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde::{Serialize, Serializer};

/// Stable names of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A file cannot be read, is too big, or is not UTF-8.
    Unreadable,
    /// Not YAML, or YAML that configurations do without: tags, several documents, `<<`.
    Syntax,
    /// Too deep or too many nodes.
    TooBig,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    WrongType,
    BadValue,
    OutOfRange,
    /// `${…}` that cannot be substituted.
    Substitution,
    /// Named by the design, not in this version.
    NotInThisVersion,
    BadExpression,
    /// Two things that cannot stand together.
    Conflict,
    /// A topic that feeds itself.
    Cycle,
    /// A secret in a place that takes none.
    Secret,
    /// The plugin file is not there.
    MissingPlugin,
    /// Allowed, and probably not meant.
    Doubtful,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    #[serde(serialize_with = "display")]
    pub file: PathBuf,
    /// 1-based; 0 when the problem is the file as a whole.
    pub line: usize,
    /// 1-based, in characters; 0 when the problem is the file as a whole.
    pub column: usize,
    /// Bytes of the file.
    pub span: Option<Span>,
    pub severity: Severity,
    pub code: Code,
    pub message: String,
    pub help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// Problems that [`render`] shows; the rest is counted.
const SHOWN_MAX: usize = 100;
/// Bytes of a line that a snippet shows; for longer ones the place is told in numbers.
const SNIPPET_MAX: usize = 300;

/// The text of a configuration file, for snippets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// Bytes of one of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the source.
    pub(super) file: usize,
    pub(super) span: Range<usize>,
}

/// Problems as they are found, with the sources they point into.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) sources: Vec<Source>,
    found: Vec<Problem>,
}

impl Code {
    pub(super) const ALL: [Self; 17] = [
        Self::Unreadable,
        Self::Syntax,
        Self::TooBig,
        Self::DuplicateKey,
        Self::UnknownKey,
        Self::MissingKey,
        Self::WrongType,
        Self::BadValue,
        Self::OutOfRange,
        Self::Substitution,
        Self::NotInThisVersion,
        Self::BadExpression,
        Self::Conflict,
        Self::Cycle,
        Self::Secret,
        Self::MissingPlugin,
        Self::Doubtful,
    ];

    pub(super) const fn doc(self) -> &'static str {
        match self {
            Self::Unreadable => "a file cannot be read, or is not UTF-8",
            Self::Syntax => {
                "not YAML, or YAML that configurations do without: tags, several documents, `<<`"
            }
            Self::TooBig => "a file is too long, too deep or has too many values",
            Self::DuplicateKey => "a map has a key twice",
            Self::UnknownKey => "a map has a key that means nothing there",
            Self::MissingKey => "a required key is not there",
            Self::WrongType => "a list where a map is expected, and the like",
            Self::BadValue => "a value of another kind than expected",
            Self::OutOfRange => "a value of the right kind beyond its limits",
            Self::Substitution => "a `${…}` that cannot be substituted",
            Self::NotInThisVersion => "planned, and not in this version",
            Self::BadExpression => {
                "an expression that does not parse, reads what there is not, or reads nothing"
            }
            Self::Conflict => "two things that cannot stand together",
            Self::Cycle => "a topic that feeds itself",
            Self::Secret => "a secret where none is taken",
            Self::MissingPlugin => "a plugin file is not there",
            Self::Doubtful => "allowed, and probably not meant; a warning",
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::TooBig => "too_big",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownKey => "unknown_key",
            Self::MissingKey => "missing_key",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::OutOfRange => "out_of_range",
            Self::Substitution => "substitution",
            Self::NotInThisVersion => "not_in_this_version",
            Self::BadExpression => "bad_expression",
            Self::Conflict => "conflict",
            Self::Cycle => "cycle",
            Self::Secret => "secret",
            Self::MissingPlugin => "missing_plugin",
            Self::Doubtful => "doubtful",
        }
    }
}

impl Problems {
    pub(super) const fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            found: Vec::new(),
        }
    }

    pub(super) fn error(
        &mut self,
        code: Code,
        place: &Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, place, message.into(), help.into());
    }

    pub(super) fn warning(
        &mut self,
        code: Code,
        place: &Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, place, message.into(), help.into());
    }

    /// A problem of a file that has no text to point into.
    pub(super) fn file(
        &mut self,
        code: Code,
        path: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.found.push(Problem {
            file: path.to_owned(),
            line: 0,
            column: 0,
            span: None,
            severity: Severity::Error,
            code,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    fn add(
        &mut self,
        severity: Severity,
        code: Code,
        place: &Place,
        message: String,
        help: String,
    ) {
        let Some(source) = self.sources.get(place.file) else {
            return;
        };
        let (line, column) = position(&source.text, place.span.start);
        self.found.push(Problem {
            file: source.path.clone(),
            line,
            column,
            span: Some(Span {
                start: place.span.start,
                end: place.span.end,
            }),
            severity,
            code,
            message,
            help: (!help.is_empty()).then_some(help),
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// `file:line` of a place, for the help of a problem elsewhere.
    pub(super) fn line_of(&self, place: &Place) -> String {
        self.sources
            .get(place.file)
            .map_or_else(String::new, |source| {
                let (line, _) = position(&source.text, place.span.start);
                format!("{}:{line}", source.path.display())
            })
    }

    /// The folder of the file that a place is in.
    pub(super) fn folder_of(&self, place: &Place) -> &Path {
        let source = self.sources.get(place.file);
        source
            .and_then(|source| source.path.parent())
            .unwrap_or(Path::new(""))
    }

    /// In the order of files and places, each once: a mistake in `defaults` shows in every pipeline.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Source>) {
        let mut found = self.found;
        found.sort_by(|a, b| {
            let key = |p: &Problem| (p.file.clone(), p.span, p.severity, p.code);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        found.dedup();
        (found, self.sources)
    }
}

/// Line and column, both 1-based, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}

/// What a person reads: each problem with the lines it is about, then a count.
#[must_use]
pub fn render(problems: &[Problem], sources: &[Source], color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(110)
        .with_context_lines(1);
    let mut out = String::new();
    let mut texts: BTreeMap<&Path, Arc<str>> = BTreeMap::new();
    for problem in problems.iter().take(SHOWN_MAX) {
        let source = sources.iter().find(|source| source.path == problem.file);
        let source = source
            .filter(|source| fits(&source.text, problem))
            .map(|source| {
                let text = texts
                    .entry(&source.path)
                    .or_insert_with(|| printable(&source.text).into());
                NamedSource::new(source.path.display().to_string(), Arc::clone(text))
            });
        let report = Report { problem, source };
        if handler.render_report(&mut out, &report).is_err() {
            out.push_str(&problem.to_string());
        }
        out.push('\n');
    }
    let count = |severity| {
        problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let plural = |n: usize, one: &str| {
        if n == 1 {
            format!("1 {one}")
        } else {
            format!("{n} {one}s")
        }
    };
    let counts: Vec<_> = [(errors, "error"), (warnings, "warning")]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, one)| plural(*n, one))
        .collect();
    if problems.len() > SHOWN_MAX {
        out.push_str("only the first ");
        out.push_str(&SHOWN_MAX.to_string());
        out.push_str(" are shown\n");
    }
    if !counts.is_empty() {
        out.push_str(&counts.join(", "));
        out.push('\n');
    }
    out
}

/// Whether the lines around a problem are short enough to be shown.
fn fits(text: &str, problem: &Problem) -> bool {
    let lines = text.lines().skip(problem.line.saturating_sub(2)).take(3);
    let within = problem
        .span
        .is_none_or(|span| span.end - span.start <= SNIPPET_MAX);
    within && lines.map(str::len).max().unwrap_or(0) <= SNIPPET_MAX
}

/// The text with nothing in it that would control a terminal; every byte stays where it is.
fn printable(text: &str) -> String {
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let replaced = |c: char| {
        if plain(c) {
            String::from(c)
        } else {
            "?".repeat(c.len_utf8())
        }
    };
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        text.chars().map(replaced).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {} [{}]", self.message, self.code.as_str())?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

fn display<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[derive(Debug)]
struct Report<'a> {
    problem: &'a Problem,
    source: Option<NamedSource<Arc<str>>>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.problem.line) {
            (Some(_), _) => {}
            (None, 0) => write!(f, "{}: ", self.problem.file.display())?,
            (None, line) => {
                let (file, column) = (self.problem.file.display(), self.problem.column);
                write!(f, "{file}:{line}:{column}: ")?;
            }
        }
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code.as_str()))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.filter(|_| self.source.is_some())?;
        let label = LabeledSpan::new(None, span.start, span.end.saturating_sub(span.start));
        Some(Box::new(std::iter::once(label)))
    }
}
