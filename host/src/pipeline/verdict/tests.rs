//! §3.3, §5.1 and §5.3 as examples, and the bounds of every delay.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

fn policy() -> Retry {
    Retry {
        mode: crate::config::valid::RetryMode::Inline,
        max_attempts: NonZeroU32::new(5).unwrap(),
        max_elapsed: None,
        backoff: Backoff {
            initial_interval: Duration::from_millis(200),
            multiplier: 2.0,
            max_interval: Duration::from_secs(30),
        },
    }
}

/// At the top of the jitter.
fn at_least_once(report: &Report, attempt: u32) -> Verdict {
    judge(
        report,
        attempt,
        None,
        &policy(),
        Delivery::AtLeastOnce,
        false,
        NOW_MS,
        1.0,
    )
}

fn retryable(after: Option<Duration>) -> Report<'static> {
    Report::Retryable {
        reason: "busy",
        after,
    }
}

fn dead(reason: Reason) -> Verdict {
    Verdict::DeadLetter { reason }
}

fn retry_ms(ms: u64) -> Verdict {
    Verdict::RetryAt {
        delay: Duration::from_millis(ms),
    }
}

#[test]
fn success_is_settled() {
    assert_eq!(at_least_once(&Report::Success, 1), Verdict::Ack);
    assert_eq!(at_least_once(&Report::Success, 9), Verdict::Ack);
}

#[test]
fn a_retryable_failure_is_tried_again_until_attempts_are_spent_counting_the_first() {
    let verdicts: Vec<_> = (1..=5)
        .map(|n| at_least_once(&retryable(None), n))
        .collect();
    let expected = [
        retry_ms(200),
        retry_ms(400),
        retry_ms(800),
        retry_ms(1600),
        dead(Reason::AttemptsExhausted),
    ];
    assert_eq!(verdicts, expected);
}

#[test]
fn with_one_attempt_nothing_is_tried_again() {
    let once = Retry {
        max_attempts: NonZeroU32::MIN,
        ..policy()
    };
    let verdict = judge(
        &retryable(None),
        1,
        None,
        &once,
        Delivery::ExactlyOnce,
        false,
        NOW_MS,
        0.0,
    );
    assert_eq!(verdict, dead(Reason::AttemptsExhausted));
}

#[test]
fn a_rejection_or_refusal_is_dead_lettered_at_once() {
    assert_eq!(
        at_least_once(&Report::Rejected { reason: "bad" }, 1),
        dead(Reason::Rejected)
    );
    for reason in [
        Reason::Undecodable,
        Reason::NoIdempotencyKey,
        Reason::HostCrash,
    ] {
        assert_eq!(
            at_least_once(
                &Report::Refused {
                    reason,
                    error: "why"
                },
                1
            ),
            dead(reason)
        );
    }
}

#[test]
fn a_fault_counts_as_an_attempt_and_the_last_one_names_the_reason() {
    let fault = |kind| Report::Fault { kind, message: "m" };
    assert_eq!(at_least_once(&fault("trap"), 1), retry_ms(200));
    assert_eq!(
        at_least_once(&fault("timeout"), 5),
        dead(Reason::of_fault("timeout"))
    );
    assert_eq!(
        at_least_once(&fault("unknown_output"), 5),
        dead(Reason::UnknownOutput)
    );
    assert_eq!(
        at_least_once(&fault("output_too_large"), 5),
        dead(Reason::OutputTooLarge)
    );
}

#[test]
fn a_failure_of_the_host_is_not_charged_however_often_it_happens() {
    let report = Report::HostFailure { message: "disk" };
    let wait = Verdict::Wait {
        delay: Duration::from_secs(30),
    };
    assert_eq!(at_least_once(&report, 1_000_000), wait);
}

#[test]
fn a_plugin_that_cannot_be_instantiated_halts_the_pipeline_in_every_mode() {
    for delivery in [
        Delivery::AtLeastOnce,
        Delivery::ExactlyOnce,
        Delivery::AtMostOnce,
    ] {
        let report = Report::NoInstance {
            message: "panic at init",
        };
        let verdict = judge(&report, 1, None, &policy(), delivery, false, NOW_MS, 0.5);
        assert_eq!(verdict, Verdict::Halt);
    }
}

