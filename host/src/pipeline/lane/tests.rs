//! §4.1 and §4.2 as examples, and a worker's rounds over random failures.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BY_KEY: Ordering = Ordering {
    by: By::Key,
    null_key: NullKey::None,
    on_dead_letter: crate::config::valid::OnDeadLetter::Continue,
};

#[test]
fn by_key_a_lane_is_a_key_in_a_partition() {
    let lane = |key: &[u8], partition, offset| lane_of(BY_KEY, Some(key), partition, offset);
    assert_eq!(lane(b"a", 0, 1), lane(b"a", 0, 2));
    assert_ne!(lane(b"a", 0, 1), lane(b"b", 0, 1));
    assert_ne!(lane(b"a", 0, 1), lane(b"a", 1, 1));
    assert_eq!(lane(b"", 0, 1), lane(b"", 0, 2), "an empty key is a key");
}

#[test]
fn a_message_without_a_key_has_a_lane_of_its_own_unless_they_share_one() {
    let own = |partition, offset| lane_of(BY_KEY, None, partition, offset);
    assert_ne!(own(0, 1), own(0, 2));
    assert_ne!(own(0, 1), own(1, 1));
    let shared = |offset| {
        let ordering = Ordering {
            null_key: NullKey::Partition,
            ..BY_KEY
        };
        lane_of(ordering, None, 0, offset)
    };
    assert_eq!(shared(1), shared(2));
    assert_ne!(shared(1), lane_of(BY_KEY, Some(b""), 0, 1));
}

#[test]
fn by_partition_all_keys_share_a_lane_and_by_none_no_two_messages_do() {
    let ordering = |by| Ordering { by, ..BY_KEY };
    let lane =
        |by, key: &[u8], partition, offset| lane_of(ordering(by), Some(key), partition, offset);
    assert_eq!(
        lane(By::Partition, b"a", 3, 1),
        lane(By::Partition, b"b", 3, 2)
    );
    assert_ne!(
        lane(By::Partition, b"a", 3, 1),
        lane(By::Partition, b"a", 4, 1)
    );
    assert_ne!(lane(By::None, b"a", 3, 1), lane(By::None, b"a", 3, 2));
}

fn popped(lanes: &mut Lanes<u64>, now_ms: i64) -> Vec<(LaneKey, u64)> {
    std::iter::from_fn(|| lanes.pop_due(now_ms)).collect()
}

#[test]
fn a_lane_is_held_until_its_time_and_blocks_what_comes_after() {
    let mut lanes = Lanes::default();
    assert!(lanes.is_empty() && !lanes.blocks(1));
    lanes.hold(1, Until::Time(100));
    lanes.insert(1, 10u64);
    lanes.insert(1, 11);
    assert!(lanes.blocks(1) && !lanes.blocks(2));
    assert_eq!((lanes.len(), lanes.next_due()), (2, Some(100)));
    assert_eq!(popped(&mut lanes, 99), []);
    assert_eq!(popped(&mut lanes, 100), [(1, 10), (1, 11)]);
    assert!(lanes.blocks(1), "it runs");
    lanes.call_finished();
    assert!(lanes.is_empty());
    assert_eq!((lanes.len(), lanes.next_due()), (0, None));
}

#[test]
fn a_lane_sorts_what_a_failed_call_puts_back_in_any_order() {
    let mut lanes = Lanes::default();
    lanes.hold(1, Until::Ack);
    for offset in [12u64, 14, 10, 13, 11] {
        lanes.insert(1, offset);
    }
    lanes.release(1);
    let offsets: Vec<u64> = popped(&mut lanes, 0)
        .into_iter()
        .map(|(_, offset)| offset)
        .collect();
    assert_eq!(offsets, [10, 11, 12, 13, 14]);
}

#[test]
fn lanes_run_in_the_order_in_which_they_came_due() {
    let mut lanes = Lanes::default();
    for (lane, at) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        lanes.hold(lane, Until::Time(at));
        lanes.insert(lane, lane * 10);
    }
    assert_eq!(lanes.pop_due(30), Some((2, 20)));
    assert_eq!(popped(&mut lanes, 30), [(3, 30), (1, 10)]);
    lanes.call_finished();
    assert_eq!(lanes.next_due(), Some(40));
}

#[test]
fn what_did_not_fit_into_the_call_goes_first_in_a_later_one_behind_other_lanes() {
    let mut lanes = Lanes::default();
    for lane in [1, 2] {
        lanes.hold(lane, Until::Time(0));
        lanes.insert(lane, 10u64);
        lanes.insert(lane, 11);
    }
    assert_eq!(lanes.pop_due(0), Some((1, 10)));
    let (lane, did_not_fit) = lanes.pop_due(0).unwrap();
    lanes.insert(lane, did_not_fit);
    lanes.call_finished();
    assert_eq!(lanes.next_due(), Some(i64::MIN), "it may run at once");
    assert_eq!(popped(&mut lanes, 0), [(2, 10), (2, 11), (1, 11)]);
}

