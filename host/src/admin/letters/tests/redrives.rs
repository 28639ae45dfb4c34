//! Redrives (§6.4): what goes back, where to, and what a crash leaves of it.

use std::time::Duration;

use super::*;
use crate::admin::letters::runner::{AHEAD_MAX, AHEAD_MIN};

/// §6.4: to the failing group only, the message as it was, one round higher, oldest first.
#[test]
fn a_redrive_sends_the_message_as_it_was_to_the_failing_group_only() {
    let fixture = Fixture::new();
    fixture.write((0..3).map(dead));
    fixture.write([Dead {
        group: "analytics",
        ..dead(1)
    }]);
    let refused = fixture.console.start_redrive(&everything(), "cli");
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("analytics, email"), "{refused}");
    let request = RedriveRequest {
        selection: Selection {
            ids: Vec::new(),
            filter: DeadLetterFilter {
                consumer_group: Some("email".into()),
                ..DeadLetterFilter::default()
            },
            all: false,
        },
        ..everything()
    };
    let id = fixture.start(&request);
    fixture.console.run_redrives().unwrap();
    let expected: Vec<_> = (0..3)
        .map(|offset| (offset, 1, dead(offset).id()))
        .collect();
    assert_eq!(fixture.sent("email"), expected);
    assert!(fixture.sent("analytics").is_empty());
    let job = fixture.console.job(&id).unwrap();
    assert_eq!(
        (job.state, job.sent, job.waiting),
        (JobState::Draining, 3, 3)
    );
    fixture.pass(&redrive_topic("orders", "email"), "email", 3);
    let mut jobs = fixture.console.letters.jobs();
    jobs.hurry();
    drop(jobs);
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.console.job(&id).unwrap().state, JobState::Done);
}

/// A kill between any two steps repeats no letter and loses none, and a restart goes on by itself.
#[test]
fn a_redrive_that_was_killed_between_steps_repeats_nothing() {
    let mut fixture = Fixture::new();
    fixture.write((0..10).map(dead));
    let id = fixture.start(&everything());
    // What fails while it runs is not its business: its end was frozen.
    fixture.write([Dead {
        round: 1,
        ..dead(20)
    }]);
    for step in 1.. {
        let mut record = fixture.console.job_record(&id).unwrap();
        let mut change = fixture.console.letters.change().unwrap();
        let stepped = fixture.console.step_job(&mut record, 3, &mut change);
        drop(change);
        stepped.unwrap();
        assert_eq!(fixture.sent("email").len() as u64, record.sent);
        fixture = fixture.crash();
        let job = fixture.console.job(&id).unwrap();
        assert_eq!(job.sent, (3 * step).min(10), "durable with what was sent");
        if job.state != JobState::Running {
            break;
        }
    }
    let offsets: Vec<u64> = fixture.sent("email").iter().map(|sent| sent.0).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [20]);
    let fixture = fixture.crash();
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.sent("email").len(), 10);
}

#[test]
fn a_redrive_stops_after_failures_and_leaves_out_what_was_redriven_too_often() {
    let fixture = Fixture::new();
    fixture.write((0..50).map(dead));
    fixture.write([Dead {
        round: MAX_REDRIVES_DEFAULT,
        ..dead(60)
    }]);
    let request = RedriveRequest {
        stop_after: Some(2),
        ..everything()
    };
    let preview = fixture.console.preview_redrive(&request).unwrap();
    assert_eq!((preview.letters, preview.left_out), (50, 1));
    let id = fixture.start(&request);
    fixture.console.run_redrives().unwrap();
    let sent = fixture.console.job(&id).unwrap().sent;
    assert_eq!(sent, 16, "no more than that runs ahead of what may fail");
    fixture.write((0..2).map(|offset| Dead {
        round: 1,
        ..dead(offset)
    }));
    fixture.pass(&redrive_topic("orders", "email"), "email", 10);
    fixture.console.letters.jobs().hurry();
    fixture.console.run_redrives().unwrap();
    let job = fixture.console.job(&id).unwrap();
    assert_eq!((job.state, job.failed_again), (JobState::Stopped, 2));
    assert_eq!(job.sent, 16);
    assert_eq!(fixture.sent("email").len(), 16);
}

#[test]
fn one_redrive_a_consumer_group_at_a_time_and_it_can_be_cancelled() {
    let fixture = Fixture::new();
    fixture.write((0..5).map(dead));
    let request = RedriveRequest {
        rate: Some(1),
        ..everything()
    };
    let id = fixture.start(&request);
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.console.job(&id).unwrap().sent, 1, "1 a second");
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.console.job(&id).unwrap().sent, 1);
    let second = fixture.console.start_redrive(&request, "cli").unwrap_err();
    assert_eq!(second.code, Code::Conflict);
    assert!(second.help.contains(&id), "{second:?}");
    let typo = fixture.console.cancel_redrive("r0", "cli").unwrap_err();
    assert_eq!(typo.code, Code::UnknownJob);
    let cancelled = fixture.console.cancel_redrive(&id, "cli").unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    let fixture = fixture.crash();
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.sent("email").len(), 1);
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [4, 3, 2, 1]);
    fixture.start(&request);
}

