//! Closing dead letters, and forgetting what is closed.

use super::*;
use crate::admin::letters::sweep::HEAD_LOOKS;

/// Nobody scans closed letters for ever: a block in which all are closed is passed without looking.
#[test]
fn blocks_of_closed_letters_are_not_looked_at_again() {
    let fixture = Fixture::new();
    let count = BLOCK * 2 + 10;
    fixture.write((0..count).map(dead));
    let open = BLOCK + 5;
    let closed = (0..count).filter(|offset| *offset != open);
    let writes = closed.map(|offset| Write::Meta {
        key: letter_state::key(&dead(offset).id(), 0),
        value: Some(Record::new(State::Done, 9, "host", None).encode()),
    });
    fixture.commit(Commit {
        writes: writes.collect(),
        ..Commit::default()
    });
    let look = || {
        let filter = DeadLetterFilter {
            scan: Some(100_000),
            ..DeadLetterFilter::default()
        };
        let list = fixture.console.dead_letters(&filter).unwrap();
        assert_eq!(list.dead_letters.len(), 1);
        list.scanned.looked_at
    };
    assert_eq!(look(), count);
    assert_eq!(look(), BLOCK + 10, "the first block is known to be closed");
    let fixture = fixture.crash();
    let filter = DeadLetterFilter {
        scan: Some(100_000),
        ..DeadLetterFilter::default()
    };
    let list = fixture.console.dead_letters(&filter).unwrap();
    assert_eq!(list.scanned.looked_at, BLOCK + 10, "also after a crash");
    // What is resolved and sent back opens its block.
    fixture.set(&dead(3), State::Resolved);
    fixture.start(&RedriveRequest {
        selection: ids(&[dead(3)]),
        ..everything()
    });
    fixture.console.run_redrives().unwrap();
    fixture.pass(&redrive_topic("orders", "email"), "email", 1);
    assert_eq!(fixture.listed(&filter), [open, 3]);
}

/// A host finds them by itself, so that the first question after a redrive of millions is quick as well.
#[test]
fn closed_blocks_are_found_without_anybody_asking() {
    let fixture = Fixture::new();
    let count = BLOCK * 8;
    fixture.write((0..count).map(dead));
    let writes = (0..count).map(|offset| Write::Meta {
        key: letter_state::key(&dead(offset).id(), 0),
        value: Some(Record::new(State::Done, 9, "host", None).encode()),
    });
    fixture.commit(Commit {
        writes: writes.collect(),
        ..Commit::default()
    });
    let mut sweep = Sweep::default();
    let parts = (1..20)
        .take_while(|_| fixture.console.sweep(&mut sweep).unwrap() == PART_EVERY)
        .count();
    assert!((1..10).contains(&parts), "{parts}");
    let list = fixture.console.dead_letters(&DeadLetterFilter {
        scan: Some(100_000),
        ..DeadLetterFilter::default()
    });
    // At most the block in which a part ended was not seen as a whole.
    assert!(list.unwrap().scanned.looked_at <= BLOCK);
}

#[test]
fn resolving_and_purging_close_letters_with_a_note_and_an_audit_entry() {
    let fixture = Fixture::new();
    fixture.write((0..4).map(dead));
    assert_eq!(fixture.close(Verb::Resolve, ids(&[dead(1)])), 1);
    let place = Selection {
        ids: vec![format!("{DLQ}/0@2")],
        ..Selection::default()
    };
    assert_eq!(fixture.close(Verb::Purge, place), 1);
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [3, 0]);
    let shown = fixture.console.dead_letter(&dead(1).id()).unwrap().state;
    assert_eq!(
        (shown.state, shown.by.as_deref(), shown.note.as_deref()),
        (State::Resolved, Some("cli"), Some("why"))
    );
    // What is discarded stays discarded, and is named.
    let request = CloseRequest {
        selection: ids(&[dead(2)]),
        note: None,
    };
    let reply = fixture
        .console
        .close_dead_letters(Verb::Resolve, &request, "cli");
    assert_eq!(reply.unwrap().left, [format!("{DLQ}/0@2: discarded")]);
    assert_eq!(fixture.close(Verb::Resolve, all()), 2);
    let commands: Vec<_> = fixture
        .console
        .audit(10)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.command, entry.note))
        .collect();
    let why = Some("why".to_owned());
    assert_eq!(
        commands,
        [
            ("dlq resolve".to_owned(), why.clone()),
            ("dlq purge".to_owned(), why.clone()),
            ("dlq resolve".to_owned(), why)
        ]
    );
}

