//! Prints what the bench found. The only place of the bench that writes to standard output.

#![expect(clippy::print_stdout, reason = "a bench prints")]

use crate::{Case, Measure};

pub(crate) struct Pair {
    /// By number of threads.
    pub(crate) bare: Vec<Measure>,
    pub(crate) hosted: Measure,
    /// Share of the machine that others took meanwhile, percent.
    pub(crate) others: f64,
}

pub(crate) struct Summary {
    /// Host against the bare loop at its best thread count, of the same pair; sorted.
    ratios: Vec<f64>,
    hosted: Vec<f64>,
    bare: Vec<f64>,
    /// Host CPU minus the least bare CPU of the pair, µs a message; sorted.
    extra_cpu: Vec<f64>,
    others: Vec<f64>,
}

/// One figure, measured several times.
pub(crate) struct Row {
    name: String,
    values: Vec<f64>,
    limit: Option<f64>,
    note: String,
}

impl Row {
    pub(crate) fn new(name: &str, values: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            values: sorted(values.into_iter()),
            limit: None,
            note: String::new(),
        }
    }

    pub(crate) const fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(crate) fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }
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
            others: sorted(pairs.iter().map(|pair| pair.others)),
        }
    }

    /// Messages a second.
    pub(crate) fn host_median(&self) -> f64 {
        median(&self.hosted)
    }

    pub(crate) fn ratio_median(&self) -> f64 {
        median(&self.ratios)
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn at(values: &[f64], index: usize) -> f64 {
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        at(values, middle)
    } else {
        f64::midpoint(at(values, middle.saturating_sub(1)), at(values, middle))
    }
}

/// `least / median / greatest` of sorted values.
fn spread(values: &[f64], digits: usize) -> String {
    format!(
        "{:.digits$} / {:.digits$} / {:.digits$}",
        at(values, 0),
        median(values),
        at(values, values.len().saturating_sub(1))
    )
}

/// The interval of ranks that holds the median with at least 95 % (binomial, no assumption about the
/// distribution); below 6 values it is least to greatest and holds less.
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len();
    let mut outside = 0.0;
    // P(k of n values lie below the median), from k = 0 on.
    let mut probability = 0.5_f64.powi(n as i32);
    let mut rank = 0;
    while rank < n / 2 && 2.0 * (outside + probability) <= 0.05 {
        outside += probability;
        rank += 1;
        probability *= (n - rank + 1) as f64 / rank as f64;
    }
    let low = rank.saturating_sub(1);
    (at(values, low), at(values, n.saturating_sub(1 + low)))
}

pub(crate) fn say(text: &str) {
    println!("{text}");
}

pub(crate) fn pair(case: Case, round: usize, pair: &Pair) {
    let Pair {
        bare,
        hosted,
        others,
    } = pair;
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
        "{} round {round}: {} | host {:.0}/s {:.2} us CPU | others {others:.0} %",
        case.name(),
        bare.join(", "),
        hosted.rate(),
        hosted.cpu_us()
    );
}

pub(crate) fn table(summaries: &[(Case, Summary)]) {
    println!(
        "\n| case | host, msg/s min / median / max | bare loop at its best thread count | median pair ratio (95 % interval) | CPU on top, µs/msg | taken by others, % |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (case, summary) in summaries {
        let (low, high) = interval(&summary.ratios);
        println!(
            "| {} | {} | {} | {:.2} ({low:.2} to {high:.2}) | {} | {} |",
            case.name(),
            spread(&summary.hosted, 0),
            spread(&summary.bare, 0),
            summary.ratio_median(),
            spread(&summary.extra_cpu, 2),
            spread(&summary.others, 0),
        );
    }
    println!();
}

pub(crate) fn rows(title: &str, rows: &[Row]) {
    println!("\n| {title} | min / median / max | limit | runs |");
    println!("| --- | --- | --- | --- |");
    for row in rows {
        let limit = row.limit.map_or_else(String::new, |limit| {
            let held = if median(&row.values) <= limit {
                "held"
            } else {
                "MISSED"
            };
            format!("{limit}: {held}")
        });
        let digits = match median(&row.values) {
            value if value.abs() < 10.0 => 2,
            _ => 0,
        };
        println!(
            "| {} | {} | {limit} | {} |",
            row.name,
            spread(&row.values, digits),
            row.values.len()
        );
    }
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        println!("\n{}: {}", row.name, row.note);
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_ten_values_is_from_the_second_to_the_ninth() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(interval(&values), (2.0, 9.0));
    }

    #[test]
    fn the_interval_of_few_values_is_all_of_them() {
        assert_eq!(interval(&[1.0, 2.0, 3.0]), (1.0, 3.0));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