#[test]
fn jobs_kept_max_bounds_what_is_remembered() {
    let fixture = Fixture::new();
    fixture.write([dead(0)]);
    for _ in 0..JOBS_KEPT_MAX + 3 {
        let id = fixture.start(&everything());
        fixture.console.cancel_redrive(&id, "cli").unwrap();
    }
    assert_eq!(fixture.console.jobs().unwrap().len(), JOBS_KEPT_MAX);
}

/// §6.4: the dry run says how many keys have newer processed messages.
#[test]
fn a_preview_says_how_many_keys_went_on_without_the_dead_letter() {
    let fixture = Fixture::new();
    let mut builder = ChunkBuilder::new();
    for key in ["a", "b", "c", "a", "b", "c"] {
        builder.push(&MessageRef {
            key: Some(key.as_bytes()),
            ..MessageRef::default()
        });
    }
    fixture.append("orders", &mut builder);
    let failed = |offset, key: &str| Dead {
        key: key.into(),
        ..dead(offset)
    };
    // The newer message of b is a dead letter itself; that of c is not processed yet.
    fixture.write([
        failed(0, "a"),
        failed(1, "b"),
        failed(2, "c"),
        failed(4, "b"),
    ]);
    fixture.pass("orders", "email", 5);
    let preview = fixture.console.preview_redrive(&everything());
    let preview = preview.unwrap();
    assert_eq!(
        (preview.letters, preview.keys, preview.newer_keys),
        (4, 3, 1)
    );
    assert!(!preview.newer_is_lower_bound);
    assert!(
        fixture.console.jobs().unwrap().is_empty(),
        "nothing started"
    );
}

#[test]
fn a_redrive_of_a_newer_version_is_refused() {
    let fixture = Fixture::new();
    fixture.commit(Commit {
        writes: vec![Write::Meta {
            key: b"redrive/r1".to_vec(),
            value: Some(br#"{"version":2}"#.to_vec()),
        }],
        ..Commit::default()
    });
    let refused: Result<JobRecord, _> = fixture.console.job_record("r1");
    assert_eq!(refused.unwrap_err().code, Code::StoreUnavailable);
}

/// A step that is not durable in time may become so later: the letters are sent once all the same, and
/// nobody changes states meanwhile.
#[test]
fn a_step_that_is_late_is_not_taken_again() {
    let fixture = Fixture::new();
    // The redrive topic is there.
    fixture.write([dead(9)]);
    fixture.start(&everything());
    fixture.run_until_answered();
    fixture.write((0..3).map(dead));
    let id = fixture.start(&everything());
    fixture
        .console
        .letters
        .set_patience(Duration::from_millis(20));
    let held = fixture.hold_commits();
    for _ in 0..5 {
        fixture.console.letters.jobs().hurry();
        fixture.console.run_redrives().unwrap();
        let job = fixture.console.job(&id).unwrap();
        assert_eq!(job.sent, 0);
        assert!(job.trouble.is_some());
    }
    let request = CloseRequest {
        selection: all(),
        note: None,
    };
    let closed = fixture
        .console
        .close_dead_letters(Verb::Resolve, &request, "cli");
    assert_eq!(closed.unwrap_err().code, Code::StoreUnavailable);
    let cancelled = fixture.console.cancel_redrive(&id, "cli");
    assert_eq!(cancelled.unwrap_err().code, Code::StoreUnavailable);
    drop(held);
    fixture
        .console
        .letters
        .set_patience(Duration::from_secs(30));
    fixture.run_until_answered();
    let job = fixture.console.job(&id).unwrap();
    assert_eq!((job.sent, job.trouble), (3, None));
    let offsets: Vec<u64> = fixture.sent("email").iter().map(|sent| sent.0).collect();
    assert_eq!(offsets, [9, 0, 1, 2]);
}

/// Nobody waits for ever for a log that cannot write, and with it for whoever looks at redrives.
#[test]
fn a_step_that_waits_for_its_topic_gives_up_and_comes_again() {
    let fixture = Fixture::new();
    fixture.write((0..3).map(dead));
    let id = fixture.start(&everything());
    let letters = &fixture.console.letters;
    letters.set_patience(Duration::from_millis(20));
    let held = fixture.hold_commits();
    for _ in 0..3 {
        letters.jobs().hurry();
        fixture.console.run_redrives().unwrap();
        assert!(fixture.console.job(&id).unwrap().trouble.is_some());
    }
    drop(held);
    letters.set_patience(Duration::from_secs(30));
    fixture.run_until_answered();
    assert_eq!(fixture.sent("email").len(), 3);
}

/// The same for its beginning: it runs when it turns out to be durable, and no second one beside it.
#[test]
fn a_redrive_whose_start_is_late_is_the_only_one() {
    let fixture = Fixture::new();
    fixture.write((0..3).map(dead));
    fixture.console.run_redrives().unwrap();
    fixture
        .console
        .letters
        .set_patience(Duration::from_millis(20));
    let held = fixture.hold_commits();
    for _ in 0..3 {
        let late = fixture.console.start_redrive(&everything(), "cli");
        assert_eq!(late.unwrap_err().code, Code::StoreUnavailable);
        fixture.console.run_redrives().unwrap();
    }
    drop(held);
    fixture
        .console
        .letters
        .set_patience(Duration::from_secs(30));
    fixture.run_until_answered();
    let jobs = fixture.console.jobs().unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].sent, 3);
    assert_eq!(fixture.sent("email").len(), 3);
    // As one that was started in time.
    fixture.write([dead(7)]);
    fixture.start(&everything());
    fixture.run_until_answered();
    assert_eq!(fixture.sent("email").len(), 4);
}

