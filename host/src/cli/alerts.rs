//! `wasmill alerts FILES…`: Prometheus rules for what the configuration watches.

use std::time::Duration;

use clap::Args;

use super::error::Error;
use super::files::Files;
use super::output::Out;
use crate::telemetry::alert_rules;

#[derive(Debug, Args)]
pub(super) struct Alerts {
    #[command(flatten)]
    files: Files,
    /// Seconds for which a condition holds before its alert fires
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60)]
    pending: u32,
}

pub(super) fn run(command: &Alerts, out: &mut Out) -> Result<(), Error> {
    let config = command.files.need()?.config;
    let pending = Duration::from_secs(command.pending.into());
    out.line(alert_rules::yaml(&config, pending).trim_end())
}
