//! What a seek may make of a group's past (§7.7): a new epoch of its idempotency table, in which no key is
//! known, and a new namespace of its handler's state. Both are numbers kept in the log; what is behind them is
//! left to expire, or is deleted bit by bit (`sweep`).

use std::time::Duration;

use super::{Commit, Error, GroupId, Log, Write};
use crate::config::valid::StateGrant;

/// Entries of a state that was reset, deleted at a time.
const SWEEP_ENTRIES: usize = 1_000;
/// Bytes of them looked at.
const SWEEP_BYTES: usize = 1 << 20;
/// What the names of state namespaces begin with. Names of consumer groups have no slash.
pub const NAMESPACE: &str = "wasmill.state/";
/// The same for those of sequence numbers, which end with the epoch of the idempotency table.
pub const NUMBERS: &str = "wasmill.sequence/";
/// How long a store may take to delete some; it is tried again.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(1);
/// Of the record of an epoch. Those of before there was a version have none.
const VERSION: u8 = 1;
const STATE_NAME_DEFAULT: &str = "default";

/// Of one consumer group; both 0 until a seek says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Epoch {
    pub completions: u64,
    pub state: u64,
}

fn key(group: &str) -> Vec<u8> {
    format!("epoch/{group}").into_bytes()
}

/// The epoch of a group.
///
/// # Errors
/// `Unreadable`: an epoch of 0 in its place would bring back what was reset (§13.4).
pub fn read(log: &Log, group: &str) -> Result<Epoch, Error> {
    match log.meta_get(&key(group))? {
        None => Ok(Epoch::default()),
        Some(bytes) => decode(&bytes).ok_or_else(|| Error::Unreadable {
            what: format!("the epoch of group {group}").into(),
        }),
    }
}

fn decode(bytes: &[u8]) -> Option<Epoch> {
    let numbers = match bytes.split_first() {
        _ if bytes.len() == 16 => bytes,
        Some((&VERSION, numbers)) => numbers,
        _ => return None,
    };
    let (completions, state) = numbers.split_first_chunk::<8>()?;
    Some(Epoch {
        completions: u64::from_le_bytes(*completions),
        state: u64::from_le_bytes(state.try_into().ok()?),
    })
}

/// To be committed with the progress that it goes with.
pub fn write(group: &str, epoch: Epoch) -> Write {
    let [completions, state] = [epoch.completions, epoch.state].map(u64::to_le_bytes);
    let value = [&[VERSION], &completions[..], &state[..]].concat();
    Write::Meta {
        key: key(group),
        value: Some(value),
    }
}

/// The name under which the state is kept; `None` for the first of its kind, which is under the group's own.
pub fn state_namespace(group: &str, grant: &StateGrant, epoch: Epoch) -> Option<String> {
    let is_first = grant.name == STATE_NAME_DEFAULT && grant.version == 1 && epoch.state == 0;
    (!is_first).then(|| {
        format!(
            "{NAMESPACE}{group}/{}/{}/{}",
            grant.name, grant.version, epoch.state
        )
    })
}

/// The name under which sequence numbers are kept.
pub fn numbers_namespace(group: &str, epoch: Epoch) -> String {
    format!("{NUMBERS}{group}/{}", epoch.completions)
}

/// Whether a name is one of a namespace and not of a consumer group.
pub fn is_namespace(name: &str) -> bool {
    name.starts_with(NAMESPACE) || name.starts_with(NUMBERS)
}

/// The number of a namespace, which is made when there is none. One whose epoch is over and that is empty gives
/// its number away, so that resets use none up.
pub fn namespace(log: &Log, name: &str) -> Result<GroupId, Error> {
    if let Some(known) = log.find_group(name) {
        return Ok(known);
    }
    for (group, old) in log.groups() {
        if is_namespace(&old) && is_over(log, &old)? && log.state_is_empty(group)? {
            return log.rename_group(group, &old, name);
        }
    }
    log.group(name)
}

