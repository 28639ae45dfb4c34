//! A running host: opens the log, starts every pipeline's workers and the two ports, waits for a signal,
//! drains, closes. Not here: what a worker does (`pipeline/`), what the ports answer (`admin/`).

mod clock;
mod desk;
pub mod fingerprint;
mod lifetime;
mod pipelines;
mod returns;
mod running;
mod slot;
mod start;
mod state_view;
mod table;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use crate::admin::console::Console;
use crate::admin::letters::runner::Runner;
use crate::admin::operations::Order;
use crate::admin::ports::{self, Ports};
use crate::admin::token::{self, Token};
use crate::config::valid::Config;
use crate::config::{self, secret};
use crate::connector::embedded::{self, Log, Options};
use crate::pipeline::snapshot::{Snapshot, State};
use crate::plugin::{self, Engine};
use crate::telemetry::log_files::{self, Keeper, LOGS_DIR};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::spans::Spans;

use desk::Desk;
use lifetime::Lifetime;
use pipelines::{Pipelines, Stop, Watches};
use running::Running;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use start::Prepared;

/// The embedded log's place in the data directory.
pub const LOG_DIR: &str = "log";
/// How often the host looks after its workers.
const TICK: Duration = Duration::from_millis(200);
/// How long interrupted workers may take to notice.
const ABORT_TIME_MAX: Duration = Duration::from_secs(2);

/// Why the host did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data directory {path} cannot be made: {source}")]
    DataDir {
        path: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Log(#[from] embedded::Error),
    #[error("pipeline `{pipeline}`: {source}")]
    Plugin {
        pipeline: String,
        source: plugin::Error,
    },
    #[error(transparent)]
    Engine(plugin::Error),
    #[error("pipeline `{pipeline}`: {why}")]
    Pipeline { pipeline: String, why: String },
    #[error(transparent)]
    Ports(#[from] ports::Error),
    #[error("host.admin.token: {0}")]
    Secret(secret::Error),
    #[error(
        "host.admin.token: the secret {0} is no token; it has to be 16 to 256 visible ASCII characters"
    )]
    Token(String),
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("a worker thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error(
        "shutdown_timeout passed: {0} deliveries in calls stay unfinished and run again at the next start"
    )]
    ShutdownTimeout(usize),
}

/// Reads the configuration again; the text says what is wrong with it.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What a host is told beside its configuration.
#[derive(Default)]
pub struct Choices {
    /// Go on although durable data depends on what was changed (§13.1).
    pub accept_change: bool,
    /// How a reload gets its configuration; without it there is none.
    pub reread: Option<Reread>,
}

/// A started host.
pub struct Host {
    log: Log,
    lifetime: Lifetime,
    pipelines: Pipelines,
    ports: Ports,
    redrives: Runner,
    spans: Spans,
    desk: Desk,
    console: Arc<Console>,
}

/// Runs until SIGTERM or SIGINT; a second one cuts the drain short (§10.2). SIGHUP reloads.
///
/// `keeper` gets the place of the log files once the data directory is held.
pub fn run(config: &Config, choices: Choices, keeper: &mut Keeper) -> Result<(), Error> {
    // Until it is ready to start, a signal just ends it; from the first answer of a port on, in order.
    let opened = Opened::new(config, choices)?;
    keep_logs(config, keeper);
    let stop = Stop::default();
    let signals = signals(&stop)?;
    let mut host = opened.start(Arc::clone(&stop))?;
    loop {
        match signals.try_recv() {
            Ok(SIGHUP) if !stop.load(Ordering::Relaxed) => host.reload(),
            Ok(_) | Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {}
        }
        host.serve(TICK);
        host.look_after();
    }
    host.stop(&signals)
}

