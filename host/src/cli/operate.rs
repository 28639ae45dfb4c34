//! `wasmill pause|drain|resume|reload|reject`: orders to a running host. Not here: what they do (`host/`).

use clap::Args;

use super::Place;
use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::position::MessagePlace;
use super::text;
use crate::admin::operations::{Changes, Order, RejectRequest};

#[derive(Debug, Args)]
pub(super) struct OfPipeline {
    /// As in the configuration
    pipeline: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// Go on although stored data depends on something that was changed
    #[arg(long)]
    accept_change: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Reject {
    /// The message, as TOPIC/PARTITION@OFFSET
    message: String,
    /// Of which consumer group
    #[arg(long)]
    group: String,
    /// Why; stands in the dead letter and in the audit
    #[arg(long)]
    note: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn pause(wanted: OfPipeline, place: &Place, out: &mut Out) -> Result<(), Error> {
    let OfPipeline { pipeline, output } = wanted;
    let nothing = format!("{} is paused already", text::escape(&pipeline));
    order(Order::Pause { pipeline }, &nothing, place, output, out)
}

pub(super) fn drain(wanted: OfPipeline, place: &Place, out: &mut Out) -> Result<(), Error> {
    let OfPipeline { pipeline, output } = wanted;
    let nothing = format!("{} is paused already", text::escape(&pipeline));
    order(Order::Drain { pipeline }, &nothing, place, output, out)
}

pub(super) fn resume(wanted: OfPipeline, place: &Place, out: &mut Out) -> Result<(), Error> {
    let OfPipeline { pipeline, output } = wanted;
    let nothing = format!("{} runs already", text::escape(&pipeline));
    order(Order::Resume { pipeline }, &nothing, place, output, out)
}

pub(super) fn reload(wanted: &Reload, place: &Place, out: &mut Out) -> Result<(), Error> {
    let accept_change = wanted.accept_change;
    let nothing = "nothing has changed";
    order(
        Order::Reload { accept_change },
        nothing,
        place,
        wanted.output,
        out,
    )
}

pub(super) fn reject(wanted: Reject, place: &Place, out: &mut Out) -> Result<(), Error> {
    let Some(at) = MessagePlace::parse(&wanted.message) else {
        return Err(Error::usage(
            format!("{:?} is no message", wanted.message),
            "write it as TOPIC/PARTITION@OFFSET, as `wasmill status` does",
        ));
    };
    let request = RejectRequest {
        topic: at.topic,
        partition: at.partition,
        offset: at.offset,
        note: wanted.note,
    };
    let group = wanted.group;
    order(
        Order::Reject { group, request },
        "",
        place,
        wanted.output,
        out,
    )
}

fn order(
    order: Order,
    nothing: &str,
    place: &Place,
    output: Format,
    out: &mut Out,
) -> Result<(), Error> {
    let done: Changes = place.streams(IfAbsent::Refuse)?.order(order)?;
    if output == Format::Json {
        return out.json(&done);
    }
    if done.changes.is_empty() {
        return out.line(nothing);
    }
    for change in &done.changes {
        out.line(text::escape(change))?;
    }
    Ok(())
}