/// Whether a namespace is of an epoch of its group that is over; the group's own is when any was reset.
fn is_over(log: &Log, name: &str) -> Result<bool, Error> {
    if let Some(rest) = name.strip_prefix(NUMBERS) {
        let (group, number) = rest.rsplit_once('/').unwrap_or_default();
        let number = number.parse::<u64>().unwrap_or(u64::MAX);
        return Ok(read(log, group)?.completions > number);
    }
    let Some(rest) = name.strip_prefix(NAMESPACE) else {
        return Ok(read(log, name)?.state > 0);
    };
    let mut parts = rest.rsplitn(4, '/');
    let number = parts.next().and_then(|epoch| epoch.parse::<u64>().ok());
    let group = parts.nth(2);
    match (number, group) {
        (Some(number), Some(group)) => Ok(read(log, group)?.state > number),
        _ => Ok(false),
    }
}

/// Deletes some of what resets left behind. False when there is nothing left.
pub fn sweep(log: &Log) -> Result<bool, Error> {
    for (group, name) in log.groups() {
        if is_over(log, &name)? && sweep_group(log, group)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sweep_group(log: &Log, group: GroupId) -> Result<bool, Error> {
    for topic in log.topics() {
        for partition in &topic.partitions {
            let entries = log.state_scan(group, *partition, b"", SWEEP_ENTRIES, SWEEP_BYTES)?;
            if entries.is_empty() {
                continue;
            }
            let writes = entries.into_iter().map(|(key, _)| Write::State {
                group,
                partition: *partition,
                key: key.to_vec(),
                value: None,
            });
            let commit = Commit {
                writes: writes.collect(),
                ..Commit::default()
            };
            log.commit_within(commit, SWEEP_TIME_MAX)?;
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, version: u32) -> StateGrant {
        StateGrant {
            max_size: 1,
            name: name.to_owned(),
            version,
        }
    }

    #[test]
    fn each_name_version_and_epoch_has_a_namespace_of_its_own() {
        let of = |name, version, state| {
            let epoch = Epoch {
                completions: 7,
                state,
            };
            state_namespace("g", &grant(name, version), epoch)
        };
        assert_eq!(of("default", 1, 0), None);
        let all = [of("default", 2, 0), of("other", 1, 0), of("default", 1, 1)];
        for (i, one) in all.iter().enumerate() {
            assert!(one.is_some());
            assert_eq!(all.iter().position(|other| other == one), Some(i));
        }
    }

    #[test]
    fn sequence_numbers_of_an_epoch_that_is_over_are_deleted() {
        use super::super::{Options, TopicSpec};
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let topic = log
            .create_topic(&TopicSpec::new("t", std::num::NonZeroU32::MIN))
            .unwrap();
        let partition = topic.partitions[0];
        let now = Epoch {
            completions: 1,
            state: 0,
        };
        let names = [Epoch::default(), now].map(|epoch| numbers_namespace("g", epoch));
        assert!(names.iter().all(|name| is_namespace(name)) && !is_namespace("g"));
        let [old, new] = names.map(|name| log.group(&name).unwrap());
        let entry = |group| Write::State {
            group,
            partition,
            key: vec![7; 16],
            value: Some(vec![1; 9]),
        };
        log.commit(Commit {
            writes: vec![entry(old), entry(new), write("g", now)],
            ..Commit::default()
        })
        .unwrap();
        assert!(sweep(&log).unwrap() && !sweep(&log).unwrap());
        assert_eq!(log.state_bytes(old).unwrap(), 0);
        assert!(log.state_bytes(new).unwrap() > 0);
    }

    #[test]
    fn what_a_reset_left_behind_is_deleted_and_nothing_else() {
        use super::super::{Options, TopicSpec};
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let topic = log
            .create_topic(&TopicSpec::new("t", std::num::NonZeroU32::MIN))
            .unwrap();
        let partition = topic.partitions[0];
        let epoch = Epoch {
            completions: 0,
            state: 1,
        };
        let now = state_namespace("g", &grant("default", 1), epoch).unwrap();
        let (old, other, new) = (
            log.group("g").unwrap(),
            log.group("other").unwrap(),
            log.group(&now).unwrap(),
        );
        let entry = |group, n: usize| Write::State {
            group,
            partition,
            key: format!("{n:05}").into_bytes(),
            value: Some(b"v".to_vec()),
        };
        let mut writes: Vec<Write> = (0..SWEEP_ENTRIES + 1).map(|n| entry(old, n)).collect();
        writes.extend([entry(other, 0), entry(new, 0), write("g", epoch)]);
        log.commit(Commit {
            writes,
            ..Commit::default()
        })
        .unwrap();
        assert_eq!(read(&log, "g").unwrap(), epoch);
        let mut rounds = 0;
        while sweep(&log).unwrap() {
            rounds += 1;
        }
        assert_eq!(rounds, 2);
        assert_eq!(log.state_bytes(old).unwrap(), 0);
        assert!(log.state_bytes(other).unwrap() > 0 && log.state_bytes(new).unwrap() > 0);
    }

    #[test]
    fn an_epoch_that_cannot_be_read_is_refused_and_one_without_a_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), super::super::Options::default()).unwrap();
        let epoch = Epoch {
            completions: 3,
            state: 5,
        };
        let put = |value: Vec<u8>| {
            let write = Write::Meta {
                key: key("g"),
                value: Some(value),
            };
            log.commit(Commit {
                writes: vec![write],
                ..Commit::default()
            })
            .unwrap();
        };
        put([3u64.to_le_bytes(), 5u64.to_le_bytes()].concat());
        assert_eq!(read(&log, "g").unwrap(), epoch);
        let Write::Meta {
            value: Some(mut value),
            ..
        } = write("g", epoch)
        else {
            panic!("an epoch is a meta entry");
        };
        put(value.clone());
        assert_eq!(read(&log, "g").unwrap(), epoch);
        value[0] = VERSION + 1;
        for unreadable in [value, b"3".to_vec(), Vec::new()] {
            put(unreadable);
            let why = read(&log, "g").unwrap_err();
            assert!(why.to_string().contains("epoch of group g"), "{why}");
        }
    }

    /// Every reset needs a namespace; only two of one kind are there at a time.
    #[test]
    fn resets_use_up_no_names_of_groups_and_without_one_are_refused() {
        use super::super::{GROUPS_MAX, Options, TopicSpec};
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let spec = TopicSpec::new("t", std::num::NonZeroU32::MIN);
        let partition = log.create_topic(&spec).unwrap().partitions[0];
        // Room for two of state and two of numbers.
        for n in 0..GROUPS_MAX - 4 {
            log.group(&format!("g{n}")).unwrap();
        }
        for n in 1..8 {
            let epoch = Epoch {
                completions: n,
                state: n,
            };
            let names = [
                state_namespace("g0", &grant("default", 1), epoch).unwrap(),
                numbers_namespace("g0", epoch),
            ];
            let spaces = names.map(|name| namespace(&log, &name).unwrap());
            let entry = |group| Write::State {
                group,
                partition,
                key: vec![7; 16],
                value: Some(vec![n as u8]),
            };
            let mut writes = vec![write("g0", epoch)];
            writes.extend(spaces.map(entry));
            log.commit(Commit {
                writes,
                ..Commit::default()
            })
            .unwrap();
            // Not before it is empty.
            while sweep(&log).unwrap() {}
            for space in spaces {
                let stored = log.state_get(space, partition, &[7; 16]).unwrap();
                assert_eq!(stored.as_deref(), Some(&[n as u8][..]));
            }
        }
        assert!(log.groups().len() <= GROUPS_MAX);
        log.close().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let now = read(&log, "g0").unwrap();
        assert!(log.find_group(&numbers_namespace("g0", now)).is_some());
        // Those of the epoch before are given away; nothing of another group is over.
        let free = GROUPS_MAX - log.groups().len() + 2;
        for n in 1..=free {
            namespace(&log, &numbers_namespace(&format!("g{n}"), Epoch::default())).unwrap();
        }
        let full = namespace(&log, &numbers_namespace("last", Epoch::default()));
        assert!(matches!(full, Err(Error::Limit { .. })), "{full:?}");
    }
}
