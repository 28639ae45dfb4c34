//! A running host: opens the log, starts every pipeline's workers and the two ports, waits for a signal,
//! drains, closes. Not here: what a worker does (`pipeline/`), what the ports answer (`admin/`).

mod clock;
mod lifetime;
mod start;
mod state_view;
mod table;
pub mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::console::Console;
use crate::admin::ports::{self, Ports};
use crate::config::valid::Config;
use crate::connector::embedded::{self, Log, Options};
use crate::pipeline::snapshot::State;
use crate::plugin;
use crate::telemetry::metrics::{self, Metrics};

use lifetime::Lifetime;
use start::Running;

/// How often the host looks after its workers.
const TICK: Duration = Duration::from_millis(200);
/// How long interrupted workers may take to notice.
const ABORT_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the host did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data directory {path} cannot be made: {source}")]
    DataDir { path: String, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] embedded::Error),
    #[error("pipeline `{pipeline}`: {source}")]
    Plugin { pipeline: String, source: plugin::Error },
    #[error(transparent)]
    Engine(plugin::Error),
    #[error("pipeline `{pipeline}`: {why}")]
    Pipeline { pipeline: String, why: String },
    #[error(transparent)]
    Ports(#[from] ports::Error),
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("a worker thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("shutdown_timeout passed: {0} deliveries in calls stay unfinished and run again at the next start")]
    ShutdownTimeout(usize),
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), Error> {
    let started = Instant::now();
    let signals = signals()?;
    std::fs::create_dir_all(&config.host.data_dir)
        .map_err(|source| Error::DataDir { path: config.host.data_dir.display().to_string(), source })?;
    let log = Log::open(
        &config.host.data_dir.join("log"),
        Options { durability: config.host.durability, ..Options::default() },
    )?;
    let mut lifetime = Lifetime::begin(&log)?;
    let metrics = Metrics::new()?;
    let mut pipelines = start::pipelines(config, &log, &metrics, &lifetime)?;
    let watches: Vec<_> = pipelines.iter().map(|pipeline| Arc::clone(&pipeline.watch)).collect();
    let console = Arc::new(Console::new(log.clone(), move || watches.iter().map(|watch| watch.snapshot()).collect()));
    let ports = Ports::open(&config.host.data_dir, config.host.admin_listen, config.host.health_listen, console, metrics)?;
    tracing::info!(
        pipelines = pipelines.len(),
        ms = started.elapsed().as_millis() as u64,
        "running"
    );
    while signals.try_recv().is_err() {
        std::thread::sleep(TICK);
        for pipeline in &mut pipelines {
            pipeline.look_after();
        }
        lifetime.tick(&log, &pipelines);
    }
    let ended = drain(pipelines, config.host.shutdown_timeout, &signals);
    ports.close();
    if ended.is_ok() {
        lifetime.end(&log)?;
    }
    log.close()?;
    tracing::info!("stopped");
    ended
}

/// Lets calls end and settle, up to `timeout`; a second signal cuts it short (§10.2).
fn drain(mut pipelines: Vec<Running>, timeout: Duration, signals: &std::sync::mpsc::Receiver<i32>) -> Result<(), Error> {
    tracing::info!("draining");
    for pipeline in &pipelines {
        pipeline.drain();
    }
    let deadline = Instant::now() + timeout;
    let mut signalled = false;
    while pipelines.iter().any(Running::is_alive) && Instant::now() < deadline && !signalled {
        signalled = signals.recv_timeout(Duration::from_millis(20)).is_ok();
    }
    for pipeline in &pipelines {
        pipeline.abort();
    }
    let deadline = Instant::now() + if signalled { Duration::ZERO } else { ABORT_TIME_MAX };
    while pipelines.iter().any(Running::is_alive) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let stuck: usize = pipelines.iter().map(Running::alive).sum();
    for pipeline in &mut pipelines {
        pipeline.look_after();
        pipeline.watch.enter(State::Stopped, None);
    }
    if stuck > 0 { Err(Error::ShutdownTimeout(stuck)) } else { Ok(()) }
}

fn signals() -> Result<std::sync::mpsc::Receiver<i32>, Error> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(Error::Signals)?;
    let (send, receive) = std::sync::mpsc::sync_channel(4);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if send.send(signal).is_err() {
                    return;
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(receive)
}
