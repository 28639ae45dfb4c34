//! How busy the machine is with other things while something is measured.

use std::time::Instant;

/// Since a moment: what this process (with the children it has waited for) took, and what all took.
pub(crate) struct Others {
    began: Instant,
    own: u64,
    all: u64,
}

impl Others {
    pub(crate) fn since_now() -> Self {
        Self {
            began: Instant::now(),
            own: own_ticks(),
            all: busy_ticks(),
        }
    }

    /// Share of all cores that others took, in percent; time stolen by the hypervisor included.
    pub(crate) fn percent(&self) -> f64 {
        const TICKS_A_SECOND: f64 = 100.0;
        let own = own_ticks() - self.own;
        let others = (busy_ticks() - self.all).saturating_sub(own) as f64 / TICKS_A_SECOND;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        100.0 * others / (self.began.elapsed().as_secs_f64() * cores as f64)
    }
}

/// The averages over 1, 5 and 15 minutes, and runnable tasks.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(4).collect();
    load.join(" ")
}

/// User, nice, system, interrupts and stolen of all cores; not idle, not waiting for a disk.
fn busy_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = numbers(text.lines().next().unwrap_or_default());
    [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| fields.get(*index))
        .sum()
}

fn own_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything.
    let fields = numbers(text.rsplit(')').next().unwrap_or_default());
    // After the name and the state (a letter): utime, stime, cutime and cstime.
    fields.get(10..14).unwrap_or_default().iter().sum()
}

/// Those fields that are numbers; negative ones count as 0.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace()
        .filter_map(|field| field.parse::<i64>().ok())
        .map(|number| u64::try_from(number).unwrap_or(0))
        .collect()
}
