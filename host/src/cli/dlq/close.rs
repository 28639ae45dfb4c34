//! `wasmill dlq resolve|purge`: closing dead letters by hand.

use clap::Args;

use super::plural;
use super::select::Filter;
use crate::admin::letters::close::Verb;
use crate::admin::letters::wire::{CloseRequest, StateFilter};
use crate::cli::access::{IfAbsent, Streams};
use crate::cli::confirm::confirm;
use crate::cli::error::Error;
use crate::cli::output::Out;
use crate::cli::{Place, text};

#[derive(Debug, Args)]
pub(in crate::cli) struct Resolve {
    #[command(flatten)]
    pub(super) closing: Closing,
}

/// States become `discarded`; the bytes go when the retention of the dead letter topic removes them.
#[derive(Debug, Args)]
pub(in crate::cli) struct Purge {
    #[command(flatten)]
    pub(super) closing: Closing,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Closing {
    /// Ids, or TOPIC/PARTITION@OFFSET
    #[arg(value_name = "DEAD_LETTER")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Those that were resolved before, instead of new ones (purge)
    #[arg(long)]
    resolved: bool,
    /// Why; it is kept with the state and in `wasmill audit`
    #[arg(long)]
    note: Option<String>,
}

pub(super) fn run(
    verb: Verb,
    closing: &Closing,
    yes: bool,
    place: &Place,
    out: &mut Out,
) -> Result<(), Error> {
    let state = match (verb, closing.resolved) {
        (Verb::Purge, true) => StateFilter::Resolved,
        (Verb::Resolve, true) => {
            return Err(Error::usage("they are resolved already", ""));
        }
        (_, false) => StateFilter::New,
    };
    let selection = closing.filter.select(&closing.ids, closing.all, state)?;
    let streams = place.streams(IfAbsent::Refuse)?;
    let mut request = CloseRequest {
        selection,
        note: closing.note.clone(),
    };
    if verb == Verb::Purge {
        let question = question(&streams, &request)?;
        confirm(&question, yes)?;
    }
    let (mut closed, mut left) = (0, Vec::new());
    loop {
        let reply = streams.close_dead_letters(verb, &request)?;
        closed += reply.closed;
        left.extend(reply.left);
        // What fails from now on is not meant; and what was looked at is behind us.
        let until = &mut request.selection.filter.until_ms;
        let stands = *until == reply.back_to_ms && reply.closed == 0;
        if !reply.more || stands {
            break;
        }
        *until = reply.back_to_ms.or(*until);
    }
    let (done, after) = match verb {
        Verb::Resolve => ("resolved", ""),
        Verb::Purge => (
            "discarded",
            "; the retention of the dead letter topic removes the bytes",
        ),
    };
    out.line(format!(
        "{closed} dead letter{} {done}{after}",
        plural(closed)
    ))?;
    for line in &left {
        out.line(format!("left as it is: {}", text::escape(line)))?;
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error::failed(
            "some dead letters cannot be closed in the state they are in",
            "one on its way back is decided by what comes of it; one that is done or discarded stays so",
        ))
    }
}

fn question(streams: &Streams, request: &CloseRequest) -> Result<String, Error> {
    let selection = &request.selection;
    let (count, more) = if selection.ids.is_empty() {
        let found = streams.failure_groups(&selection.filter)?;
        let sum: u64 = found.groups.iter().map(|group| group.count).sum();
        (sum + found.other, found.scanned.more)
    } else {
        (selection.ids.len() as u64, false)
    };
    if count == 0 && !more {
        return Err(Error::failed(
            "no dead letter fits",
            "see `wasmill dlq list`",
        ));
    }
    let at_least = if more { "at least " } else { "" };
    Ok(format!(
        "discard {at_least}{count} dead letter{}? They cannot be redriven any more, and retention removes their bytes.",
        plural(count)
    ))
}
