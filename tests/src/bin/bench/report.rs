//! Prints what the bench found. The only place of the bench that writes to standard output.

#![expect(clippy::print_stdout, reason = "a bench prints")]

use crate::{Case, Measure};

pub(crate) struct Pair {
    /// By number of threads.
    pub(crate) bare: Vec<Measure>,
    pub(crate) hosted: Measure,
}

pub(crate) struct Summary {
    /// Host against the bare loop at its best thread count, of the same pair; sorted.
    ratios: Vec<f64>,
    hosted: Vec<f64>,
    bare: Vec<f64>,
    /// Host CPU minus the least bare CPU of the pair, µs a message; sorted.
    extra_cpu: Vec<f64>,
}

impl Summary {
    pub(crate) fn of(pairs: &[Pair]) -> Self {
        let best = |pair: &Pair| pair.bare.iter().map(Measure::rate).fold(0.0, f64::max);
        let least_cpu = |pair: &Pair| {
            pair.bare
                .iter()
                .map(Measure::cpu_us)
                .fold(f64::INFINITY, f64::min)
        };
        Self {
            ratios: sorted(pairs.iter().map(|pair| pair.hosted.rate() / best(pair))),
            hosted: sorted(pairs.iter().map(|pair| pair.hosted.rate())),
            bare: sorted(pairs.iter().map(best)),
            extra_cpu: sorted(
                pairs
                    .iter()
                    .map(|pair| pair.hosted.cpu_us() - least_cpu(pair)),
            ),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The least, the median and the greatest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    )
}

/// Ranks of the binomial 95 % interval of the median (normal approximation above 5 values).
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let half = 0.98 * n.sqrt();
    let at = |rank: f64| {
        values
            .get(rank.clamp(0.0, n - 1.0) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    (at((n / 2.0 - half).floor()), at((n / 2.0 + half).ceil()))
}

pub(crate) fn say(text: &str) {
    println!("{text}");
}

pub(crate) fn machine() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
}

pub(crate) fn pair(case: Case, round: usize, bare: &[Measure], hosted: &Measure) {
    let bare: Vec<String> = bare
        .iter()
        .enumerate()
        .map(|(i, m)| {
            format!(
                "bare {} thread(s) {:.0}/s {:.2} us CPU",
                i + 1,
                m.rate(),
                m.cpu_us()
            )
        })
        .collect();
    println!(
        "{} round {round}: {} | host {:.0}/s {:.2} us CPU",
        case.name(),
        bare.join(", "),
        hosted.rate(),
        hosted.cpu_us()
    );
}

pub(crate) fn table(summaries: &[(Case, Summary)]) {
    println!(
        "\n| case | host msg/s min/median/max | bare loop, best thread count | median pair ratio (95 % interval) | CPU on top, us/msg min/median/max |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for (case, summary) in summaries {
        let host = spread(&summary.hosted);
        let bare = spread(&summary.bare);
        let extra = spread(&summary.extra_cpu);
        let (low, high) = interval(&summary.ratios);
        println!(
            "| {} | {:.0} / {:.0} / {:.0} | {:.0} / {:.0} / {:.0} | {:.2} ({low:.2} to {high:.2}) | {:.2} / {:.2} / {:.2} |",
            case.name(),
            host.0,
            host.1,
            host.2,
            bare.0,
            bare.1,
            bare.2,
            spread(&summary.ratios).1,
            extra.0,
            extra.1,
            extra.2
        );
    }
}
