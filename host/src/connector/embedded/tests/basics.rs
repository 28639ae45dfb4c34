//! What the log does when nothing goes wrong.

use super::*;
use crate::config::valid::Durability;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn messages_come_back_in_order_with_their_offsets_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 2).partitions[1];
    let first = log.commit(append(p, &[b"a", b"b"])).unwrap();
    let second = log.commit(append(p, &[b"c"])).unwrap();
    assert_eq!(
        (first.base_offsets, second.base_offsets),
        (vec![0], vec![2])
    );
    let expected: Vec<(u64, Vec<u8>)> =
        vec![(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())];
    assert_eq!(read_all(&log, p).unwrap(), expected);
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(read_all(&log, p).unwrap(), expected);
    assert_eq!(log.end(p).unwrap(), 3);
    assert_eq!(log.commit(append(p, &[b"d"])).unwrap().base_offsets, [3]);
}

#[test]
fn a_read_gives_the_chunk_that_holds_the_offset_none_at_the_end_and_an_error_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    log.commit(append(p, &[b"a", b"b", b"c"])).unwrap();
    let chunk = log.read(p, 2).unwrap().unwrap();
    assert_eq!((chunk.base_offset(), chunk.count()), (0, 3));
    assert!(log.read(p, 3).unwrap().is_none());
    assert_eq!(
        log.read(p, 4).unwrap_err(),
        Error::OffsetOutOfRange {
            offset: 4,
            earliest: 0,
            end: 3
        }
    );
    assert_eq!(
        log.read(PartitionId(9), 0).unwrap_err(),
        Error::UnknownPartition(9)
    );
}

#[test]
fn one_commit_reaches_partitions_and_tables_together() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let t = topic(&log, "t", 2);
    let group = log.group("g").unwrap();
    let mut commit = append(t.partitions[0], &[b"x"]);
    commit
        .appends
        .extend(append(t.partitions[1], &[b"y", b"z"]).appends);
    commit
        .appends
        .extend(append(t.partitions[1], &[b"w"]).appends);
    commit.writes = vec![
        Write::Progress {
            group,
            partition: t.partitions[0],
            value: b"7".to_vec(),
        },
        Write::State {
            group,
            partition: t.partitions[0],
            key: b"k".to_vec(),
            value: Some(b"v".to_vec()),
        },
        Write::Meta {
            key: b"m".to_vec(),
            value: Some(b"1".to_vec()),
        },
        Write::Completion {
            group,
            hash: 42,
            expires_at_ms: log.now_ms() + 60_000,
            value: b"done".to_vec(),
        },
    ];
    assert_eq!(log.commit(commit).unwrap().base_offsets, [0, 0, 2]);
    for reopened in [false, true] {
        let log = if reopened {
            log.close().unwrap();
            open(dir.path())
        } else {
            log.clone()
        };
        let p = t.partitions[0];
        assert_eq!(&*log.progress(group, p).unwrap().unwrap(), b"7");
        assert_eq!(log.progress_of(group).unwrap().len(), 1);
        assert_eq!(&*log.state_get(group, p, b"k").unwrap().unwrap(), b"v");
        assert_eq!(&*log.meta_get(b"m").unwrap().unwrap(), b"1");
        assert_eq!(
            &*log.completion(group, 42, log.now_ms()).unwrap().unwrap(),
            b"done"
        );
        assert_eq!(read_all(&log, t.partitions[1]).unwrap().len(), 3);
    }
}

#[test]
fn state_is_scanned_by_prefix_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (p, q) = {
        let t = topic(&log, "t", 2);
        (t.partitions[0], t.partitions[1])
    };
    let group = log.group("g").unwrap();
    let set = |partition, key: &str, value: Option<&str>| Write::State {
        group,
        partition,
        key: key.into(),
        value: value.map(Into::into),
    };
    log.commit(writes(vec![
        set(p, "a1", Some("1")),
        set(p, "a2", Some("2")),
        set(p, "b", Some("3")),
        set(q, "a3", Some("4")),
    ]))
    .unwrap();
    let keys = |limit| {
        let found = log.state_scan(group, p, b"a", limit, usize::MAX).unwrap();
        found
            .iter()
            .map(|(k, _)| String::from_utf8(k.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(10), ["a1", "a2"]);
    assert_eq!(keys(1), ["a1"]);
    // One byte of budget: the first entry exceeds it and is the last.
    assert_eq!(log.state_scan(group, p, b"a", 10, 1).unwrap().len(), 1);
    assert_eq!(log.state_bytes(group).unwrap(), 11);
    log.commit(writes(vec![set(p, "a1", None)])).unwrap();
    assert_eq!(keys(10), ["a2"]);
    assert!(log.state_get(group, p, b"a1").unwrap().is_none());
}

#[test]
fn a_completion_is_gone_after_its_expiry_and_its_bucket_is_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let group = log.group("g").unwrap();
    let now = log.now_ms();
    let done = |hash, expires_at_ms| Write::Completion {
        group,
        hash,
        expires_at_ms,
        value: vec![],
    };
    log.commit(writes(vec![done(1, now + 1_000), done(2, now + 3_600_000)]))
        .unwrap();
    assert!(log.completion(group, 1, now).unwrap().is_some());
    assert!(log.completion(group, 1, now + 1_000).unwrap().is_none());
    assert!(log.completion(group, 2, now + 1_000).unwrap().is_some());
    assert!(log.completion(group, 3, now).unwrap().is_none());
    let other = log.group("other").unwrap();
    assert!(log.completion(other, 1, now).unwrap().is_none());
    let before = log.0.shared.read_state().catalog.buckets.len();
    log.maintain(now + 600_000).unwrap();
    assert!(log.0.shared.read_state().catalog.buckets.len() < before);
    assert!(log.completion(group, 2, now + 1_000).unwrap().is_some());
}

