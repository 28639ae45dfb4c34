//! YAML to validated types: files are read, held against the tables of `fields`, merged with `defaults`
//! and built. Everything that is wrong in all of them is found in one go, each with its place.
//!
//! ```text
//! file → yaml (tree with places) → merge → check (shape, ranges, ${…}) → build → across → valid::Config
//! ```

mod across;
mod build;
mod check;
mod env_file;
mod fields;
mod files;
pub mod ladder;
mod literal;
mod overlay;
mod problem;
mod read;
mod reference;
mod scalar;
mod schema;
pub mod secret;
mod shape;
mod shown;
pub mod valid;
mod written;
mod yaml;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use build::Built;
use check::{Check, Checked};
use env_file::Variables;
use fields::{HOST, PIPELINE, PIPELINES_MAX, ROOT};
use overlay::merge;
use shape::Kind;
use yaml::{Content, Node};

pub use problem::{Code, Problem, Severity, Source, Span, render};
pub use reference::reference;
pub use scalar::{written_duration, written_size};
pub use schema::schema;
pub use shown::{Origin, Shown};

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: valid::Config,
    pub warnings: Vec<Problem>,
    pub sources: Vec<Source>,
    /// What the configuration came to, with places.
    resolved: Resolved,
    /// Names that `env_files` gave a value.
    from_files: Vec<(String, PathBuf)>,
}

/// Checked values with their places, after files, overlays and defaults became one.
#[derive(Debug, Clone)]
struct Resolved {
    host: Checked,
    connections: Vec<(yaml::Key, Checked)>,
    pipelines: Vec<Checked>,
}

/// What a configuration is read from; reading it again sees what has changed since.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Files, and folders of which every `*.yaml` and `*.yml` is read by name.
    pub paths: Vec<PathBuf>,
    /// Files laid over the others, one after another.
    pub overlays: Vec<PathBuf>,
    /// Files of `NAME=value` for `${NAME}`; a later one goes before an earlier one, the environment before all.
    pub env_files: Vec<PathBuf>,
}

/// Why there is none, every reason at once; warnings are among them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the configuration has {} errors; `wasmill lint` shows them", problems.iter().filter(|p| p.severity == Severity::Error).count())]
pub struct Error {
    pub problems: Vec<Problem>,
    pub sources: Vec<Source>,
}

/// Loads files and folders alone; [`load_inputs`] says more.
pub fn load(paths: &[PathBuf], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Error> {
    let inputs = Inputs {
        paths: paths.to_owned(),
        ..Inputs::default()
    };
    load_inputs(&inputs, env)
}

/// Loads files, overlays and files of variables as one configuration. `env` gives the variables that
/// `${…}` names and the files do not decide.
pub fn load_inputs(inputs: &Inputs, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Error> {
    let mut problems = problem::Problems::default();
    files::read(&inputs.paths, &mut problems);
    let base = problems.sources.len();
    files::read(&inputs.overlays, &mut problems);
    let variables = Variables::read(&inputs.env_files, &mut problems);
    let look_up = |name: &str| env(name).or_else(|| variables.get(name));
    let mut loaded = parsed(problems, base, &look_up)?;
    loaded.from_files = variables.names(env);
    Ok(loaded)
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
    parsed(problem::Problems::new(vec![source]), 1, env)
}

impl Loaded {
    /// Plugins that are not there. Not part of loading, which looks at nothing but the files themselves.
    #[must_use]
    pub fn missing_plugins(&self) -> Vec<Problem> {
        let mut problems = problem::Problems::new(self.sources.clone());
        for (pipeline, checked) in self.config.pipelines.iter().zip(&self.resolved.pipelines) {
            let path = &pipeline.handler.plugin;
            let handler = checked.get("handler");
            if let Some(place) = handler.and_then(|handler| handler.place_of("plugin"))
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

/// The first `base` sources are the configuration, those behind them overlays.
fn parsed(
    mut problems: problem::Problems,
    base: usize,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Error> {
    let mut trees = Vec::new();
    for file in 0..problems.sources.len() {
        let Some(tree) = yaml::parse(file, &mut problems) else {
            continue;
        };
        if file < base {
            trees.push(tree);
        } else {
            overlay::lay(tree, &mut trees, &mut problems);
        }
    }
    let mut parts = Parts::default();
    for tree in &trees {
        parts.file(tree, &mut problems, env);
    }
    let cores = std::thread::available_parallelism()
        .ok()
        .and_then(|n| NonZeroU32::try_from(n).ok());
    let built = parts.pipelines(cores.unwrap_or(NonZeroU32::MIN), &mut problems, env);
    let checked_host = parts.host(&mut problems, env);
    let host = build::host(&checked_host, &mut problems);
    let declared: Vec<yaml::Key> = parts.connections.iter().map(|(k, _)| k.clone()).collect();
    across::names(&built, &mut problems);
    across::connections(&built, &declared, &mut problems);
    let config = build::config(host, &built, &mut problems);
    if let Some(config) = &config {
        across::meaning(config, &built, &mut problems);
    }
    let failed = problems.has_errors();
    let (found, sources) = problems.finish();
    match config {
        Some(config) if !failed => Ok(Loaded {
            config,
            warnings: found,
            sources,
            resolved: Resolved {
                host: checked_host,
                connections: parts.connections,
                pipelines: built.into_iter().map(|built| built.checked).collect(),
            },
            from_files: Vec::new(),
        }),
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
    connections: Vec<(yaml::Key, Checked)>,
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
            self.connections.extend(connections.iter().cloned());
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
    ) -> Checked {
        let nothing = Node {
            place: problem::Place {
                file: 0,
                span: 0..0,
            },
            content: Content::Map(Vec::new()),
        };
        check(
            self.host.unwrap_or(&nothing),
            &HOST_KIND,
            "host",
            problems,
            env,
        )
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

#[cfg(test)]
mod tests;
