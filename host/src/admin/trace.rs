//! The story of one message (§12.2): every place its correlation ID stands in, what the host's log lines
//! say of its attempts, the states of its dead letters and how far each group is with it, in order of
//! time. A message without the header is found by the ID that is derived from its place. Bounded: it
//! looks at the newest messages of every partition in turn and says when it did not see all.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::console::Console;
use super::error::Error;
use super::logs::{LogLine, LogQuery};
use super::time;
use crate::connector::embedded::{PartitionId, Topic};
use crate::message::{Headers, MessageRef};
use crate::pipeline::correlation::{Correlation, HEADER, topic_hash};
use crate::pipeline::dead_letter::{self, Parsed};
use crate::pipeline::letter_state::{self, State};
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned::Returned;

/// Messages that one trace looks at, unless it is told otherwise.
pub const TRACE_MESSAGES_MAX: u64 = 5_000_000;
/// Things that one trace tells.
pub const TRACE_EVENTS_MAX: usize = 1_000;
/// Messages of one partition looked at in its turn.
const TURN: u64 = 10_000;
/// Audit entries looked at.
const AUDIT_ENTRIES: usize = 1_000;

/// `GET /v1/trace/{id}?since_ms=&messages=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// Unix ms; what is older is left out.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Messages to look at. Default: [`TRACE_MESSAGES_MAX`].
    #[serde(default)]
    pub messages: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    pub correlation_id: String,
    /// In order of time.
    pub events: Vec<Event>,
    /// How far each group is with the messages found.
    pub groups: Vec<Stand>,
    /// Messages looked at.
    pub looked_at: u64,
    /// False: there may be more. Ask with more messages, or for less time.
    pub complete: bool,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Unix ms.
    pub at_ms: i64,
    pub what: What,
    /// `topic/partition@offset`.
    pub place: Option<String>,
    pub pipeline: Option<String>,
    pub group: Option<String>,
    /// That failed, counted from 1; of a dead letter: all of them.
    pub attempt: Option<u32>,
    pub error: Option<String>,
    /// Unix ms.
    pub next_try_ms: Option<i64>,
    /// Of a dead letter: its state; of a log line: its level.
    pub state: Option<String>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The oldest message with the ID.
    Published,
    /// A line of a handler.
    Guest,
    /// A line of the host: an attempt that failed, and what follows.
    Attempt,
    /// It was put aside and comes back when it is due.
    Retry,
    DeadLetter,
    Audit,
    /// A dead letter was sent to its group again.
    Redrive,
    /// A later message with the same ID: an output or a reply.
    Output,
}

/// How far a group is with one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stand {
    pub group: String,
    pub place: String,
    /// It is settled: outputs, a retry topic or a dead letter say how.
    pub finished: bool,
    pub failed_attempts: u32,
    pub last_error: Option<String>,
}

/// A partition that is looked at from its end.
struct Cursor {
    topic: Arc<Topic>,
    hash: u64,
    partition: u32,
    id: PartitionId,
    earliest: u64,
    upper: u64,
}

/// A message that bears the ID.
struct Found {
    place: String,
    partition: PartitionId,
    offset: u64,
    at_ms: i64,
    role: Role,
}

/// Of a dead letter, what is told.
struct Letter {
    id: String,
    reason: String,
    error: String,
    attempts: u32,
    last_failed_at_ms: Option<i64>,
    group: String,
    pipeline: String,
    redrive_count: u32,
}

impl Letter {
    fn of(letter: &Parsed<'_>) -> Self {
        Self {
            id: letter.id.to_owned(),
            reason: letter.reason.to_owned(),
            error: letter.error.to_owned(),
            attempts: letter.attempts,
            last_failed_at_ms: time::parse_rfc3339(letter.last_failed_at),
            group: letter.group.to_owned(),
            pipeline: letter.pipeline.to_owned(),
            redrive_count: letter.redrive_count,
        }
    }
}

enum Role {
    Plain {
        /// Without the header: the ID is made of its own place, so it is where the ID came into being.
        derived: bool,
    },
    Returned(Box<Returned>),
    DeadLetter(Box<Letter>),
}

/// The ID looked for.
struct Wanted<'i> {
    id: &'i str,
    /// It may be one that the host derived from a place (a UUID of version 8).
    derived: bool,
}

