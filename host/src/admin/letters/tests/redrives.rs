//! Redrives (§6.4): what goes back, where to, and what a crash leaves of it.

use super::*;

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
        fixture.console.step_job(&mut record, 3).unwrap();
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
