//! The host as it runs for a user, in this process: the same input, the handler in the sandbox.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wasmill::config::valid::{
    self, Alerts, Allow, Backoff, By, Config, DeadLetter, Delivery, Durability, Format, Handler,
    Idempotency, IfMissing, Isolation, Limits, NullKey, OnDeadLetter, OnDuplicate, OnLostOffset,
    Ordering, Output, Pipeline, Retry, Source, Start, Window,
};
use wasmill::expression::Expression;
use wasmill::host::Host;
use wasmill::pipeline::dead_letter::default_topic;

use crate::store::{self, PARTITIONS};
use crate::{Case, Measure};

/// How often the durable progress is looked at.
const POLL: Duration = Duration::from_millis(2);
const DEADLINE: Duration = Duration::from_secs(300);
pub(crate) const GUEST_MEMORY: u64 = 128 << 20;
/// Workers, one for each core.
pub(crate) const WORKERS: u32 = 2;

/// What a host is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) dir: &'a Path,
    /// Pipeline and consumer group; its output is `NAME-out`.
    pub(crate) name: &'a str,
    pub(crate) input: &'a str,
    pub(crate) plugin: &'a Path,
    pub(crate) case: Case,
    pub(crate) max_attempts: u32,
    /// Deferred ones go with no order, as they are used.
    pub(crate) retry: valid::RetryMode,
    pub(crate) traces_per_second: u32,
}

impl<'a> Setup<'a> {
    pub(crate) const fn new(dir: &'a Path, name: &'a str, plugin: &'a Path, case: Case) -> Self {
        Self {
            dir,
            name,
            input: store::INPUT,
            plugin,
            case,
            max_attempts: 1,
            retry: valid::RetryMode::Inline,
            traces_per_second: 500,
        }
    }

    pub(crate) fn start(&self) -> Result<Host, String> {
        Host::start(&self.config()?).map_err(|error| error.to_string())
    }

    /// Runs until `messages` are durably finished. The clock (and that of the CPU) starts when the host
    /// has started: opening the log and loading the plugin are not in it, nor what was finished before.
    pub(crate) fn run(&self, messages: u64) -> Result<Measure, String> {
        self.run_and(messages, || ())
    }

    /// The same, until the pipeline has `letters` dead letters as well: what was put aside is still under
    /// way when its source is finished.
    pub(crate) fn run_to_letters(&self, messages: u64, letters: u64) -> Result<Measure, String> {
        self.run_until(messages, letters, || ())
    }

    /// The same; `look` runs when the clock starts and when it has stopped.
    pub(crate) fn run_and(&self, messages: u64, look: impl FnMut()) -> Result<Measure, String> {
        self.run_until(messages, 0, look)
    }

    fn run_until(
        &self,
        messages: u64,
        letters: u64,
        mut look: impl FnMut(),
    ) -> Result<Measure, String> {
        let host = self.start()?;
        let progress = store::Durable::of(host.log(), self.name, self.input)?;
        look();
        let (cpu, started) = (store::cpu_seconds(), Instant::now());
        let before = progress.committed()?;
        let dead = default_topic(self.input, self.name);
        while progress.committed()? < messages || store::messages(host.log(), &dead)? < letters {
            if started.elapsed() > DEADLINE {
                return Err(format!(
                    "the host did not settle {messages}: {:?}",
                    host.snapshots()
                ));
            }
            std::thread::sleep(POLL);
        }
        let measure = Measure {
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: store::cpu_seconds() - cpu,
            messages: messages - before,
        };
        look();
        drop(progress);
        stop(host)?;
        Ok(measure)
    }

    fn config(&self) -> Result<Config, String> {
        let any = "127.0.0.1:0".parse().map_err(|_| "no address")?;
        Ok(Config {
            host: valid::Host {
                creation_context: valid::CreationContext::default(),
                traces_per_second: NonZeroU32::new(self.traces_per_second).ok_or("no traces")?,
                data_dir: self.dir.to_owned(),
                admin_listen: any,
                admin_tls: None,
                admin_token: None,
                health_listen: any,
                shutdown_timeout: Duration::from_secs(30),
                guest_memory: 2 << 30,
                durability: Durability::Fsync,
                create_topics: NonZeroU32::new(PARTITIONS),
                logs: None,
            },
            pipelines: vec![self.pipeline()?],
        })
    }

    fn pipeline(&self) -> Result<Pipeline, String> {
        Ok(Pipeline {
            written: String::new(),
            name: self.name.to_owned(),
            delivery: if self.case == Case::ExactlyOnce {
                Delivery::ExactlyOnce
            } else {
                Delivery::AtLeastOnce
            },
            source: Source {
                topics: vec![self.input.to_owned()],
                consumer_group: self.name.to_owned(),
                start: Start::Earliest,
                format: Format::Bytes,
                on_lost_offset: OnLostOffset::Halt,
                window: Window {
                    messages: 8192,
                    bytes: 16 << 20,
                },
            },
            ordering: Ordering {
                by: match self.retry {
                    valid::RetryMode::Inline => By::Key,
                    valid::RetryMode::Deferred => By::None,
                },
                null_key: NullKey::None,
                on_dead_letter: OnDeadLetter::Continue,
            },
            retry: Retry {
                mode: self.retry,
                max_attempts: NonZeroU32::new(self.max_attempts).ok_or("no attempts")?,
                max_elapsed: None,
                backoff: Backoff {
                    initial_interval: Duration::from_millis(1),
                    multiplier: 2.0,
                    max_interval: Duration::from_millis(1),
                },
            },
            idempotency: self.idempotency()?,
            filter: None,
            sequence: None,
            // What failed is tried when everything else is done: nothing but failures, which is what an
            // outage looks like.
            circuit: (self.max_attempts == 1).then(valid::Circuit::default),
            rate_limit: None,
            handler: handler(self.plugin)?,
            outputs: vec![Output {
                name: "default".to_owned(),
                topic: store::output_of(self.name),
                key: None,
                set_headers: Vec::new(),
                headers: Vec::new(),
            }],
            reply_topics: Vec::new(),
            dead_letter: DeadLetter { topic: None },
            alerts: Alerts::default(),
        })
    }

    fn idempotency(&self) -> Result<Option<Idempotency>, String> {
        if self.case != Case::Idempotent {
            return Ok(None);
        }
        Ok(Some(Idempotency {
            key: Expression::parse(store::KEY).map_err(|error| error.to_string())?,
            ttl: Duration::from_secs(86_400),
            on_duplicate: OnDuplicate::Skip,
            if_missing: IfMissing::DeadLetter,
            fingerprint: Vec::new(),
        }))
    }
}

pub(crate) fn stop(host: Host) -> Result<(), String> {
    let (_hurry, signals) = mpsc::channel();
    host.stop(&signals).map_err(|error| error.to_string())
}

fn handler(plugin: &Path) -> Result<Handler, String> {
    Ok(Handler {
        plugin: plugin.to_owned(),
        config: BTreeMap::new(),
        allow: Allow::default(),
        limits: limits(),
        concurrency: NonZeroU32::new(WORKERS).ok_or("no workers")?,
        batch: None,
        isolation: Isolation::Worker,
    })
}

/// The defaults.
pub(crate) const fn limits() -> Limits {
    Limits {
        memory: GUEST_MEMORY,
        time: Duration::from_secs(5),
        outputs: 1000,
        output_size: 1 << 20,
        log_lines: 100,
    }
}