/// A host that cannot keep its log lines in files still runs: they are on stderr.
fn keep_logs(config: &Config, keeper: &mut Keeper) {
    let Some(logs) = config.host.logs else {
        keeper.off();
        return;
    };
    let folder = config.host.data_dir.join(LOGS_DIR);
    let bounds = log_files::Bounds {
        size: logs.size,
        files: logs.files,
    };
    if let Err(error) = keeper.open(&folder, bounds) {
        tracing::warn!(folder = %folder.display(), %error, "log lines are not kept in files");
    }
}

/// A host whose log is open and whose plugins are loaded; nothing runs yet.
struct Opened {
    config: Config,
    begun: Instant,
    log: Log,
    metrics: Metrics,
    choices: Choices,
    engine: Engine,
    prepared: Vec<Prepared>,
}

impl Opened {
    fn new(config: &Config, choices: Choices) -> Result<Self, Error> {
        let begun = Instant::now();
        let data_dir = &config.host.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|source| Error::DataDir {
            path: data_dir.display().to_string(),
            source,
        })?;
        let options = Options {
            durability: config.host.durability,
            ..Options::default()
        };
        let log = Log::open(data_dir.join(LOG_DIR), options)?;
        // Whatever a killed host left: a command must not take its address for ours while we start.
        token::remove(data_dir);
        let metrics = Metrics::new()?;
        let engine = start::engine(config)?;
        let prepared = pipelines::prepare(config, &engine, &log, choices.accept_change)?;
        fingerprint::write(&log, config)?;
        Ok(Self {
            config: config.clone(),
            begun,
            log,
            metrics,
            choices,
            engine,
            prepared,
        })
    }

    fn start(self, stop: Stop) -> Result<Host, Error> {
        let Self {
            config,
            begun,
            log,
            metrics,
            choices,
            engine,
            prepared,
        } = self;
        let spans = Spans::from_env(
            config.host.creation_context,
            config.host.traces_per_second,
            metrics.spans_lost(),
        );
        let watches = Watches::default();
        let seen = watches.clone();
        let (desk, operations) = Desk::new(choices.reread);
        let listen = (admin_port(&config.host)?, config.host.health_listen);
        let data_dir = config.host.data_dir.clone();
        let mut pipelines = Pipelines::new(
            config,
            log.clone(),
            (metrics.clone(), spans.clone()),
            engine,
            (watches, stop),
            prepared,
        );
        let console = Console::new(log.clone(), move || seen.snapshots())
            .with_operations(operations)
            .with_logs(data_dir.join(LOGS_DIR))
            .with_spans(spans.clone());
        let console = Arc::new(console);
        let (admin, health) = listen;
        let ports = Ports::open(&data_dir, admin, health, Arc::clone(&console), metrics)?;
        // From here on messages may be lost in a call: an end without `stop` is an unclean one.
        let lifetime = Lifetime::begin(&log)?;
        pipelines.start_all(lifetime.is_suspect())?;
        let redrives = Runner::start(Arc::clone(&console)).map_err(Error::Thread)?;
        tracing::info!(
            pipelines = pipelines.len(),
            ms = begun.elapsed().as_millis() as u64,
            "running"
        );
        Ok(Host {
            log,
            lifetime,
            pipelines,
            ports,
            desk,
            redrives,
            spans,
            console,
        })
    }
}

fn admin_port(host: &config::valid::Host) -> Result<ports::Admin, Error> {
    let token = host.admin_token.as_ref().map(|name| {
        let secret = secret::read(name).map_err(Error::Secret)?;
        Token::from_secret(&secret).ok_or_else(|| Error::Token(name.0.clone()))
    });
    Ok(ports::Admin {
        listen: host.admin_listen,
        tls: host.admin_tls.clone(),
        token: token.transpose()?,
    })
}

impl Host {
    /// Opens the log, starts every pipeline (or none) and the ports.
    pub fn start(config: &Config) -> Result<Self, Error> {
        Opened::new(config, Choices::default())?.start(Stop::default())
    }