#[test]
fn offset_at_finds_the_first_message_of_a_time_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    let payload = vec![7u8; 4_096];
    for n in 0..60 {
        log.commit(append_at(p, &[&payload], n * 10)).unwrap();
    }
    assert!(log.0.shared.read_state().catalog.topics[0].segments.len() > 3);
    assert_eq!(log.offset_at(p, i64::MIN).unwrap(), 0);
    assert_eq!(log.offset_at(p, 301).unwrap(), 31);
    assert_eq!(log.offset_at(p, 300).unwrap(), 30);
    assert_eq!(log.offset_at(p, 591).unwrap(), 60);
    log.close().unwrap();
    assert_eq!(open(dir.path()).offset_at(p, 301).unwrap(), 31);
}

#[test]
fn retention_by_size_drops_whole_segments_moves_earliest_and_gives_the_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut spec = TopicSpec::new("t", NonZeroU32::new(1).unwrap());
    spec.retention.bytes = Some(512 * 1_024);
    let p = log.create_topic(&spec).unwrap().partitions[0];
    let payload = vec![7u8; 8_192];
    for _ in 0..1_000 {
        log.commit(append(p, &[&payload])).unwrap();
    }
    log.maintain(log.now_ms()).unwrap();
    let earliest = log.earliest(p).unwrap();
    assert!(earliest > 800, "{earliest}");
    assert!(matches!(
        log.read(p, 0),
        Err(Error::OffsetOutOfRange { .. })
    ));
    assert_eq!(read_all(&log, p).unwrap().len() as u64, 1_000 - earliest);
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(log.earliest(p).unwrap(), earliest);
    let tables = size(&database_dir(dir.path()).join("keyspaces"));
    assert!(
        tables < 2 * 1_024 * 1_024,
        "{tables} bytes of tables are left"
    );
}

#[test]
fn retention_by_age_drops_what_was_closed_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut spec = TopicSpec::new("t", NonZeroU32::new(1).unwrap());
    spec.retention.age = Some(Duration::from_secs(3_600));
    let p = log.create_topic(&spec).unwrap().partitions[0];
    log.commit(append(p, &[b"old"])).unwrap();
    let now = log.now_ms();
    log.maintain(now + 3_000_000).unwrap();
    assert_eq!(log.earliest(p).unwrap(), 0);
    log.maintain(now + 9_000_000).unwrap();
    assert_eq!((log.earliest(p).unwrap(), log.end(p).unwrap()), (1, 1));
    assert!(log.read(p, 1).unwrap().is_none());
    log.commit(append(p, &[b"new"])).unwrap();
    assert_eq!(read_all(&log, p).unwrap(), [(1, b"new".to_vec())]);
}

fn size(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                size(&entry.path())
            } else {
                meta.len()
            }
        })
        .sum()
}

#[test]
fn commits_are_acknowledged_in_the_order_of_submit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    let (send, receive) = channel();
    for _ in 0..500 {
        let send = send.clone();
        log.submit(
            append(p, &[b"x"]),
            Box::new(move |r| send.send(r.unwrap()).unwrap()),
        )
        .unwrap();
    }
    let acks: Vec<Committed> = receive.iter().take(500).collect();
    let offsets: Vec<u64> = acks.iter().map(|c| c.base_offsets[0]).collect();
    assert_eq!(offsets, (0..500).collect::<Vec<_>>());
    assert!(acks.is_sorted_by_key(|c| c.seq));
}

#[test]
fn what_was_submitted_is_done_before_close_returns_and_later_commits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    for _ in 0..100 {
        log.submit(append(p, &[b"x"]), Box::new(|_| {})).unwrap();
    }
    log.close().unwrap();
    log.close().unwrap();
    assert_eq!(log.commit(append(p, &[b"x"])).unwrap_err(), Error::Closed);
    assert_eq!(log.read(p, 0).unwrap_err(), Error::Closed);
    assert_eq!(open(dir.path()).end(p).unwrap(), 100);
}

