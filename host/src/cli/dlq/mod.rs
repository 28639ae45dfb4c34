//! `wasmill dlq …`: dead letters: what there is, closing them, sending them back, trying a plugin on them.
//! Not here: what is asked (`admin/letters/`).

mod access;
mod close;
mod list;
mod redrive;
mod select;
mod try_plugin;

use clap::Subcommand;

use super::Place;
use super::error::Error;
use super::output::{Format, Out};
use crate::admin::letters::close::Verb;

pub(super) use list::{show_letter, show_message};

#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// Dead letters that somebody has to look at, newest first
    List(list::List),
    /// The same by what went wrong: one line for each reason and error, numbers and IDs aside
    Groups(list::Groups),
    /// One dead letter in full, with its history
    Show {
        /// Its id, or TOPIC/PARTITION@OFFSET
        dead_letter: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Run a plugin on stored dead letters without any effect: how many would succeed?
    Try(try_plugin::Try),
    /// Send dead letters back to the consumer group that failed, and to no other
    Redrive(redrive::Redrive),
    /// Redrives, running and ended
    Jobs(redrive::Jobs),
    /// Close dead letters about which nothing is left to do
    Resolve(close::Resolve),
    /// Give dead letters up for good
    Purge(close::Purge),
}

pub(super) fn run(command: Dlq, place: &Place, out: &mut Out) -> Result<(), Error> {
    match command {
        Dlq::List(list) => list::list(&list, place, out),
        Dlq::Groups(groups) => list::groups(&groups, place, out),
        Dlq::Show {
            dead_letter,
            output,
        } => list::show(&dead_letter, place, output, out),
        Dlq::Try(wanted) => try_plugin::run(&wanted, place, out),
        Dlq::Redrive(redrive) => redrive::run(&redrive, place, out),
        Dlq::Jobs(jobs) => redrive::jobs(&jobs, place, out),
        Dlq::Resolve(resolve) => close::run(Verb::Resolve, &resolve.closing, true, place, out),
        Dlq::Purge(purge) => close::run(Verb::Purge, &purge.closing, purge.yes, place, out),
    }
}

/// `s` where there are several.
const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
