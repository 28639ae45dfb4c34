//! What tracing costs: the same input with tracing off and at 1 %, in interleaved pairs, each run in a
//! process of its own because the variables of OpenTelemetry are a process's. The spans go to a real
//! receiver on the same machine.

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
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for round in 0..arguments.pairs {
        let dir = arguments.dir.join(format!("tracing-{round}"));
        store::prepare(&dir, arguments.messages)?;
        store::warm(&dir, &plugin)?;
        let off = || child(arguments, &dir, "off", &[]);
        let on = || child(arguments, &dir, "on", &receiver.environment("grpc"));
        // The order alternates, so that neither side always runs on the warmer machine.
        let (off, on) = if round.is_multiple_of(2) {
            let off = off()?;
            (off, on()?)
        } else {
            let on = on()?;
            (off()?, on)
        };
        report::say(&format!(
            "tracing {round}: off {:.0}/s, {:.3} µs CPU; on {:.0}/s, {:.3} µs CPU",
            off.rate(),
            off.cpu_us(),
            on.rate(),
            on.cpu_us()
        ));
        wall.push((off.rate() / on.rate() - 1.0) * 100.0);
        cpu.push((on.cpu_us() / off.cpu_us() - 1.0) * 100.0);
        store::clear(&dir)?;
    }
    report::rows(
        "Tracing at 1 %, percent on top of none",
        &[
            Row::new("time of a message", wall).limit(COST_MAX),
            Row::new("CPU of a message, the sending thread included", cpu),
        ],
    );
    Ok(())
}

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
    let setup = Setup::new(&arguments.dir, &group, &plugin, Case::AtLeastOnce);
    let measure = setup.run(arguments.messages)?;
    report::say(&format!("{} {}", measure.seconds, measure.cpu_seconds));
    Ok(())
}