impl Console {
    pub fn trace(&self, id: &str, query: &TraceQuery) -> Result<Trace, Error> {
        let mut cursors = self.trace_cursors()?;
        let wanted = Wanted {
            id,
            derived: id.len() == 36 && id.as_bytes().get(14) == Some(&b'8'),
        };
        let budget = query.messages.unwrap_or(TRACE_MESSAGES_MAX);
        let (mut looked_at, mut found) = (0, Vec::new());
        while !cursors.is_empty() && looked_at < budget && found.len() < TRACE_EVENTS_MAX {
            let mut left = Vec::with_capacity(cursors.len());
            for mut cursor in cursors {
                if found.len() >= TRACE_EVENTS_MAX {
                    left.push(cursor);
                    continue;
                }
                let turn = TURN.min(budget.saturating_sub(looked_at));
                let more = self.turn(&mut cursor, turn, &wanted, query.since_ms, &mut found)?;
                looked_at += more.0;
                if more.1 {
                    left.push(cursor);
                }
            }
            cursors = left;
        }
        let logs = self.logs(&LogQuery {
            correlation_id: Some(id.to_owned()),
            since_ms: query.since_ms,
            limit: Some(TRACE_EVENTS_MAX as u32),
            ..LogQuery::default()
        })?;
        let groups = self.stands(&found)?;
        let all_found = cursors.is_empty() && found.len() < TRACE_EVENTS_MAX;
        let complete = all_found && logs.complete && logs.lines.len() < TRACE_EVENTS_MAX;
        let mut events = self.events(found, &groups)?;
        events.extend(logs.lines.into_iter().map(of_line));
        events.extend(self.audited(id, &events, query.since_ms)?);
        in_order(&mut events);
        Ok(Trace {
            correlation_id: id.to_owned(),
            events,
            groups,
            looked_at,
            complete,
        })
    }

