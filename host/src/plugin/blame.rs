//! From wasmtime's errors to faults: which kind, and what a person needs to read to find the cause.

use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::fault::{Fault, FaultKind};
use super::guest::{Guest, Refusal};
use super::imports::Abort;
use super::instance::RESULT_BYTES_MAX;
use super::lock;
use super::logs::escape;

/// Innermost functions that a message names.
const FRAMES_NAMED: usize = 3;
const FRAME_NAME_MAX: usize = 80;
/// Of wasmtime's own text.
const CAUSE_MAX: usize = 300;

/// The fault of a call that failed.
pub(super) fn blame(error: &wasmtime::Error, store: &Store<Guest>) -> Fault {
    let (kind, cause) = classify(error, store.data().memory.refused);
    explain(kind, &cause, error, store)
}

/// The fault of a guest that could not be started.
pub(super) fn blame_start(
    error: &wasmtime::Error,
    store: &Store<Guest>,
    instances_max: u32,
) -> Fault {
    let refused = store.data().memory.refused;
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Fault::new(
            FaultKind::NoRoom,
            format!(
                "there is no room for another instance: the host has {instances_max} of them; lower handler.concurrency"
            ),
        );
    }
    if let Some(Refusal::Budget { .. }) = refused
        && !error.is::<Trap>()
    {
        let text = "there is no memory for another instance: raise host.guest_memory or lower handler.concurrency";
        return Fault::new(FaultKind::NoRoom, text);
    }
    let (kind, cause) = classify(error, refused);
    let cause = format!("the handler failed while starting ({kind}): {cause}");
    explain(FaultKind::Instantiation, &cause, error, store)
}

fn classify(error: &wasmtime::Error, refused: Option<Refusal>) -> (FaultKind, String) {
    if let Some(Abort(fault)) = error.downcast_ref::<Abort>() {
        return (fault.kind, fault.message.clone());
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return (FaultKind::Trap, format!("the handler called exit({code})"));
    }
    match (error.downcast_ref::<Trap>(), refused) {
        (Some(Trap::Interrupt), _) => (
            FaultKind::Timeout,
            "the handler ran longer than limits.time allows".to_owned(),
        ),
        (Some(Trap::StackOverflow), _) => (
            FaultKind::Stack,
            "the handler's call stack is full (recursion without end?)".to_owned(),
        ),
        (_, Some(refusal)) => (
            FaultKind::Memory,
            format!("the handler ended after it was refused memory: {refusal}"),
        ),
        (Some(trap), None) => (FaultKind::Trap, trap.to_string()),
        (None, None) => outside_the_guest(error),
    }
}

/// Not a trap: something was wrong with what crossed the boundary.
fn outside_the_guest(error: &wasmtime::Error) -> (FaultKind, String) {
    let cause = error.root_cause().to_string();
    // wasmtime keeps this error's type private.
    if cause.contains("fuel allocated for hostcalls") {
        let text =
            format!("the handler passed more than {RESULT_BYTES_MAX} bytes to the host at once");
        return (FaultKind::OutputLimit, text);
    }
    (
        FaultKind::Undecodable,
        format!("what the handler passed to the host is malformed: {cause}"),
    )
}

fn explain(kind: FaultKind, cause: &str, error: &wasmtime::Error, store: &Store<Guest>) -> Fault {
    let mut message = escape(cause, CAUSE_MAX);
    if let Some(names) = innermost(error) {
        message.push_str(" (in ");
        message.push_str(&names);
        message.push(')');
    }
    if let Some(last) = lock(&store.data().session).logs.last_error() {
        message.push_str("; it said: ");
        message.push_str(last);
    }
    Fault::new(kind, message)
}

fn innermost(error: &wasmtime::Error) -> Option<String> {
    let names: Vec<String> = error
        .downcast_ref::<WasmBacktrace>()?
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(FRAMES_NAMED)
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .map(|name| escape(&name, FRAME_NAME_MAX))
        .collect();
    (!names.is_empty()).then(|| names.join(" < "))
}