/// §5.5: what a dependency that is down does to a message is not the message's failure.
#[test]
fn in_an_outage_a_failure_that_could_be_retried_waits_uncharged_and_others_do_not() {
    let judge = |report| {
        judge(
            &report,
            5,
            None,
            &policy(),
            Delivery::AtLeastOnce,
            true,
            NOW_MS,
            0.5,
        )
    };
    assert_eq!(judge(retryable(None)), Verdict::Wait { delay: AFTER_MAX });
    let rejected = Report::Rejected { reason: "no" };
    assert_eq!(judge(rejected), dead(Reason::Rejected));
    assert_eq!(judge(Report::Success), Verdict::Ack);
}

#[test]
fn at_most_once_discards_whatever_failed() {
    let judge = |report| {
        judge(
            &report,
            1,
            None,
            &policy(),
            Delivery::AtMostOnce,
            false,
            NOW_MS,
            0.5,
        )
    };
    assert_eq!(judge(Report::Success), Verdict::Ack);
    let failures = [
        retryable(None),
        Report::Rejected { reason: "bad" },
        Report::Fault {
            kind: "trap",
            message: "m",
        },
        Report::Refused {
            reason: Reason::Undecodable,
            error: "not JSON",
        },
        Report::HostFailure { message: "disk" },
    ];
    for report in failures {
        assert_eq!(judge(report), Verdict::Discard, "{report:?}");
    }
}

#[test]
fn the_handlers_wish_for_a_later_try_is_a_lower_bound_up_to_after_max() {
    let asked = |after| at_least_once(&retryable(Some(after)), 3);
    assert_eq!(asked(Duration::from_millis(1)), retry_ms(800));
    assert_eq!(asked(Duration::from_secs(90)), retry_ms(90_000));
    assert_eq!(asked(Duration::MAX), Verdict::RetryAt { delay: AFTER_MAX });
}

fn within(
    max_elapsed_ms: u64,
    first_failed_at_ms: Option<i64>,
    after: Option<Duration>,
) -> Verdict {
    let policy = Retry {
        max_elapsed: Some(Duration::from_millis(max_elapsed_ms)),
        ..policy()
    };
    let delivery = Delivery::AtLeastOnce;
    judge(
        &retryable(after),
        2,
        first_failed_at_ms,
        &policy,
        delivery,
        false,
        NOW_MS,
        1.0,
    )
}

#[test]
fn max_elapsed_ends_the_retries() {
    let failed_before = |ms| Some(NOW_MS - ms);
    assert_eq!(within(10_000, failed_before(1_000), None), retry_ms(400));
    assert_eq!(
        within(10_000, failed_before(10_000), None),
        dead(Reason::RetryTimeExhausted)
    );
    assert_eq!(
        within(10_000, failed_before(99_000), None),
        dead(Reason::RetryTimeExhausted)
    );
}

#[test]
fn the_last_try_comes_when_max_elapsed_is_up() {
    assert_eq!(within(10_000, Some(NOW_MS - 9_900), None), retry_ms(100));
}

#[test]
fn a_wish_beyond_max_elapsed_cannot_be_granted() {
    let after = |ms| Some(Duration::from_millis(ms));
    assert_eq!(within(10_000, None, after(10_000)), retry_ms(10_000));
    assert_eq!(
        within(10_000, None, after(10_001)),
        dead(Reason::RetryTimeExhausted)
    );
}

#[test]
fn a_clock_that_went_back_ends_nothing_early() {
    assert_eq!(
        within(10_000, Some(NOW_MS + 3_600_000), None),
        retry_ms(400)
    );
    assert_eq!(within(10_000, Some(i64::MAX), None), retry_ms(400));
    assert_eq!(
        within(10_000, Some(i64::MIN), None),
        dead(Reason::RetryTimeExhausted)
    );
}

#[test]
fn spent_attempts_come_before_spent_time() {
    let policy = Retry {
        max_elapsed: Some(Duration::ZERO),
        ..policy()
    };
    let verdict = judge(
        &retryable(None),
        5,
        None,
        &policy,
        Delivery::AtLeastOnce,
        false,
        NOW_MS,
        0.0,
    );
    assert_eq!(verdict, dead(Reason::AttemptsExhausted));
}

