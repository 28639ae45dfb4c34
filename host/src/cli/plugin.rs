//! `wasmill plugin inspect FILE`: what a plugin is and what it wants, without running it.

use std::path::PathBuf;

use clap::Subcommand;

use super::error::Error;
use super::output::{Format, Out};
use super::text;
use crate::plugin::{Inspection, Need, World, inspect};

#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// Size, digest, world, imports and the YAML that grants them
    Inspect {
        file: PathBuf,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub(super) fn run(command: &Plugin, out: &mut Out) -> Result<(), Error> {
    let Plugin::Inspect { file, output } = command;
    let inspection = inspect(file).map_err(|why| Error::failed(why.to_string(), ""))?;
    match output {
        Format::Json => out.json(&inspection)?,
        Format::Table => show(&inspection, out)?,
    }
    if inspection.problem.is_some() {
        return Err(Error::Said);
    }
    Ok(())
}

pub(super) fn show(inspection: &Inspection, out: &mut Out) -> Result<(), Error> {
    out.line(format!("size     {}", text::size(inspection.size_bytes)))?;
    out.line(format!("digest   {}", inspection.digest))?;
    let world = match inspection.world {
        Some(World::Handler) => "handler (plain records)",
        Some(World::Framed) => "framed-handler",
        None => "none",
    };
    out.line(format!(
        "world    {world}, this host speaks {}",
        inspection.host_wit_version
    ))?;
    if let Some(problem) = &inspection.problem {
        out.line(format!("problem  {}", text::escape(problem)))?;
    }
    let rows = inspection.imports.iter().map(|import| {
        let need = match (import.need, import.grant) {
            (_, Some(grant)) => grant.to_owned(),
            (Need::Nothing, None) => "always there".to_owned(),
            (Need::Refused(why), None) => format!("refused: {why}"),
            (Need::OtherVersion, None) => "another version than this host speaks".to_owned(),
            (_, None) => "unknown to this host".to_owned(),
        };
        vec![import.name.clone(), need]
    });
    out.line("")?;
    out.table(&["IMPORT", "NEEDS UNDER handler:"], rows, "imports nothing")
}
