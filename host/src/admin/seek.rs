//! Moving a consumer group to other offsets (§7.7): what a request comes to (`plan`), and doing it in one
//! commit (`submit`), over a log whose pipelines of that group do not run. Completion maps and attempts of the
//! partitions go with the old place. Messages of the group that were put aside or are being redriven stay
//! where they are: they were read once, and come back whatever the group reads next.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{Code, Error};
use crate::connector::embedded::epoch::{self, Epoch};
use crate::connector::embedded::{Commit, GroupId, Handed, Log, PartitionId, Topic, Write};
use crate::pipeline::offsets::Progress;

/// `POST /v1/groups/{group}/seek`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeekRequest {
    pub to: SeekTo,
    /// Only on this topic.
    #[serde(default)]
    pub topic: Option<String>,
    /// Only on this partition of it.
    #[serde(default)]
    pub partition: Option<u32>,
    /// Says what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// What becomes of the idempotency table and of sequence numbers; must be said when the group has any.
    #[serde(default)]
    pub idempotency: Option<Keep>,
    /// What becomes of the handler's state; must be said when the group has some.
    #[serde(default)]
    pub state: Option<Keep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeekTo {
    Earliest,
    Latest,
    /// In every partition that is moved; kept within what there is.
    Offset(u64),
    /// The first message at or after this time, Unix ms.
    TimestampMs(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// As it is: what was processed before stays known.
    Keep,
    /// Empty from now on.
    Renew,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeekReply {
    pub group: String,
    pub moves: Vec<Move>,
    /// It was only asked for.
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Move {
    pub topic: String,
    pub partition: u32,
    pub from: u64,
    pub to: u64,
}

/// What a group has beside its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Keys or sequence numbers, which are kept and renewed together.
    pub idempotency: bool,
    pub state: bool,
}

/// Where the group would go.
pub fn plan(log: &Log, name: &str, request: &SeekRequest) -> Result<SeekReply, Error> {
    let group = log.find_group(name).ok_or_else(|| {
        let groups = log.groups();
        let names = groups.iter().map(|(_, name)| name.as_str());
        super::console::unknown(
            Code::UnknownGroup,
            "consumer group",
            name,
            names,
            "groups list",
        )
    })?;
    let mut moves = Vec::new();
    let mut left = None;
    for (topic, number, id, from) in places(log, group)? {
        let is_wanted = request
            .topic
            .as_ref()
            .is_none_or(|wanted| *wanted == topic.name)
            && request.partition.is_none_or(|wanted| wanted == number);
        if topic.spec.internal {
            continue;
        }
        if !is_wanted {
            left = Some(format!("{}/{number}", topic.name));
            continue;
        }
        let (earliest, end) = (log.earliest(id)?, log.end(id)?);
        let to = match request.to {
            SeekTo::Earliest => earliest,
            SeekTo::Latest => end,
            SeekTo::Offset(offset) => offset.clamp(earliest, end),
            SeekTo::TimestampMs(at) => log.offset_at(id, at)?,
        };
        moves.push(Move {
            topic: topic.name.clone(),
            partition: number,
            from,
            to,
        });
    }
    if moves.is_empty() {
        return Err(Error::new(
            Code::Invalid,
            format!("the group {name} has been on no such partition"),
            format!("`wasmill groups describe {name}` shows where it has been"),
        ));
    }
    whole(name, request, left)?;
    moves.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(SeekReply {
        group: name.to_owned(),
        moves,
        dry_run: request.dry_run,
    })
}

/// The tables are the whole group's: emptied for some partitions, they are so for those too that are not read
/// again, whose part would be gone.
fn whole(group: &str, request: &SeekRequest, left: Option<String>) -> Result<(), Error> {
    let renewed = match (request.idempotency, request.state) {
        (Some(Keep::Renew), _) => "--idempotency new-epoch",
        (_, Some(Keep::Renew)) => "--state reset",
        _ => return Ok(()),
    };
    let Some(left) = left else {
        return Ok(());
    };
    Err(Error::new(
        Code::Invalid,
        format!(
            "`{renewed}` is for the whole group {group}, and {left} would not move: what the group has of it would be lost"
        ),
        "leave out `--topic` and `--partition` so that all of it is read again, or say `keep`",
    ))
}

/// What must be said and was not.
pub fn check(request: &SeekRequest, tables: Tables) -> Result<(), Error> {
    let missing = |what: &str, option: &str, keep: &str, renew: &str| {
        Error::new(
            Code::Invalid,
            format!("the group has {what}, and it was not said what becomes of it"),
            format!("`--{option} keep`: {keep}; `--{option} {renew}"),
        )
    };
    if tables.idempotency && request.idempotency.is_none() {
        return Err(missing(
            "idempotency keys or sequence numbers",
            "idempotency",
            "what was processed before is a duplicate or stale, and is skipped",
            "new-epoch`: every message is processed again, and what the handler did outside the log happens again",
        ));
    }
    if tables.state && request.state.is_none() {
        return Err(missing(
            "handler state",
            "state",
            "the handler goes on with what it has",
            "reset`: it begins with an empty table",
        ));
    }
    Ok(())
}

/// What the store has of a group; a running host also knows what its pipelines may write.
pub fn tables(log: &Log, name: &str) -> Result<Tables, Error> {
    let Some(group) = log.find_group(name) else {
        return Ok(Tables {
            idempotency: false,
            state: false,
        });
    };
    let places = places(log, group)?;
    let has_entries = |space: GroupId| -> Result<bool, Error> {
        for (_, _, partition, _) in &places {
            if !log.state_scan(space, *partition, b"", 1, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let prefix = format!("{}{name}/", epoch::NAMESPACE);
    let mut state = false;
    for (space, called) in log.groups() {
        let is_own = space == group || called.starts_with(&prefix);
        state = state || (is_own && has_entries(space)?);
    }
    let numbers = epoch::numbers_namespace(name, epoch::read(log, name)?);
    let numbers = match log.find_group(&numbers) {
        Some(space) => has_entries(space)?,
        None => false,
    };
    Ok(Tables {
        idempotency: numbers || log.has_completions(group),
        state,
    })
}

/// How long the log's queue may be full.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(10);

/// Hands the move of the group over, as one commit. Nobody may read for it until it is known what became of
/// that. `needs` makes what the group needs in its new epoch, or says that it cannot be had.
pub fn submit(
    log: &Log,
    request: &SeekRequest,
    reply: &SeekReply,
    needs: impl FnOnce(Epoch) -> Result<(), Error>,
) -> Result<Handed, Error> {
    let Some(group) = log.find_group(&reply.group) else {
        return Err(Error::internal(
            "a consumer group that was planned for is gone",
        ));
    };
    let mut commit = Commit::default();
    for one in &reply.moves {
        let topic = log.topic(&one.topic);
        let Some(partition) = topic.and_then(|topic| topic.partition(one.partition)) else {
            continue;
        };
        let progress = Progress {
            committed: one.to,
            ..Progress::default()
        };
        let mut value = Vec::new();
        progress.encode(&mut value);
        commit.writes.push(Write::Progress {
            group,
            partition,
            value,
        });
    }
    let before = epoch::read(log, &reply.group)?;
    let renewed = |keep: Option<Keep>| u64::from(keep == Some(Keep::Renew));
    let after = Epoch {
        completions: before.completions + renewed(request.idempotency),
        state: before.state + renewed(request.state),
    };
    if after != before {
        needs(after)?;
        commit.writes.push(epoch::write(&reply.group, after));
    }
    Ok(log.hand_over(commit, Some(Instant::now() + QUEUE_TIME_MAX))?)
}

type Place = (std::sync::Arc<Topic>, u32, PartitionId, u64);

/// Where the group has been, with its committed offsets.
fn places(log: &Log, group: GroupId) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    let topics = log.topics();
    for (id, bytes) in log.progress_of(group)? {
        let committed = Progress::decode(&bytes)
            .map_err(|why| Error::new(Code::StoreUnavailable, why.to_string(), ""))?
            .committed;
        for topic in &topics {
            if let Some(number) = topic.partitions.iter().position(|other| *other == id) {
                places.push((std::sync::Arc::clone(topic), number as u32, id, committed));
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::connector::embedded::{Options, TopicSpec};

    /// A group that has been everywhere in `a` (2 partitions) and `b` (1), at offset 0.
    fn group(log: &Log) -> GroupId {
        let group = log.group("g").unwrap();
        let mut commit = Commit::default();
        for (name, partitions) in [("a", 2), ("b", 1)] {
            let spec = TopicSpec::new(name, NonZeroU32::new(partitions).unwrap());
            for partition in &log.create_topic(&spec).unwrap().partitions {
                let mut value = Vec::new();
                Progress::default().encode(&mut value);
                commit.writes.push(Write::Progress {
                    group,
                    partition: *partition,
                    value,
                });
            }
        }
        log.commit(commit).unwrap();
        group
    }

    fn request() -> SeekRequest {
        SeekRequest {
            to: SeekTo::Earliest,
            topic: None,
            partition: None,
            dry_run: false,
            idempotency: Some(Keep::Keep),
            state: Some(Keep::Keep),
        }
    }

    /// §7.7: the epoch is the group's, so what is not read again would lose what is known of it.
    #[test]
    fn a_part_of_a_group_is_moved_with_what_is_known_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        group(&log);
        let part = SeekRequest {
            topic: Some("a".into()),
            ..request()
        };
        assert_eq!(plan(&log, "g", &part).unwrap().moves.len(), 2);
        let renewals = [
            (
                Some(Keep::Renew),
                Some(Keep::Keep),
                "--idempotency new-epoch",
            ),
            (Some(Keep::Keep), Some(Keep::Renew), "--state reset"),
            (None, Some(Keep::Renew), "--state reset"),
        ];
        for (idempotency, state, named) in renewals {
            let renew = SeekRequest {
                idempotency,
                state,
                ..part.clone()
            };
            for (topic, partition) in [("a", None), ("b", None), ("a", Some(1))] {
                let renew = SeekRequest {
                    topic: Some(topic.into()),
                    partition,
                    ..renew.clone()
                };
                let why = plan(&log, "g", &renew).unwrap_err();
                assert_eq!(why.code, Code::Invalid);
                assert!(why.to_string().contains(named), "{why}");
                assert!(why.help.contains("--topic") && why.help.contains("keep"));
            }
            let whole = SeekRequest {
                topic: None,
                ..renew
            };
            assert_eq!(plan(&log, "g", &whole).unwrap().moves.len(), 3);
        }
    }

    /// §4.5, §7.7: a group may have sequence numbers and no keys; kept, every message would be stale.
    #[test]
    fn sequence_numbers_are_asked_for_as_keys_are() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        group(&log);
        let none = Tables {
            idempotency: false,
            state: false,
        };
        assert_eq!(tables(&log, "g").unwrap(), none);
        let numbers = epoch::numbers_namespace("g", Epoch::default());
        let numbers = epoch::namespace(&log, &numbers).unwrap();
        assert_eq!(tables(&log, "g").unwrap(), none, "none are there yet");
        let number = Write::State {
            group: numbers,
            partition: log.topic("a").unwrap().partitions[1],
            key: vec![7; 16],
            value: Some(vec![1; 9]),
        };
        log.commit(Commit {
            writes: vec![number],
            ..Commit::default()
        })
        .unwrap();
        let found = tables(&log, "g").unwrap();
        assert!(found.idempotency && !found.state);
        let silent = SeekRequest {
            idempotency: None,
            ..request()
        };
        let why = check(&silent, found).unwrap_err();
        assert!(why.to_string().contains("sequence numbers"), "{why}");
        assert!(why.help.contains("--idempotency"));
    }

    #[test]
    fn a_reset_that_cannot_have_its_namespace_is_refused_and_nothing_has_moved() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let group = group(&log);
        let reset = SeekRequest {
            to: SeekTo::Offset(0),
            state: Some(Keep::Renew),
            ..request()
        };
        let reply = plan(&log, "g", &reset).unwrap();
        let before = log.progress_of(group).unwrap();
        let full = |epoch: Epoch| {
            assert_eq!(epoch.state, 1);
            Err(Error::new(Code::Invalid, "no room", ""))
        };
        assert!(submit(&log, &reset, &reply, full).is_err());
        assert_eq!(epoch::read(&log, "g").unwrap(), Epoch::default());
        assert_eq!(log.progress_of(group).unwrap(), before);
        let moved = submit(&log, &reset, &reply, |_| Ok(())).unwrap();
        let moved = moved.answer_within(QUEUE_TIME_MAX);
        moved.unwrap().unwrap();
        assert_eq!(epoch::read(&log, "g").unwrap().state, 1);
    }
}
