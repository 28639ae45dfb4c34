//! The handler of the end-to-end tests: each message carries the plan of what becomes of it. Lines of
//! the flights month are sorted as the example `flights` does it, with the line itself as payload. Which
//! outcome is right is the tests' business.

use std::hint::black_box;
use std::time::Duration;

use serde::Deserialize;
use wasmill_sdk::{Failure, Message, Output, Outputs, clock, config, log};

/// Minutes behind the schedule above which a departure is late.
const LATE_MINUTES: i32 = 60;
/// Bytes taken at once by the plan `memory`.
const BITE: usize = 1 << 20;

#[derive(Deserialize)]
struct Order {
    #[serde(default)]
    plan: Plan,
    /// How often, how many, how large or how long (ms), as the plan says.
    #[serde(default)]
    n: u32,
    /// Unix ms: with the plan `down`, until when the dependency is.
    #[serde(default)]
    until: u64,
    /// Only a line of the flights month has one.
    distance: Option<i64>,
    dep_time: Option<u16>,
    dep_delay: Option<i32>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Plan {
    /// One output that inherits key and payload.
    #[default]
    Ok,
    /// The same after `n` ms of work.
    Sleep,
    /// The same, after `n` attempts that fail.
    FailTimes,
    AlwaysFail,
    /// Fails, and asks for the next attempt after `n` ms.
    FailAfter,
    /// Fails until the time `until`, as everything does that needs a dependency which is down.
    Down,
    /// Answers with `n` and one more, and publishes one output.
    Reply,
    Reject,
    Trap,
    /// Never ends.
    Spin,
    /// Takes memory until there is none.
    Memory,
    Recurse,
    /// `n` outputs, in turn to `default` and `other`.
    Emit,
    /// One output of `n` bytes.
    Oversize,
    UnknownOutput,
    /// Done, with nothing to say.
    Silent,
    /// An output without payload, and one without key.
    Nothing,
    /// An output with headers that a guest may not set, and one of its own.
    Headers,
    /// `n` log lines.
    Log,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let order: Order = message.json()?;
    let id = message
        .header("probe-id")
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    if order.plan != Plan::Ok {
        log::info(format!("attempt {} of {id}", message.attempt()));
    }
    if order.distance.is_some() {
        let ms = config::get("work_ms").and_then(|ms| ms.parse().ok());
        work(ms.unwrap_or(0));
    }
    let kept = || match order.distance {
        Some(distance) => flight(&order, distance),
        None => Ok(Outputs::one(Output::to("default"))),
    };
    match order.plan {
        Plan::Ok => kept(),
        Plan::Sleep => {
            work(order.n);
            kept()
        }
        Plan::FailTimes if message.attempt() > order.n => kept(),
        Plan::FailTimes | Plan::AlwaysFail => {
            Err(Failure::retryable(format!("planned failure of {id}")))
        }
        Plan::FailAfter => {
            Err(Failure::retryable("planned failure")
                .after(Duration::from_millis(u64::from(order.n))))
        }
        Plan::Down if clock::now() >= order.until => kept(),
        Plan::Down => Err(Failure::retryable("the dependency does not answer")),
        Plan::Reply => Ok(Outputs::one(
            Output::to("reply")
                .no_key()
                .payload(format!("{} {}", order.n, u64::from(order.n) + 1)),
        )
        .and(Output::to("default"))),
        Plan::Reject => Err(Failure::rejected(format!("planned rejection of {id}"))),
        Plan::Trap => panic!("planned panic of {id}"),
        Plan::Spin => loop {
            black_box(());
        },
        Plan::Memory => eat(),
        Plan::Recurse => Err(Failure::rejected(format!("the bottom is {}", recurse(1)))),
        Plan::Emit => Ok((0..order.n).fold(Outputs::none(), |outputs, n| {
            let name = if n % 2 == 0 { "default" } else { "other" };
            outputs.and(Output::to(name).header("n", n.to_string()))
        })),
        Plan::Oversize => Ok(Outputs::one(
            Output::to("default").payload(vec![b'x'; order.n as usize]),
        )),
        Plan::UnknownOutput => Ok(Outputs::one(Output::to("nowhere"))),
        Plan::Silent => Ok(Outputs::none()),
        Plan::Nothing => Ok(Outputs::one(Output::to("default").tombstone())
            .and(Output::to("other").no_key().payload(""))),
        Plan::Headers => Ok(Outputs::one(
            Output::to("default")
                .header("idempotency-key", "mine")
                .header("x-retry-count", "7")
                .header("wasmill-dlq-id", "mine")
                .header("correlation-id", "mine")
                .header("own", "kept"),
        )),
        Plan::Log => {
            for n in 0..order.n {
                log::info(format!("line {n} of {id}"));
            }
            kept()
        }
    }
}

fn flight(order: &Order, distance: i64) -> Result<Outputs, Failure> {
    if distance < 0 {
        return Err(Failure::rejected("a flight cannot be shorter than nothing"));
    }
    if order.dep_time.is_none() {
        return Ok(Outputs::one(Output::to("cancelled")));
    }
    let flown = Outputs::one(Output::to("flown"));
    if order.dep_delay.is_some_and(|delay| delay > LATE_MINUTES) {
        return Ok(flown.and(Output::to("late")));
    }
    Ok(flown)
}

/// Computes for so long.
fn work(ms: u32) {
    let until = clock::now() + u64::from(ms);
    while clock::now() < until {
        black_box(());
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1u8; BITE]));
    }
}

fn recurse(depth: u64) -> u64 {
    let below = black_box([depth; 64]);
    if depth == u64::MAX {
        return depth;
    }
    black_box(recurse(depth + 1)).wrapping_add(below.iter().sum())
}
