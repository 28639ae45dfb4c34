//! What the frame costs: a batch encoded, an echo guest called, its answer checked and walked. CPU time
//! of the one thread that does it.

use std::collections::BTreeMap;
use std::hint::black_box;

use wasmill::config::valid::{Allow, StateGrant};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::plugin::StateView;
use wasmill::plugin::frame::{Batch, Call, Outcome};

use crate::report::{self, Row};
use crate::{Arguments, store};

const BATCH: u64 = 64;
const BATCHES: u64 = 2_000;
const ROUNDS: usize = 11;
const CORRELATION_ID: &str = "00000000-0000-8000-8000-000000000000";

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let raw = echo(arguments, "hostile", None)?;
    let sdk = echo(arguments, "conformance", Some("echo"))?;
    report::rows(
        &format!("The frame at a batch of {BATCH}, ns a message of 195 B (one thread, CPU time)"),
        &[
            Row::new("encode alone", raw.encode),
            Row::new(
                "encode, call, check, walk; echo guest without SDK",
                raw.whole,
            )
            .limit(150.0),
            Row::new(
                "the same with the Rust SDK, a header and a copied payload",
                sdk.whole,
            ),
        ],
    );
    Ok(())
}

/// What the guest of the conformance suite imports; an echo uses none of it.
fn allow() -> Allow {
    Allow {
        state: Some(StateGrant {
            max_size: 0,
            name: "default".to_owned(),
            version: 1,
        }),
        clock: true,
        random: true,
    }
}

struct NoState;

impl StateView for NoState {
    fn get(&self, _: u32, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn scan(&self, _: u32, _: &str, _: usize, _: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(Vec::new())
    }

    fn room(&self) -> u64 {
        0
    }
}

struct Cost {
    encode: Vec<f64>,
    whole: Vec<f64>,
}

fn echo(arguments: &Arguments, guest: &str, ask: Option<&str>) -> Result<Cost, String> {
    let plugin = arguments.component(guest)?;
    let cache = arguments.dir.join("frame-cache");
    let mut instance =
        store::load(cache, &plugin, &allow())?.instance(&BTreeMap::new(), Some(Box::new(NoState)));
    let orders = orders(ask)?;
    let mut batch = Batch::new(&["orders"]);
    let mut cost = Cost {
        encode: Vec::new(),
        whole: Vec::new(),
    };
    for _ in 0..ROUNDS {
        let began = store::thread_seconds();
        for _ in 0..BATCHES {
            encode(&mut batch, &orders)?;
            black_box(batch.frame());
        }
        cost.encode.push(per_message(began));
        let began = store::thread_seconds();
        for _ in 0..BATCHES {
            encode(&mut batch, &orders)?;
            let outcomes = instance.call(&batch, 0).map_err(|fault| fault.message)?;
            for outcome in outcomes.iter() {
                let Outcome::Outputs(outputs) = outcome else {
                    return Err("the echo guest did not echo".to_owned());
                };
                for output in outputs {
                    black_box(output);
                }
            }
        }
        cost.whole.push(per_message(began));
    }
    Ok(cost)
}

fn per_message(began: f64) -> f64 {
    (store::thread_seconds() - began) * 1e9 / (BATCH * BATCHES) as f64
}

struct Order {
    key: String,
    payload: Vec<u8>,
    headers: HeadersBuf,
}

fn orders(ask: Option<&str>) -> Result<Vec<Order>, String> {
    (0..BATCH)
        .map(|sequence| {
            let (mut payload, mut headers) = (Vec::new(), HeadersBuf::new());
            enrich_logic::sample(sequence, &mut payload).map_err(|error| error.to_string())?;
            if let Some(ask) = ask
                && !headers.push("ask", Some(ask.as_bytes()))
            {
                return Err("the header does not fit".to_owned());
            }
            Ok(Order {
                key: enrich_logic::sample_key(sequence),
                payload,
                headers,
            })
        })
        .collect()
}

fn encode(batch: &mut Batch, orders: &[Order]) -> Result<(), String> {
    batch.clear();
    for (offset, order) in orders.iter().enumerate() {
        let fits = batch.push(&Call {
            topic: 0,
            partition: 0,
            offset: offset as u64,
            message: MessageRef {
                key: Some(order.key.as_bytes()),
                payload: Some(&order.payload),
                headers: order.headers.as_headers(),
                timestamp_ms: 1_795_000_000_000,
            },
            attempt: 1,
            correlation_id: CORRELATION_ID,
            idempotency_key: None,
        });
        if !fits {
            return Err("the batch does not hold the orders".to_owned());
        }
    }
    Ok(())
}
