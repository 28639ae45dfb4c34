//! `cargo xtask test`: everything that must hold before a change is merged, in the order in which a
//! failure is cheapest to learn of, with times, and one line at the end that says how much passed.
//! Not here: the tests themselves.

use std::time::{Duration, Instant};

use crate::demo;
use crate::guests::{self, Profile};
use crate::process::{Error, Program, cargo, program, root};
use crate::prometheus;
use crate::tools;

/// How many checks held. A step that is not a test runner counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

struct Step {
    name: &'static str,
    about: &'static str,
    /// Left out by `--quick`.
    slow: bool,
    /// Later steps need what this one makes: after a failure they are not run.
    needed: bool,
    run: fn() -> Result<Tally, Error>,
}

const fn step(name: &'static str, about: &'static str, run: fn() -> Result<Tally, Error>) -> Step {
    Step {
        name,
        about,
        slow: false,
        needed: false,
        run,
    }
}

/// In the order in which they run.
const STEPS: &[Step] = &[
    Step {
        needed: true,
        ..step("tools", "what the machine needs beyond cargo", || {
            one(tools::prepare().and_then(|()| prometheus::prepare()))
        })
    },
    step("fmt", "formatting", || {
        one(cargo().args(["fmt", "--all", "--check"]).succeed())
    }),
    step(
        "tidy",
        "the rules of ARCHITECTURE.md and docs/limits.md",
        || tests(&["--package", "xtask"]),
    ),
    Step {
        slow: true,
        ..step(
            "deny",
            "licences, sources and duplicates of dependencies (cargo-deny)",
            || one(deny()),
        )
    },
    step("clippy", "lints of the workspace", || one(clippy())),
    Step {
        slow: true,
        ..step(
            "doc",
            "documentation builds without warnings",
            || one(doc()),
        )
    },
    Step {
        needed: true,
        ..step(
            "host",
            "the host, with the fault points that tests use",
            || one(host()),
        )
    },
    step("guest-lints", "formatting and lints of the guests", || {
        one(guests::lint())
    }),
    Step {
        needed: true,
        ..step("guests", "every guest, as a component", || {
            one(guests::build(&guests::host_binary(Profile::Dev)))
        })
    },
    step("guest-tests", "handlers tested natively", guest_tests),
    step("unit", "tests inside the crates", || {
        tests(&with_faults(&["--lib", "--bins"]))
    }),
    step("doctests", "examples in the documentation", || {
        tests(&with_faults(&["--doc"]))
    }),
    step(
        "end-to-end",
        "tests that start hosts, kill them and read what is left",
        || tests(&with_faults(&["--test", "*"])),
    ),
    step("demo", "the demo, and again on what it left", demo::check),
];

/// Runs the steps that `arguments` choose.
pub(crate) fn run(arguments: &[&str]) -> Result<(), Error> {
    let is_quick = arguments.contains(&"--quick");
    if arguments.contains(&"--list") {
        for step in STEPS {
            println!("{:12} {}", step.name, step.about);
        }
        return Ok(());
    }
    let named: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|word| *word != "--quick")
        .collect();
    if let Some(unknown) = named
        .iter()
        .find(|name| !STEPS.iter().any(|step| step.name == **name))
    {
        return Err(
            format!("no step is called `{unknown}`; `cargo xtask test --list` names them").into(),
        );
    }
    let chosen = STEPS.iter().filter(|step| {
        if named.is_empty() {
            !(is_quick && step.slow)
        } else {
            named.contains(&step.name)
        }
    });
    report(&run_steps(chosen))
}

/// What became of one step; `None` when it was not run because one before it failed.
struct Ran {
    name: &'static str,
    took: Duration,
    tally: Option<Tally>,
}

fn run_steps<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Ran> {
    let mut all = Vec::new();
    let mut missing = None;
    for step in steps {
        if let Some(reason) = missing {
            println!("\n── {}: not run, because {reason} failed", step.name);
            all.push(Ran {
                name: step.name,
                took: Duration::ZERO,
                tally: None,
            });
            continue;
        }
        println!("\n── {}: {}", step.name, step.about);
        let started = Instant::now();
        let tally = (step.run)().unwrap_or_else(|error| {
            eprintln!("{error}");
            Tally {
                passed: 0,
                failed: 1,
            }
        });
        if step.needed && tally.failed > 0 {
            missing = Some(step.name);
        }
        let took = started.elapsed();
        println!(
            "── {}: {} in {:.1} s",
            step.name,
            verdict(tally),
            took.as_secs_f64()
        );
        all.push(Ran {
            name: step.name,
            took,
            tally: Some(tally),
        });
    }
    all
}

