//! `wasmill completions SHELL`: completions of commands and options, for a shell to read at its start.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Cli;
use super::error::Error;
use super::output::Out;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For bash: put the output into ~/.local/share/bash-completion/completions/wasmill
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(command: &Completions, out: &mut Out) -> Result<(), Error> {
    let mut script = Vec::new();
    generate(command.shell, &mut Cli::command(), "wasmill", &mut script);
    out.bytes(&script)
}
