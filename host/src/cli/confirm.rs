//! Asking before something is done that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::Error;

/// Goes on when the person says yes on the terminal, or `--yes` was given.
///
/// # Errors
/// `Usage` (exit 2) without a terminal, `Failed` when the answer is not yes.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::usage(
            "this cannot be undone, and there is no terminal to ask on",
            "say --yes",
        ));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::failed("nothing was changed", "")),
    }
}
