//! What the host says about itself: log lines, counters and gauges. Not here: the ports that show
//! them (`admin/`), the snapshots the gauges are filled from (`pipeline/snapshot.rs`).
pub mod alert_rules;
pub mod counts;
pub mod labels;
pub mod log_files;
pub mod logging;
pub mod metrics;
pub mod spans;
