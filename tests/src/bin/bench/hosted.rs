//! The host as it runs for a user, in this process: the same input, the handler in the sandbox.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wasmill::config::valid::{
    Allow, Backoff, By, Config, DeadLetter, Delivery, Durability, Format, Handler, Host,
    Idempotency, IfMissing, Isolation, Limits, NullKey, OnDeadLetter, OnDuplicate, OnLostOffset,
    Ordering, Output, Pipeline, Retry, Source, Start, Window,
};
use wasmill::expression::Expression;

use crate::store::{self, INPUT, PARTITIONS};
use crate::{Case, Measure};

pub(crate) fn run(
    dir: &Path,
    case: Case,
    round: usize,
    plugin: &Path,
    messages: u64,
) -> Result<Measure, String> {
    let config = config(dir, case, round, plugin)?;
    let (cpu, started) = (store::cpu_seconds(), Instant::now());
    let mut host = wasmill::host::Host::start(&config).map_err(|error| error.to_string())?;
    let deadline = started + Duration::from_secs(300);
    let measure = loop {
        std::thread::sleep(Duration::from_millis(5));
        host.look_after();
        let committed: u64 = host
            .snapshots()
            .iter()
            .flat_map(|pipeline| &pipeline.partitions)
            .map(|partition| partition.committed)
            .sum();
        if committed >= messages {
            break Measure {
                seconds: started.elapsed().as_secs_f64(),
                cpu_seconds: store::cpu_seconds() - cpu,
                messages,
            };
        }
        if Instant::now() > deadline {
            return Err(format!(
                "the host settled {committed} of {messages}: {:?}",
                host.snapshots()
            ));
        }
    };
    let (_hurry, signals) = mpsc::channel();
    host.stop(&signals).map_err(|error| error.to_string())?;
    Ok(measure)
}

fn config(dir: &Path, case: Case, round: usize, plugin: &Path) -> Result<Config, String> {
    let any = "127.0.0.1:0".parse().map_err(|_| "no address")?;
    let idempotency = match case {
        Case::Idempotent => Some(Idempotency {
            key: Expression::parse("message.json.order_id").map_err(|error| error.to_string())?,
            ttl: Duration::from_secs(86_400),
            on_duplicate: OnDuplicate::Skip,
            if_missing: IfMissing::DeadLetter,
            fingerprint: Vec::new(),
        }),
        Case::AtLeastOnce | Case::ExactlyOnce => None,
    };
    let name = format!("host-{round}");
    let pipeline = Pipeline {
        name: name.clone(),
        delivery: if case == Case::ExactlyOnce {
            Delivery::ExactlyOnce
        } else {
            Delivery::AtLeastOnce
        },
        source: Source {
            topics: vec![INPUT.to_owned()],
            consumer_group: name.clone(),
            start: Start::Earliest,
            format: Format::Bytes,
            on_lost_offset: OnLostOffset::Halt,
            window: Window {
                messages: 8192,
                bytes: 16 << 20,
            },
        },
        ordering: Ordering {
            by: By::Key,
            null_key: NullKey::None,
            on_dead_letter: OnDeadLetter::Continue,
        },
        retry: Retry {
            max_attempts: NonZeroU32::MIN,
            max_elapsed: None,
            backoff: Backoff {
                initial_interval: Duration::from_millis(200),
                multiplier: 2.0,
                max_interval: Duration::from_secs(30),
            },
        },
        idempotency,
        handler: Handler {
            plugin: plugin.to_owned(),
            config: BTreeMap::new(),
            allow: Allow::default(),
            limits: Limits {
                memory: 128 << 20,
                time: Duration::from_secs(5),
                outputs: 1000,
                output_size: 1 << 20,
                log_lines: 100,
            },
            concurrency: NonZeroU32::new(2).ok_or("zero")?,
            batch: None,
            isolation: Isolation::Worker,
        },
        outputs: vec![Output {
            name: "default".to_owned(),
            topic: format!("{name}-out"),
            headers: Vec::new(),
        }],
        dead_letter: DeadLetter { topic: None },
    };
    Ok(Config {
        host: Host {
            data_dir: dir.to_owned(),
            admin_listen: any,
            health_listen: any,
            shutdown_timeout: Duration::from_secs(30),
            guest_memory: 2 << 30,
            durability: Durability::Fsync,
            create_topics: NonZeroU32::new(PARTITIONS),
        },
        pipelines: vec![pipeline],
    })
}