    fn trace_cursors(&self) -> Result<Vec<Cursor>, Error> {
        let mut cursors = Vec::new();
        for topic in self.log.topics() {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let (earliest, upper) = (self.log.earliest(*id)?, self.log.end(*id)?);
                if upper > earliest {
                    cursors.push(Cursor {
                        hash: topic_hash(&topic.name),
                        topic: Arc::clone(&topic),
                        partition,
                        id: *id,
                        earliest,
                        upper,
                    });
                }
            }
        }
        Ok(cursors)
    }

    /// Looks at the newest `turn` messages below the cursor: how many there were, and whether older ones
    /// are left that count.
    fn turn(
        &self,
        cursor: &mut Cursor,
        turn: u64,
        wanted: &Wanted<'_>,
        since_ms: Option<i64>,
        found: &mut Vec<Found>,
    ) -> Result<(u64, bool), Error> {
        // Retention may have moved the beginning since.
        cursor.earliest = cursor.earliest.max(self.log.earliest(cursor.id)?);
        let lower = cursor.upper.saturating_sub(turn).max(cursor.earliest);
        if lower >= cursor.upper {
            return Ok((0, cursor.upper > cursor.earliest));
        }
        let (mut next, mut looked_at, mut is_new) = (lower, 0, since_ms.is_none());
        while next < cursor.upper {
            let Some(chunk) = self.log.read(cursor.id, next)? else {
                break;
            };
            is_new |= since_ms.is_some_and(|since| chunk.max_timestamp_ms() >= since);
            for (offset, _, message) in chunk.iter_from(next) {
                if offset >= cursor.upper {
                    break;
                }
                looked_at += 1;
                let is_wanted = since_ms.is_none_or(|since| message.timestamp_ms >= since);
                if is_wanted && found.len() < TRACE_EVENTS_MAX {
                    found.extend(wanted.look(cursor, offset, &message));
                }
            }
            next = chunk.end_offset();
        }
        cursor.upper = lower;
        Ok((looked_at, is_new && lower > cursor.earliest))
    }

    fn events(&self, mut found: Vec<Found>, groups: &[Stand]) -> Result<Vec<Event>, Error> {
        // An output has the time of the message it came of. That one has made the ID, or a group read it,
        // which nobody need have done with the output; which topic was made first says nothing.
        let is_read = |one: &Found| groups.iter().any(|stand| stand.place == one.place);
        found.sort_by_cached_key(|one| {
            let rank = match one.role {
                Role::Plain { derived: true } => 0,
                _ if is_read(one) => 1,
                _ => 2,
            };
            (one.at_ms, rank, one.partition, one.offset)
        });
        let first = found
            .iter()
            .position(|one| matches!(one.role, Role::Plain { .. }));
        let mut events = Vec::new();
        for (index, one) in found.into_iter().enumerate() {
            events.push(self.event(one, Some(index) == first)?);
        }
        Ok(events)
    }

    fn event(&self, found: Found, is_first: bool) -> Result<Event, Error> {
        let event = Event {
            at_ms: found.at_ms,
            what: if is_first {
                What::Published
            } else {
                What::Output
            },
            place: Some(found.place),
            pipeline: None,
            group: None,
            attempt: None,
            error: None,
            next_try_ms: None,
            state: None,
            text: String::new(),
        };
        Ok(match found.role {
            Role::Plain { .. } => event,
            Role::Returned(returned) => {
                let is_redrive = returned.dead_letter_id.is_some() && returned.attempts == 0;
                let origin = format!(
                    "{}/{}@{}",
                    returned.origin_topic, returned.origin_partition, returned.origin_offset
                );
                Event {
                    what: if is_redrive {
                        What::Redrive
                    } else {
                        What::Retry
                    },
                    // Its own timestamp is that of the original; when it is due is what is known.
                    at_ms: returned.due_ms,
                    attempt: Some(returned.attempts),
                    next_try_ms: Some(returned.due_ms),
                    text: format!("of {origin}, round {}", returned.redrive_count),
                    ..event
                }
            }
            Role::DeadLetter(letter) => {
                let state = self.letter_state(&letter)?;
                Event {
                    what: What::DeadLetter,
                    at_ms: letter.last_failed_at_ms.unwrap_or(event.at_ms),
                    pipeline: Some(letter.pipeline),
                    group: Some(letter.group),
                    attempt: Some(letter.attempts),
                    error: Some(letter.error),
                    state: Some(state.as_str().to_owned()),
                    text: format!(
                        "{}, id {}, round {}",
                        letter.reason, letter.id, letter.redrive_count
                    ),
                    ..event
                }
            }
        })
    }

    fn letter_state(&self, letter: &Letter) -> Result<State, Error> {
        let key = letter_state::key(&letter.id, letter.redrive_count);
        let record = self.log.meta_get(&key)?;
        // A record that cannot be read is told by `wasmill dlq`.
        let record = record.and_then(|bytes| letter_state::Record::decode(&bytes).ok());
        Ok(record.map_or(State::New, |record| record.state))
    }

    fn stands(&self, found: &[Found]) -> Result<Vec<Stand>, Error> {
        let mut stands = Vec::new();
        for (group, name) in self.log.groups() {
            for (partition, bytes) in self.log.progress_of(group)? {
                let Ok(progress) = Progress::decode(&bytes) else {
                    continue;
                };
                for one in found.iter().filter(|one| one.partition == partition) {
                    let failed = progress
                        .attempts
                        .iter()
                        .find(|attempt| attempt.offset == one.offset);
                    stands.push(Stand {
                        group: name.clone(),
                        place: one.place.clone(),
                        finished: one.offset < progress.committed
                            || progress
                                .completed
                                .iter()
                                .any(|range| range.contains(&one.offset)),
                        failed_attempts: failed.map_or(0, |failed| failed.count),
                        last_error: failed.map(|failed| failed.error.clone()),
                    });
                }
            }
        }
        stands.sort_by(|a, b| (&a.group, &a.place).cmp(&(&b.group, &b.place)));
        Ok(stands)
    }

    /// What people did that names the ID, one of its places or one of its dead letters.
    fn audited(
        &self,
        id: &str,
        events: &[Event],
        since_ms: Option<i64>,
    ) -> Result<Vec<Event>, Error> {
        let mut names: Vec<&str> = vec![id];
        for event in events {
            names.extend(event.place.as_deref());
            names.extend(
                event
                    .text
                    .split(", ")
                    .filter_map(|part| part.strip_prefix("id ")),
            );
        }
        let entries = self.audit.newest(AUDIT_ENTRIES)?;
        let told = entries.into_iter().filter(|entry| {
            let says = |name: &&str| {
                says(&entry.target, name)
                    || entry.note.as_ref().is_some_and(|note| says(note, name))
            };
            since_ms.is_none_or(|since| entry.at >= since) && names.iter().any(says)
        });
        Ok(told
            .map(|entry| Event {
                at_ms: entry.at,
                what: What::Audit,
                place: None,
                pipeline: None,
                group: None,
                attempt: None,
                error: None,
                next_try_ms: None,
                state: None,
                text: format!(
                    "{} by {}: {} {}",
                    entry.command,
                    entry.who,
                    entry.target,
                    entry.note.unwrap_or_default()
                ),
            })
            .collect())
    }
}

