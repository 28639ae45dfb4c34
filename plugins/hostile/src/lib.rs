//! A framed handler written against wit/FRAME.md by hand, so that it can do what no SDK would. It
//! echoes, unless a message or the configuration asks for something else:
//!
//! - a message whose payload is `hostile:MODE` gets MODE;
//! - `config: { mode: MODE }` applies MODE to every other message, too;
//! - `config: { init: panic }` or `{ init: loop }` breaks the start.
//!
//! Modes: `loop`, `memory`, `recursion`, `trap`, `panic`, `huge-output` (2 MiB), `huge-frame` (100 MiB),
//! `million-outputs`, `log-flood`, `log-injection`, `undecodable`, `retryable`, `rejected`, `silence` (no
//! output), `count` (outputs how many messages this instance has seen), `echo`.

mod abi;
mod frame;

use std::cell::Cell;

use frame::{Message, Reply};

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Runs once, when the instance is made.
fn start() {
    std::panic::set_hook(Box::new(|panic| abi::log(3, None, &panic.to_string())));
    match abi::config("init").as_deref() {
        Some("panic") => panic!("the start of this handler panics"),
        Some("loop") => forever(),
        _ => {}
    }
}

/// A batch in, an outcome frame out.
fn handle(batch: &[u8]) -> Vec<u8> {
    if let Some(answer) = frame::answer_to_reserve(batch) {
        return answer;
    }
    let configured = abi::config("mode");
    let mut reply = Reply::new();
    for (index, message) in frame::messages(batch).into_iter().enumerate() {
        SEEN.set(SEEN.get() + 1);
        let asked = message
            .payload
            .and_then(|payload| payload.strip_prefix(b"hostile:"));
        let mode = asked
            .map(|mode| String::from_utf8_lossy(mode).into_owned())
            .or_else(|| configured.clone());
        match mode.as_deref() {
            Some("undecodable") => return b"this is not an outcome frame".to_vec(),
            Some("huge-frame") => return vec![0; 100 << 20],
            mode => act(mode.unwrap_or("echo"), index as u32, &message, &mut reply),
        }
    }
    reply.finish()
}

fn act(mode: &str, index: u32, message: &Message<'_>, reply: &mut Reply) {
    match mode {
        "loop" => forever(),
        "memory" => memory_bomb(),
        "recursion" => {
            std::hint::black_box(recurse(1));
        }
        "trap" => core::arch::wasm32::unreachable(),
        "panic" => panic!("no: {}", String::from_utf8_lossy(message.correlation_id)),
        "huge-output" => reply.output(&vec![b'x'; 2 << 20]),
        "million-outputs" => reply.many_outputs(1_000_000),
        "log-flood" => {
            for line in 0..100_000 {
                abi::log(1, Some(index), &format!("line {line}"));
            }
            abi::log(1, Some(index), &"x".repeat(1 << 20));
            reply.echo();
        }
        "log-injection" => {
            abi::log(
                1,
                Some(index),
                "one\n2026-01-01T00:00:00Z ERROR two\u{1b}[2J",
            );
            abi::log(1, Some(4_000_000_000), "about no message");
            reply.echo();
        }
        "retryable" => reply.failure(1, "asked to fail for now"),
        "rejected" => reply.failure(2, "asked to fail for good"),
        "silence" => reply.silence(),
        "count" => reply.output(SEEN.get().to_string().as_bytes()),
        "echo" => reply.echo(),
        other => panic!("unknown mode `{other}`"),
    }
}

fn forever() -> ! {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn memory_bomb() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(depth + 1))) + 1
}
