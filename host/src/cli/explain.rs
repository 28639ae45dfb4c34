//! `wasmill explain FILES…`: what each pipeline will do, in words and its own numbers.

use clap::Args;

use super::error::Error;
use super::files::Files;
use super::output::{Format, Out};
use crate::explain::{Explained, explain};
use crate::expression::nearest;

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    files: Files,
    /// Only this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: &Explain, out: &mut Out) -> Result<(), Error> {
    let config = command.files.need()?.config;
    let mut explained = explain(&config);
    if let Some(name) = &command.pipeline {
        only(&mut explained, name)?;
    }
    match command.output {
        Format::Json => out.json(&explained),
        Format::Table => {
            let texts: Vec<String> = explained.iter().map(Explained::text).collect();
            out.line(texts.join("\n").trim_end())
        }
    }
}

fn only(explained: &mut Vec<Explained>, name: &str) -> Result<(), Error> {
    let names = explained.iter().map(|one| one.pipeline.as_str());
    let help = nearest(name, names).map(|meant| format!("did you mean {meant}?"));
    explained.retain(|one| one.pipeline == name);
    if explained.is_empty() {
        return Err(Error::usage(
            format!("the configuration has no pipeline {name}"),
            help.unwrap_or_default(),
        ));
    }
    Ok(())
}
