//! Rules without I/O: when a segment is closed, which segments go, which bucket a completion goes to.

use super::catalog::{Bucket, Segment};
use super::options::{BUCKETS_MAX, Options, SEGMENTS_MAX, SEGMENTS_PER_TOPIC};
use super::topic::{GroupId, Retention};

/// Segments a retention period or size is divided into, so that what stays too long is a small part.
const RETENTION_PARTS: u64 = 8;
/// Buckets a time to live is divided into.
const BUCKET_PARTS: i64 = 4;
/// Narrowest bucket.
const BUCKET_MS_MIN: i64 = 60_000;
/// Segments of internal topics, which go as soon as they were read.
const INTERNAL_SEGMENT_BYTES: u64 = 8 << 20;
/// Smallest segment that retention by size asks for.
const SEGMENT_BYTES_MIN: u64 = 64 * 1_024;

/// What is known of a topic's open segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) bytes: u64,
    pub(super) created_at_ms: i64,
}

/// Whether the open segment is to be closed before the next append.
pub(super) fn must_roll(
    open: Open,
    closed_bytes: u64,
    segments: usize,
    retention: Retention,
    internal: bool,
    options: &Options,
    now_ms: i64,
) -> bool {
    if open.bytes == 0 || segments >= SEGMENTS_MAX {
        return false;
    }
    let by_size = match retention.bytes {
        _ if internal => INTERNAL_SEGMENT_BYTES,
        None => u64::MAX,
        Some(bytes) => (bytes / RETENTION_PARTS).max(SEGMENT_BYTES_MIN),
    };
    let bytes_max = options
        .segment_bytes
        .max(closed_bytes / SEGMENTS_PER_TOPIC)
        .min(by_size);
    let age = retention.age.map_or(options.segment_age, |a| {
        options.segment_age.min(a / RETENTION_PARTS as u32)
    });
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX).max(1);
    open.bytes >= bytes_max || now_ms.saturating_sub(open.created_at_ms) >= age_ms
}

/// How many of the oldest closed segments go. `open_bytes` count towards the size.
pub(super) fn expired(
    segments: &[Segment],
    open_bytes: u64,
    retention: Retention,
    now_ms: i64,
) -> usize {
    let closed = segments.iter().filter(|s| s.closed_at_ms.is_some());
    let mut total: u64 = open_bytes + closed.clone().map(|s| s.bytes).sum::<u64>();
    let mut drop = 0;
    for segment in closed {
        let too_old = match (retention.age, segment.closed_at_ms) {
            (Some(age), Some(closed)) => {
                let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                now_ms.saturating_sub(closed) > age_ms
            }
            _ => false,
        };
        // What is left after this one still fills the size: only then may it go.
        let too_much = retention
            .bytes
            .is_some_and(|max| total - segment.bytes >= max);
        if !too_old && !too_much {
            break;
        }
        total -= segment.bytes;
        drop += 1;
    }
    drop
}

/// How many of the oldest closed segments of an internal topic go: those that the group that reads it has
/// passed on every partition. `passed` has, by partition index, the lowest committed offset.
pub(super) fn passed(segments: &[Segment], passed: &[u64]) -> usize {
    let is_passed = |next: &Segment| {
        next.starts.len() == passed.len()
            && next.starts.iter().zip(passed).all(|(end, at)| end <= at)
    };
    // What a segment holds ends where the next one starts; the open one has no next.
    segments
        .windows(2)
        .take_while(|pair| matches!(pair, [closed, next] if closed.closed_at_ms.is_some() && is_passed(next)))
        .count()
}

/// Where a completion goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BucketChoice {
    Existing(u32),
    /// A new bucket that holds until then.
    New(i64),
    /// No more buckets: this one has to hold longer.
    Extend(u32, i64),
}