#[test]
fn a_subscriber_is_woken_when_its_partition_grows() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    let reader = log.clone();
    let (ready, is_ready) = channel();
    let waiting = std::thread::spawn(move || {
        let _subscription = reader.subscribe(&[p], std::thread::current());
        ready.send(()).unwrap();
        while reader.end(p).unwrap() == 0 {
            std::thread::park();
        }
    });
    is_ready.recv().unwrap();
    log.commit(append(p, &[b"x"])).unwrap();
    waiting.join().unwrap();
    assert!(log.0.shared.subscriber_count() == 0);
}

#[test]
fn a_second_log_on_the_directory_is_refused_and_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let error = Log::open(dir.path(), small()).err().unwrap();
    assert!(
        matches!(&error, Error::Held { holder, .. } if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
    log.close().unwrap();
    open(dir.path());
}

#[test]
fn topics_and_groups_keep_their_ids_and_their_specification() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut spec = TopicSpec::new("a", NonZeroU32::new(3).unwrap());
    spec.retention = Retention {
        age: Some(Duration::from_secs(9)),
        bytes: Some(77),
    };
    let a = log.create_topic(&spec).unwrap();
    let b = topic(&log, "b", 2);
    assert_eq!(b.partitions, [PartitionId(3), PartitionId(4)]);
    assert!(Arc::ptr_eq(&a, &log.create_topic(&spec).unwrap()));
    spec.partitions = NonZeroU32::new(4).unwrap();
    assert_eq!(
        log.create_topic(&spec).unwrap_err(),
        Error::TopicExists("a".into())
    );
    assert!(matches!(
        log.create_topic(&TopicSpec::new("no way", spec.partitions)),
        Err(Error::TopicName(_))
    ));
    let (g, h) = (log.group("g").unwrap(), log.group("h").unwrap());
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(log.topic("a").unwrap().spec, a.spec);
    assert_eq!(log.topics().len(), 2);
    assert_eq!((log.find_group("g"), log.group("h").unwrap()), (Some(g), h));
    assert_eq!(log.groups(), [(g, "g".to_owned()), (h, "h".to_owned())]);
}

#[test]
fn the_number_of_partitions_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    topic(&log, "big", PARTITIONS_MAX as u32);
    let error = log
        .create_topic(&TopicSpec::new("more", NonZeroU32::MIN))
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Limit {
                what: "partitions",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_number_of_topics_and_of_consumer_groups_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Durability::Os,
        ..small()
    };
    let log = Log::open(dir.path(), options).unwrap();
    for n in 0..GROUPS_MAX {
        log.group(&format!("g{n}")).unwrap();
    }
    let error = log.group("more").unwrap_err();
    assert!(
        matches!(
            error,
            Error::Limit {
                what: "consumer groups",
                ..
            }
        ),
        "{error}"
    );
    assert!(log.group("g0").is_ok());
    for n in 0..TOPICS_MAX {
        topic(&log, &format!("t{n}"), 1);
    }
    let spec = TopicSpec::new("more", NonZeroU32::MIN);
    let error = log.create_topic(&spec).unwrap_err();
    assert!(
        matches!(error, Error::Limit { what: "topics", .. }),
        "{error}"
    );
    assert!(log.topic("t0").is_some());
}

#[test]
fn a_key_over_key_bytes_max_is_refused_and_one_at_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let write = |len: usize| Commit {
        writes: vec![Write::Meta {
            key: vec![b'k'; len],
            value: Some(b"v".to_vec()),
        }],
        ..Commit::default()
    };
    let error = log.commit(write(KEY_BYTES_MAX + 1)).unwrap_err();
    assert!(
        matches!(error, Error::Limit { what: "a key", .. }),
        "{error}"
    );
    log.commit(write(KEY_BYTES_MAX)).unwrap();
    assert!(log.meta_get(&vec![b'k'; KEY_BYTES_MAX]).unwrap().is_some());
}

#[test]
fn a_scan_of_meta_entries_gives_a_prefix_in_key_order_from_where_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let put = |key: &str| Write::Meta {
        key: key.as_bytes().to_vec(),
        value: Some(key.as_bytes().to_vec()),
    };
    log.commit(Commit {
        writes: ["b", "a/2", "a/1", "a0", "a/3", "a"].map(put).to_vec(),
        ..Commit::default()
    })
    .unwrap();
    let keys = |prefix: &str, from: &str, limit| -> Vec<String> {
        let found = log.meta_scan(prefix.as_bytes(), from.as_bytes(), limit);
        found
            .unwrap()
            .into_iter()
            .map(|(key, value)| {
                assert_eq!(key, value);
                String::from_utf8(key.to_vec()).unwrap()
            })
            .collect()
    };
    assert_eq!(keys("a/", "", 10), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys("a/", "a/2", 10), ["a/2", "a/3"]);
    assert_eq!(keys("a/", "", 2), ["a/1", "a/2"]);
    assert_eq!(keys("c", "", 10), [""; 0]);
    // What the catalogue keeps beside them is nobody's.
    topic(&log, "t", 1);
    assert_eq!(keys("", "", 10).len(), 6);
    log.close().unwrap();
    assert_eq!(open(dir.path()).topics().len(), 1);
}
