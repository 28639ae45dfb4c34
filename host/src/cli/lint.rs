//! `wasmill lint FILES…`: everything that is wrong with a configuration, without running it: the
//! files (`config/`), the plugins they name, whether those are granted what they import, and on demand
//! whether what is stored fits (`stored.rs`).

use clap::Args;
use serde::Serialize;

use super::error::Error;
use super::files::Files;
use super::output::{self, Format, Out};
use super::stored::Stored;
use super::{Place, stored, text};
use crate::config::valid::{Allow, Pipeline};
use crate::config::{self, Problem, Severity, Source};
use crate::plugin::{Need, inspect};

#[derive(Debug, Args)]
pub(super) struct Lint {
    #[command(flatten)]
    files: Files,
    /// Also say whether a start or reload would be refused because of what is stored: asks the running host,
    /// or opens the data directory
    #[arg(long)]
    against_data: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A plugin that a host would refuse.
#[derive(Debug, Serialize)]
pub(super) struct PluginProblem {
    pub(super) pipeline: String,
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
struct Report<'r> {
    problems: &'r [Problem],
    plugins: &'r [PluginProblem],
    /// `null`: it was not asked for, or the files make no configuration.
    stored: Option<Stored>,
}

pub(super) fn run(lint: &Lint, place: &Place, out: &mut Out) -> Result<(), Error> {
    let (mut problems, sources, config) = match lint.files.load() {
        Ok(loaded) => {
            let mut problems = loaded.missing_plugins();
            problems.extend(loaded.warnings);
            (problems, loaded.sources, Some(loaded.config))
        }
        Err(error) => (error.problems, error.sources, None),
    };
    problems.sort();
    let pipelines = config.iter().flat_map(|config| &config.pipelines);
    let plugins: Vec<PluginProblem> = pipelines.clone().filter_map(check_plugin).collect();
    let against = config.as_ref().filter(|_| lint.against_data);
    let stored = match lint.output {
        Format::Json => {
            let stored = against.map(|config| stored::look(config, place));
            let report = Report {
                problems: &problems,
                plugins: &plugins,
                stored: stored.transpose()?,
            };
            out.json(&report)?;
            report.stored
        }
        Format::Table => {
            show(&problems, &sources, &plugins, pipelines.count(), out)?;
            let stored = against.map(|config| stored::look(config, place));
            let stored = stored.transpose()?;
            if let Some(stored) = &stored {
                stored::show(stored, out)?;
            }
            stored
        }
    };
    let failed = !plugins.is_empty()
        || problems.iter().any(|one| one.severity == Severity::Error)
        || stored.is_some_and(|stored| stored.has_errors());
    if failed { Err(Error::Said) } else { Ok(()) }
}

/// Shows problems on stderr, for commands that want to go on to something else.
pub(super) fn tell(problems: &[Problem], sources: &[Source]) {
    if !problems.is_empty() {
        output::block(&config::render(problems, sources, output::stderr_colours()));
    }
}

fn show(
    problems: &[Problem],
    sources: &[Source],
    plugins: &[PluginProblem],
    pipelines: usize,
    out: &mut Out,
) -> Result<(), Error> {
    if !problems.is_empty() {
        let rendered = config::render(problems, sources, out.colours());
        out.line(rendered.trim_end())?;
    }
    for plugin in plugins {
        out.line(format!(
            "pipeline {}: {}",
            text::escape(&plugin.pipeline),
            text::escape(&plugin.message)
        ))?;
    }
    if problems.is_empty() && plugins.is_empty() {
        let noun = if pipelines == 1 {
            "pipeline"
        } else {
            "pipelines"
        };
        out.line(format!("ok: {pipelines} {noun}"))?;
    }
    Ok(())
}

/// What a host would refuse about the plugin. One that is not there is `config`'s to tell.
pub(super) fn check_plugin(pipeline: &Pipeline) -> Option<PluginProblem> {
    let path = &pipeline.handler.plugin;
    if !path.is_file() {
        return None;
    }
    let message = match inspect(path) {
        Err(why) => why.to_string(),
        Ok(inspection) => inspection.problem.or_else(|| {
            let missing = inspection
                .imports
                .iter()
                .find(|import| !is_granted(import.need, &pipeline.handler.allow))?;
            let grant = missing.grant.unwrap_or_default();
            Some(format!(
                "{} imports `{}`, which is not granted; to grant it write `{grant}` under `handler:`",
                path.display(),
                missing.name
            ))
        })?,
    };
    Some(PluginProblem {
        pipeline: pipeline.name.clone(),
        message,
    })
}

const fn is_granted(need: Need, allow: &Allow) -> bool {
    match need {
        Need::Nothing => true,
        Need::State => allow.state.is_some(),
        Need::Clock => allow.clock,
        Need::Random => allow.random,
        Need::Refused(_) | Need::OtherVersion | Need::Unknown => false,
    }
}