impl Wanted<'_> {
    fn look(&self, cursor: &Cursor, offset: u64, message: &MessageRef<'_>) -> Option<Found> {
        let found = |role| Found {
            place: format!("{}/{}@{offset}", cursor.topic.name, cursor.partition),
            partition: cursor.id,
            offset,
            at_ms: message.timestamp_ms,
            role,
        };
        if !self.derived && message.headers.last(HEADER) != Some(self.id.as_bytes()) {
            return None;
        }
        if cursor.topic.spec.internal {
            let (returned, original) = Returned::read(message).ok()?;
            let hash = topic_hash(&returned.origin_topic);
            let (partition, origin) = (returned.origin_partition, returned.origin_offset);
            return self
                .is(&original.headers, hash, partition, origin)
                .then(|| found(Role::Returned(Box::new(returned))));
        }
        if let Ok(letter) = Parsed::read(message.headers) {
            let hash = topic_hash(letter.origin_topic);
            let (partition, origin) = (letter.origin_partition, letter.origin_offset);
            return self
                .is(&message.headers, hash, partition, origin)
                .then(|| found(Role::DeadLetter(Box::new(Letter::of(&letter)))));
        }
        self.is(&message.headers, cursor.hash, cursor.partition, offset)
            .then(|| {
                let derived = message.headers.last(HEADER) != Some(self.id.as_bytes());
                found(Role::Plain { derived })
            })
    }

    fn is(&self, headers: &Headers<'_>, hash: u64, partition: u32, offset: u64) -> bool {
        Correlation::of(headers, hash, partition, offset).text(headers) == self.id
    }
}

/// By time. An output keeps the time of the message it came of, so when it was written is not known: it
/// stands behind what the host and handlers said and behind every way back. A dead letter has the time of
/// the failure and stands behind the line that tells of it.
fn in_order(events: &mut [Event]) {
    let lines: Vec<(Option<String>, i64)> = events
        .iter()
        .filter(|event| event.what == What::Attempt && event.text == dead_letter::LOGGED)
        .map(|event| (event.pipeline.clone(), event.at_ms))
        .collect();
    for letter in events
        .iter_mut()
        .filter(|event| event.what == What::DeadLetter)
    {
        let told = lines
            .iter()
            .filter(|(pipeline, at)| *pipeline == letter.pipeline && *at >= letter.at_ms);
        let at_ms = told.map(|(_, at)| *at).min();
        letter.at_ms = at_ms.unwrap_or(letter.at_ms);
    }
    let published = events
        .iter()
        .find(|event| event.what == What::Published)
        .map(|event| event.at_ms);
    let last_line = events
        .iter()
        .filter(|event| !matches!(event.what, What::Published | What::Output | What::Audit))
        .map(|event| event.at_ms)
        .max();
    events.sort_by_key(|event| {
        let inherited = event.what == What::Output && Some(event.at_ms) == published;
        let at = if inherited {
            last_line.map_or(event.at_ms, |line| line.max(event.at_ms))
        } else {
            event.at_ms
        };
        (at, event.what)
    });
}

/// Whether `text` has `name` as a whole: `orders/0@1` is not in `orders/0@12`.
fn says(text: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "_-/@.:".contains(c);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let (before, rest) = text.split_at(at);
            // A full stop or a colon behind it ends a sentence, not a name.
            let behind = rest.strip_prefix(name).unwrap_or_default();
            let behind = behind.trim_start_matches(['.', ':']);
            !before.ends_with(goes_on) && !behind.starts_with(goes_on)
        })
}

