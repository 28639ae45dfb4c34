//! `cargo xtask demo`: a month of real flights through a real pipeline on the embedded log, and the
//! figures that came out. Everything is done with commands that users have; every figure is read from
//! the running host or from its topics. Not here: the pipeline (plugins/examples/flights).

mod flights;
mod host;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::checks::Tally;
use crate::guests::{self, Profile};
use crate::process::{Error, target_dir};
use crate::tools;

use flights::{GROUP, Input, SOURCE};
use host::{Counts, Host, Totals};

/// Without a message finished for this long, something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(60);
const SHUTDOWN_MAX: Duration = Duration::from_secs(40);

#[derive(Debug)]
struct Options {
    profile: Profile,
    data_dir: PathBuf,
    is_fresh: bool,
}

/// What one run did.
#[derive(Debug, PartialEq)]
struct Figures {
    published: u64,
    totals: Totals,
    /// Messages that came to the topics.
    new: Counts,
    /// From the first message published to the last one settled.
    seconds: f64,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Error> {
    let options = Options::parse(arguments)?;
    tools::prepare()?;
    println!("building wasmill and the flights handler; the first time this takes minutes");
    let binary = guests::build_host(options.profile)?;
    guests::build_one(&binary, "flights")?;

    if options.is_fresh && options.data_dir.exists() {
        std::fs::remove_dir_all(&options.data_dir)?;
    }
    let mut host = Host::start(binary, &options.data_dir)?;
    let figures = play(&mut host)?;
    println!();
    print_table(&figures);
    let all = host.counts()?;
    if all != figures.new {
        println!("\nin the log, earlier runs included:");
        print_topics(&all);
    }
    show_a_dead_letter(&host)?;
    print_what_to_try(&host);
    Ok(())
}

/// The demo on an empty directory and again on the same, with the host that was built for the tests:
/// what it must come to the first time, and that nothing happens twice.
pub(crate) fn check() -> Result<Tally, Error> {
    let data_dir = target_dir().join("demo").join("check");
    if data_dir.exists() {
        std::fs::remove_dir_all(&data_dir)?;
    }
    let mut tally = Tally::default();
    for (published, outputs, duplicates, dead_letters) in [
        (
            54_011,
            [("flown", 26_483), ("cancelled", 521), ("late", 1_821)],
            27_004,
            3,
        ),
        (0, [("flown", 0), ("cancelled", 0), ("late", 0)], 0, 0),
    ] {
        let mut host = Host::start(guests::host_binary(Profile::Dev), &data_dir)?;
        let figures = play(&mut host)?;
        print_table(&figures);
        let expected = Figures {
            published,
            totals: Totals {
                consumed: published,
                duplicates,
            },
            new: Counts {
                source: published,
                outputs: outputs.to_vec(),
                dead_letters,
            },
            seconds: figures.seconds,
        };
        if figures == expected {
            tally.passed += 1;
        } else {
            eprintln!("expected {expected:?}\n     got {figures:?}");
            tally.failed += 1;
        }
    }
    Ok(tally)
}

/// Publishes what is not in the log yet, waits until it is consumed, and stops the host.
fn play(host: &mut Host) -> Result<Figures, Error> {
    let before = host.counts()?;
    let input = flights::input(before.source)?;
    let published = input.messages;
    let started = Instant::now();
    publish(host, &input)?;
    wait_until_consumed(host, before.source + published)?;
    let seconds = started.elapsed().as_secs_f64();
    let totals = host.totals()?;
    host.stop(SHUTDOWN_MAX)?;
    // Read again from the directory: what counts is what is durable.
    let new = host.counts()?.since(&before);
    Ok(Figures {
        published,
        totals,
        new,
        seconds,
    })
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self, Error> {
        let data_dir = target_dir().join("demo").join("data");
        let mut options = Self {
            profile: Profile::Release,
            data_dir,
            is_fresh: false,
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match (*argument, rest.as_slice().first()) {
                ("--fresh", _) => options.is_fresh = true,
                ("--data-dir", Some(dir)) => {
                    options.data_dir = std::path::absolute(dir)?;
                    rest.next();
                }
                ("--profile", Some(name)) => {
                    options.profile = Profile::named(name).ok_or("--profile is release or dev")?;
                    rest.next();
                }
                _ => {
                    return Err(format!(
                        "unknown or incomplete argument `{argument}`; `cargo xtask help` lists them"
                    )
                    .into());
                }
            }
        }
        Ok(options)
    }
}

fn publish(host: &Host, input: &Input) -> Result<(), Error> {
    if input.messages == 0 {
        println!("the flights are in the log already: publishing 0 messages");
        return Ok(());
    }
    println!(
        "publishing {} messages to the topic {SOURCE}",
        grouped(input.messages)
    );
    host.produce(SOURCE, &input.path)
}

/// Waits until the group has settled `end` messages.
fn wait_until_consumed(host: &mut Host, end: u64) -> Result<(), Error> {
    let is_shown = std::io::stdout().is_terminal();
    let mut last = (0, Instant::now());
    loop {
        let settled = host.settled(GROUP)?;
        if is_shown {
            print!("\rconsumed {} of {}", grouped(settled), grouped(end));
            std::io::stdout().flush()?;
        }
        if settled >= end {
            if is_shown {
                println!();
            }
            return Ok(());
        }
        if settled != last.0 {
            last = (settled, Instant::now());
        }
        if last.1.elapsed() > STALLED_AFTER {
            return Err(format!(
                "no message was finished for {} s; the host's log is {}",
                STALLED_AFTER.as_secs(),
                host.log().display()
            )
            .into());
        }
        host.still_runs()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn print_table(figures: &Figures) {
    let Figures {
        totals,
        new,
        seconds,
        ..
    } = figures;
    row("consumed", &grouped(totals.consumed));
    for (topic, count) in &new.outputs {
        row(topic, &grouped(*count));
    }
    row("duplicates", &grouped(totals.duplicates));
    row("dead letters", &grouped(new.dead_letters));
    row("seconds", &format!("{seconds:.2}"));
    row(
        "messages/s",
        &grouped((totals.consumed as f64 / seconds).round() as u64),
    );
}

fn print_topics(counts: &Counts) {
    row(SOURCE, &grouped(counts.source));
    for (topic, count) in &counts.outputs {
        row(topic, &grouped(*count));
    }
    row("dead letters", &grouped(counts.dead_letters));
}

fn row(name: &str, value: &str) {
    println!("  {name:14}{value:>12}");
}

fn show_a_dead_letter(host: &Host) -> Result<(), Error> {
    println!("\none of the dead letters:\n");
    println!("{}", host.one_dead_letter()?);
    Ok(())
}

fn print_what_to_try(host: &Host) {
    let (binary, dir) = (host.binary().display(), host.data_dir().display());
    println!("\nnext (the host is stopped: these open its data directory themselves)");
    for command in [
        "dlq list",
        "topics list",
        "consume late --from earliest",
        &format!("groups describe {GROUP}"),
    ] {
        println!("  {binary} {command} --data-dir {dir}");
    }
    println!("  cargo xtask demo            again: nothing is published or consumed twice");
    println!("  plugins/examples/flights    the handler and the pipeline, to change and run");
}

/// `54011` as `54,011`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 54_011, 1_234_567].map(grouped),
            ["0", "999", "1,000", "54,011", "1,234,567"]
        );
    }
}