pub(super) fn choose_bucket(
    buckets: &[Bucket],
    group: GroupId,
    expires_at_ms: i64,
    now_ms: i64,
) -> BucketChoice {
    let width = (expires_at_ms.saturating_sub(now_ms) / BUCKET_PARTS)
        .max(BUCKET_MS_MIN)
        .checked_add(1)
        .map_or(BUCKET_MS_MIN, |w| (w as u64).next_power_of_two() as i64);
    let own = buckets.iter().filter(|b| b.group == group);
    let fitting = own
        .clone()
        .filter(|b| b.until_ms >= expires_at_ms && b.until_ms - expires_at_ms <= width)
        .min_by_key(|b| b.until_ms);
    if let Some(bucket) = fitting {
        return BucketChoice::Existing(bucket.id);
    }
    let until = expires_at_ms
        .checked_div_euclid(width)
        .and_then(|n| n.checked_add(1)?.checked_mul(width))
        .unwrap_or(i64::MAX);
    if buckets.len() < BUCKETS_MAX {
        return BucketChoice::New(until);
    }
    match own.max_by_key(|b| b.until_ms) {
        Some(last) if last.until_ms >= expires_at_ms => BucketChoice::Existing(last.id),
        Some(last) => BucketChoice::Extend(last.id, until),
        None => BucketChoice::New(until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn closed(id: u64, closed_at_ms: i64, bytes: u64) -> Segment {
        Segment {
            id,
            starts: vec![0],
            created_at_ms: 0,
            closed_at_ms: Some(closed_at_ms),
            bytes,
            max_timestamp_ms: 0,
        }
    }

    #[test]
    fn a_segment_of_an_internal_topic_goes_when_its_group_has_passed_it_on_every_partition() {
        let segment = |id, starts: [u64; 2], closed_at_ms| Segment {
            id,
            starts: starts.to_vec(),
            created_at_ms: 0,
            closed_at_ms,
            bytes: 1,
            max_timestamp_ms: 0,
        };
        let segments = [
            segment(1, [0, 0], Some(1)),
            segment(2, [5, 7], Some(2)),
            segment(3, [9, 9], None),
        ];
        assert_eq!(passed(&segments, &[0, 0]), 0);
        assert_eq!(
            passed(&segments, &[5, 6]),
            0,
            "one partition is not through"
        );
        assert_eq!(passed(&segments, &[5, 7]), 1);
        assert_eq!(passed(&segments, &[100, 9]), 2, "never the open one");
        assert_eq!(passed(&segments, &[]), 0, "nobody has read it");
    }

    #[test]
    fn retention_by_age_drops_segments_closed_before_it() {
        let segments = [closed(1, 1_000, 10), closed(2, 5_000, 10)];
        let retention = Retention {
            age: Some(Duration::from_secs(4)),
            bytes: None,
        };
        assert_eq!(expired(&segments, 0, retention, 5_000), 0);
        assert_eq!(expired(&segments, 0, retention, 5_001), 1);
        assert_eq!(expired(&segments, 0, retention, 9_001), 2);
    }

    #[test]
    fn retention_by_size_never_leaves_less_than_the_size() {
        let segments = [closed(1, 0, 100), closed(2, 0, 100), closed(3, 0, 100)];
        let retention = Retention {
            age: None,
            bytes: Some(150),
        };
        assert_eq!(expired(&segments, 20, retention, 0), 1);
        assert_eq!(expired(&segments, 50, retention, 0), 2);
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let mut buckets = Vec::new();
        for n in 0..10_000_i64 {
            let expires = n * 3_600_000;
            match choose_bucket(&buckets, GroupId(0), expires, expires - 60_000) {
                BucketChoice::New(until_ms) => buckets.push(Bucket {
                    id: buckets.len() as u32,
                    group: GroupId(0),
                    until_ms,
                }),
                BucketChoice::Extend(id, until_ms) => buckets[id as usize].until_ms = until_ms,
                BucketChoice::Existing(_) => {}
            }
            assert!(buckets.iter().any(|b| b.until_ms >= expires));
        }
        assert!(buckets.len() <= BUCKETS_MAX);
    }

    #[test]
    fn completions_of_one_ttl_share_few_buckets() {
        let mut buckets: Vec<Bucket> = Vec::new();
        let ttl = 24 * 3_600_000;
        for minute in 0..24 * 60_i64 {
            let now = minute * 60_000;
            if let BucketChoice::New(until_ms) = choose_bucket(&buckets, GroupId(0), now + ttl, now)
            {
                let id = buckets.len() as u32;
                buckets.push(Bucket {
                    id,
                    group: GroupId(0),
                    until_ms,
                });
            }
        }
        assert!(buckets.len() <= 6, "{}", buckets.len());
    }
}
