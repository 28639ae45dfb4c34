//! Dead letters over a log without a host (§6.3, §6.4): which are shown, closed, sent back, and what is
//! left of it after a crash.

mod closing;
mod looking;
mod redrives;

use std::num::NonZeroU32;
use std::path::Path;

use crate::admin::console::Console;
use crate::admin::error::Code;
use crate::admin::letters::close::{CLOSE_MAX, Verb};
use crate::admin::letters::groups::FAILURE_GROUPS_MAX;
use crate::admin::letters::job::JobRecord;
use crate::admin::letters::list::{DEAD_LETTERS_MAX, IDS_MAX, LIST_BYTES_MAX};
use crate::admin::letters::open::{OPEN_LETTERS_MAX, OPEN_PIPELINES_MAX, OPEN_SCAN_MAX};
use crate::admin::letters::redrive::{JOBS_KEPT_MAX, MAX_REDRIVES_DEFAULT};
use crate::admin::letters::state::BLOCK;
use crate::admin::letters::sweep::{PART_EVERY, Sweep};
use crate::admin::letters::wire::{
    CloseRequest, DeadLetterFilter, JobState, RedriveRequest, Selection, StateFilter,
};
use crate::connector::embedded::{Append, ChunkBuilder, Commit, Log, Options, TopicSpec, Write};
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline;
use crate::pipeline::dead_letter::DeadLetter as Letter;
use crate::pipeline::letter_state::{self, Record, State};
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned::{Returned, redrive_topic};
use crate::pipeline::snapshot::{Snapshot, Topics, Totals};
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
        self.write_behind(&[], letters);
    }

    /// In one chunk, behind what somebody else wrote there.
    fn write_behind(&self, others: &[MessageRef<'_>], letters: impl IntoIterator<Item = Dead>) {
        let mut builder = ChunkBuilder::new();
        for other in others {
            builder.push(other);
        }
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

    /// Nothing becomes durable until the answer is dropped: as on a full disk, which lasts.
    fn hold_commits(&self) -> std::sync::mpsc::SyncSender<()> {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (began, begun) = std::sync::mpsc::channel();
        let commit = Commit {
            writes: vec![Write::Meta {
                key: b"test".to_vec(),
                value: None,
            }],
            ..Commit::default()
        };
        let wait = move |_| {
            began.send(()).unwrap();
            assert!(held.recv().is_err(), "released by letting go");
        };
        self.console.log.submit(commit, Box::new(wait)).unwrap();
        begun.recv().unwrap();
        release
    }

    /// All redrives take their steps, until no change is on its way to the log.
    fn run_until_answered(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.console.letters.is_answered() {
            assert!(std::time::Instant::now() < deadline, "never answered");
            std::thread::yield_now();
        }
        self.console.letters.jobs().hurry();
        self.console.run_redrives().unwrap();
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
