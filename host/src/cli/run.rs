//! `wasmill run PATHS…`: loads a configuration and becomes the host.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::output;
use super::{Place, lint};
use crate::config::valid::Config;
use crate::telemetry::logging;
use crate::{config, host};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Files, or folders of *.yaml and *.yml
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Run although stored data depends on something that was changed
    #[arg(long)]
    accept_change: bool,
}

/// Runs until a signal.
pub(super) fn run(run: &Run, place: &Place) -> Result<(), Error> {
    let mut keeper = logging::start_host().map_err(|why| Error::usage(why.to_string(), ""))?;
    let loaded = match lint::load(&run.paths) {
        Ok(loaded) => loaded,
        Err(error) => {
            lint::tell(&error.problems, &error.sources);
            return Err(Error::failed(
                error.to_string(),
                "`wasmill lint` checks without running",
            ));
        }
    };
    lint::tell(&loaded.warnings, &loaded.sources);
    let missing = loaded.missing_plugins();
    if !missing.is_empty() {
        lint::tell(&missing, &loaded.sources);
        return Err(Error::failed("a plugin is not there", ""));
    }
    let named = place.named();
    let config = in_place(loaded.config, named.as_deref());
    if output::stderr_is_terminal() {
        output::note(&format!(
            "running; see it with `wasmill status --data-dir {}`, end it with Ctrl-C",
            config.host.data_dir.display()
        ));
    }
    let paths = run.paths.clone();
    let choices = host::Choices {
        accept_change: run.accept_change,
        reread: Some(Box::new(move || reread(&paths, named.as_deref()))),
    };
    let ended = host::run(&config, choices, &mut keeper).map_err(|why| {
        if !output::stderr_is_terminal() {
            // Whoever collects these lines parses each of them.
            tracing::error!(error = %why, "the host ends");
            return Error::Said;
        }
        let text = why.to_string();
        // Errors of the rooms below say what to do after a semicolon.
        match text.split_once("; ") {
            Some((message, help)) => Error::failed(message, help),
            None => Error::failed(text, ""),
        }
    });
    keeper.flush();
    ended
}

/// `--data-dir` goes before the file.
fn in_place(mut config: Config, data_dir: Option<&Path>) -> Config {
    if let Some(data_dir) = data_dir {
        config.host.data_dir = data_dir.to_owned();
    }
    config
}

/// The same files once more, for a reload; what is wrong with them as text for a person.
fn reread(paths: &[PathBuf], data_dir: Option<&Path>) -> Result<Config, String> {
    let loaded = lint::load(paths)
        .map_err(|error| config::render(&error.problems, &error.sources, false))?;
    let missing = loaded.missing_plugins();
    if missing.is_empty() {
        Ok(in_place(loaded.config, data_dir))
    } else {
        Err(config::render(&missing, &loaded.sources, false))
    }
}
