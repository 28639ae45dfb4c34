//! Three mistakes planted into the host, each of which the checker must notice, in the shortest run
//! that shows it; the same run without the mistake is clean (acceptance 3).

use wasmill::pipeline::snapshot::WaitsFor;
use wasmill_tests::checker::{Checker, Guarantee, Kind, Report};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline, probe_terms};

const MAX_ATTEMPTS: u32 = 4;
/// Longer than any test, ms.
const VERY_LONG: u32 = 3_000_000;

fn site(inputs: &[Input]) -> (Site, Checker) {
    let lines = format!(
        "    delivery: exactly_once\n    retry: {{ max_attempts: {MAX_ATTEMPTS} }}\n{}",
        probe("")
    );
    let site = Site::new(&probe_pipeline(&lines));
    site.publish("in", 1, inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::ExactlyOnce, MAX_ATTEMPTS));
    checker.acknowledge(inputs);
    (site, checker)
}

fn with<'a>(mutant: Option<&'a str>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mutant = mutant.map(|name| ("WASMILL_MUTANT", name));
    mutant.into_iter().chain(more.iter().copied()).collect()
}

fn look(site: &Site, checker: &mut Checker) {
    let log = site.open_log();
    checker.after_kill(&log);
    log.close().unwrap();
}

fn finish(site: &Site, checker: Checker) -> Report {
    let log = site.open_log();
    let report = checker.finish(&log);
    log.close().unwrap();
    report
}

/// Attempts of the message that holds the partition, once its next one is waited for.
fn attempts_waiting(process: &Process) -> Option<u32> {
    let holder = process.partitions().into_iter().find_map(|p| p.holder)?;
    (holder.waits_for == WaitsFor::Retry).then_some(holder.attempts)
}

/// A message waits for its second attempt, others of other keys finish: kill.
fn killed_above_an_unfinished_message(mutant: Option<&str>) -> Report {
    let mut inputs = vec![Input::planned(
        "slow",
        "a",
        "fail_after",
        VERY_LONG,
        Expected::dead("attempts_exhausted", MAX_ATTEMPTS),
    )];
    inputs.extend((0..20).map(|n| Input::ok(&format!("quick-{n}"), "b")));
    let (site, mut checker) = site(&inputs);
    for _ in 0..MAX_ATTEMPTS - 1 {
        let process = site.start_with(&with(mutant, &[]));
        until("the others are finished", || {
            let places = process.partitions();
            let place = places.first()?;
            (place.position == place.end && place.held <= 1).then_some(())
        });
        // Durable as well: what waits for its acknowledgement says so.
        until("the slow one waits, or is forgotten", || {
            let is_held = process.partitions().iter().any(|p| p.held > 0);
            (!is_held || attempts_waiting(&process).is_some()).then_some(())
        });
        process.kill();
        look(&site, &mut checker);
    }
    let mut process = site.start_with(&with(mutant, &[]));
    process.await_drained();
    process.stop();
    finish(&site, checker)
}

#[test]
fn a_host_that_commits_past_an_unfinished_message_is_caught() {
    killed_above_an_unfinished_message(None).assert_clean();
    let report = killed_above_an_unfinished_message(Some("commit_past_unfinished"));
    assert!(report.has(Kind::CommittedPast), "{}", report.text());
    assert!(report.has(Kind::Lost), "{}", report.text());
}

/// A message is rejected; the host dies at `point`.
fn killed_at_a_dead_letter(mutant: Option<&str>, point: &str) -> Report {
    let inputs = [Input::planned(
        "bad",
        "a",
        "reject",
        0,
        Expected::dead("rejected", 1),
    )];
    let (site, mut checker) = site(&inputs);
    let fault = format!("{point}:1");
    let mut process = site.spawn(&with(mutant, &[("WASMILL_FAULT", &fault)]));
    process.await_end();
    look(&site, &mut checker);
    let mut process = site.start_with(&with(mutant, &[]));
    process.await_drained();
    process.stop();
    finish(&site, checker)
}

#[test]
fn a_host_that_writes_the_dead_letter_after_the_commit_is_caught() {
    for point in ["dead_letter_built", "before_submit"] {
        killed_at_a_dead_letter(None, point).assert_clean();
    }
    let report =
        killed_at_a_dead_letter(Some("dead_letter_after_commit"), "before_late_dead_letters");
    assert!(report.has(Kind::CommittedPast), "{}", report.text());
    assert!(report.has(Kind::Lost), "{}", report.text());
}

/// A message fails every attempt; the host is killed between any two of them.
fn killed_between_attempts(mutant: Option<&str>) -> (Report, Vec<u32>) {
    let last = Expected::dead("attempts_exhausted", MAX_ATTEMPTS);
    let inputs = [Input::planned("bad", "a", "fail_after", VERY_LONG, last)];
    let (site, mut checker) = site(&inputs);
    let mut seen = Vec::new();
    for _ in 1..MAX_ATTEMPTS {
        let process = site.start_with(&with(mutant, &[]));
        seen.push(until("an attempt failed, durably", || {
            attempts_waiting(&process)
        }));
        process.kill();
        look(&site, &mut checker);
    }
    let process = site.start_with(&with(mutant, &[]));
    until("it is finished, or waits again", || {
        let is_held = process.partitions().iter().any(|p| p.committed < p.end);
        (!is_held || attempts_waiting(&process).is_some()).then_some(())
    });
    process.stop();
    checker.check_attempts(&std::fs::read_to_string(site.host_log()).unwrap());
    (finish(&site, checker), seen)
}

/// §4.4: exactly `max_attempts` attempts when every kill falls between two.
#[test]
fn attempts_survive_kills_between_them_and_a_host_that_forgets_them_is_caught() {
    let (report, seen) = killed_between_attempts(None);
    report.assert_clean();
    assert_eq!(seen, [1, 2, 3]);
    let (report, seen) = killed_between_attempts(Some("forget_attempts"));
    assert_eq!(seen, [1, 1, 1]);
    assert!(report.has(Kind::Attempts), "{}", report.text());
    assert!(report.has(Kind::Lost), "{}", report.text());
}