#[test]
fn acting_on_everything_wants_to_be_said() {
    let fixture = Fixture::new();
    fixture.write([dead(0)]);
    let nothing = RedriveRequest::default();
    let code = |error: crate::admin::error::Error| error.code;
    assert_eq!(
        fixture
            .console
            .start_redrive(&nothing, "http")
            .map_err(code),
        Err(Code::Invalid)
    );
    let request = CloseRequest {
        selection: Selection::default(),
        note: None,
    };
    let purged = fixture
        .console
        .close_dead_letters(Verb::Purge, &request, "http");
    assert_eq!(purged.map_err(code), Err(Code::Invalid));
    assert_eq!(fixture.listed(&DeadLetterFilter::default()), [0]);
}

#[test]
fn close_max_bounds_one_request_and_the_next_goes_on() {
    let fixture = Fixture::new();
    fixture.write((0..CLOSE_MAX as u64 + 2).map(dead));
    let selection = || Selection {
        ids: Vec::new(),
        filter: DeadLetterFilter {
            scan: Some(100_000),
            ..DeadLetterFilter::default()
        },
        all: true,
    };
    assert_eq!(fixture.close(Verb::Resolve, selection()), CLOSE_MAX as u64);
    assert_eq!(fixture.close(Verb::Resolve, selection()), 2);
    let too_many = CloseRequest {
        selection: Selection {
            ids: vec!["x".into(); IDS_MAX + 1],
            ..Selection::default()
        },
        note: None,
    };
    let refused = fixture
        .console
        .close_dead_letters(Verb::Resolve, &too_many, "cli");
    assert_eq!(refused.unwrap_err().code, Code::TooLarge);
}

/// States of letters that retention removed do not pile up.
#[test]
fn states_of_dead_letters_that_are_gone_are_forgotten_and_no_others() {
    let (states, kept) = states_after_retention(0);
    assert_eq!(states, kept);
}

/// What somebody else wrote to the topic may stand at its head.
#[test]
fn states_of_dead_letters_behind_other_messages_are_not_forgotten() {
    let (states, kept) = states_after_retention(1);
    assert_eq!(states, kept);
    // So many that the first letter is not looked for: nothing is.
    let (states, _) = states_after_retention(HEAD_LOOKS as usize);
    assert_eq!(states.len(), 100);
}

/// Letters that are done, some of them removed by retention, each behind so many other messages: those
/// whose states are left after a sweep, and those that are there.
fn states_after_retention(others: usize) -> (Vec<u64>, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4_096,
        ..Options::default()
    };
    let console = Console::offline(Log::open(dir.path(), options).unwrap());
    let mut spec = TopicSpec::new(DLQ, NonZeroU32::MIN);
    spec.retention.bytes = Some(8_192);
    console.log.create_topic(&spec).unwrap();
    let fixture = Fixture { dir, console };
    const DAY_MS: i64 = 86_400_000;
    let letter = |offset: u64| Dead {
        at_ms: offset as i64 * DAY_MS,
        ..dead(offset)
    };
    let mut sweep = Sweep::default();
    for offset in 0..100 {
        fixture.write_behind(&vec![MessageRef::default(); others], [letter(offset)]);
        let record = Record::new(State::Done, letter(offset).at_ms, "host", None);
        fixture.commit(Commit {
            writes: vec![crate::admin::letters::state::write(
                &letter(offset).id(),
                0,
                &record,
            )],
            ..Commit::default()
        });
        if offset == 1 && others == 0 {
            fixture.console.sweep_states(&mut sweep).unwrap();
            assert!(
                fixture
                    .console
                    .state_record(&letter(0).id(), 0)
                    .unwrap()
                    .is_some()
            );
        }
        fixture
            .console
            .log
            .maintain(fixture.console.now_ms())
            .unwrap();
    }
    fixture.console.sweep_states(&mut sweep).unwrap();
    let id = fixture.console.log.topic(DLQ).unwrap().partitions[0];
    let earliest = fixture.console.log.earliest(id).unwrap();
    assert!(earliest > 10, "retention removed none");
    let has_state = |offset: &u64| {
        let found = fixture.console.state_record(&letter(*offset).id(), 0);
        found.unwrap().is_some()
    };
    let is_kept = |offset: &u64| (offset + 1) * (others as u64 + 1) > earliest;
    (
        (0..100).filter(has_state).collect(),
        (0..100).filter(is_kept).collect(),
    )
}
