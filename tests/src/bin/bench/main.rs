//! `cargo xtask bench`: the host against a bare loop over the same store in the same run, with the same
//! handler logic as native code, in interleaved pairs. Prints the tables of docs/performance.md.

mod bare;
mod hosted;
mod report;
mod store;

use std::path::PathBuf;

use report::{Pair, Summary};

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub seconds: f64,
    /// CPU seconds of the whole process.
    pub cpu_seconds: f64,
    pub messages: u64,
}

impl Measure {
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.messages as f64
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    AtLeastOnce,
    ExactlyOnce,
    Idempotent,
}

impl Case {
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
            Self::Idempotent => "at_least_once, idempotency key",
        }
    }
}

struct Arguments {
    messages: u64,
    pairs: usize,
    dir: PathBuf,
    plugin: PathBuf,
    only: Option<String>,
}

fn main() {
    if let Err(error) = run() {
        report::say(&format!("bench: {error}"));
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let arguments = arguments()?;
    let plugin = component(&arguments)?;
    let mut summaries = Vec::new();
    report::machine();
    for case in [Case::AtLeastOnce, Case::ExactlyOnce, Case::Idempotent] {
        if arguments
            .only
            .as_deref()
            .is_some_and(|only| !case.name().contains(only))
        {
            continue;
        }
        let mut pairs = Vec::new();
        for round in 0..arguments.pairs {
            // A fresh store for each pair: both sides find the same, whatever ran before.
            let dir = arguments.dir.join(format!("{}-{round}", case as u8));
            store::prepare(&dir, arguments.messages)?;
            let mut bare = Vec::new();
            let mut hosted = None;
            // The order alternates, so that neither side always runs on the warmer machine.
            if round % 2 == 1 {
                hosted = Some(hosted::run(&dir, case, round, &plugin, arguments.messages)?);
            }
            for threads in [1, 2] {
                bare.push(bare::run(&dir, case, threads, round, arguments.messages)?);
            }
            let hosted = match hosted {
                Some(hosted) => hosted,
                None => hosted::run(&dir, case, round, &plugin, arguments.messages)?,
            };
            report::pair(case, round, &bare, &hosted);
            pairs.push(Pair { bare, hosted });
            std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
        }
        summaries.push((case, Summary::of(&pairs)));
    }
    report::table(&summaries);
    Ok(())
}

/// The handler as a component, whichever it was.
fn component(arguments: &Arguments) -> Result<PathBuf, String> {
    let path = &arguments.plugin;
    let module = std::fs::read(path)
        .map_err(|error| format!("{}: {error}; run `cargo xtask plugins`", path.display()))?;
    let component = wasmill::plugin::componentize(&module).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&arguments.dir).map_err(|error| error.to_string())?;
    let out = arguments.dir.join("enrich.wasm");
    std::fs::write(&out, component).map_err(|error| error.to_string())?;
    Ok(out)
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        messages: 1_000_000,
        pairs: 10,
        dir: PathBuf::from("target/bench"),
        plugin: PathBuf::from("target/plugins/enrich.wasm"),
        only: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{name}: {error}"))
        };
        match name.as_str() {
            "--messages" => parsed.messages = number()?,
            "--pairs" => parsed.pairs = number()? as usize,
            "--dir" => parsed.dir = PathBuf::from(value),
            "--plugin" => parsed.plugin = PathBuf::from(value),
            "--only" => parsed.only = Some(value),
            _ => {
                return Err(format!(
                    "unknown argument {name}; there are --messages --pairs --dir --plugin --only"
                ));
            }
        }
    }
    Ok(parsed)
}
