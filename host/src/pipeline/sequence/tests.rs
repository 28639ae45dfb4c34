//! §4.5 as a specification, and against a worker played in the simplest way.

use super::*;
use proptest::prelude::*;

const TIMEOUT: i64 = 30_000;

fn key(hash: u128) -> SequenceKey {
    SequenceKey { partition: 0, hash }
}

fn number(value: i64) -> Number {
    Number { key: key(1), value }
}

fn finish(sequences: &mut Sequences<u64>, value: i64) -> Vec<u64> {
    let mut freed = Vec::new();
    sequences.finish(number(value), (0, u64::MAX), 1, &mut freed);
    freed
}

fn give_up(sequences: &mut Sequences<u64>, now_ms: i64, is_held: bool) -> Vec<u64> {
    let mut freed = Vec::new();
    sequences.give_up(now_ms, |_, _| !is_held, &mut freed);
    freed.into_iter().map(|(_, delivery)| delivery).collect()
}

#[test]
fn the_first_number_of_a_key_is_accepted_as_it_is_and_then_one_follows_the_other() {
    let mut sequences = Sequences::<u64>::default();
    assert!(sequences.needs(key(1)));
    sequences.learn(key(1), None);
    assert_eq!(sequences.standing(number(7), (0, 0), false), Standing::Next);
    finish(&mut sequences, 7);
    for (value, standing) in [
        (6, Standing::Stale { last: 7 }),
        (7, Standing::Stale { last: 7 }),
        (8, Standing::Next),
        (9, Standing::Gap { last: 7 }),
    ] {
        assert_eq!(sequences.standing(number(value), (0, 1), false), standing);
    }
}

#[test]
fn numbers_of_one_call_follow_each_other_and_count_only_when_they_finished() {
    let mut sequences = Sequences::<u64>::default();
    sequences.learn(key(1), Some(1));
    sequences.call(number(2));
    let third = |sequences: &Sequences<u64>| sequences.standing(number(3), (0, 1), false);
    assert_eq!(third(&sequences), Standing::Next);
    sequences.next_call();
    assert_eq!(third(&sequences), Standing::Gap { last: 1 });
}

#[test]
fn what_fills_a_gap_goes_ahead_and_frees_what_waited() {
    let mut sequences = Sequences::default();
    sequences.learn(key(1), Some(1));
    sequences.park(number(4), (0, 40), 40, TIMEOUT);
    sequences.park(number(3), (0, 50), 50, TIMEOUT);
    assert_eq!(
        sequences.standing(number(2), (0, 60), false),
        Standing::Next
    );
    assert_eq!(sequences.waits((0, 40)), Some((4, 1, TIMEOUT)));
    assert_eq!(finish(&mut sequences, 2), [50]);
    assert_eq!(finish(&mut sequences, 3), [40]);
    assert!(sequences.gaps.is_empty() && sequences.index.is_empty());
    assert!(sequences.parked.is_empty());
}

#[test]
fn a_gap_is_given_up_in_the_order_of_the_numbers_and_not_while_the_key_is_held_up() {
    let mut sequences = Sequences::default();
    sequences.learn(key(1), Some(1));
    sequences.park(number(9), (0, 40), 40, TIMEOUT);
    sequences.park(number(5), (0, 50), 50, TIMEOUT + 1_000);
    assert!(give_up(&mut sequences, TIMEOUT - 1, false).is_empty());
    assert!(give_up(&mut sequences, TIMEOUT, true).is_empty());
    assert!(give_up(&mut sequences, TIMEOUT + HELD_UP_MS - 1, false).is_empty());
    let now = TIMEOUT + HELD_UP_MS;
    assert_eq!(
        give_up(&mut sequences, now, false),
        [50],
        "the lower number"
    );
    assert_eq!(
        sequences.standing(number(5), (0, 50), false),
        Standing::Next
    );
    finish(&mut sequences, 5);
    assert_eq!(give_up(&mut sequences, now + HELD_UP_MS, false), [40]);
}

/// What is missing may lie unread in the log, because nothing could be read meanwhile.
#[test]
fn a_gap_is_not_given_up_before_what_was_there_when_its_time_was_over_is_read() {
    let mut sequences = Sequences::default();
    sequences.learn(key(1), Some(1));
    sequences.park(number(5), (0, 50), 50, TIMEOUT);
    let look = |sequences: &mut Sequences<u64>, now_ms, end: u64, position: u64| {
        let mut freed = Vec::new();
        let may_go = |_: &u64, read_to: &mut Option<u64>| position >= *read_to.get_or_insert(end);
        sequences.give_up(now_ms, may_go, &mut freed);
        freed.len()
    };
    assert_eq!(look(&mut sequences, TIMEOUT, 70, 60), 0);
    // What came afterwards came too late.
    assert_eq!(look(&mut sequences, TIMEOUT + HELD_UP_MS, 90, 69), 0);
    assert_eq!(look(&mut sequences, TIMEOUT + 2 * HELD_UP_MS, 90, 70), 1);
}

/// Each message after a gap of its own: the waits of the later ones are over as well.
#[test]
fn gaps_whose_time_is_over_follow_each_other_at_once() {
    let mut sequences = Sequences::default();
    sequences.learn(key(1), Some(1));
    for value in [3, 5, 7] {
        let id = (0, value as u64);
        sequences.park(number(value), id, value as u64, TIMEOUT);
    }
    for value in [3, 5, 7] {
        assert_eq!(give_up(&mut sequences, TIMEOUT, false), [value as u64]);
        finish(&mut sequences, value);
    }
}

