//! `wasmill dlq try`: a candidate plugin against stored dead letters, in this process, without effects.

use std::path::{Path, PathBuf};

use clap::Args;

use super::plural;
use super::select::Filter;
use crate::admin::letters::trial::{Report, TRY_LETTERS_MAX, TRY_TIME_MAX, Trial, Tried};
use crate::admin::letters::wire::StateFilter;
use crate::cli::access::IfAbsent;
use crate::cli::error::Error;
use crate::cli::output::{self, Format, Out};
use crate::cli::{Place, lint, text};
use crate::config::valid::Pipeline;
use crate::config::{self, Loaded};
use crate::expression::nearest;

/// A pipeline with the defaults of the configuration.
const DEFAULTS: &str = "version: 1\npipelines: [{ name: try, source: { topics: [t], consumer_group: g, start: earliest }, handler: { plugin: ./plugin.wasm } }]\n";

#[derive(Debug, Args)]
pub(in crate::cli) struct Try {
    /// The candidate
    #[arg(long = "plugin", value_name = "FILE.wasm", required = true)]
    candidate: PathBuf,
    /// Configuration files: the pipeline's config, limits, grants and outputs
    #[arg(value_name = "FILE.yaml")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// Those in another state
    #[arg(long, value_enum, default_value_t)]
    state: StateFilter,
    /// How many at most, the newest first
    #[arg(short = 'n', long, default_value_t = TRY_LETTERS_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(TRY_LETTERS_MAX)))]
    limit: u32,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A directory for compiled plugins that is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a temporary directory stays behind");
        }
    }
}

pub(super) fn run(wanted: &Try, place: &Place, out: &mut Out) -> Result<(), Error> {
    let loaded = configuration(wanted)?;
    let is_configured = !wanted.paths.is_empty();
    let pipeline = the_pipeline(&loaded, wanted)?;
    let mut filter = wanted.filter.in_state(wanted.state, Some(wanted.limit))?;
    if is_configured {
        filter.pipeline = Some(pipeline.name.clone());
    }
    let found = place.streams(IfAbsent::Refuse)?.dead_letters(&filter)?;
    if found.dead_letters.is_empty() {
        let help = if found.scanned.hints.is_empty() {
            "see `wasmill dlq list`".to_owned()
        } else {
            found.scanned.hints.join("\n")
        };
        return Err(Error::failed("no dead letter fits", help));
    }
    let scratch = scratch()?;
    let mut trial = Trial::new(
        &wanted.candidate,
        pipeline,
        is_configured,
        scratch.0.join("plugin-cache"),
    )
    .map_err(|why| Error::failed(why.to_string(), "see `wasmill plugin inspect`"))?;
    let bar = output::progress_count(found.dead_letters.len() as u64, "trying");
    let report = trial.run(&found.dead_letters, |done| bar.set_position(done));
    bar.finish_and_clear();
    match wanted.output {
        Format::Json => out.json(&report),
        Format::Table => show(&report, found.scanned.more, is_configured, out),
    }
}

fn configuration(wanted: &Try) -> Result<Loaded, Error> {
    let loaded = if wanted.paths.is_empty() {
        config::load_text(Path::new("defaults"), DEFAULTS, &|_| None)
    } else {
        config::load(&wanted.paths, &super::super::files::env)
    };
    loaded.map_err(|error| {
        lint::tell(&error.problems, &error.sources);
        Error::failed(error.to_string(), "`wasmill lint` says more")
    })
}

/// The one that the candidate would be the handler of.
fn the_pipeline<'l>(loaded: &'l Loaded, wanted: &Try) -> Result<&'l Pipeline, Error> {
    let pipelines = &loaded.config.pipelines;
    let names = || pipelines.iter().map(|one| one.name.as_str());
    let none = || Error::usage("the configuration has no pipeline", "");
    if wanted.paths.is_empty() {
        return pipelines.first().ok_or_else(none);
    }
    let Some(name) = &wanted.filter.pipeline else {
        return match pipelines.as_slice() {
            [one] => Ok(one),
            [] => Err(none()),
            _ => Err(Error::usage(
                format!(
                    "the configuration has several pipelines: {}",
                    names().collect::<Vec<_>>().join(", ")
                ),
                "name one with --pipeline",
            )),
        };
    };
    pipelines
        .iter()
        .find(|one| one.name == *name)
        .ok_or_else(|| {
            let meant = nearest(name, names()).map(|meant| format!("did you mean {meant}?"));
            Error::usage(
                format!("the configuration has no pipeline {name}"),
                meant.unwrap_or_default(),
            )
        })
}

/// Not the host's own cache: nothing of it is touched.
fn scratch() -> Result<Scratch, Error> {
    let name = format!("wasmill-try-{}", uuid::Uuid::now_v7());
    let path = std::env::temp_dir().join(name);
    // Fails when somebody else has made it.
    std::fs::create_dir(&path).map_err(|why| {
        Error::failed(
            format!("cannot make {}: {why}", path.display()),
            "name another place for temporary files with TMPDIR",
        )
    })?;
    Ok(Scratch(path))
}

fn show(report: &Report, more: bool, is_configured: bool, out: &mut Out) -> Result<(), Error> {
    let sum = |part: fn(&Tried) -> u64| report.groups.iter().map(part).sum::<u64>();
    let letters = sum(|group| group.letters);
    out.line(format!(
        "of {letters} dead letter{}: {} would succeed, {} be retried, {} be rejected, {} fault",
        plural(letters),
        sum(|group| group.succeed),
        sum(|group| group.retry),
        sum(|group| group.rejected),
        sum(|group| group.fault),
    ))?;
    out.line("")?;
    let rows = report.groups.iter().map(|group| {
        let after = group.errors.iter().max_by_key(|(_, count)| **count);
        vec![
            group.group.clone(),
            group.letters.to_string(),
            group.succeed.to_string(),
            group.retry.to_string(),
            group.rejected.to_string(),
            group.fault.to_string(),
            group.error.clone(),
            after.map_or(text::NONE.to_owned(), |(error, _)| error.clone()),
            group.example.clone().unwrap_or(text::NONE.to_owned()),
        ]
    });
    out.table(
        &[
            "GROUP",
            "LETTERS",
            "SUCCEED",
            "RETRY",
            "REJECT",
            "FAULT",
            "ERROR BEFORE",
            "ERROR AFTER",
            "EXAMPLE",
        ],
        rows,
        "no dead letter fits",
    )?;
    out.line("")?;
    out.line(format!("plugin  {}", report.plugin_digest))?;
    out.line("nothing was published, stored or committed")?;
    if report.state_was_empty {
        out.line(
            "the plugin reads state: it found none, which may not be what it finds when redriven",
        )?;
    }
    if !is_configured {
        out.line("with default limits, no config, and everything granted; name the YAML to try it as its pipeline would run it")?;
    }
    if report.not_tried > 0 {
        out.line(format!(
            "{} not tried: {} s have passed",
            report.not_tried,
            TRY_TIME_MAX.as_secs()
        ))?;
    }
    if more {
        out.line("there are more dead letters than were tried; narrow it, or go on with --until")?;
    }
    Ok(())
}
