//! Dead letters over a log without a host (§6.3, §6.4): which are shown, closed, sent back, and what is
//! left of it after a crash.

use std::num::NonZeroU32;
use std::path::Path;

use super::close::{CLOSE_MAX, Verb};
use super::groups::FAILURE_GROUPS_MAX;
use super::job::JobRecord;
use super::list::{DEAD_LETTERS_MAX, IDS_MAX, LIST_BYTES_MAX};
use super::redrive::{JOBS_KEPT_MAX, MAX_REDRIVES_DEFAULT};
use super::state::BLOCK;
use super::sweep::{PART_EVERY, Sweep};
use super::wire::{
    CloseRequest, DeadLetterFilter, JobState, RedriveRequest, Selection, StateFilter,
};
use crate::admin::console::Console;
use crate::admin::error::Code;
use crate::connector::embedded::{Append, ChunkBuilder, Commit, Log, Options, TopicSpec, Write};
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::dead_letter::DeadLetter as Letter;
use crate::pipeline::letter_state::{self, Record, State};
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned::{Returned, redrive_topic};
use crate::pipeline::verdict::Reason;

const DLQ: &str = "orders.email.dlq";

/// A console over a directory, with an origin topic and its dead letter topic.
struct Fixture {
    dir: tempfile::TempDir,
    console: Console,
}

/// One dead letter to be written.
#[derive(Clone)]
struct Dead {
    offset: u64,
    key: String,
    error: String,
    group: &'static str,
    round: u32,
    at_ms: i64,
}

fn dead(offset: u64) -> Dead {
    Dead {
        offset,
        key: format!("k{offset}"),
        error: format!("order {offset} is unknown"),
        group: "email",
        round: 0,
        at_ms: 1_000 + offset as i64,
    }
}

impl Dead {
    fn id(&self) -> String {
        crate::pipeline::dead_letter::id(self.group, "orders", 0, self.offset)
    }
}

fn open(dir: &Path) -> Console {
    Console::offline(Log::open(dir, Options::default()).unwrap())
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let console = open(dir.path());
        for name in ["orders", DLQ] {
            let spec = TopicSpec::new(name, NonZeroU32::MIN);
            console.log.create_topic(&spec).unwrap();
        }
        Self { dir, console }
    }

    /// As after SIGKILL: nothing but what was committed.
    fn crash(self) -> Self {
        let Self { dir, console } = self;
        console.log.close().unwrap();
        drop(console);
        let console = open(dir.path());
        Self { dir, console }
    }

    fn write(&self, letters: impl IntoIterator<Item = Dead>) {
        let mut builder = ChunkBuilder::new();
        for dead in letters {
            let mut own = HeadersBuf::new();
            assert!(own.push("tenant", Some(b"a")));
            let message = MessageRef {
                key: Some(dead.key.as_bytes()),
                payload: Some(b"{}"),
                headers: own.as_headers(),
                timestamp_ms: 7,
            };
            let letter = Letter {
                reason: Reason::Rejected,
                error: &dead.error,
                attempts: 1,
                first_failed_at_ms: dead.at_ms,
                last_failed_at_ms: dead.at_ms,
                origin_topic: "orders",
                origin_partition: 0,
                origin_offset: dead.offset,
                group: dead.group,
                pipeline: "mail",
                plugin_digest: "sha256:aa",
                redrive_count: dead.round,
                correlation_id: "c",
            };
            let mut headers = HeadersBuf::new();
            builder.push(&letter.record(&message, &mut headers).unwrap());
        }
        self.append(DLQ, &mut builder);
    }

    fn append(&self, topic: &str, builder: &mut ChunkBuilder) {
        let id = self.console.log.topic(topic).unwrap().partitions[0];
        self.commit(Commit {
            appends: vec![Append {
                partition: id,
                chunk: builder.finish(),
            }],
            ..Commit::default()
        });
    }

    fn commit(&self, commit: Commit) {
        self.console.log.commit(commit).unwrap();
    }

    fn set(&self, dead: &Dead, state: State) {
        self.commit(Commit {
            writes: vec![Write::Meta {
                key: letter_state::key(&dead.id(), dead.round),
                value: Some(Record::new(state, 9, "host", None).encode()),
            }],
            ..Commit::default()
        });
    }

    /// The consumer group has settled everything below `committed`.
    fn pass(&self, topic: &str, group: &str, committed: u64) {
        let group = self.console.log.group(group).unwrap();
        let partition = self.console.log.topic(topic).unwrap().partitions[0];
        let mut value = Vec::new();
        let progress = Progress {
            committed,
            ..Progress::default()
        };
        progress.encode(&mut value);
        self.commit(Commit {
            writes: vec![Write::Progress {
                group,
                partition,
                value,
            }],
            ..Commit::default()
        });
    }

    fn listed(&self, filter: &DeadLetterFilter) -> Vec<u64> {
        let list = self.console.dead_letters(filter).unwrap();
        let offsets = list
            .dead_letters
            .iter()
            .map(|one| one.origin_offset.unwrap());
        offsets.collect()
    }

    fn close(&self, verb: Verb, selection: Selection) -> u64 {
        let request = CloseRequest {
            selection,
            note: Some("why".into()),
        };
        let reply = self.console.close_dead_letters(verb, &request, "cli");
        reply.unwrap().closed
    }

    fn start(&self, request: &RedriveRequest) -> String {
        self.console.start_redrive(request, "cli").unwrap().id
    }

    /// What lies in the redrive topic of the group: origin offset, round, ID, the record's key and headers.
    fn sent(&self, group: &str) -> Vec<(u64, u32, String)> {
        let topic = self.console.log.topic(&redrive_topic("orders", group));
        let Some(topic) = topic else {
            return Vec::new();
        };
        assert!(topic.spec.internal);
        let mut sent = Vec::new();
        self.console
            .walk(topic.partitions[0], 0, |_, message| {
                let (returned, own) = Returned::read(message).unwrap();
                let names: Vec<&str> = own.headers.iter().map(|(name, _)| name).collect();
                assert_eq!(names, ["tenant", "correlation-id"], "the message as it was");
                assert_eq!((own.timestamp_ms, own.payload), (7, Some(b"{}".as_slice())));
                let id = returned.dead_letter_id.unwrap();
                sent.push((returned.origin_offset, returned.redrive_count, id));
                true
            })
            .unwrap();
        sent
    }
}

fn ids(letters: &[Dead]) -> Selection {
    Selection {
        ids: letters.iter().map(Dead::id).collect(),
        ..Selection::default()
    }
}

fn all() -> Selection {
    Selection {
        all: true,
        ..Selection::default()
    }
}

fn everything() -> RedriveRequest {
    RedriveRequest {
        selection: all(),
        ..RedriveRequest::default()
    }
}

fn in_state(state: StateFilter) -> DeadLetterFilter {
    DeadLetterFilter {
        state,
        ..DeadLetterFilter::default()
    }
}

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

/// States of letters that retention removed do not pile up.
#[test]
fn states_of_dead_letters_that_are_gone_are_forgotten_and_no_others() {
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
        fixture.write([letter(offset)]);
        let record = Record::new(State::Done, letter(offset).at_ms, "host", None);
        fixture.commit(Commit {
            writes: vec![super::state::write(&letter(offset).id(), 0, &record)],
            ..Commit::default()
        });
        if offset == 1 {
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
    for offset in 0..100 {
        let state = fixture
            .console
            .state_record(&letter(offset).id(), 0)
            .unwrap();
        assert_eq!(
            state.is_some(),
            offset >= earliest,
            "{offset} of {earliest}"
        );
    }
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
