//! What a call does: limits (§11.2), interruption (§11.3), faults and what follows. The guests are
//! assembled here; the same through a compiler is in `hostile.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{batch, instance, lateness};
use crate::config::valid::Limits;
use crate::message::MessageRef;
use crate::plugin::frame::{Batch, Call, Outcome, RESERVE_ABOVE_BYTES};
use crate::plugin::testing::{Behaviour, Bench, MIB, guest, limits};
use crate::plugin::{Fault, FaultKind};

fn fault(behaviour: &Behaviour, limits: &Limits) -> Fault {
    let bench = Bench::new();
    let mut instance = instance(&bench, behaviour, limits);
    instance.call(&batch(3), 0).unwrap_err()
}

#[test]
fn each_message_gets_an_outcome() {
    let bench = Bench::new();
    let mut instance = instance(&bench, &Behaviour::Ack, &limits());
    for messages in [0, 1, 64, 256] {
        let outcomes = instance.call(&batch(messages), 0).unwrap();
        assert_eq!(outcomes.len(), messages);
        for outcome in outcomes.iter() {
            assert!(matches!(outcome, Outcome::Outputs(outputs) if outputs.is_empty()));
        }
    }
}

#[test]
fn a_trap_is_a_fault_of_kind_trap() {
    let fault = fault(&Behaviour::Trap, &limits());
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("unreachable"), "{fault}");
}

#[test]
fn recursion_without_end_is_a_fault_of_kind_stack() {
    assert_eq!(fault(&Behaviour::Recurse, &limits()).kind, FaultKind::Stack);
}

#[test]
fn memory_over_the_limit_is_refused_and_a_fault_of_kind_memory() {
    let limits = Limits {
        memory: 20 * MIB,
        ..limits()
    };
    let fault = fault(&Behaviour::GrowMemory, &limits);
    assert_eq!(fault.kind, FaultKind::Memory, "{fault}");
    assert!(
        fault.message.contains("limits.memory allows 20971520"),
        "{fault}"
    );
}

#[test]
fn a_table_over_the_limit_is_refused_and_a_fault_of_kind_memory() {
    let fault = fault(&Behaviour::GrowTable, &limits());
    assert_eq!(fault.kind, FaultKind::Memory, "{fault}");
    assert!(fault.message.contains("table"), "{fault}");
}

#[test]
fn bytes_that_are_no_frame_are_a_fault_of_kind_undecodable() {
    for reply in [&b"nonsense"[..], b"", &[1, 0, 0, 0, 9, 0, 0, 0]] {
        let fault = fault(&Behaviour::Reply(reply.to_vec()), &limits());
        assert_eq!(fault.kind, FaultKind::Undecodable, "{fault}");
    }
}

#[test]
fn a_reply_outside_the_guests_memory_is_a_fault_of_kind_undecodable() {
    let fault = fault(&Behaviour::ReplyOutside, &limits());
    assert_eq!(fault.kind, FaultKind::Undecodable, "{fault}");
}

#[test]
fn a_reply_over_the_cap_is_refused_before_it_is_copied() {
    let limits = Limits {
        memory: 128 * MIB,
        ..limits()
    };
    let bench = Bench::new();
    let wasm = guest(&Behaviour::ReplyLength(16 << 20));
    let mut instance = bench.load(&wasm, &limits).instance(&BTreeMap::new(), None);
    // Within the cap it is only not a frame.
    assert_eq!(
        instance.call(&batch(1), 0).unwrap_err().kind,
        FaultKind::Undecodable
    );
}

#[test]
fn an_endless_loop_is_stopped_within_its_time_and_20_ms() {
    let time = Duration::from_millis(100);
    let bench = Bench::new();
    let mut instance = instance(&bench, &Behaviour::Spin, &Limits { time, ..limits() });
    let late = lateness(&mut instance, time, 12);
    assert!(late <= Duration::from_millis(20), "{late:?}");
}

#[test]
fn after_a_fault_the_next_call_runs_on_a_fresh_instance_200_times() {
    let bench = Bench::with(512 * MIB, 1);
    for behaviour in [Behaviour::Trap, Behaviour::Recurse] {
        let mut instance = instance(&bench, &behaviour, &limits());
        for _ in 0..200 {
            let fault = instance.call(&batch(1), 0).unwrap_err();
            assert_ne!(fault.kind, FaultKind::NoRoom, "{fault}");
        }
    }
    assert_eq!(bench.engine.guest_memory_used(), 0);
}

#[test]
fn one_instance_more_than_the_host_has_room_for_is_refused_and_works_later() {
    let bench = Bench::with(512 * MIB, 1);
    let plugin = bench.plugin(&Behaviour::Ack);
    let mut first = plugin.instance(&BTreeMap::new(), None);
    let mut second = plugin.instance(&BTreeMap::new(), None);
    assert!(first.call(&batch(1), 0).is_ok());
    let fault = second.call(&batch(1), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoRoom, "{fault}");
    assert!(fault.kind.is_host());
    first.reset();
    assert!(second.call(&batch(1), 0).is_ok());
}

#[test]
fn all_guests_together_stay_within_guest_memory() {
    let bench = Bench::with(20 * MIB, 8);
    let plugin = bench.plugin(&Behaviour::Ack); // 16 MiB at start
    let mut first = plugin.instance(&BTreeMap::new(), None);
    let mut second = plugin.instance(&BTreeMap::new(), None);
    assert!(first.call(&batch(1), 0).is_ok());
    assert_eq!(first.memory_bytes(), 16 * MIB);
    let fault = second.call(&batch(1), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoRoom, "{fault}");
    assert!(fault.message.contains("host.guest_memory"), "{fault}");
    drop(first);
    assert!(second.call(&batch(1), 0).is_ok());
}

#[test]
fn a_large_frame_is_announced_first() {
    let bench = Bench::new();
    let mut instance = instance(&bench, &Behaviour::NeedsReserve, &limits());
    let payload = vec![b'x'; 2 * RESERVE_ABOVE_BYTES];
    let mut large = Batch::new(&["orders"]);
    assert!(large.push(&Call {
        message: MessageRef {
            payload: Some(&payload),
            ..MessageRef::default()
        },
        ..Call::default()
    }));
    for batch in [&batch(1), &large, &large, &batch(2)] {
        assert_eq!(instance.call(batch, 0).unwrap().len(), batch.len());
    }
}
