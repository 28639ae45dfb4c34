//! How a command fails: what happened, what to do, and the exit code (0 ok, 1 failed, 2 usage).

use std::io;
use std::process::ExitCode;

use crate::admin;

/// Exit code of a command that was called wrongly; clap uses the same.
pub(super) const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The reader of our output is gone: not a failure.
    #[error("nobody reads the output")]
    BrokenPipe,
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("{0}")]
    Admin(#[from] admin::Error),
    #[error("{message}")]
    Failed { message: String, help: String },
    /// The command line makes no sense.
    #[error("{message}")]
    Usage { message: String, help: String },
    /// Everything was said already.
    #[error("failed")]
    Said,
}

impl Error {
    #[must_use]
    pub(super) fn failed(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            help: help.into(),
        }
    }

    #[must_use]
    pub(super) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            help: help.into(),
        }
    }

    /// What to do, one line each.
    pub(super) fn help(&self) -> impl Iterator<Item = &str> {
        let help = match self {
            Self::Admin(error) => error.help.as_str(),
            Self::Failed { help, .. } | Self::Usage { help, .. } => help.as_str(),
            Self::BrokenPipe | Self::Output(_) | Self::Said => "",
        };
        help.lines()
    }

    #[must_use]
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Usage { .. } => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::Output(error)
        }
    }
}