    /// Carries out what operators want, until `patience` has passed without an order.
    pub fn serve(&mut self, patience: Duration) {
        self.desk.serve(&mut self.pipelines, patience);
    }

    /// SIGHUP: there is nobody to tell but the log.
    fn reload(&mut self) {
        let order = Order::Reload {
            accept_change: false,
        };
        let Self {
            console,
            desk,
            pipelines,
            ..
        } = self;
        let carry_out = || desk.reload(pipelines, false);
        match console.ordered("SIGHUP", order.audited(), carry_out) {
            Ok(changes) => {
                tracing::info!(target: "audit", changes = ?changes.changes, "reloaded on SIGHUP");
            }
            Err(why) => {
                tracing::error!(error = %why, help = why.help, "not reloaded, nothing was changed");
            }
        }
    }

    /// Notices workers that ended, and a replayed window that is behind us. Call it a few times a second.
    pub fn look_after(&mut self) {
        let health = self.log.health();
        self.pipelines.look_after(&health);
        let passed = self.pipelines.have_passed_replay();
        self.lifetime.tick(&self.log, passed);
    }

    /// How the pipelines stand.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.pipelines.watches().snapshots()
    }

    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Drains, closes the ports and the log. A signal on `hurry` cuts the drain short.
    pub fn stop(self, hurry: &Receiver<i32>) -> Result<(), Error> {
        let Self {
            log,
            lifetime,
            pipelines,
            ports,
            desk,
            redrives,
            spans,
            console,
        } = self;
        drop((desk, console));
        let shutdown_timeout = pipelines.shutdown_timeout();
        redrives.stop();
        let ended = drain(pipelines.into_running(), shutdown_timeout, hurry);
        ports.close();
        spans.close();
        // A call that was cut off did not end this host; that it was stopped in order is what counts.
        if let Err(error) = lifetime.end(&log) {
            tracing::warn!(%error, "this end counts as an unclean one: the store does not write");
        }
        log.close()?;
        tracing::info!("stopped");
        ended
    }
}

/// Lets calls end and settle, up to `timeout`.
fn drain(
    mut pipelines: Vec<Running>,
    timeout: Duration,
    hurry: &Receiver<i32>,
) -> Result<(), Error> {
    tracing::info!("draining");
    for pipeline in &pipelines {
        pipeline.drain();
    }
    let deadline = Instant::now() + timeout;
    let mut hurried = false;
    while pipelines.iter().any(Running::is_alive) && Instant::now() < deadline && !hurried {
        std::thread::sleep(Duration::from_millis(5));
        hurried = hurry.try_recv().is_ok_and(|signal| signal != SIGHUP);
    }
    for pipeline in &pipelines {
        pipeline.abort();
    }
    let deadline = Instant::now()
        + if hurried {
            Duration::ZERO
        } else {
            ABORT_TIME_MAX
        };
    while pipelines.iter().any(Running::is_alive) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let stuck: usize = pipelines.iter().map(Running::alive).sum();
    for pipeline in &mut pipelines {
        pipeline.look_after();
        pipeline.watch.enter(State::Stopped, None);
    }
    if stuck > 0 {
        Err(Error::ShutdownTimeout(stuck))
    } else {
        Ok(())
    }
}

/// Signals in order; those that end the host are known at `stop` at once, also while the host's loop waits.
fn signals(stop: &Stop) -> Result<Receiver<i32>, Error> {
    let stop = Arc::clone(stop);
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Signals)?;
    let (send, receive) = std::sync::mpsc::sync_channel(4);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if signal != SIGHUP {
                    stop.store(true, Ordering::Relaxed);
                }
                // A reload that finds others waiting has nothing new to say, and must not hold up a signal to end.
                let sent = match signal {
                    SIGHUP => !matches!(send.try_send(signal), Err(TrySendError::Disconnected(_))),
                    _ => send.send(signal).is_ok(),
                };
                if !sent {
                    return;
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(receive)
}
