//! The claim of docs/handlers-rust.md: a handler that borrows its input and writes JSON does not
//! allocate for its messages.

#![expect(
    unsafe_code,
    reason = "counting allocations takes an allocator of one's own"
)]
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wasmill_sdk::{Failure, Message, Output, Outputs};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(serde::Deserialize, serde::Serialize)]
struct Reading<'a> {
    sensor: &'a str,
    celsius: f64,
}

fn handle(message: Message) -> Result<Outputs, Failure> {
    let reading: Reading = message.json()?;
    Ok(Outputs::one(
        Output::to("default").key(reading.sensor).json(&reading)?,
    ))
}

#[test]
fn a_borrowing_handler_does_not_allocate_once_it_is_warm() {
    let message = Message::test().payload(r#"{"sensor": "cellar", "celsius": 12.5}"#);
    let calls = |count: u32| {
        let before = ALLOCATIONS.get();
        for _ in 0..count {
            assert_eq!(handle(message.build()).unwrap().len(), 1);
        }
        ALLOCATIONS.get() - before
    };
    assert!(calls(1) > 0, "allocations are not counted");
    assert_eq!(calls(1_000), 0);
}