#[test]
fn a_message_that_was_called_before_has_no_gap_before_it() {
    let mut sequences = Sequences::<u64>::default();
    sequences.learn(key(1), Some(1));
    assert_eq!(sequences.standing(number(9), (0, 1), true), Standing::Next);
    assert_eq!(
        sequences.standing(number(1), (0, 1), true),
        Standing::Stale { last: 1 }
    );
}

#[test]
fn the_numbers_of_known_max_keys_are_remembered_and_those_not_durable_yet() {
    let mut sequences = Sequences::<u64>::default();
    let mut freed = Vec::new();
    for n in 0..=KNOWN_MAX as u128 {
        let one = Number {
            key: key(n),
            value: 1,
        };
        sequences.finish(one, (0, 0), if n < 3 { 8 } else { 7 }, &mut freed);
    }
    sequences.park(
        Number {
            key: key(9),
            value: 5,
        },
        (0, 1),
        1,
        TIMEOUT,
    );
    sequences.prune(7);
    assert_eq!(sequences.known.len(), 4);
    assert!(!sequences.needs(key(0)) && !sequences.needs(key(9)) && sequences.needs(key(10)));
}

#[test]
fn a_stored_number_has_a_version_and_a_newer_one_is_refused() {
    for value in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(decode(&encode(value)), Ok(value));
    }
    assert!(decode(&[2, 0]).unwrap_err().contains("newer"));
    assert!(decode(&[VERSION, 0]).is_err() && decode(&[]).is_err());
}

#[test]
fn the_highest_number_there_is_has_none_after_it() {
    let mut sequences = Sequences::<u64>::default();
    sequences.learn(key(1), Some(i64::MAX));
    assert_eq!(
        sequences.standing(number(i64::MIN), (0, 1), false),
        Standing::Stale { last: i64::MAX }
    );
}

/// One key's messages as they come, played without lanes: what may be called is called at once.
#[derive(Debug, Default)]
struct Played {
    sequences: Sequences<(u64, i64)>,
    processed: Vec<i64>,
    stale: usize,
    given_up: usize,
    now_ms: i64,
}

impl Played {
    fn take(&mut self, offset: u64, value: i64) {
        let id = (0, offset);
        match self.sequences.standing(number(value), id, false) {
            Standing::Stale { last } => {
                assert_eq!(Some(&last), self.processed.last());
                self.stale += 1;
                let mut freed = Vec::new();
                let stored = self.sequences.finish(number(value), id, 1, &mut freed);
                assert!(stored.is_none() && freed.is_empty());
            }
            Standing::Gap { .. } => {
                let end = self.now_ms + TIMEOUT;
                self.sequences.park(number(value), id, (offset, value), end);
            }
            Standing::Next => {
                self.processed.push(value);
                let mut freed = Vec::new();
                let stored = self.sequences.finish(number(value), id, 1, &mut freed);
                assert_eq!(stored, Some(value));
                for (offset, value) in freed {
                    self.take(offset, value);
                }
            }
        }
    }

    fn earliest_end(&self) -> Option<i64> {
        let gaps = self.sequences.gaps.values();
        gaps.filter_map(|gap| gap.ends.first().map(|(end, _)| *end))
            .min()
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while self.earliest_end().is_some_and(|end| end <= self.now_ms) {
            let mut freed = Vec::new();
            self.sequences.give_up(self.now_ms, |_, _| true, &mut freed);
            assert_eq!(freed.len(), 1, "each look lets one go");
            for (number, (offset, value)) in freed {
                assert_eq!(number.value, value);
                self.given_up += 1;
                self.take(offset, value);
            }
            self.now_ms += HELD_UP_MS;
        }
    }
}

proptest! {
    /// Whatever comes: numbers only rise, each message ends in one way, and nothing waits for longer than it
    /// may.
    #[test]
    fn numbers_rise_and_no_wait_is_longer_than_the_timeout(
        steps in proptest::collection::vec((0i64..12, 0i64..12_000), 1..60),
    ) {
        let mut played = Played::default();
        played.sequences.learn(key(1), None);
        let count = steps.len();
        for (offset, (value, pause)) in (0..).zip(steps) {
            played.pass(pause);
            played.take(offset, value);
            let waiting = played.sequences.iter().count();
            prop_assert_eq!(waiting, played.sequences.parked.len());
            for gap in played.sequences.gaps.values() {
                prop_assert_eq!(gap.ends.len(), gap.waiting.len());
            }
        }
        let mut turns = 0;
        while played.sequences.iter().next().is_some() {
            played.pass(TIMEOUT);
            turns += 1;
            prop_assert!(turns <= 60);
        }
        prop_assert!(played.processed.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(played.processed.len() + played.stale, count);
        prop_assert!(played.sequences.gaps.is_empty() && played.sequences.index.is_empty());
        prop_assert!(played.sequences.granted.is_empty());
    }

    /// Shuffled numbers that all come in time are processed in order and none is given up.
    #[test]
    fn a_shuffle_that_comes_in_time_is_put_in_order(
        shuffled in Just((2..30).collect::<Vec<i64>>()).prop_shuffle(),
    ) {
        let mut played = Played::default();
        played.sequences.learn(key(1), Some(1));
        for (offset, value) in (0..).zip(shuffled) {
            played.pass(1_000);
            played.take(offset, value);
        }
        prop_assert_eq!(played.processed, (2..30).collect::<Vec<i64>>());
        prop_assert_eq!((played.stale, played.given_up), (0, 0));
    }
}
