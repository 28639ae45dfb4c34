//! `wasmill run PATHS…`: loads a configuration and becomes the host.

use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::output;
use super::{Place, lint};
use crate::host;
use crate::telemetry::logging;

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Files, or folders of *.yaml and *.yml
    #[arg(required = true)]
    paths: Vec<PathBuf>,
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
    let mut config = loaded.config;
    if let Some(data_dir) = place.named() {
        config.host.data_dir = data_dir;
    }
    if output::stderr_is_terminal() {
        output::note(&format!(
            "running; see it with `wasmill status --data-dir {}`, end it with Ctrl-C",
            config.host.data_dir.display()
        ));
    }
    let ended = host::run(&config, &mut keeper).map_err(|why| {
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
