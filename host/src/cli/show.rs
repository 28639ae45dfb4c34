//! `wasmill show TOPIC/PARTITION@OFFSET`: one message in full, and what the host knows of it.

use clap::Args;

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::position::MessagePlace;
use super::{Place, dlq, text};
use crate::admin::time;
use crate::admin::wire::{MessageFacts, MessageGroup};

#[derive(Debug, Args)]
pub(super) struct Show {
    /// TOPIC/PARTITION@OFFSET
    message: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(show: &Show, place: &Place, out: &mut Out) -> Result<(), Error> {
    let Some(at) = MessagePlace::parse(&show.message) else {
        return Err(Error::usage(
            format!("{:?} names no message", show.message),
            "write it as TOPIC/PARTITION@OFFSET, for example orders/0@17",
        ));
    };
    let facts =
        place
            .streams(IfAbsent::Refuse)?
            .message_facts(&at.topic, at.partition, at.offset)?;
    if show.output == Format::Json {
        return out.json(&facts);
    }
    if let Some(letter) = &facts.dead_letter {
        dlq::show_letter(letter, out)?;
        return Ok(());
    }
    table(&facts, out)
}

fn table(facts: &MessageFacts, out: &mut Out) -> Result<(), Error> {
    let message = &facts.message;
    let position = format!("{}/{}@{}", message.topic, message.partition, message.offset);
    for (name, value) in [
        ("position", position),
        ("time", time::rfc3339(message.timestamp_ms)),
    ] {
        let name = out.bold(&format!("{name:<14}"));
        out.line(format!("{name} {}", text::escape(&value)))?;
    }
    if let Some(returned) = &facts.returned {
        out.line("")?;
        out.line(out.bold("on its way back to its consumer group"))?;
        out.line(format!("  origin: {}", text::escape(&returned.origin)))?;
        out.line(format!(
            "  {} attempts failed, next not before {}",
            returned.attempts,
            time::rfc3339(returned.due_ms)
        ))?;
        if let Some(id) = &returned.dead_letter_id {
            let round = returned.redrive_count;
            out.line(format!(
                "  dead letter: {}, round {round}",
                text::escape(id)
            ))?;
        }
    }
    out.line("")?;
    out.line(out.bold("consumer groups"))?;
    if facts.groups.is_empty() {
        out.line("  none has read this partition")?;
    }
    for group in &facts.groups {
        out.line(format!("  {}", text::escape(&standing(group))))?;
    }
    dlq::show_message(message, out)
}

fn standing(group: &MessageGroup) -> String {
    let mut line = format!("{}: ", group.group);
    if group.finished {
        line.push_str("finished");
    } else if group.failed_attempts > 0 {
        line.push_str(&format!(
            "not finished, {} attempts failed, the last with: {}",
            group.failed_attempts,
            group.last_error.as_deref().unwrap_or(text::NONE)
        ));
    } else {
        line.push_str("not finished");
    }
    let state = group.rounds.last().map(|round| {
        let state = round.state.state.as_str();
        format!("{state} in round {}", round.redrive_count)
    });
    match (&group.dead_letter, state) {
        (Some(at), state) => {
            line.push_str(&format!(
                ", as a dead letter: {at} ({}); `wasmill dlq show {at}`",
                state.as_deref().unwrap_or("new")
            ));
        }
        (None, Some(state)) => {
            line.push_str(&format!(
                ", as a dead letter: {} ({state})",
                group.dead_letter_id
            ));
        }
        (None, None) => {}
    }
    line
}
