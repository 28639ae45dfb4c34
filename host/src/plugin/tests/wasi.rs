//! WASI for guests whose language needs it: an empty world (§11.1), lines instead of standard output,
//! waiting that ends with the call's time (§11.3). The guests come through the preview 1 adapter.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{batch, lateness};
use crate::config::valid::{Allow, Limits};
use crate::plugin::testing::{ANSWER_AT, Bench, Core, CoreImport, REPLY_AT, ack, at, limits};
use crate::plugin::{Error, FaultKind, LogLevel, componentize};

const WASI: &str = "wasi_snapshot_preview1";
const FD_WRITE: CoreImport = (WASI, "fd_write", 4);
const POLL: CoreImport = (WASI, "poll_oneoff", 4);
const PRESTAT: CoreImport = (WASI, "fd_prestat_get", 2);
const RANDOM: CoreImport = (WASI, "random_get", 2);
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// Writes `text` to `fd` in each call, then traps or acknowledges.
fn writer(fd: i32, text: &[u8], trap: bool) -> Vec<u8> {
    let core = Core {
        imports: &[FD_WRITE],
        data: text,
        reset_heap: false,
        ..Core::default()
    };
    let module = core.module(|body| {
        body.i32_const(32)
            .i32_const(REPLY_AT as i32)
            .i32_store(at(0));
        body.i32_const(32)
            .i32_const(text.len() as i32)
            .i32_store(at(4));
        body.i32_const(fd)
            .i32_const(32)
            .i32_const(1)
            .i32_const(40)
            .call(0)
            .drop();
        if trap {
            body.unreachable();
        }
        ack(body);
        body.i32_const(ANSWER_AT);
    });
    componentize(&module).unwrap()
}

#[test]
fn standard_error_explains_a_trap() {
    let bench = Bench::new();
    let wasm = writer(STDERR, b"panic: boom\n\ngoroutine 1:\n", true);
    let mut instance = bench
        .load(&wasm, &limits())
        .instance(&BTreeMap::new(), None);
    let fault = instance.call(&batch(1), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(
        fault
            .message
            .ends_with("it said: panic: boom | goroutine 1:"),
        "{fault}"
    );
    assert_eq!(instance.take_logs()[0].level, LogLevel::Warn);
}

#[test]
fn standard_output_becomes_lines_that_cannot_steer_a_terminal() {
    let bench = Bench::new();
    let wasm = writer(STDOUT, b"one\x1b[31m\ntwo\n", false);
    let mut instance = bench
        .load(&wasm, &limits())
        .instance(&BTreeMap::new(), None);
    assert!(instance.call(&batch(1), 0).is_ok());
    let lines: Vec<_> = instance
        .take_logs()
        .into_iter()
        .map(|line| (line.level, line.text))
        .collect();
    assert_eq!(
        lines,
        [
            (LogLevel::Info, "one\\u{1b}[31m".to_owned()),
            (LogLevel::Info, "two".to_owned())
        ]
    );
}

#[test]
fn there_is_no_directory() {
    let core = Core {
        imports: &[PRESTAT],
        reset_heap: false,
        ..Core::default()
    };
    let module = core.module(|body| {
        // The first directory would be descriptor 3.
        body.i32_const(3).i32_const(32).call(0).i32_eqz();
        body.if_(wasm_encoder::BlockType::Empty).unreachable().end();
        ack(body);
        body.i32_const(ANSWER_AT);
    });
    let bench = Bench::new();
    let wasm = componentize(&module).unwrap();
    let mut instance = bench
        .load(&wasm, &limits())
        .instance(&BTreeMap::new(), None);
    instance.call(&batch(1), 0).unwrap();
}

#[test]
fn a_guest_that_sleeps_is_stopped_within_its_time_and_20_ms() {
    let core = Core {
        imports: &[POLL],
        reset_heap: false,
        ..Core::default()
    };
    let module = core.module(|body| {
        // A subscription at 1024: the monotonic clock (1), 10 s from now.
        body.i32_const(1024).i32_const(1).i32_store(at(16));
        body.i32_const(1024)
            .i64_const(10_000_000_000)
            .i64_store(at(24));
        body.i32_const(1024)
            .i32_const(2048)
            .i32_const(1)
            .i32_const(3072)
            .call(0)
            .drop();
        ack(body);
        body.i32_const(ANSWER_AT);
    });
    let time = Duration::from_millis(100);
    let bench = Bench::new();
    let wasm = componentize(&module).unwrap();
    let plugin = bench.load(&wasm, &Limits { time, ..limits() });
    let mut instance = plugin.instance(&BTreeMap::new(), None);
    let late = lateness(&mut instance, time, 8);
    assert!(late <= Duration::from_millis(20), "{late:?}");
}

#[test]
fn clocks_and_random_of_wasi_need_the_same_grants_as_ours() {
    for (import, needs, grant) in [
        (POLL, "wasi:clocks/", "allow: { clock: true }"),
        (RANDOM, "wasi:random/", "allow: { random: true }"),
    ] {
        let core = Core {
            imports: &[import],
            ..Core::default()
        };
        let module = core.module(|body| {
            for _ in 0..import.2 {
                body.i32_const(1024);
            }
            body.call(0);
        });
        let bench = Bench::new();
        let path = bench.file(&componentize(&module).unwrap());
        let refused = bench.engine.load(&path, &Allow::default(), &limits());
        match refused.err() {
            Some(Error::NotGranted { import, grant: g }) => {
                assert!(import.starts_with(needs), "{import}");
                assert_eq!(g, grant);
            }
            other => panic!("{other:?}"),
        }
    }
}
