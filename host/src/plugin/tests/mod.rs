//! Tests of the room as a whole: a plugin file on one side, outcomes and faults on the other.

mod calls;
mod hostile;
mod load;
mod records;
mod wasi;

use std::collections::BTreeMap;

use super::Instance;
use super::frame::{Batch, Call};
use super::testing::{Behaviour, Bench, guest};
use crate::config::valid::Limits;
use crate::message::MessageRef;

/// Messages that differ by their offset.
fn batch(messages: usize) -> Batch {
    payloads(&vec![&b"{}"[..]; messages])
}

/// A message for each payload.
fn payloads(payloads: &[&[u8]]) -> Batch {
    let mut batch = Batch::new(&["orders"]);
    for (offset, payload) in payloads.iter().enumerate() {
        assert!(batch.push(&Call {
            offset: offset as u64,
            attempt: 1,
            correlation_id: "corr-1",
            message: MessageRef {
                key: Some(b"key"),
                payload: Some(payload),
                ..MessageRef::default()
            },
            ..Call::default()
        }));
    }
    batch
}

fn instance(bench: &Bench, behaviour: &Behaviour, limits: &Limits) -> Instance {
    bench
        .load(&guest(behaviour), limits)
        .instance(&BTreeMap::new(), None)
}
