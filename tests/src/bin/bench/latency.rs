//! From the acknowledgement of a produced message to its output being readable, at a share of the
//! capacity. Producer, host and reader are in one process and read one clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmill::connector::embedded::{Log, PartitionId};
use wasmill::message::HeadersBuf;

use crate::hosted::{self, Setup};
use crate::report::{self, Row};
use crate::store::{self, INPUT};
use crate::{Arguments, Case};

/// A producer commits this often.
const TICK: Duration = Duration::from_millis(1);
const SHARES: [f64; 2] = [0.1, 0.5];
/// Left out: instances start, caches fill.
const WARM_UP: Duration = Duration::from_millis(500);
/// Orders carry their number, from this on.
const FIRST_ORDER: u64 = 100_000_000;

/// `capacity` in messages a second.
pub(crate) fn run(arguments: &Arguments, capacity: f64) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let mut rows = Vec::new();
    for share in SHARES {
        let rate = capacity * share;
        let dir = arguments.dir.join(format!("latency-{share}"));
        store::prepare(&dir, 0)?;
        store::warm(&dir, &plugin)?;
        let measured = measure(&dir, &plugin, rate, arguments.seconds)?;
        rows.extend(measured.rows(share));
        store::clear(&dir)?;
    }
    report::rows(
        &format!(
            "Latency, produce acknowledgement to output, ms (capacity {capacity:.0} msg/s, {} s each)",
            arguments.seconds.as_secs()
        ),
        &rows,
    );
    Ok(())
}

struct Measured {
    /// Milliseconds of each second of the run: p50 and p99.
    p50: Vec<f64>,
    p99: Vec<f64>,
    all: Vec<f64>,
    rate: f64,
}

impl Measured {
    fn rows(mut self, share: f64) -> Vec<Row> {
        let percent = share * 100.0;
        self.all.sort_by(f64::total_cmp);
        let of_all = |part: f64| {
            let at = (self.all.len() as f64 * part) as usize;
            self.all.get(at).copied().unwrap_or(f64::NAN)
        };
        let whole = format!(
            "whole run at {:.0} msg/s: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, {} messages",
            self.rate,
            of_all(0.5),
            of_all(0.99),
            of_all(0.999),
            self.all.len()
        );
        vec![
            Row::new(&format!("p50 by second at {percent:.0} %"), self.p50),
            Row::new(&format!("p99 by second at {percent:.0} %"), self.p99).note(whole),
        ]
    }
}

fn measure(dir: &Path, plugin: &Path, rate: f64, time: Duration) -> Result<Measured, String> {
    let host = Setup::new(dir, "latency", plugin, Case::AtLeastOnce).start()?;
    let log = host.log().clone();
    let began = Instant::now();
    let per_tick = (rate * TICK.as_secs_f64()).max(1.0) as u64;
    let ticks = (time + WARM_UP).as_nanos() / TICK.as_nanos();
    // Nanoseconds since `began` at which the commit of each tick was acknowledged.
    let acknowledged: Arc<Vec<AtomicU64>> =
        Arc::new((0..ticks).map(|_| AtomicU64::default()).collect());
    let done = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| {
        let reader = {
            let (log, acknowledged, done) = (&log, &acknowledged, &done);
            scope.spawn(move || read(log, began, per_tick, acknowledged, done))
        };
        let produced = produce(&log, began, per_tick, &acknowledged);
        let settled = produced.and_then(|()| {
            let progress = store::Durable::of(&log, "latency", INPUT)?;
            let total = per_tick * ticks as u64;
            while progress.committed()? < total {
                if began.elapsed() > time * 4 {
                    return Err("the host does not keep up with the producer".to_owned());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        done.store(true, Ordering::Release);
        reader.thread().unpark();
        let read = reader
            .join()
            .map_err(|_| "the reader panicked".to_owned())?;
        settled.and(read)
    })?;
    drop(log);
    hosted::stop(host)?;
    Ok(summed(measured, per_tick as f64 / TICK.as_secs_f64()))
}

/// One commit each tick; a late one is made up for at once.
fn produce(
    log: &Log,
    began: Instant,
    per_tick: u64,
    acknowledged: &Arc<Vec<AtomicU64>>,
) -> Result<(), String> {
    let topic = log.topic(INPUT).ok_or("no input")?;
    let mut appender = store::Appender::new(&topic);
    let (mut payload, headers) = (Vec::new(), HeadersBuf::new());
    for tick in 0..acknowledged.len() {
        let due = began + TICK * tick as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for sequence in tick as u64 * per_tick..(tick as u64 + 1) * per_tick {
            payload.clear();
            enrich_logic::sample(sequence, &mut payload).map_err(|error| error.to_string())?;
            appender.push(sequence, &payload, &headers, usize::MAX);
        }
        let acknowledged = Arc::clone(acknowledged);
        let ack = Box::new(move |result: Result<_, _>| {
            if result.is_ok()
                && let Some(place) = acknowledged.get(tick)
            {
                place.store(began.elapsed().as_nanos() as u64, Ordering::Release);
            }
        });
        log.submit(appender.finish(), ack)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Seconds since `began` and latency (ms) of each output.
fn read(
    log: &Log,
    began: Instant,
    per_tick: u64,
    acknowledged: &[AtomicU64],
    done: &AtomicBool,
) -> Result<Vec<(f64, f64)>, String> {
    let output = log
        .topic(&store::output_of("latency"))
        .ok_or("no output topic")?;
    let _subscription = log.subscribe(&output.partitions, std::thread::current());
    let mut positions: Vec<(PartitionId, u64)> =
        output.partitions.iter().map(|id| (*id, 0)).collect();
    let mut found = Vec::new();
    loop {
        let ends = done.load(Ordering::Acquire);
        let mut idle = true;
        for (partition, position) in &mut positions {
            let chunk = log
                .read(*partition, *position)
                .map_err(|error| error.to_string())?;
            let Some(chunk) = chunk else { continue };
            idle = false;
            let now = began.elapsed();
            for (_, _, message) in chunk.iter_from(*position) {
                let sequence = order_of(message.payload.unwrap_or_default())
                    .ok_or("an output has no order number")?;
                let acknowledged = acknowledged
                    .get((sequence / per_tick) as usize)
                    .map_or(0, |at| at.load(Ordering::Acquire));
                let latency = now.saturating_sub(Duration::from_nanos(acknowledged));
                if now > WARM_UP {
                    found.push((now.as_secs_f64(), latency.as_secs_f64() * 1e3));
                }
            }
            *position = chunk.end_offset();
        }
        if idle && ends {
            return Ok(found);
        }
        if idle {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// The number of the order in `{"order_id":NUMBER,…`, without a parse of the rest.
fn order_of(payload: &[u8]) -> Option<u64> {
    let digits = payload.strip_prefix(br#"{"order_id":"#)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let number: u64 = std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()?;
    number.checked_sub(FIRST_ORDER)
}

fn summed(mut found: Vec<(f64, f64)>, rate: f64) -> Measured {
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut measured = Measured {
        p50: Vec::new(),
        p99: Vec::new(),
        all: found.iter().map(|(_, latency)| *latency).collect(),
        rate,
    };
    for second in found.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let mut latencies: Vec<f64> = second.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_by(f64::total_cmp);
        let at = |part: f64| {
            latencies
                .get((latencies.len() as f64 * part) as usize)
                .copied()
        };
        measured.p50.extend(at(0.5));
        measured.p99.extend(at(0.99));
    }
    measured
}
