//! `cargo xtask bench`: the host against a bare loop over the same store in the same run, with the same
//! handler logic as native code, in interleaved pairs; then memory, start, latency, the frame, the
//! stages, what failures cost, and commands on a large log. Prints the tables of docs/performance.md.

mod bare;
mod commands;
mod costs;
mod due;
mod frame;
mod hosted;
mod latency;
mod machine;
mod process;
mod report;
mod stages;
mod store;
mod throughput;
mod tracing;

use std::path::PathBuf;
use std::time::Duration;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) seconds: f64,
    /// CPU seconds of the whole process.
    pub(crate) cpu_seconds: f64,
    pub(crate) messages: u64,
}

impl Measure {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.messages as f64
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    AtLeastOnce,
    ExactlyOnce,
    Idempotent,
}

impl Case {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
            Self::Idempotent => "at_least_once, idempotency key",
        }
    }
}

const USAGE: &str = "\
bench [--mode MODE] [--messages N] [--pairs N] [--seconds N] [--dir DIR] [--plugins DIR] [--host FILE]

  --mode      all (default), throughput, idempotency, memory, start, latency, frame, stages, costs,
              tracing, commands;
              smoke runs the first and the last of them on little and checks that the figures can be true
  --messages  of a run; default 1,000,000
  --pairs     of host and bare loop; default 10
  --seconds   of each latency run; default 10
  --dir       where the data directories are made; default target/bench
  --plugins   where the guests are; default $WASMILL_PLUGINS or target/plugins
  --host      the program measured as a process; default $WASMILL_BIN or target/release/wasmill";

/// The worst ratio to the bare loop that a smoke run on a loaded machine lets pass.
const SMOKE_RATIO_MIN: f64 = 0.05;

struct Arguments {
    mode: String,
    messages: u64,
    pairs: usize,
    seconds: Duration,
    dir: PathBuf,
    plugins: PathBuf,
    host: PathBuf,
}

impl Arguments {
    /// A guest, once it is known to be a component.
    fn component(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.plugins.join(format!("{name}.wasm"));
        let wasm = std::fs::read(&path)
            .map_err(|error| format!("{}: {error}; run `cargo xtask plugins`", path.display()))?;
        wasmill::plugin::componentize(&wasm).map_err(|error| error.to_string())?;
        Ok(path)
    }
}

fn main() {
    if let Err(error) = run() {
        report::say(&format!("bench: {error}"));
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let Some(arguments) = arguments()? else {
        report::say(USAGE);
        return Ok(());
    };
    std::fs::create_dir_all(&arguments.dir).map_err(|error| error.to_string())?;
    let unkeyed = [Case::ExactlyOnce, Case::AtLeastOnce];
    let measured = |what: &str, run: &mut dyn FnMut() -> Result<(), String>| {
        report::say(&format!("load before {what}: {}", machine::load()));
        let others = machine::Others::since_now();
        run()?;
        report::say(&format!(
            "load after {what}: {}; others took {:.0} % of the machine",
            machine::load(),
            others.percent()
        ));
        Ok::<(), String>(())
    };
    let mut capacity = None;
    let is = |mode: &str| arguments.mode == mode || arguments.mode == "all";
    if arguments.mode == "smoke" {
        return smoke(&arguments);
    }
    if arguments.mode == "tracing-child" {
        return tracing::one(&arguments);
    }
    if is("throughput") {
        measured("throughput", &mut || {
            capacity = Some(throughput::run(&arguments, &unkeyed)?.host_median());
            Ok(())
        })?;
    }
    if is("idempotency") {
        measured("idempotency", &mut || {
            throughput::run(&arguments, &[Case::Idempotent]).map(drop)
        })?;
    }
    if is("memory") {
        measured("memory", &mut || process::memory(&arguments))?;
    }
    if is("start") {
        measured("start", &mut || process::start(&arguments))?;
    }
    if is("latency") {
        measured("latency", &mut || {
            let capacity = match capacity {
                Some(capacity) => capacity,
                None => throughput::run(&arguments, &[Case::AtLeastOnce])?.host_median(),
            };
            latency::run(&arguments, capacity)
        })?;
    }
    if is("frame") {
        measured("frame", &mut || frame::run(&arguments))?;
    }
    if is("stages") {
        measured("stages", &mut || stages::run(&arguments))?;
    }
    if is("tracing") {
        measured("tracing", &mut || tracing::run(&arguments))?;
    }
    if is("commands") {
        measured("commands", &mut || commands::run(&arguments))?;
    }
    if is("costs") {
        measured("costs", &mut || costs::run(&arguments))?;
    }
    Ok(())
}

/// A few seconds: the bench works, and its figures are possible.
fn smoke(arguments: &Arguments) -> Result<(), String> {
    let arguments = Arguments {
        mode: arguments.mode.clone(),
        messages: 50_000,
        pairs: 1,
        dir: arguments.dir.join("smoke"),
        seconds: Duration::from_secs(1),
        plugins: arguments.plugins.clone(),
        host: arguments.host.clone(),
    };
    let ratio = throughput::run(&arguments, &[Case::AtLeastOnce])?.ratio_median();
    if ratio < SMOKE_RATIO_MIN || ratio.is_nan() {
        return Err(format!(
            "the host reaches {ratio:.3} of the bare loop; even on a loaded machine that is wrong"
        ));
    }
    costs::smoke(&arguments)
}

/// None when help was asked for.
fn arguments() -> Result<Option<Arguments>, String> {
    let place = |variable: &str, default: &str| {
        std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    let mut parsed = Arguments {
        mode: "all".to_owned(),
        messages: 1_000_000,
        pairs: 10,
        seconds: Duration::from_secs(10),
        dir: PathBuf::from("target/bench"),
        plugins: place("WASMILL_PLUGINS", "target/plugins"),
        host: place("WASMILL_BIN", "target/release/wasmill"),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--help" {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{name}: {error}"))
        };
        match name.as_str() {
            "--mode" if MODES.contains(&value.as_str()) => parsed.mode = value,
            "--mode" => return Err(format!("there is no mode {value}\n\n{USAGE}")),
            "--messages" => parsed.messages = number()?.max(1),
            "--pairs" => parsed.pairs = number()?.max(1) as usize,
            "--seconds" => parsed.seconds = Duration::from_secs(number()?.max(1)),
            "--dir" => parsed.dir = PathBuf::from(value),
            "--plugins" => parsed.plugins = PathBuf::from(value),
            "--host" => parsed.host = PathBuf::from(value),
            _ => return Err(format!("there is no argument {name}\n\n{USAGE}")),
        }
    }
    Ok(Some(parsed))
}

const MODES: [&str; 13] = [
    "all",
    "throughput",
    "idempotency",
    "memory",
    "start",
    "latency",
    "frame",
    "stages",
    "commands",
    "costs",
    "tracing",
    "tracing-child",
    "smoke",
];
