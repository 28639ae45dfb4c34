//! Which dead letters are shown, in which groups, and how a question is bounded.

use super::*;

/// §6.3: new → redriving → done | resolved | discarded, and `list` shows what is new or failed again.
#[test]
fn the_list_shows_what_is_new_or_failed_again_and_each_state_when_asked() {
    let fixture = Fixture::new();
    fixture.write((0..6).map(dead));
    let states = [
        State::Redriving,
        State::Done,
        State::Resolved,
        State::Discarded,
    ];
    for (offset, state) in (0..).zip(states) {
        fixture.set(&dead(offset), state);
    }
    // The one that is done has failed again: the same ID in the next round.
    fixture.write([Dead {
        round: 1,
        at_ms: 2_000,
        ..dead(1)
    }]);
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [1, 5, 4]);
    for (offset, filter) in (0..).zip([
        StateFilter::Redriving,
        StateFilter::Done,
        StateFilter::Resolved,
        StateFilter::Discarded,
    ]) {
        assert_eq!(fixture.listed(&in_state(filter)), [offset]);
    }
    assert_eq!(fixture.listed(&in_state(StateFilter::All)).len(), 7);
    let shown = fixture.console.dead_letter(&dead(1).id()).unwrap();
    let rounds: Vec<_> = shown
        .history
        .iter()
        .map(|round| (round.redrive_count, round.state.state))
        .collect();
    assert_eq!(rounds, [(0, State::Done), (1, State::New)]);
}

/// A letter on its way back never stays hidden: once its group has gone past it, it is shown again.
#[test]
fn a_redriven_letter_that_was_lost_from_sight_is_shown_again() {
    let fixture = Fixture::new();
    fixture.write([dead(0)]);
    fixture.start(&everything());
    fixture.console.run_redrives().unwrap();
    assert!(fixture.listed(&DeadLetterFilter::default()).is_empty());
    let list = fixture.console.dead_letters(&DeadLetterFilter::default());
    assert_eq!(list.unwrap().scanned.redriving, 1);
    fixture.pass(&redrive_topic("orders", "email"), "email", 1);
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [0]);
    let shown = fixture.console.dead_letter(&dead(0).id()).unwrap();
    assert!(shown.state.lost && shown.state.state == State::Redriving);
    // And it can be sent again.
    fixture.start(&everything());
    fixture.console.run_redrives().unwrap();
    assert_eq!(fixture.sent("email").len(), 2);
    fixture.set(&dead(0), State::Done);
    assert!(fixture.listed(&DeadLetterFilter::default()).is_empty());
}

#[test]
fn failure_groups_count_letters_of_one_cause_with_an_example() {
    let fixture = Fixture::new();
    fixture.write((0..5).map(dead));
    fixture.write([Dead {
        error: "out of memory".into(),
        ..dead(9)
    }]);
    let found = fixture.console.failure_groups(&DeadLetterFilter::default());
    let groups = found.unwrap().groups;
    let shown: Vec<_> = groups
        .iter()
        .map(|group| (group.count, group.error.as_str(), group.example.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (5, "order <n> is unknown", "orders.email.dlq/0@4"),
            (1, "out of memory", "orders.email.dlq/0@5")
        ]
    );
    assert_eq!(
        (groups[0].first_at_ms, groups[0].last_at_ms),
        (1_000, 1_004)
    );
    let only = DeadLetterFilter {
        failure_group: Some(groups[1].id.clone()),
        ..DeadLetterFilter::default()
    };
    assert_eq!(fixture.listed(&only), [9]);
    let mut typo = groups[1].id.clone();
    typo.pop();
    typo.push('x');
    let none = fixture.console.dead_letters(&DeadLetterFilter {
        failure_group: Some(typo),
        ..DeadLetterFilter::default()
    });
    let hints = none.unwrap().scanned.hints;
    assert!(hints[0].contains(&groups[1].id), "{hints:?}");
}

#[test]
fn failure_groups_max_bounds_what_is_told_apart() {
    let fixture = Fixture::new();
    let word = |n: usize| -> String {
        n.to_string()
            .bytes()
            .map(|b| char::from(b - b'0' + b'a'))
            .collect()
    };
    fixture.write((0..FAILURE_GROUPS_MAX + 3).map(|n| Dead {
        error: word(n),
        ..dead(n as u64)
    }));
    let found = fixture.console.failure_groups(&DeadLetterFilter {
        scan: Some(10_000),
        ..DeadLetterFilter::default()
    });
    let found = found.unwrap();
    assert_eq!((found.groups.len(), found.other), (FAILURE_GROUPS_MAX, 3));
}

#[test]
fn a_list_is_bounded_in_letters_in_what_it_looks_at_and_says_so() {
    let fixture = Fixture::new();
    fixture.write((0..u64::from(DEAD_LETTERS_MAX) + 5).map(dead));
    let list = |limit, scan| {
        let filter = DeadLetterFilter {
            limit,
            scan: Some(scan),
            ..DeadLetterFilter::default()
        };
        fixture.console.dead_letters(&filter).unwrap()
    };
    let most = list(Some(u32::MAX), 100_000);
    assert_eq!(most.dead_letters.len(), DEAD_LETTERS_MAX as usize);
    assert!(most.scanned.more);
    let few = list(None, 10);
    assert_eq!((few.dead_letters.len(), few.scanned.looked_at), (10, 10));
    assert!(few.scanned.more);
    // Where it stopped is where the next question goes on.
    let next = fixture.listed(&DeadLetterFilter {
        until_ms: few.scanned.back_to_ms,
        limit: Some(1),
        ..DeadLetterFilter::default()
    });
    assert_eq!(next, [u64::from(DEAD_LETTERS_MAX) + 5 - 10]);
}

