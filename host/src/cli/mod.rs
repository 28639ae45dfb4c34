//! The command line: one file a command. Not here: what the commands ask for (`admin/`, `config/`,
//! `plugin/`, `host/`); they only read arguments and show answers.

mod access;
mod alerts;
mod audit;
mod build;
mod check;
mod completions;
mod config;
mod confirm;
mod consume;
mod dlq;
mod error;
mod explain;
mod files;
mod groups;
mod lint;
mod logs;
mod new;
mod operate;
mod output;
mod plugin;
mod position;
mod produce;
mod record;
mod request;
mod run;
mod schema;
mod show;
mod status;
mod stored;
mod tap;
mod text;
mod top;
mod topics;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use access::{IfAbsent, Streams};
use error::Error;
use output::Out;

use crate::telemetry;

/// What commands other than `run` log when no variable says otherwise.
const COMMAND_FILTER: &str = "warn";

/// Sandboxed WebAssembly handlers over a durable stream: the host owns commits, order, retries, dead
/// letters and idempotency.
#[derive(Debug, Parser)]
#[command(
    name = "wasmill",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Where messages are kept; also WASMILL_DATA_DIR [default: ./wasmill-data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a project for a handler
    New(new::New),
    /// Compile the project here into a plugin
    Build(build::Build),
    /// Inspect a plugin file
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Check configuration files and their plugins without running them
    Lint(lint::Lint),
    /// Say what each pipeline will do, also when something fails
    Explain(explain::Explain),
    /// Say what is missing before the configuration can run here
    Check(check::Check),
    /// Print Prometheus rules for the alerts of the configuration
    Alerts(alerts::Alerts),
    /// What a configuration comes to
    #[command(subcommand)]
    Config(config::Config),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Run pipelines until a signal
    Run(run::Run),
    /// What runs, how far behind it is, and what holds it up
    Status(status::Status),
    /// The same for a terminal, refreshed each second
    Top(top::Top),
    /// What arrives in a topic from now on, or what a pipeline takes in and puts out
    Tap(tap::Tap),
    /// Log lines of the host and of its handlers
    Logs(logs::Logs),
    /// What happened to one message, across pipelines
    Trace(trace::Trace),
    /// Stop a pipeline until it is resumed, also over a restart
    Pause(operate::OfPipeline),
    /// The same, after what was read is finished
    Drain(operate::OfPipeline),
    /// Let a paused or failed pipeline run
    Resume(operate::OfPipeline),
    /// Have the running host read its configuration and plugins again
    Reload(operate::Reload),
    /// Give up one message that holds its lane: it becomes a dead letter
    Reject(operate::Reject),
    /// List, create and describe topics
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Write messages to a topic
    Produce(produce::Produce),
    /// Send a message and wait for its answer
    Request(request::Request),
    /// Show messages of a topic
    Consume(consume::Consume),
    /// List, describe and move consumer groups
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Dead letters: look at them, try a fix on them, send them back, close them
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// One message in full, and what the host knows of it
    Show(show::Show),
    /// What was changed by hand, by whom and why
    Audit(audit::Audit),
}

/// The data directory a command works on.
struct Place {
    named: Option<PathBuf>,
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // Clap answers --help and --version with 0 and a wrong call with 2.
    let cli = Cli::parse();
    let mut out = Out::stdout();
    let done = run(cli, &mut out).and_then(|()| out.flush());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // What was shown so far comes before the error; that it cannot be shown is no news.
            let _shown = out.flush();
            if !matches!(why, Error::BrokenPipe | Error::Said) {
                output::error(&why);
            }
            why.exit_code()
        }
    }
}

