//! YAML to validated types: files are read, held against the tables of `fields`, merged with `defaults`
//! and built. Everything that is wrong in all of them is found in one go, each with its place.
//!
//! ```text
//! file → yaml (tree with places) → merge → check (shape, ranges, ${…}) → build → across → valid::Config
//! ```

mod across;
mod build;
mod check;
mod fields;
mod files;
pub mod ladder;
mod literal;
mod problem;
mod read;
mod reference;
mod scalar;
mod schema;
pub mod secret;
mod shape;
pub mod valid;
mod yaml;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use build::Built;
use check::{Check, Checked};
use fields::{HOST, PIPELINE, PIPELINES_MAX, ROOT};
use shape::Kind;
use yaml::{Content, Node};

pub use problem::{Code, Problem, Severity, Source, Span, render};
pub use reference::reference;
pub use schema::schema;

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: valid::Config,
    pub warnings: Vec<Problem>,
    pub sources: Vec<Source>,
    /// Where each pipeline names its plugin, in their order.
    plugins: Vec<Option<problem::Place>>,
}

/// Why there is none, every reason at once; warnings are among them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the configuration has {} errors; `wasmill lint` shows them", problems.iter().filter(|p| p.severity == Severity::Error).count())]
pub struct Error {
    pub problems: Vec<Problem>,
    pub sources: Vec<Source>,
}