#[test]
fn the_default_backoff_reaches_a_minute_on_the_way_and_jitter_shortens_it() {
    let policy = policy().backoff;
    assert_eq!(backoff(&policy, 1, 0.0), Duration::ZERO);
    assert_eq!(backoff(&policy, 1, 0.5), Duration::from_millis(100));
    assert_eq!(backoff(&policy, 8, 1.0), Duration::from_millis(25_600));
    assert_eq!(backoff(&policy, 9, 1.0), Duration::from_secs(30));
    assert_eq!(backoff(&policy, u32::MAX, 1.0), Duration::from_secs(30));
}

#[test]
fn every_reason_has_a_label_of_its_own_in_snake_case() {
    let mut reasons = vec![
        Reason::Rejected,
        Reason::AttemptsExhausted,
        Reason::RetryTimeExhausted,
        Reason::HostCrash,
        Reason::Undecodable,
        Reason::ExpressionFailed,
        Reason::NoIdempotencyKey,
        Reason::IdempotencyConflict,
        Reason::UnknownOutput,
        Reason::OutputTooLarge,
        Reason::of_fault("a kind from the future"),
    ];
    reasons.extend(FAULT_LABELS.map(|(kind, _)| Reason::of_fault(kind)));
    let mut labels: Vec<_> = reasons.iter().map(|reason| reason.as_str()).collect();
    assert!(
        labels
            .iter()
            .all(|l| l.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
    );
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), reasons.len());
    assert_eq!(Reason::of_fault("trap").as_str(), "fault_trap");
    assert_eq!(Reason::of_fault("a kind from the future").as_str(), "fault");
}

#[test]
fn every_kind_of_fault_has_a_label() {
    for kind in crate::plugin::FaultKind::ALL {
        let label = format!("fault_{}", kind.as_str());
        assert_eq!(Reason::of_fault(kind.as_str()).as_str(), label);
    }
}

#[test]
fn a_report_says_what_went_wrong() {
    let reports = [
        retryable(None),
        Report::Rejected { reason: "busy" },
        Report::Refused {
            reason: Reason::Undecodable,
            error: "busy",
        },
        Report::Fault {
            kind: "trap",
            message: "busy",
        },
        Report::NoInstance { message: "busy" },
        Report::HostFailure { message: "busy" },
    ];
    assert!(reports.iter().all(|report| report.error() == "busy"));
    assert_eq!(Report::Success.error(), "");
}

proptest! {
    #[test]
    fn a_backoff_is_never_longer_than_max_interval_whatever_the_policy(
        initial_ms in 0u64..u64::MAX / 4, multiplier in any::<f64>(), max_ms in 0u64..u64::MAX / 4,
        attempt in any::<u32>(), random in any::<f64>(),
    ) {
        let policy = Backoff {
            initial_interval: Duration::from_millis(initial_ms),
            multiplier,
            max_interval: Duration::from_millis(max_ms),
        };
        prop_assert!(backoff(&policy, attempt, random) <= policy.max_interval);
    }

    #[test]
    fn attempts_end_after_max_attempts_and_no_try_is_planned_past_max_elapsed(
        max_attempts in 1u32..20, max_elapsed_ms in proptest::option::of(0u64..100_000),
        after_ms in proptest::option::of(0u64..100_000), randoms in proptest::collection::vec(0.0f64..1.0, 20),
    ) {
        let policy = Retry {
            max_attempts: NonZeroU32::new(max_attempts).unwrap(),
            max_elapsed: max_elapsed_ms.map(Duration::from_millis),
            ..policy()
        };
        let report = retryable(after_ms.map(Duration::from_millis));
        let (mut now_ms, mut first) = (NOW_MS, None);
        for (attempt, random) in (1..).zip(randoms) {
            match judge(&report, attempt, first, &policy, Delivery::AtLeastOnce, false, now_ms, random) {
                Verdict::RetryAt { delay } => {
                    prop_assert!(attempt < max_attempts);
                    prop_assert!(delay.as_millis() as u64 >= after_ms.unwrap_or(0));
                    first = first.or(Some(now_ms));
                    now_ms += delay.as_millis() as i64;
                    if let Some(max) = max_elapsed_ms {
                        prop_assert!(now_ms - NOW_MS <= max as i64);
                    }
                }
                verdict => {
                    let reason = match verdict {
                        Verdict::DeadLetter { reason } => reason,
                        other => panic!("{other:?}"),
                    };
                    prop_assert!(reason == Reason::RetryTimeExhausted || attempt == max_attempts);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it never ends");
    }
}