#[test]
fn a_message_of_a_running_lane_waits_for_the_next_call() {
    let mut lanes = Lanes::default();
    lanes.hold(1, Until::Time(0));
    lanes.insert(1, 10u64);
    assert_eq!(popped(&mut lanes, 0), [(1, 10)]);
    assert!(lanes.blocks(1));
    lanes.insert(1, 11);
    assert_eq!(popped(&mut lanes, 0), [], "its turn ended");
    lanes.call_finished();
    assert_eq!(popped(&mut lanes, 0), [(1, 11)]);
}

#[test]
fn a_lane_held_in_the_middle_of_its_turn_gives_no_more() {
    let mut lanes = Lanes::default();
    lanes.hold(1, Until::Time(0));
    for offset in [10u64, 11, 12] {
        lanes.insert(1, offset);
    }
    assert_eq!(lanes.pop_due(0), Some((1, 10)));
    let (_, waits) = lanes.pop_due(0).unwrap();
    lanes.hold(1, Until::Claim);
    lanes.insert(1, waits);
    assert_eq!(lanes.pop_due(0), None);
    lanes.call_finished();
    assert_eq!(
        (lanes.until(1), lanes.next_due()),
        (Some(Until::Claim), None)
    );
    lanes.wake_claims();
    assert_eq!(popped(&mut lanes, 0), [(1, 11), (1, 12)]);
}

#[test]
fn the_last_hold_of_a_lane_is_the_one_that_counts() {
    let mut lanes = Lanes::default();
    lanes.insert(1, 10u64);
    assert_eq!(lanes.until(1), None, "it may run");
    lanes.hold(1, Until::Time(5));
    lanes.hold(1, Until::Claim);
    lanes.hold(1, Until::Ack);
    lanes.wake_claims();
    assert_eq!(popped(&mut lanes, i64::MAX), []);
    lanes.hold(1, Until::Time(7));
    assert_eq!(lanes.until(1), Some(Until::Time(7)));
    assert_eq!(popped(&mut lanes, 5), []);
    assert_eq!(popped(&mut lanes, 7), [(1, 10)]);
    assert_eq!(lanes.until(1), None, "it runs");
}

#[test]
fn a_lane_held_with_nothing_in_it_vanishes_when_nothing_came() {
    let mut lanes: Lanes<u64> = Lanes::default();
    for (lane, until) in [(1, Until::Ack), (2, Until::Claim), (3, Until::Time(5))] {
        lanes.hold(lane, until);
        assert!(lanes.blocks(lane));
    }
    lanes.release(1);
    lanes.wake_claims();
    assert_eq!(popped(&mut lanes, 5), []);
    assert!(lanes.is_empty());
    lanes.release(1);
    assert_eq!(lanes.until(1), None);
}

#[test]
fn what_waits_can_be_looked_at() {
    let mut lanes = Lanes::default();
    lanes.hold(1, Until::Ack);
    lanes.insert(1, 11u64);
    lanes.insert(1, 10);
    lanes.hold(2, Until::Ack);
    lanes.insert(2, 5);
    let mut all: Vec<_> = lanes
        .iter()
        .map(|(lane, delivery)| (lane, *delivery))
        .collect();
    all.sort_by_key(|(lane, _)| *lane);
    assert_eq!(all, [(1, 10), (1, 11), (2, 5)]);
}

#[test]
fn a_lane_released_in_its_turn_is_free_or_takes_another_turn() {
    let mut lanes = Lanes::default();
    lanes.insert(1, 10u64);
    assert_eq!(lanes.pop_due(0), Some((1, 10)));
    lanes.release(1);
    assert_eq!((lanes.is_empty(), lanes.pop_due(0)), (true, None));
    lanes.insert(1, 10);
    lanes.insert(1, 11);
    lanes.insert(2, 20);
    assert_eq!(lanes.pop_due(0), Some((1, 10)));
    lanes.release(1);
    assert_eq!(popped(&mut lanes, 0), [(2, 20), (1, 11)]);
}

/// How a message's attempts end, in order; after the last it succeeds.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// Fails so often, each time held for the acknowledgement and then for a time.
    Fails(u8),
    /// Another delivery holds its claim when it is to be called for the first time.
    Waits,
    /// Succeeds, but the lane waits for the acknowledgement (`on_dead_letter: block_lane`).
    Blocks,
}

#[derive(Debug, Clone)]
struct Round {
    fresh: u8,
    call_max: u8,
    /// Deliveries of due lanes that still fit.
    fits: u8,
    acknowledge: bool,
    wake: bool,
    pass_ms: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        6 => Just(Plan::Fails(0)),
        2 => (1u8..4).prop_map(Plan::Fails),
        1 => Just(Plan::Waits),
        1 => Just(Plan::Blocks),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    (
        0u8..12,
        1u8..12,
        0u8..12,
        any::<bool>(),
        any::<bool>(),
        0u8..20,
    )
        .prop_map(
            |(fresh, call_max, fits, acknowledge, wake, pass_ms)| Round {
                fresh,
                call_max,
                fits,
                acknowledge,
                wake,
                pass_ms,
            },
        )
}

