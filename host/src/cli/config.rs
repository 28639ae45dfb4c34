//! `wasmill config show FILES…`: what the configuration came to, and where each value is from.

use clap::{Args, Subcommand, ValueEnum};

use super::error::Error;
use super::files::{self, Files};
use super::output::Out;

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show every value after files, overlays, defaults and variables; secrets by their names only
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    files: Files,
    /// With the file and line of each value, `default`, or the variable it is from
    #[arg(long)]
    origin: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
}

pub(super) fn run(command: &Config, out: &mut Out) -> Result<(), Error> {
    let Config::Show(show) = command;
    let shown = show.files.need()?.shown(&files::env);
    match show.output {
        Format::Yaml => out.line(shown.yaml(show.origin).trim_end()),
        Format::Json => out.json(&shown.json(show.origin)),
    }
}