fn run(cli: Cli, out: &mut Out) -> Result<(), Error> {
    let place = Place {
        named: cli.data_dir,
    };
    if !matches!(cli.command, Command::Run(_)) {
        telemetry::logging::start(COMMAND_FILTER)
            .map_err(|why| Error::usage(why.to_string(), ""))?;
    }
    match cli.command {
        Command::New(command) => new::run(&command, out),
        Command::Build(command) => build::run(&command, out),
        Command::Plugin(command) => plugin::run(&command, out),
        Command::Lint(command) => lint::run(&command, &place, out),
        Command::Explain(command) => explain::run(&command, out),
        Command::Check(command) => check::run(&command, &place, out),
        Command::Alerts(command) => alerts::run(&command, out),
        Command::Completions(command) => completions::run(&command, out),
        Command::Config(command) => config::run(&command, out),
        Command::Schema => schema::run(out),
        Command::Run(command) => run::run(&command, &place),
        Command::Status(command) => status::run(&command, &place, out),
        Command::Top(command) => top::run(&command, &place, out),
        Command::Tap(command) => tap::run(&command, &place, out),
        Command::Logs(command) => logs::run(&command, &place, out),
        Command::Trace(command) => trace::run(&command, &place, out),
        Command::Pause(command) => operate::pause(command, &place, out),
        Command::Drain(command) => operate::drain(command, &place, out),
        Command::Resume(command) => operate::resume(command, &place, out),
        Command::Reload(command) => operate::reload(&command, &place, out),
        Command::Reject(command) => operate::reject(command, &place, out),
        Command::Topics(command) => topics::run(command, &place, out),
        Command::Produce(command) => produce::run(command, &place, out),
        Command::Request(command) => request::run(command, &place, out),
        Command::Consume(command) => consume::run(&command, &place, out),
        Command::Groups(command) => groups::run(command, &place, out),
        Command::Dlq(command) => dlq::run(command, &place, out),
        Command::Show(command) => show::run(&command, &place, out),
        Command::Audit(command) => audit::run(&command, &place, out),
    }
}

impl Place {
    fn data_dir(&self) -> PathBuf {
        self.named()
            .unwrap_or_else(|| PathBuf::from(access::DATA_DIR_DEFAULT))
    }

    /// `--data-dir` or `WASMILL_DATA_DIR`, when one was given.
    fn named(&self) -> Option<PathBuf> {
        access::named_data_dir(self.named.as_deref())
    }

    /// What the command looks at, for people.
    fn described(&self) -> String {
        match access::url() {
            Some(url) => format!("asked: {}", text::escape(&url)),
            None => {
                let directory = self.data_dir().display().to_string();
                format!("data directory: {}", text::escape(&directory))
            }
        }
    }

    fn streams(&self, if_absent: IfAbsent) -> Result<Streams, Error> {
        Streams::open(&self.data_dir(), if_absent)
    }
}

/// Reads `64KiB`, `10GiB` or plain bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: Option<u64> = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor);
    bytes
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a size as 64KiB, 128MiB or 10GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "KiB", "1KB", "1 KiB", "-1", "0", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_a_usage_error() {
        for wrong in [
            &[
                "wasmill",
                "produce",
                "t",
                "--key",
                "a",
                "--key-expression",
                "message.key",
            ][..],
            &["wasmill", "produce", "t", "text", "--file", "f"],
            &["wasmill", "consume", "t", "--follow", "--to", "5"],
            &["wasmill", "topics", "create", "t", "--partitions", "0"],
            &["wasmill", "run"],
            &["wasmill", "nonsense"],
            &["wasmill", "dlq", "redrive", "--cancel", "r1", "--all"],
            &["wasmill", "dlq", "try"],
            &["wasmill", "dlq", "jobs", "--follow"],
        ] {
            let error = Cli::try_parse_from(wrong).err().unwrap();
            assert_eq!(error.exit_code(), i32::from(error::USAGE), "{wrong:?}");
        }
    }

    #[test]
    fn a_redrive_is_cancelled_in_any_directory() {
        let line = ["wasmill", "dlq", "redrive", "--cancel", "r1", "-o", "json"];
        assert!(Cli::try_parse_from(line.into_iter().chain(["--data-dir", "d"])).is_ok());
    }

    #[test]
    fn every_shell_has_completions_of_every_command() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "wasmill", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell} {command}");
            }
        }
    }

    #[test]
    fn commands_that_read_a_configuration_take_the_same_files() {
        for command in ["run", "lint", "explain", "check", "alerts", "config show"] {
            let words = ["wasmill"].into_iter().chain(command.split(' '));
            let files = "a.yaml b --overlay o.yaml --overlay p.yaml --env-file e".split(' ');
            assert!(Cli::try_parse_from(words.chain(files)).is_ok(), "{command}");
        }
    }

    #[test]
    fn a_span_ago_may_begin_with_a_hyphen() {
        assert!(Cli::try_parse_from(["wasmill", "consume", "t", "--from", "-10m"]).is_ok());
    }
}
