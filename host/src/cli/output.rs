//! What the command line writes: results to stdout as a table or JSON, notes and errors to stderr,
//! colours and progress on a terminal only. Not here: what is written (the commands).

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::error::Error;
use super::text;

/// How often a bar moves while nothing changes.
const TICK: Duration = Duration::from_millis(120);
/// Bytes collected before stdout is written.
const BUFFER_BYTES: usize = 64 * 1_024;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document, for programs.
    Json,
}

/// Stdout of one command. Flush it at the end: errors of the last bytes would be lost otherwise.
pub(super) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    colours: bool,
    is_terminal: bool,
}

impl Out {
    #[must_use]
    pub(super) fn stdout() -> Self {
        let stdout = io::stdout();
        Self {
            colours: colours(stdout.is_terminal()),
            is_terminal: stdout.is_terminal(),
            writer: BufWriter::with_capacity(BUFFER_BYTES, stdout.lock()),
        }
    }

    /// One line of our own; strangers' text in it was escaped by the caller.
    pub(super) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Error> {
        self.bytes(line.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// One pretty JSON document.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(text::escape_json(&json))
    }

    /// One JSON document on one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let json = serde_json::to_string(value).map_err(io::Error::from)?;
        self.line(text::escape_json(&json))
    }

    /// A table, or `empty` when it has no rows. Cells are escaped and cut here.
    pub(super) fn table(
        &mut self,
        head: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
        empty: &str,
    ) -> Result<(), Error> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(head);
        let mut any = false;
        for row in rows {
            table.add_row(row.iter().map(|cell| text::cell(&text::escape(cell))));
            any = true;
        }
        if !any {
            return self.line(empty);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// `word` in `colour` on a terminal.
    #[must_use]
    pub(super) fn paint(&self, word: &str, colour: AnsiColor) -> String {
        paint(
            self.colours,
            word,
            Style::new().fg_color(Some(colour.into())),
        )
    }

    #[must_use]
    pub(super) fn bold(&self, word: &str) -> String {
        paint(self.colours, word, Style::new().bold())
    }

    /// Whether results are coloured.
    #[must_use]
    pub(super) const fn colours(&self) -> bool {
        self.colours
    }

    /// Whether a terminal reads what is written: it obeys bytes.
    #[must_use]
    pub(super) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        Ok(self.writer.flush()?)
    }
}

/// A note to the person, on stderr, so that it mixes with no result. Losing it is no failure.
pub(super) fn note(line: &str) {
    let _lost = writeln!(io::stderr().lock(), "{}", text::escape_lines(line));
}

/// A text of several lines that may have colours of our own, on stderr.
pub(super) fn block(lines: &str) {
    let _lost = writeln!(io::stderr().lock(), "{}", lines.trim_end());
}

pub(super) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

pub(super) fn stderr_colours() -> bool {
    colours(stderr_is_terminal())
}

/// The error and what to do, on stderr.
pub(super) fn error(error: &Error) {
    let mut stderr = io::stderr().lock();
    let colours = colours(stderr.is_terminal());
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let label = paint(colours, "error:", red);
    let message = text::escape_lines(&error.to_string());
    let _lost = writeln!(stderr, "{label} {message}");
    for help in error.help() {
        let label = paint(colours, "help:", Style::new().bold());
        let _lost = writeln!(stderr, "{label} {}", text::escape_lines(help));
    }
}

/// A progress bar over bytes on stderr, hidden when that is no terminal. `total` = 0: not known.
#[must_use]
pub(super) fn progress_bytes(total: u64, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = if total > 0 {
        (
            ProgressBar::new(total),
            "{msg} {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec})",
        )
    } else {
        (
            ProgressBar::new_spinner(),
            "{spinner} {msg} {bytes} ({bytes_per_sec})",
        )
    };
    styled(bar, template, what)
}

/// A progress bar over things that are counted, on stderr, hidden when that is no terminal.
#[must_use]
pub(super) fn progress_count(total: u64, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    styled(
        ProgressBar::new(total),
        "{msg} {wide_bar} {pos}/{len} ({per_sec})",
        what,
    )
}

fn styled(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

fn paint(colours: bool, word: &str, style: Style) -> String {
    if colours {
        format!("{style}{word}{style:#}")
    } else {
        word.to_owned()
    }
}

/// On a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
fn colours(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !set("NO_COLOR") && !dumb
}
