//! What tracing costs: the same input with tracing off, at 1 % as it is, and at 1 % without the bound of
//! `traces_per_second`, in interleaved rounds, each run in a process of its own because the variables of
//! OpenTelemetry are a process's. The spans go to a real receiver on the same machine.

use std::path::Path;
use std::process::Command;

use wasmill_tests::receiver::Receiver;

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::{Arguments, Case, Measure, store};

/// Names the consumer group of a child.
const GROUP: &str = "WASMILL_BENCH_GROUP";
/// Percent that tracing at 1 % may cost (issue 4).
const COST_MAX: f64 = 2.0;

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let receiver = Receiver::silent();
    let plugin = arguments.component("enrich")?;
    let mut found: [Found; 2] = Default::default();
    for round in 0..arguments.pairs {
        let dir = arguments.dir.join(format!("tracing-{round}"));
        store::prepare(&dir, arguments.messages)?;
        store::warm(&dir, &plugin)?;
        let mut measured = [None; 3];
        for step in 0..measured.len() {
            // The order rotates, so that none always runs on the warmer machine.
            let which = (round + step) % measured.len();
            let environment = match which {
                0 => Vec::new(),
                _ => receiver.environment("grpc"),
            };
            let group = GROUPS.get(which).copied().unwrap_or_default();
            let measure = child(arguments, &dir, group, &environment)?;
            report::say(&format!(
                "tracing {round}: {group} {:.0}/s, {:.3} µs CPU",
                measure.rate(),
                measure.cpu_us()
            ));
            if let Some(place) = measured.get_mut(which) {
                *place = Some(measure);
            }
        }
        if let [Some(off), Some(on), Some(all)] = measured {
            for (found, on) in found.iter_mut().zip([on, all]) {
                found.wall.push((off.rate() / on.rate() - 1.0) * 100.0);
                found.cpu.push((on.cpu_us() / off.cpu_us() - 1.0) * 100.0);
            }
        }
        store::clear(&dir)?;
    }
    let [on, all] = found;
    report::rows(
        "Tracing at 1 %, percent on top of none",
        &[
            Row::new("time of a message", on.wall).limit(COST_MAX),
            Row::new("CPU of a message, the sending thread included", on.cpu),
            Row::new("time of a message, without `traces_per_second`", all.wall),
            Row::new("CPU of a message, without `traces_per_second`", all.cpu),
        ],
    );
    Ok(())
}

/// Percent on top of none.
#[derive(Default)]
struct Found {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

const GROUPS: [&str; 3] = ["off", "on", UNBOUNDED];
/// The group whose host has no bound on traces that matters.
const UNBOUNDED: &str = "on-unbounded";

fn child(
    arguments: &Arguments,
    dir: &Path,
    group: &str,
    environment: &[(String, String)],
) -> Result<Measure, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let done = Command::new(program)
        .args(["--mode", "tracing-child", "--messages"])
        .arg(arguments.messages.to_string())
        .arg("--dir")
        .arg(dir)
        .arg("--plugins")
        .arg(&arguments.plugins)
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
        .env(GROUP, group)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(seconds)), Some(Ok(cpu_seconds))) if done.status.success() => Ok(Measure {
            seconds,
            cpu_seconds,
            messages: arguments.messages,
        }),
        _ => Err(format!(
            "a run failed: {text}{}",
            String::from_utf8_lossy(&done.stderr)
        )),
    }
}

/// One run, in a process of its own: says seconds and CPU seconds.
pub(crate) fn one(arguments: &Arguments) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let group = std::env::var(GROUP).map_err(|_| format!("{GROUP} is not set"))?;
    let mut setup = Setup::new(&arguments.dir, &group, &plugin, Case::AtLeastOnce);
    if group == UNBOUNDED {
        setup.traces_per_second = 1_000_000;
    }
    let measure = setup.run(arguments.messages)?;
    report::say(&format!("{} {}", measure.seconds, measure.cpu_seconds));
    Ok(())
}
