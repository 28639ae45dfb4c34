//! The flights month, throttled, through a host that is killed over and over (acceptance 3 of the main
//! job), with each guarantee; and the mistakes that this run must notice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use wasmill::admin::remote::Remote;
use wasmill::admin::token::{Address, Token};
use wasmill_tests::checker::{Checker, Guarantee, Place, Report, Terms};
use wasmill_tests::input::{Flights, Input};
use wasmill_tests::process::{Process, within};
use wasmill_tests::site::{Site, plugin};

const TIME_MIN: Duration = Duration::from_secs(60);
const KILLS_MIN: usize = 30;
/// Lines that a producer sends at once, and how often.
const BURST: usize = 30;
const EVERY: Duration = Duration::from_millis(250);
/// Lines that are there before the first host.
const BACKLOG: usize = 500;
const TROUBLE_EVERY: usize = 60;
const MAX_ATTEMPTS: u32 = 6;
/// How long a host may take to come to the point at which it is to be held.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a host that is killed from outside works at most before that.
const MOMENT_MS: u64 = 1_500;
/// By then every stage must have been hit.
const TIME_MAX: Duration = Duration::from_secs(300);

/// The points at which a settlement's path is cut, and up to which passage.
const STAGES: [(&str, u32); 11] = [
    ("received", 40),
    ("claimed", 40),
    ("before_call", 10),
    ("after_call", 10),
    ("judged", 10),
    ("dead_letter_built", 2),
    ("before_submit", 10),
    ("before_write", 10),
    ("after_sync", 10),
    ("after_mark", 10),
    ("acknowledged", 10),
];

fn pipeline(delivery: &str) -> String {
    format!(
        r#"  - name: flights
    delivery: {delivery}
    source: {{ topics: [flights], consumer_group: flights, start: earliest, format: json, window: {{ messages: 128 }} }}
    ordering: {{ by: key }}
    retry: {{ max_attempts: {MAX_ATTEMPTS}, backoff: {{ initial_interval: 10ms, multiplier: 2, max_interval: 80ms }} }}
    idempotency:
      key: >-
        string(message.json.round) + "-" + string(message.json.year) + "-" + string(message.json.month)
        + "-" + string(message.json.day) + "-" + message.json.carrier + "-" + string(message.json.flight)
      ttl: 24h
    handler:
      plugin: {probe}
      config: {{ work_ms: 1 }}
      allow: {{ clock: true }}
      limits: {{ log_lines: 100000 }}
      concurrency: 2
    outputs:
      flown: {{ topic: flown, headers: ["probe-*"] }}
      cancelled: {{ topic: cancelled, headers: ["probe-*"] }}
      late: {{ topic: late, headers: ["probe-*"] }}
"#,
        probe = plugin("probe").display()
    )
}

fn terms(guarantee: Guarantee, succeeded_min: usize) -> Terms {
    Terms {
        source: "flights",
        group: "flights",
        outputs: vec!["flown", "cancelled", "late"],
        dead_letters: "flights.flights.dlq".to_owned(),
        guarantee,
        is_deduplicated: true,
        max_attempts: MAX_ATTEMPTS,
        is_ordered: true,
        succeeded_min,
    }
}

/// Sends bursts to whichever host runs on the site, each again until it is acknowledged: what a killed
/// host had stored without saying so stands there twice.
struct Producer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Input>>>,
    thread: JoinHandle<()>,
}

