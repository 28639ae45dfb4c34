//! The project's own commands, so that nobody has to remember a shell line: `cargo xtask COMMAND`.
//! Here: choosing the command and turning its result into an exit code. Not here: anything a user of
//! wasmill needs; that is a command of `wasmill` itself.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

mod checks;
mod demo;
mod guests;
mod process;
mod prometheus;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  demo [--fresh] [--data-dir DIR] [--profile release|dev]
                       build, then run the flights pipeline on real data and show what came out;
                       the data directory (target/demo/data) is kept, --fresh empties it first
  test [--quick] [--list] [STEP...]
                       everything that must hold before a change is merged; --quick leaves out what
                       takes long, STEP runs only the named steps (--list names them)
  plugins              build every guest under plugins/ into target/plugins/
  bench [ARGUMENT...]
                       the host against a bare loop, in release; --help lists its arguments
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo", rest @ ..] => demo::run(rest),
        ["test", rest @ ..] => checks::run(rest),
        ["plugins"] => tools::prepare().and_then(|()| guests::build_with_fresh_host()),
        ["bench", rest @ ..] => tests_program("bench", rest),
        [] | ["help" | "--help" | "-h", ..] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!(
                "unknown command or argument: {}\n\n{USAGE}",
                words.join(" ")
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one of the long programs of the tests package on release builds of everything it starts.
fn tests_program(program: &str, arguments: &[&str]) -> Result<(), process::Error> {
    tools::prepare()?;
    let host = guests::build_host(guests::Profile::Release)?;
    guests::build(&host)?;
    process::cargo()
        .args(["run", "--release", "--package", "wasmill-tests", "--bin"])
        .arg(program)
        .arg("--")
        .args(arguments)
        .env("WASMILL_BIN", &host)
        .env("WASMILL_PLUGINS", guests::plugins_dir())
        .succeed()
}