fn verdict(tally: Tally) -> &'static str {
    if tally.failed == 0 { "ok" } else { "FAILED" }
}

/// Prints the table and the closing line; an error when anything failed or was not run.
fn report(all: &[Ran]) -> Result<(), Error> {
    println!(
        "\n{:12} {:>7} {:>7} {:>9}",
        "step", "passed", "failed", "seconds"
    );
    let mut sum = Tally::default();
    let mut seconds = Duration::ZERO;
    let mut not_run = 0_usize;
    for ran in all {
        let seconds_text = format!("{:.1}", ran.took.as_secs_f64());
        match ran.tally {
            Some(tally) => {
                println!(
                    "{:12} {:>7} {:>7} {seconds_text:>9}",
                    ran.name, tally.passed, tally.failed
                );
                sum = Tally {
                    passed: sum.passed + tally.passed,
                    failed: sum.failed + tally.failed,
                };
            }
            None => {
                println!("{:12} {:>7} {:>7} {:>9}", ran.name, "-", "-", "not run");
                not_run += 1;
            }
        }
        seconds += ran.took;
    }
    println!(
        "{:12} {:>7} {:>7} {:>9.1}\n",
        "all",
        sum.passed,
        sum.failed,
        seconds.as_secs_f64()
    );
    println!("{} passed, {} failed", sum.passed, sum.failed);
    match (sum.failed, not_run) {
        (0, 0) if sum.passed > 0 => Ok(()),
        (0, 0) => Err("nothing was run".into()),
        (failed, 0) => Err(format!("{failed} failed").into()),
        (failed, not_run) => Err(format!("{failed} failed, {not_run} steps were not run").into()),
    }
}

fn one(result: Result<(), Error>) -> Result<Tally, Error> {
    result.map(|()| Tally {
        passed: 1,
        failed: 0,
    })
}

fn deny() -> Result<(), Error> {
    let deny = tools::cargo_deny()?;
    program(deny)
        .args([
            "--workspace",
            "--locked",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ])
        .succeed()
}

fn clippy() -> Result<(), Error> {
    cargo()
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            "wasmill/faults",
        ])
        .args(["--", "--deny", "warnings"])
        .succeed()
}

fn doc() -> Result<(), Error> {
    cargo()
        .args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings")
        .succeed()
}

fn host() -> Result<(), Error> {
    cargo()
        .args([
            "build",
            "--workspace",
            "--bins",
            "--features",
            "wasmill/faults",
        ])
        .succeed()
}

/// The workspace without xtask, whose tests are the step `tidy`.
fn with_faults<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [
        &[
            "--workspace",
            "--exclude",
            "xtask",
            "--features",
            "wasmill/faults",
        ],
        arguments,
    ]
    .concat()
}

fn tests(arguments: &[&str]) -> Result<Tally, Error> {
    count(cargo().args(["test", "--no-fail-fast"]).args(arguments))
}

/// Handlers are plain functions: their tests need no Wasm. Those of the hostile guests are the host's.
fn guest_tests() -> Result<Tally, Error> {
    let mut sum = Tally::default();
    for workspace in guests::examples()? {
        let name = workspace.dir.strip_prefix(root()).unwrap_or(&workspace.dir);
        println!("{}", name.display());
        let tests = cargo().args(["test", "--workspace", "--no-fail-fast", "--target-dir"]);
        let tally = count(tests.arg(guests::guests_target()).dir(&workspace.dir))?;
        sum = Tally {
            passed: sum.passed + tally.passed,
            failed: sum.failed + tally.failed,
        };
    }
    Ok(sum)
}

/// Runs a test runner and adds up the lines with which each test binary closes.
fn count(tests: Program) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let status = tests
        .env("WASMILL_BIN", guests::host_binary(Profile::Dev))
        .env("WASMILL_PLUGINS", guests::plugins_dir())
        .lines(|line| {
            let counted = tally_of(line).unwrap_or_default();
            tally.passed += counted.passed;
            tally.failed += counted.failed;
        })?;
    // A binary that does not compile, or dies, closes with no line.
    if !status.success() && tally.failed == 0 {
        eprintln!("the test runner ended with {status}");
        tally.failed = 1;
    }
    Ok(tally)
}

/// Reads `test result: ok. 12 passed; 0 failed; 0 ignored; …`.
fn tally_of(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        rest.split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Tally {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Tally, tally_of};

    #[test]
    fn the_closing_line_of_a_test_binary_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            tally_of(line),
            Some(Tally {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(tally_of("test message::tests::a_record ... ok"), None);
    }
}
