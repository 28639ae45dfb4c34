//! Tests of the room as a whole: a plugin file on one side, outcomes and faults on the other.

mod calls;
mod hostile;
mod load;
mod records;
mod wasi;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::frame::{Batch, Call};
use super::testing::{Behaviour, Bench, guest};
use super::{FaultKind, Instance};
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

/// How much later than `time` calls end that never end by themselves: the best quarter of `rounds`,
/// without the time in which this thread was ready and other work of the machine had its core.
fn lateness(instance: &mut Instance, time: Duration, rounds: usize) -> Duration {
    let mut late: Vec<Duration> = (0..rounds)
        .map(|_| {
            let (start, waited) = (Instant::now(), waited_for_core());
            let fault = instance.call(&batch(1), 0).unwrap_err();
            let took = start.elapsed();
            assert_eq!(fault.kind, FaultKind::Timeout, "{fault}");
            assert!(took >= time, "stopped early: {took:?}");
            (took - time).saturating_sub(waited_for_core() - waited)
        })
        .collect();
    late.sort();
    late[rounds / 4]
}

/// Of this thread since it began, from Linux; zero where it does not tell.
fn waited_for_core() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').nth(1).and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
