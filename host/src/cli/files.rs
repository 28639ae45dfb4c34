//! Where commands read their configuration from: files, folders, overlays and files of variables, the same
//! for each of them.

use std::path::PathBuf;

use clap::Args;

use super::error::Error;
use super::lint;
use crate::config::{self, Inputs, Loaded};

#[derive(Debug, Clone, Args)]
pub(super) struct Files {
    /// Files, or folders of *.yaml and *.yml
    #[arg(required = true, value_name = "FILES")]
    paths: Vec<PathBuf>,
    /// A file laid over the others: maps merge, pipelines merge by name, all else replaces (repeatable)
    #[arg(long, value_name = "FILE")]
    overlay: Vec<PathBuf>,
    /// A file of NAME=value lines for ${NAME}; the environment goes before it (repeatable)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Files {
    /// Loads the configuration with this process's environment. Calling it again reads everything anew.
    pub(super) fn load(&self) -> Result<Loaded, config::Error> {
        let inputs = Inputs {
            paths: self.paths.clone(),
            overlays: self.overlay.clone(),
            env_files: self.env_file.clone(),
        };
        config::load_inputs(&inputs, &env)
    }

    /// The same for a command that cannot go on without: what is wrong is shown, and so are warnings.
    pub(super) fn need(&self) -> Result<Loaded, Error> {
        match self.load() {
            Ok(loaded) => {
                lint::tell(&loaded.warnings, &loaded.sources);
                Ok(loaded)
            }
            Err(error) => {
                lint::tell(&error.problems, &error.sources);
                let help = "`wasmill lint` checks without running";
                Err(Error::failed(error.to_string(), help))
            }
        }
    }
}

/// This process's environment.
pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
