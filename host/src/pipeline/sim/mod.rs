//! A seeded simulation of the real worker: broker, store, clock and handler are played, the host is
//! killed at any point, and every settlement that becomes durable is held against what it may hold.
//! The same seed is the same run; `run(seed, true)` shows it.

mod actors;
mod back;
mod dice;
mod expected;
mod ledger;
mod life;
mod numbers;
mod scenario;
mod world;

use life::run;

/// Seeds of one test; there are four, so that they run beside each other. `WASMILL_SIM_SEEDS` says
/// another number.
const SEEDS: u64 = 1000;
/// Events shown of a run that went wrong.
const SHOWN: usize = 80;
/// Seeds that once found a mistake. `WASMILL_SIM_SEED` adds one.
const FOUND: &[u64] = &[36, 63, 97, 132, 193, 587];

fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap())
}

/// Shows the first of the runs that went wrong, and names the others.
fn none(wrong: &[(u64, String)], returns: bool) {
    let Some((seed, violation)) = wrong.first() else {
        return;
    };
    let shown = run(*seed, returns, true).shown;
    let from = shown.len().saturating_sub(SHOWN);
    let plan = scenario::Scenario::of(*seed, returns).plan;
    panic!(
        "{plan:?}\n{}\nseed {seed}: {violation}\nall: {wrong:#?}",
        shown[from..].join("\n")
    );
}

/// Runs a quarter of the seeds; they must get something done, and meet what they are for.
#[expect(clippy::print_stdout, reason = "it says what was covered")]
fn check_seeds(quarter: u64) {
    let seeds = asked("WASMILL_SIM_SEEDS").unwrap_or(SEEDS);
    let from = quarter * seeds;
    let (mut inputs, mut succeeded, mut letters, mut duplicates) = (0, 0, 0, 0);
    let (mut lives, mut suspect_lives) = (0, 0);
    let mut wrong = Vec::new();
    for seed in from..from + seeds {
        let report = run(seed, false, false);
        wrong.extend(report.violation.clone().map(|what| (seed, what)));
        let is_too_few = (report.succeeded + report.duplicates) * 10 < report.inputs;
        let can_tell = report.inputs >= 20 && report.dropped == 0;
        if report.violation.is_none() && is_too_few && can_tell {
            wrong.push((seed, format!("too little succeeded: {report:?}")));
        }
        inputs += report.inputs;
        succeeded += report.succeeded;
        letters += report.letters;
        duplicates += report.duplicates;
        lives += report.lives;
        suspect_lives += report.suspect_lives;
    }
    none(&wrong, false);
    println!(
        "{seeds} seeds from {from}: {inputs} messages, {succeeded} succeeded, {letters} dead letters, \
         {duplicates} duplicates, {lives} lives, {suspect_lives} of them suspect"
    );
    assert!(succeeded * 2 >= inputs, "{succeeded} of {inputs} succeeded");
    assert!(letters * 20 >= inputs, "{letters} dead letters of {inputs}");
    assert!(
        duplicates * 50 >= inputs,
        "{duplicates} duplicates of {inputs}"
    );
    assert!(lives >= 2 * seeds as u32 && suspect_lives >= seeds as u32 / 10);
}

#[test]
fn whatever_goes_wrong_each_message_takes_effect_once_and_in_order_1() {
    check_seeds(0);
}

#[test]
fn whatever_goes_wrong_each_message_takes_effect_once_and_in_order_2() {
    check_seeds(1);
}

#[test]
fn whatever_goes_wrong_each_message_takes_effect_once_and_in_order_3() {
    check_seeds(2);
}

#[test]
fn whatever_goes_wrong_each_message_takes_effect_once_and_in_order_4() {
    check_seeds(3);
}

/// Messages that come back (§5.2, §6.4): none is lost on the way, tried too early or too often, or takes
/// effect twice; a redrive is another round, and its letter is over when it has come to something.
#[expect(clippy::print_stdout, reason = "it says what was covered")]
fn check_returning_seeds(half: u64) {
    let seeds = asked("WASMILL_SIM_SEEDS").unwrap_or(SEEDS);
    let from = half * seeds;
    let (mut inputs, mut put_aside, mut redriven, mut suspect_lives) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for seed in from..from + seeds {
        let report = run(seed, true, false);
        wrong.extend(report.violation.clone().map(|what| (seed, what)));
        inputs += report.inputs;
        put_aside += report.put_aside;
        redriven += report.redriven;
        suspect_lives += report.suspect_lives;
    }
    none(&wrong, true);
    println!(
        "{seeds} seeds from {from}: {inputs} messages, {put_aside} times put aside, {redriven} redrives, \
         {suspect_lives} suspect lives"
    );
    assert!(put_aside * 10 >= inputs && redriven * 20 >= inputs);
    assert!(suspect_lives >= seeds as u32 / 10);
}

#[test]
fn what_comes_back_takes_effect_once_and_is_never_early_1() {
    check_returning_seeds(0);
}

#[test]
fn what_comes_back_takes_effect_once_and_is_never_early_2() {
    check_returning_seeds(1);
}

/// §4.5: numbers of a key only rise, also over kills; those that do not are passed over.
#[test]
fn whatever_goes_wrong_the_numbers_of_a_key_only_rise() {
    let seeds = asked("WASMILL_SIM_SEEDS").unwrap_or(SEEDS);
    let (mut inputs, mut succeeded, mut passed_over, mut gaps) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for seed in (scenario::SEQUENCED..).take(usize::try_from(seeds).unwrap()) {
        let report = run(seed, false, false);
        wrong.extend(report.violation.clone().map(|what| (seed, what)));
        inputs += report.inputs;
        succeeded += report.succeeded;
        passed_over += report.duplicates;
        gaps += report.gaps;
    }
    none(&wrong, false);
    assert!(succeeded * 2 >= inputs, "{succeeded} of {inputs} succeeded");
    assert!(
        passed_over * 100 >= inputs,
        "{passed_over} of {inputs} passed over"
    );
    assert!(gaps >= seeds / 10, "{gaps} gaps given up");
}

#[test]
fn seeds_that_found_a_mistake_find_none() {
    let asked = asked("WASMILL_SIM_SEED");
    let runs = FOUND
        .iter()
        .copied()
        .chain(asked)
        .map(|seed| (seed, run(seed, false, false)));
    let wrong: Vec<_> = runs
        .filter_map(|(seed, report)| Some((seed, report.violation?)))
        .collect();
    none(&wrong, false);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..40 {
        for returns in [false, true] {
            assert_eq!(run(seed, returns, false), run(seed, returns, false));
        }
    }
}