#[test]
fn a_list_of_large_messages_is_cut_by_its_bytes() {
    let fixture = Fixture::new();
    let half = LIST_BYTES_MAX / 2 + 1;
    for offset in 0..3 {
        fixture.write([Dead {
            key: "k".repeat(half),
            ..dead(offset)
        }]);
    }
    let list = fixture.console.dead_letters(&DeadLetterFilter::default());
    let list = list.unwrap();
    assert_eq!((list.dead_letters.len(), list.scanned.more), (2, true));
}

#[test]
fn a_message_is_shown_with_what_its_groups_made_of_it() {
    let fixture = Fixture::new();
    let mut builder = ChunkBuilder::new();
    builder.push(&MessageRef::default());
    builder.push(&MessageRef::default());
    fixture.append("orders", &mut builder);
    fixture.write([dead(0)]);
    fixture.pass("orders", "email", 1);
    fixture.close(Verb::Resolve, ids(&[dead(0)]));
    let facts = fixture.console.message_facts("orders", 0, 0).unwrap();
    assert!(facts.groups[0].finished);
    assert_eq!(
        facts.groups[0].dead_letter.as_deref(),
        Some("orders.email.dlq/0@0")
    );
    assert_eq!(facts.groups[0].rounds[0].state.state, State::Resolved);
    assert!(
        !fixture
            .console
            .message_facts("orders", 0, 1)
            .unwrap()
            .groups[0]
            .finished
    );
    let letter = fixture
        .console
        .message_facts(DLQ, 0, 0)
        .unwrap()
        .dead_letter;
    assert_eq!(letter.unwrap().id, Some(dead(0).id()));
    let missing = fixture.console.message_facts("orders", 0, 9).unwrap_err();
    assert_eq!(missing.code, Code::UnknownMessage);
}

#[test]
fn open_letters_are_counted_by_pipeline_up_to_open_letters_max() {
    let fixture = Fixture::new();
    fixture.write((0..5).map(dead));
    fixture.set(&dead(1), State::Resolved);
    fixture.set(&dead(2), State::Redriving);
    let backlogs = fixture.console.status().unwrap().backlogs;
    assert_eq!(backlogs.len(), 1);
    let mail = &backlogs[0];
    assert_eq!(
        (mail.pipeline.as_str(), mail.dead_letters_open),
        ("mail", 3)
    );
    assert!(!mail.dead_letters_more);
    fixture.write((5..OPEN_LETTERS_MAX + 1).map(dead));
    let mail = &fixture.console.status().unwrap().backlogs[0];
    assert_eq!(mail.dead_letters_open, OPEN_LETTERS_MAX - 1);
    assert!(!mail.dead_letters_more, "all were counted");
    fixture.write((0..5).map(|offset| dead(OPEN_LETTERS_MAX + 2 + offset)));
    let mail = &fixture.console.status().unwrap().backlogs[0];
    assert_eq!(mail.dead_letters_open, OPEN_LETTERS_MAX);
    assert!(mail.dead_letters_more);
}

#[test]
fn one_count_looks_at_open_scan_max_messages_and_tells_of_open_pipelines_max() {
    let fixture = Fixture::new();
    // The newest are closed and their block is not full, so each is looked at.
    fixture.write((0..3).map(dead));
    fixture.write((3..OPEN_SCAN_MAX + 3).map(dead));
    let closed = (3..OPEN_SCAN_MAX + 3).map(|offset| {
        let record = Record::new(State::Resolved, 1, "cli", None);
        Write::Meta {
            key: letter_state::key(&dead(offset).id(), 0),
            value: Some(record.encode()),
        }
    });
    fixture.commit(Commit {
        writes: closed.collect(),
        ..Commit::default()
    });
    // A first count passes over less than all, and says so; what it saw closed is not looked at again.
    assert!(fixture.console.status().unwrap().backlogs.is_empty());
    let mail = &fixture.console.status().unwrap().backlogs[0];
    assert_eq!((mail.dead_letters_open, mail.dead_letters_more), (3, false));
    let running: Vec<Snapshot> = (0..OPEN_PIPELINES_MAX)
        .map(|number| Snapshot {
            topics: Topics::default(),
            alerts: Vec::new(),
            pipeline: format!("p{number}"),
            consumer_group: "g".into(),
            state: pipeline::snapshot::State::Running,
            why: None,
            plugin_digest: String::new(),
            partitions: Vec::new(),
            totals: Totals::default(),
            in_flight: 0,
            handler_memory_bytes: 0,
        })
        .collect();
    let told = fixture.console.backlogs(&running).unwrap();
    assert_eq!(told.len(), OPEN_PIPELINES_MAX);
    assert!(told.iter().all(|one| one.pipeline != "mail"));
}
