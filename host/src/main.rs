//! The `wasmill` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasmill::cli::main()
}