/// Loads files, and of folders every `*.yaml` and `*.yml` in them by name, as one configuration.
/// `env` gives the variables that `${…}` names.
pub fn load(paths: &[PathBuf], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Error> {
    let mut problems = problem::Problems::default();
    files::read(paths, &mut problems);
    parsed(problems, env)
}

/// Loads one text as if it stood in the file `path`.
pub fn load_text(
    path: &Path,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Error> {
    let source = Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    parsed(problem::Problems::new(vec![source]), env)
}

impl Loaded {
    /// Plugins that are not there. Not part of loading, which looks at nothing but the files themselves.
    #[must_use]
    pub fn missing_plugins(&self) -> Vec<Problem> {
        let mut problems = problem::Problems::new(self.sources.clone());
        for (pipeline, place) in self.config.pipelines.iter().zip(&self.plugins) {
            let path = &pipeline.handler.plugin;
            if let Some(place) = place
                && !path.is_file()
            {
                let message = format!("there is no file `{}`", path.display());
                let help = "build the plugin first (`wasmill build`), or correct the path; it counts from the file it is written in";
                problems.error(Code::MissingPlugin, place, message, help);
            }
        }
        problems.finish().0
    }
}

fn parsed(
    mut problems: problem::Problems,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Error> {
    let trees: Vec<Option<Node>> = (0..problems.sources.len())
        .map(|file| yaml::parse(file, &mut problems))
        .collect();
    let trees: Vec<Node> = trees.into_iter().flatten().collect();
    let mut parts = Parts::default();
    for tree in &trees {
        parts.file(tree, &mut problems, env);
    }
    let cores = std::thread::available_parallelism()
        .ok()
        .and_then(|n| NonZeroU32::try_from(n).ok());
    let built = parts.pipelines(cores.unwrap_or(NonZeroU32::MIN), &mut problems, env);
    let host = parts.host(&mut problems, env);
    across::names(&built, &mut problems);
    across::connections(&built, &parts.connections, &mut problems);
    let config = build::config(host, &built, &mut problems);
    if let Some(config) = &config {
        across::meaning(config, &built, &mut problems);
    }
    let failed = problems.has_errors();
    let (found, sources) = problems.finish();
    match config {
        Some(config) if !failed => {
            let plugin = |b: &Built| {
                b.checked
                    .get("handler")
                    .and_then(|h| h.place_of("plugin"))
                    .cloned()
            };
            Ok(Loaded {
                config,
                warnings: found,
                sources,
                plugins: built.iter().map(plugin).collect(),
            })
        }
        _ => Err(Error {
            problems: found,
            sources,
        }),
    }
}

/// What the files hold together.
#[derive(Default)]
struct Parts<'n> {
    host: Option<&'n Node>,
    defaults: Option<&'n Node>,
    pipelines: Vec<&'n Node>,
    connections: Vec<yaml::Key>,
}

impl<'n> Parts<'n> {
    fn file(
        &mut self,
        tree: &'n Node,
        problems: &mut problem::Problems,
        env: &dyn Fn(&str) -> Option<String>,
    ) {
        // The pipelines are checked after they are merged with the defaults, so not here.
        let Content::Map(entries) = &tree.content else {
            let help = "expected a map that begins with `version: 1`";
            problems.error(
                Code::WrongType,
                &tree.place,
                format!("the configuration is {}", tree.kind()),
                help,
            );
            return;
        };
        let rest = entries.iter().filter(|(key, value)| {
            key.text != "pipelines" || !matches!(value.content, Content::List(_))
        });
        let shell = Node {
            place: tree.place.clone(),
            content: Content::Map(rest.cloned().collect()),
        };
        let checked = check(&shell, &ROOT_KIND, "configuration", problems, env);
        if let Some(connections) = checked.get("connections").and_then(Checked::named) {
            self.connections
                .extend(connections.iter().map(|(key, _)| key.clone()));
        }
        once(&mut self.host, tree.get("host"), "host", problems);
        once(
            &mut self.defaults,
            tree.get("defaults"),
            "defaults",
            problems,
        );
        if let Some(Node {
            content: Content::List(pipelines),
            ..
        }) = tree.get("pipelines")
        {
            self.pipelines.extend(pipelines);
        }
    }

    fn pipelines(
        &self,
        cores: NonZeroU32,
        problems: &mut problem::Problems,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<Built> {
        if let Some(extra) = self.pipelines.get(PIPELINES_MAX) {
            let message = format!("there are more than {PIPELINES_MAX} pipelines");
            problems.error(
                Code::OutOfRange,
                &extra.place,
                message,
                "run them in several hosts",
            );
        }
        let mut built = Vec::with_capacity(self.pipelines.len());
        for node in self.pipelines.iter().take(PIPELINES_MAX) {
            let merged = match self.defaults {
                Some(defaults) => merge(defaults, node, &PIPELINE_KIND),
                None => (*node).clone(),
            };
            let name = match node.get("name").map(|name| &name.content) {
                Some(Content::Scalar { text, .. }) => format!("pipeline {text}"),
                _ => "pipeline".to_owned(),
            };
            let checked = check(&merged, &PIPELINE_KIND, &name, problems, env);
            let pipeline = build::pipeline(&checked, cores, problems);
            built.push(Built { pipeline, checked });
        }
        built
    }

    fn host(
        &self,
        problems: &mut problem::Problems,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Option<valid::Host> {
        let nothing = Node {
            place: problem::Place {
                file: 0,
                span: 0..0,
            },
            content: Content::Map(Vec::new()),
        };
        let checked = check(
            self.host.unwrap_or(&nothing),
            &HOST_KIND,
            "host",
            problems,
            env,
        );
        build::host(&checked, problems)
    }
}

static ROOT_KIND: Kind = Kind::Block(&ROOT);
static HOST_KIND: Kind = Kind::Block(&HOST);
static PIPELINE_KIND: Kind = Kind::Block(&PIPELINE);

fn check(
    node: &Node,
    kind: &'static Kind,
    name: &str,
    problems: &mut problem::Problems,
    env: &dyn Fn(&str) -> Option<String>,
) -> Checked {
    Check {
        problems,
        env,
        partial: false,
    }
    .value(node, kind, name)
}

/// A key that one file at most may have.
fn once<'n>(
    slot: &mut Option<&'n Node>,
    found: Option<&'n Node>,
    name: &str,
    problems: &mut problem::Problems,
) {
    let Some(node) = found else { return };
    match slot {
        Some(first) => {
            let help = format!(
                "it is already at {}; keep one",
                problems.line_of(&first.place)
            );
            problems.error(
                Code::Conflict,
                &node.place,
                format!("two files have `{name}`"),
                help,
            );
        }
        None => *slot = Some(node),
    }
}

/// `over` with what it does not say taken from `under`: maps of known keys and of names are merged,
/// everything else is replaced.
fn merge(under: &Node, over: &Node, kind: &'static Kind) -> Node {
    let (Content::Map(below), Content::Map(above)) = (&under.content, &over.content) else {
        return over.clone();
    };
    let kind_of = |name: &str| -> Option<&'static Kind> {
        match kind {
            Kind::Block(block) => block
                .fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| &field.kind),
            Kind::Named { of, .. } => Some(*of),
            _ => None,
        }
    };
    if !matches!(
        kind,
        Kind::Block(_) | Kind::Named { .. } | Kind::Texts { .. }
    ) {
        return over.clone();
    }
    let mut entries = above.clone();
    for (key, value) in below {
        match entries.iter_mut().find(|(k, _)| k.text == key.text) {
            Some((_, mine)) => {
                if let Some(kind) = kind_of(&key.text) {
                    *mine = merge(value, mine, kind);
                }
            }
            None => entries.push((key.clone(), value.clone())),
        }
    }
    Node {
        place: over.place.clone(),
        content: Content::Map(entries),
    }
}

#[cfg(test)]
mod tests;
