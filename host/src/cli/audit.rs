//! `wasmill audit`: who did what, the newest first.

use clap::Args;

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, text};
use crate::admin::time;

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(audit: &Audit, place: &Place, out: &mut Out) -> Result<(), Error> {
    let entries = place.streams(IfAbsent::Refuse)?.audit(audit.limit)?;
    if audit.output == Format::Json {
        return out.json(&entries);
    }
    let rows = entries.iter().map(|entry| {
        vec![
            time::rfc3339(entry.at),
            entry.who.clone(),
            entry.command.clone(),
            entry.target.clone(),
            entry.note.clone().unwrap_or(text::NONE.to_owned()),
        ]
    });
    out.table(
        &["AT", "WHO", "COMMAND", "TARGET", "NOTE"],
        rows,
        "nothing was changed by hand",
    )
}