/// By its ID, by its place, twice; and a message that failed anew after a seek lies there twice, under one
/// ID in one round.
#[test]
fn a_letter_that_is_named_or_lies_there_twice_is_sent_once() {
    let fixture = Fixture::new();
    fixture.write((0..2).map(dead));
    let place = format!("{DLQ}/0@1");
    let request = RedriveRequest {
        selection: Selection {
            ids: vec![dead(1).id(), place.clone(), place, dead(1).id()],
            ..Selection::default()
        },
        ..RedriveRequest::default()
    };
    let preview = fixture.console.preview_redrive(&request).unwrap();
    assert_eq!(preview.letters, 1);
    fixture.start(&request);
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.sent("email"), [(1, 1, dead(1).id())]);
    fixture.write((0..1).map(dead));
    for name in [format!("{DLQ}/0@0"), format!("{DLQ}/0@2")] {
        assert_eq!(fixture.console.find(&[name]).unwrap().len(), 1);
    }
    fixture.start(&everything());
    fixture.console.run_redrives().unwrap();
    let sent: Vec<u64> = fixture.sent("email").iter().map(|sent| sent.0).collect();
    assert_eq!(sent, [1, 0]);
}

/// §5.2: a letter that left the redrive topic to wait for its next attempt is under way. It is neither
/// open nor lost, and counts as running ahead.
#[test]
fn a_letter_that_is_put_aside_is_on_its_way() {
    let fixture = Fixture::new();
    fixture.write((0..40).map(dead));
    let request = RedriveRequest {
        stop_after: Some(1),
        ..everything()
    };
    let id = fixture.start(&request);
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.sent("email").len() as u64, AHEAD_MIN);
    // As the settlements that move them write it.
    for letter in (0..AHEAD_MIN).map(dead) {
        fixture.set(&letter, State::Redriving);
    }
    fixture.pass(&redrive_topic("orders", "email"), "email", AHEAD_MIN);
    let open = fixture.listed(&DeadLetterFilter::default());
    assert_eq!(open, (AHEAD_MIN..40).rev().collect::<Vec<_>>());
    assert_eq!(fixture.close(Verb::Purge, ids(&[dead(0)])), 0);
    fixture.run_until_answered();
    let job = fixture.console.job(&id).unwrap();
    assert_eq!((job.state, job.sent), (JobState::Running, AHEAD_MIN));
    // Two came through.
    for letter in (0..2).map(dead) {
        fixture.set(&letter, State::Done);
    }
    fixture.run_until_answered();
    assert_eq!(fixture.sent("email").len() as u64, AHEAD_MIN + 2);
    // One was moved past by hand: it is lost, and nothing waits for it.
    fixture.pass(&redrive_topic("orders", "email"), "email", AHEAD_MIN + 1);
    assert!(
        fixture
            .listed(&DeadLetterFilter::default())
            .contains(&AHEAD_MIN)
    );
    fixture.run_until_answered();
    assert_eq!(fixture.sent("email").len() as u64, AHEAD_MIN + 3);
}

/// Of what a redrive with `stop_after` remembers.
#[test]
fn ahead_max_bounds_how_far_a_redrive_runs_ahead() {
    let fixture = Fixture::new();
    let letters = AHEAD_MAX + 50;
    fixture.write((0..letters).map(dead));
    let id = fixture.start(&RedriveRequest {
        stop_after: Some(u64::MAX),
        ..everything()
    });
    for _ in 0..3 {
        fixture.run_until_answered();
    }
    assert_eq!(fixture.console.job(&id).unwrap().sent, AHEAD_MAX);
}