fn of_line(line: LogLine) -> Event {
    let next_try_ms = line.delay_ms.map(|delay| {
        line.timestamp_ms
            .saturating_add(i64::try_from(delay).unwrap_or(i64::MAX))
    });
    Event {
        at_ms: line.timestamp_ms,
        what: if line.target == "guest" {
            What::Guest
        } else {
            What::Attempt
        },
        place: line.place,
        pipeline: line.pipeline,
        group: None,
        attempt: line.attempt,
        error: line.error,
        next_try_ms,
        state: Some(line.level),
        text: line.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Blob, CreateTopic, Header, Record};
    use crate::connector::embedded::{Commit, Log, Options, Write};

    fn console(folder: &std::path::Path) -> Console {
        let log = Log::open(folder.join("log"), Options::default()).unwrap();
        let console = Console::offline(log).with_logs(folder.join("logs"));
        for name in ["orders", "orders.done"] {
            let wanted = CreateTopic {
                name: name.into(),
                partitions: 2,
                retention_ms: None,
                retention_bytes: None,
            };
            console.create_topic(&wanted).unwrap();
        }
        console
    }

    fn read_up_to(console: &Console, partition: PartitionId, committed: u64) {
        let mut value = Vec::new();
        Progress {
            committed,
            ..Progress::default()
        }
        .encode(&mut value);
        let write = Write::Progress {
            group: console.log.group("g").unwrap(),
            partition,
            value,
        };
        let writes = vec![write];
        let commit = Commit {
            writes,
            ..Commit::default()
        };
        console.log.commit(commit).unwrap();
    }

    fn record(id: &str, at: i64) -> Record {
        Record {
            payload: Some(Blob(b"{}".to_vec())),
            headers: vec![Header {
                name: HEADER.into(),
                value: Some(Blob(id.as_bytes().to_vec())),
            }],
            timestamp_ms: Some(at),
            partition: Some(1),
            ..Record::default()
        }
    }

    #[test]
    fn the_story_is_told_across_topics_and_log_lines_in_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let console = console(folder.path());
        console
            .produce("orders.done", &[record("c", 3_000)])
            .unwrap();
        console
            .produce("orders", &[record("other", 1), record("c", 1_000)])
            .unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let line = r#"{"timestamp":"1970-01-01T00:00:02Z","level":"WARN","message":"failed","pipeline":"p","correlation_id":"c","attempt":1,"error":"down","delay_ms":500,"place":"orders/1@1","target":"x"}"#;
        std::fs::write(folder.path().join("logs/host.0.jsonl"), format!("{line}\n")).unwrap();
        let trace = console.trace("c", &TraceQuery::default()).unwrap();
        let told: Vec<_> = trace
            .events
            .iter()
            .map(|event| (event.what, event.at_ms))
            .collect();
        let expected = [
            (What::Published, 1_000),
            (What::Attempt, 2_000),
            (What::Output, 3_000),
        ];
        assert_eq!(told, expected);
        assert_eq!(trace.events[0].place.as_deref(), Some("orders/1@1"));
        let attempt = &trace.events[1];
        assert_eq!(
            (attempt.attempt, attempt.next_try_ms),
            (Some(1), Some(2_500))
        );
        assert!(trace.complete);
    }

    /// The topics are made in either order; a group has read the one that is the input.
    #[test]
    fn an_input_is_published_and_what_has_its_time_an_output_whichever_topic_was_made_first() {
        for input in ["orders", "orders.done"] {
            let folder = tempfile::tempdir().unwrap();
            let console = console(folder.path());
            for topic in ["orders", "orders.done"] {
                console.produce(topic, &[record("c", 1_000)]).unwrap();
            }
            let id = console.log.topic(input).unwrap().partition(1).unwrap();
            read_up_to(&console, id, 1);
            let trace = console.trace("c", &TraceQuery::default()).unwrap();
            let told: Vec<_> = trace
                .events
                .iter()
                .map(|event| (event.what, event.place.clone().unwrap()))
                .collect();
            assert_eq!(told[0], (What::Published, format!("{input}/1@0")));
            assert_eq!(told[1].0, What::Output);
        }
    }

    /// §12.2: an ID that is made of a place was made by the message there.
    #[test]
    fn the_message_that_an_id_was_made_of_is_the_one_that_was_published() {
        let folder = tempfile::tempdir().unwrap();
        let console = console(folder.path());
        let id = console
            .log
            .topic("orders.done")
            .unwrap()
            .partition(1)
            .unwrap();
        let mut chunk = crate::connector::embedded::ChunkBuilder::new();
        chunk.push(&MessageRef {
            timestamp_ms: 1_000,
            ..MessageRef::default()
        });
        let commit = Commit {
            appends: vec![crate::connector::embedded::Append {
                partition: id,
                chunk: chunk.finish(),
            }],
            ..Commit::default()
        };
        console.log.commit(commit).unwrap();
        let headers = Headers::default();
        let made = Correlation::of(&headers, topic_hash("orders.done"), 1, 0);
        let made = made.text(&headers).to_owned();
        console.produce("orders", &[record(&made, 1_000)]).unwrap();
        let read = console.log.topic("orders").unwrap().partition(1).unwrap();
        read_up_to(&console, read, 1);
        let trace = console.trace(&made, &TraceQuery::default()).unwrap();
        let told: Vec<_> = trace.events.iter().map(|event| event.what).collect();
        assert_eq!(told, [What::Published, What::Output]);
        assert_eq!(trace.events[0].place.as_deref(), Some("orders.done/1@0"));
    }

    #[test]
    fn audit_entries_are_told_that_name_the_message_itself_and_are_new_enough() {
        let folder = tempfile::tempdir().unwrap();
        let console = console(folder.path());
        let records: Vec<_> = (0..13).map(|n| record(&format!("c{n}"), n)).collect();
        console.produce("orders", &records).unwrap();
        for target in ["orders/1@1 of g", "orders/1@12 of g", "old-orders/1@1 of g"] {
            console.record_audit("cli", "reject", target, None).unwrap();
        }
        let note = Some("as with c1.");
        console.record_audit("cli", "pause", "p", note).unwrap();
        let told = |id: &str, since_ms| {
            let query = TraceQuery {
                since_ms,
                messages: None,
            };
            let events = console.trace(id, &query).unwrap().events;
            let audit = events.into_iter().filter(|one| one.what == What::Audit);
            audit.map(|one| one.text).collect::<Vec<_>>()
        };
        let of_one = told("c1", None);
        assert_eq!(of_one.len(), 2, "{of_one:?}");
        assert!(of_one.iter().any(|text| text.contains("orders/1@1 of g")));
        assert!(of_one.iter().any(|text| text.contains("as with c1.")));
        assert_eq!(told("c12", None).len(), 1);
        assert!(told("c1", Some(time::now_ms() + 60_000)).is_empty());
    }

    #[test]
    fn trace_events_max_bounds_the_messages_told_and_the_trace_says_that_it_is_not_complete() {
        let folder = tempfile::tempdir().unwrap();
        let console = console(folder.path());
        for topic in ["orders", "orders.done"] {
            let records = vec![record("c", 1); TRACE_EVENTS_MAX * 2 / 3];
            console.produce(topic, &records).unwrap();
        }
        let trace = console.trace("c", &TraceQuery::default()).unwrap();
        assert_eq!(
            (trace.events.len(), trace.complete),
            (TRACE_EVENTS_MAX, false)
        );
    }

    #[test]
    fn the_messages_looked_at_are_bounded_and_the_trace_says_that_it_is_not_complete() {
        let folder = tempfile::tempdir().unwrap();
        let console = console(folder.path());
        let records: Vec<_> = (0..100).map(|at| record(&format!("c{at}"), at)).collect();
        console.produce("orders", &records).unwrap();
        let ask = |messages, since_ms| {
            let query = TraceQuery {
                since_ms,
                messages: Some(messages),
            };
            console.trace("c0", &query).unwrap()
        };
        let some = ask(10, None);
        assert_eq!(
            (some.looked_at, some.complete, some.events.len()),
            (10, false, 0)
        );
        let all = ask(100, None);
        assert_eq!(
            (all.looked_at, all.complete, all.events.len()),
            (100, true, 1)
        );
        assert!(ask(100, Some(1)).events.is_empty());
    }
}