/// A worker as `pipeline/run.rs` has it, without messages and calls.
struct Worker {
    lanes: Lanes<u64>,
    /// By offset: the lane and what its attempts will come to.
    log: Vec<(LaneKey, Plan)>,
    next: u64,
    now_ms: i64,
    call: Vec<u64>,
    failed: Vec<LaneKey>,
    backoffs: Vec<LaneKey>,
    unblock: Vec<LaneKey>,
    /// By lane, in order of success.
    done: BTreeMap<LaneKey, Vec<u64>>,
}

impl Worker {
    fn new(log: Vec<(LaneKey, Plan)>) -> Self {
        Self {
            lanes: Lanes::default(),
            log,
            next: 0,
            now_ms: 0,
            call: Vec::new(),
            failed: Vec::new(),
            backoffs: Vec::new(),
            unblock: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    fn lane(&self, offset: u64) -> LaneKey {
        self.log[offset as usize].0
    }

    fn enter(&mut self, offset: u64) {
        let (lane, plan) = &mut self.log[offset as usize];
        if let Plan::Waits = plan {
            *plan = Plan::Fails(0);
            self.lanes.hold(*lane, Until::Claim);
            self.lanes.insert(*lane, offset);
        } else {
            self.call.push(offset);
        }
    }

    fn round(&mut self, round: &Round) {
        if round.wake {
            self.lanes.wake_claims();
        }
        let mut fits = round.fits;
        while self.call.len() < usize::from(round.call_max) {
            let Some((lane, offset)) = self.lanes.pop_due(self.now_ms) else {
                break;
            };
            if fits == 0 {
                self.lanes.insert(lane, offset);
                break;
            }
            fits -= 1;
            self.enter(offset);
        }
        for _ in 0..round.fresh {
            if self.call.len() >= usize::from(round.call_max)
                || self.next as usize == self.log.len()
            {
                break;
            }
            let offset = self.next;
            self.next += 1;
            if self.lanes.blocks(self.lane(offset)) {
                self.lanes.insert(self.lane(offset), offset);
            } else {
                self.enter(offset);
            }
        }
        self.judge();
        if round.acknowledge {
            for lane in std::mem::take(&mut self.backoffs) {
                self.lanes.hold(lane, Until::Time(self.now_ms + 10));
            }
            for lane in std::mem::take(&mut self.unblock) {
                self.lanes.release(lane);
            }
        }
        self.now_ms += i64::from(round.pass_ms);
    }

    fn judge(&mut self) {
        self.failed.clear();
        for offset in std::mem::take(&mut self.call) {
            let (lane, plan) = self.log[offset as usize];
            if self.failed.contains(&lane) {
                self.lanes.insert(lane, offset);
                continue;
            }
            if let Plan::Fails(times @ 1..) = plan {
                self.log[offset as usize].1 = Plan::Fails(times - 1);
                self.lanes.hold(lane, Until::Ack);
                self.lanes.insert(lane, offset);
                self.failed.push(lane);
                self.backoffs.push(lane);
                continue;
            }
            self.done.entry(lane).or_default().push(offset);
            if let Plan::Blocks = plan {
                self.lanes.hold(lane, Until::Ack);
                self.failed.push(lane);
                self.unblock.push(lane);
            }
        }
        self.lanes.call_finished();
    }

    fn finished(&self) -> usize {
        self.done.values().map(Vec::len).sum()
    }
}

proptest! {
    #[test]
    fn each_lane_succeeds_in_offset_order_and_nothing_is_lost(
        log in proptest::collection::vec((0u64..5, plan()), 0..80),
        rounds in proptest::collection::vec(round(), 0..60),
    ) {
        let mut worker = Worker::new(log.clone());
        for round in &rounds {
            worker.round(round);
            // Between calls every delivery that was read is finished or waits in its lane.
            prop_assert_eq!(worker.lanes.len() + worker.finished(), worker.next as usize);
            prop_assert_eq!(worker.lanes.iter().count(), worker.lanes.len());
            for (lane, offset) in worker.lanes.iter() {
                prop_assert_eq!(lane, worker.lane(*offset));
                prop_assert!(worker.lanes.blocks(lane));
            }
        }
        // Once nothing hinders them, all finish: each of these rounds ends an attempt or a wait.
        let calm = Round { fresh: 255, call_max: 255, fits: 255, acknowledge: true, wake: true, pass_ms: 10 };
        for _ in 0..log.len() * 6 + 2 {
            worker.round(&calm);
        }
        prop_assert!(worker.lanes.is_empty(), "{:?}", worker.lanes);
        prop_assert_eq!(worker.lanes.next_due(), None);
        let mut expected: BTreeMap<LaneKey, Vec<u64>> = BTreeMap::new();
        for (offset, (lane, _)) in (0..).zip(&log) {
            expected.entry(*lane).or_default().push(offset);
        }
        prop_assert_eq!(worker.done, expected);
    }

    #[test]
    fn distinct_messages_without_order_have_distinct_lanes(
        a in (0u32..1000, any::<u64>()), b in (0u32..1000, any::<u64>()),
    ) {
        let lane = |(partition, offset)| lane_of(Ordering { by: By::None, ..BY_KEY }, None, partition, offset);
        prop_assert_eq!(lane(a) == lane(b), a == b);
    }
}