impl Producer {
    fn start(data_dir: PathBuf, mut flights: Flights) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Mutex<Vec<Input>>> = Arc::default();
        let (stopped, acks) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            for turn in 1.. {
                let burst: Vec<Input> = flights.by_ref().take(BURST).collect();
                while !stopped.load(Ordering::Relaxed) {
                    if send(&data_dir, &burst) {
                        acks.lock().unwrap().extend(burst);
                        break;
                    }
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                while began.elapsed() < EVERY * turn && !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self {
            stop,
            acknowledged,
            thread,
        }
    }

    fn stop(self) -> Vec<Input> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

fn send(data_dir: &std::path::Path, burst: &[Input]) -> bool {
    let (Ok(Some(address)), Ok(Some(token))) = (Address::read(data_dir), Token::read(data_dir))
    else {
        return false;
    };
    let records: Vec<_> = burst.iter().map(Input::record).collect();
    Remote::new(&format!("http://{}", address.admin), token)
        .and_then(|remote| remote.produce("flights", &records))
        .is_ok()
}

/// The farthest that a host was seen to have read, by partition.
type Seen = BTreeMap<u32, u64>;

fn look(process: &Process, seen: &mut Seen) -> bool {
    let Ok(status) = process.remote().status() else {
        return false;
    };
    let mut held = 0;
    for partition in status.pipelines.iter().flat_map(|p| &p.partitions) {
        let position = seen.entry(partition.partition).or_default();
        *position = partition.position.max(*position);
        held += partition.held;
    }
    held > 0
}

/// Something that the killed host had taken in was not settled.
fn had_unsettled(places: &[Place], seen: &Seen) -> bool {
    seen.iter().any(|(partition, position)| {
        let place = &places[*partition as usize];
        (place.committed..*position).any(|offset| !place.is_finished(offset))
    })
}

/// Lets a host run until it is held at a stage, or for a moment, and kills it. True when the stage was
/// reached.
fn run_and_kill(site: &Site, stage: Option<(&str, u32)>, seen: &mut Seen) -> bool {
    let fault = stage.map(|(point, passage)| format!("{point}:{passage}:hold"));
    let environment: Vec<(&str, &str)> = fault
        .as_deref()
        .map(|fault| ("WASMILL_FAULT", fault))
        .into_iter()
        .collect();
    let mut process = site.spawn(&environment);
    let Some((point, _)) = stage else {
        process.await_ready();
        // A moment of undisturbed work, and then while something is in hand.
        let moment = Duration::from_millis(rand::rng().random_range(0..MOMENT_MS));
        std::thread::sleep(moment);
        let busy = within(PATIENCE, || look(&process, seen).then_some(()));
        process.kill();
        return busy.is_some();
    };
    let held = format!("\"point\":\"{point}\"");
    let is_held = within(PATIENCE, || {
        if process.is_ready() {
            look(&process, seen);
        }
        process.log_text().contains(&held).then_some(())
    });
    // What hangs on the thread that is held fills the windows.
    within(Duration::from_secs(2), || {
        (process.is_ready() && look(&process, seen)).then_some(())
    });
    process.kill();
    is_held.is_some()
}

struct Outcome {
    report: Report,
    kills: usize,
    log_text: String,
}

fn storm(delivery: &str, guarantee: Guarantee) -> Outcome {
    let site = Site::new(&pipeline(delivery));
    let mut flights = Flights::new(TROUBLE_EVERY, MAX_ATTEMPTS);
    let mut checker = Checker::new(terms(guarantee, 2_000));
    // The producer's burst that nobody acknowledged may be stored, so all that may come is known.
    checker.know(
        &Flights::new(TROUBLE_EVERY, MAX_ATTEMPTS)
            .take(60_000)
            .collect::<Vec<_>>(),
    );
    let backlog: Vec<Input> = flights.by_ref().take(BACKLOG).collect();
    site.publish("flights", 6, &backlog);
    checker.acknowledge(&backlog);
    let producer = Producer::start(site.data_dir(), flights);

    let began = Instant::now();
    let (mut kills, mut tries) = (0, 0);
    let mut stages: Vec<(&str, u32)> = STAGES.to_vec();
    while kills < KILLS_MIN || !stages.is_empty() || began.elapsed() < TIME_MIN {
        tries += 1;
        assert!(
            began.elapsed() < TIME_MAX,
            "stages never reached: {stages:?}"
        );
        // Every other kill at a stage that is still wanted.
        let stage = if tries % 2 == 0 { stages.pop() } else { None };
        // The first commit of a host is that of its start.
        let wanted = stage.map(|(point, up_to)| (point, rand::rng().random_range(2..=up_to)));
        let mut seen = Seen::new();
        let was_reached = run_and_kill(&site, wanted, &mut seen);
        let log = site.open_log();
        let counts = had_unsettled(checker.after_kill(&log), &seen) && was_reached;
        log.close().unwrap();
        kills += usize::from(counts);
        if let (Some(stage), false) = (stage, counts) {
            stages.insert(0, stage);
        }
    }
    checker.acknowledge(&producer.stop());

    let mut process = site.start();
    process.await_drained();
    process.stop();
    let log = site.open_log();
    let report = checker.finish(&log);
    log.close().unwrap();
    println!(
        "{delivery}: {kills} kills counted of {tries} in {:?}; {}",
        began.elapsed(),
        report.text()
    );
    Outcome {
        report,
        kills,
        log_text: std::fs::read_to_string(site.host_log()).unwrap(),
    }
}

#[test]
fn exactly_once_holds_through_thirty_kills_at_every_stage() {
    let outcome = storm("exactly_once", Guarantee::ExactlyOnce);
    outcome.report.assert_clean();
    assert!(outcome.kills >= KILLS_MIN);
    assert!(outcome.report.dead_letters > 0);
    assert!(
        !outcome.log_text.contains("please report this"),
        "the host found a defect of its own"
    );
}

#[test]
fn at_least_once_loses_nothing_through_thirty_kills_and_repeats_only_what_was_not_committed() {
    let outcome = storm("at_least_once", Guarantee::AtLeastOnce);
    outcome.report.assert_clean();
    assert!(outcome.kills >= KILLS_MIN);
    assert!(outcome.report.dead_letters > 0);
}
