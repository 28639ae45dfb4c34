//! §4.3 as examples, and against a model that keeps every offset by itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn encoded(offsets: &Offsets) -> Vec<u8> {
    let mut out = Vec::new();
    offsets.encode_progress(&mut out);
    out
}

fn restarted(offsets: &Offsets) -> Offsets {
    Offsets::restore(Progress::decode(&encoded(offsets)).unwrap())
}

fn admitted(start: u64, offsets: Range<u64>) -> Offsets {
    let mut this = Offsets::start(start);
    for offset in offsets {
        assert_eq!(this.admit(offset), Admission::Fresh);
    }
    this
}

#[test]
fn the_committed_offset_stops_at_the_first_unfinished_one() {
    let mut offsets = admitted(10, 10..14);
    offsets.finish(13);
    offsets.finish(11);
    assert_eq!((offsets.committed(), offsets.unfinished()), (10, 2));
    offsets.finish(10);
    assert_eq!(offsets.committed(), 12);
    offsets.finish(12);
    assert_eq!(
        (offsets.committed(), offsets.unfinished(), offsets.span()),
        (14, 0, 0)
    );
}

#[test]
fn offsets_that_were_never_delivered_count_as_finished() {
    let mut offsets = Offsets::start(0);
    assert_eq!(offsets.admit(5), Admission::Fresh);
    assert_eq!(offsets.committed(), 5);
    assert_eq!(offsets.admit(9), Admission::Fresh);
    offsets.finish(5);
    assert_eq!(offsets.committed(), 9);
    offsets.finish(9);
    assert_eq!(offsets.committed(), 10);
}

#[test]
fn a_restart_skips_what_was_finished_above_the_committed_offset() {
    let mut offsets = admitted(0, 0..5);
    offsets.finish(1);
    offsets.finish(3);
    offsets.finish(4);
    let mut again = restarted(&offsets);
    assert_eq!((again.committed(), again.position()), (0, 0));
    let admissions: Vec<_> = (0..6).map(|offset| again.admit(offset)).collect();
    let (fresh, done) = (Admission::Fresh, Admission::Done);
    assert_eq!(admissions, [fresh, done, fresh, done, done, fresh]);
}

#[test]
fn a_second_restart_before_they_are_read_again_still_remembers_them() {
    let mut offsets = admitted(0, 0..5);
    offsets.finish(3);
    let mut again = restarted(&restarted(&offsets));
    for offset in 0..3 {
        assert_eq!(again.admit(offset), Admission::Fresh);
    }
    assert_eq!(again.position(), 4);
    assert_eq!(again.admit(3), Admission::Done);
}

#[test]
fn remembered_completions_join_the_committed_offset_without_being_read_again() {
    let mut offsets = admitted(0, 0..3);
    offsets.finish(1);
    offsets.finish(2);
    let mut again = restarted(&offsets);
    assert_eq!(again.admit(0), Admission::Fresh);
    again.finish(0);
    assert_eq!((again.committed(), again.position()), (3, 3));
    assert_eq!(encoded(&again).len(), 11);
}

#[test]
fn an_attempt_is_remembered_until_its_message_is_finished() {
    let mut offsets = admitted(7, 7..9);
    offsets.fail(8, 1, 1_000, "first");
    offsets.fail(8, 2, 2_000, "second");
    let attempt = Attempt {
        offset: 8,
        count: 2,
        first_failed_at_ms: 1_000,
        last_failed_at_ms: 2_000,
        error: "second".to_owned(),
    };
    assert_eq!(offsets.attempt(8), Some(&attempt));
    let mut again = restarted(&offsets);
    assert_eq!(again.admit(7), Admission::Fresh);
    assert_eq!(again.admit(8), Admission::Again { attempts: 2 });
    again.fail(8, 3, 3_000, "");
    assert_eq!(
        again.attempt(8).map(|a| (a.count, a.first_failed_at_ms)),
        Some((3, 1_000))
    );
    again.finish(8);
    assert_eq!(again.attempt(8), None);
    assert_eq!(again.attempt(7), None);
}

#[test]
fn a_finished_or_unknown_message_takes_no_attempt_and_is_not_finished_twice() {
    let mut offsets = admitted(5, 5..8);
    offsets.finish(6);
    for offset in [4, 6, 8] {
        offsets.fail(offset, 1, 0, "late");
        offsets.finish(offset);
        assert_eq!(offsets.attempt(offset), None);
    }
    assert_eq!((offsets.committed(), offsets.unfinished()), (5, 2));
}

#[test]
fn an_error_is_cut_at_a_whole_character() {
    let mut offsets = admitted(0, 0..1);
    offsets.fail(0, 1, 0, &"é".repeat(ERROR_BYTES_MAX));
    assert_eq!(
        offsets.attempt(0).unwrap().error,
        "é".repeat(ERROR_BYTES_MAX / 2)
    );
    offsets.fail(0, 2, 0, &format!("x{}", "é".repeat(ERROR_BYTES_MAX)));
    assert_eq!(offsets.attempt(0).unwrap().error.len(), ERROR_BYTES_MAX - 1);
}

#[test]
fn attempts_max_keeps_the_lowest_offsets_in_progress_and_all_of_them_in_memory() {
    let count = ATTEMPTS_MAX as u64 + 50;
    let mut offsets = admitted(0, 0..count);
    for offset in (0..count).rev() {
        offsets.fail(offset, 4, 0, "down");
    }
    let progress = Progress::decode(&encoded(&offsets)).unwrap();
    let kept: Vec<u64> = progress.attempts.iter().map(|a| a.offset).collect();
    assert_eq!(kept, (0..ATTEMPTS_MAX as u64).collect::<Vec<_>>());
    assert_eq!(progress, offsets.progress());
    assert!(offsets.attempt(count - 1).is_some());
    // As the lowest finish, the others move up.
    for offset in 0..50 {
        offsets.finish(offset);
    }
    let progress = offsets.progress();
    assert_eq!(progress.attempts.last().map(|a| a.offset), Some(count - 1));
}

#[test]
fn span_max_bounds_what_is_admitted_above_an_unfinished_offset() {
    let mut offsets = admitted(100, 100..100 + SPAN_MAX);
    assert_eq!(offsets.room(), 0);
    for offset in 101..100 + SPAN_MAX {
        offsets.finish(offset);
    }
    assert_eq!(offsets.admit(100 + SPAN_MAX), Admission::Full);
    assert_eq!(offsets.admit(200 + SPAN_MAX), Admission::Full);
    assert_eq!(
        (offsets.position(), offsets.unfinished()),
        (100 + SPAN_MAX, 1)
    );
    offsets.finish(100);
    assert_eq!(offsets.committed(), 100 + SPAN_MAX);
    assert_eq!(offsets.admit(100 + SPAN_MAX), Admission::Fresh);
}

#[test]
fn a_gap_that_ends_at_span_max_is_passed_and_its_end_waits() {
    let mut offsets = admitted(0, 0..1);
    assert_eq!(offsets.admit(SPAN_MAX), Admission::Full);
    assert_eq!(offsets.position(), SPAN_MAX);
    offsets.finish(0);
    assert_eq!(offsets.committed(), SPAN_MAX);
    assert_eq!(offsets.admit(SPAN_MAX), Admission::Fresh);
}

#[test]
fn progress_bytes_max_holds_with_alternating_failures_over_many_messages() {
    // The trap of maps that outgrow their place (anchors, pitfall 6).
    let mut offsets = Offsets::start(3);
    let error = "e".repeat(2 * ERROR_BYTES_MAX);
    let mut largest = 0;
    for offset in 3..40_003 {
        if offsets.admit(offset) == Admission::Full {
            let first = offsets.committed();
            largest = largest.max(encoded(&offsets).len());
            offsets.finish(first);
            assert_eq!(offsets.admit(offset), Admission::Fresh);
        }
        match offset % 2 {
            0 => offsets.finish(offset),
            _ => offsets.fail(offset, 1, i64::MAX, &error),
        }
    }
    assert!(largest > PROGRESS_BYTES_MAX - 64, "{largest}");
    assert!(largest <= PROGRESS_BYTES_MAX, "{largest}");
    assert_eq!(restarted(&offsets).progress(), offsets.progress());
}

#[test]
fn one_straggler_costs_a_few_bytes_not_a_bitmap() {
    let mut offsets = admitted(0, 0..9_000);
    for offset in 1..9_000 {
        offsets.finish(offset);
    }
    assert!(encoded(&offsets).len() <= 20);
}

#[test]
fn lost_offsets_count_as_finished_and_what_was_read_goes_on() {
    let mut offsets = admitted(0, 0..4);
    offsets.finish(1);
    offsets.fail(3, 1, 0, "x");
    let mut again = restarted(&offsets);
    assert_eq!(again.admit(0), Admission::Fresh);
    assert!(again.skip_to(100));
    assert_eq!((again.committed(), again.position()), (0, 100));
    assert_eq!(again.attempt(3), None);
    again.finish(0);
    assert_eq!(again.committed(), 100);
    assert!(again.skip_to(50), "backwards is nothing to do");
    assert!(
        again.skip_to(1_000_000),
        "any distance with nothing unfinished"
    );
    assert_eq!(
        (again.committed(), again.position()),
        (1_000_000, 1_000_000)
    );
}

#[test]
fn lost_offsets_beyond_the_span_wait_for_what_is_unfinished() {
    let mut offsets = admitted(0, 0..1);
    assert!(!offsets.skip_to(SPAN_MAX + 1));
    assert_eq!(offsets.position(), 1);
    offsets.finish(0);
    assert!(offsets.skip_to(SPAN_MAX + 1));
}

#[test]
fn a_jump_over_remembered_offsets_forgets_them() {
    let mut offsets = admitted(0, 0..200);
    for offset in (1..200).step_by(2) {
        offsets.finish(offset);
    }
    let mut again = restarted(&offsets);
    assert!(again.skip_to(101));
    // 101 was remembered as finished itself.
    assert_eq!((again.committed(), again.position()), (102, 102));
    assert_eq!(again.progress().completed.len(), 49);
    assert!(again.skip_to(SPAN_MAX * 3));
    assert_eq!(again.progress().completed, []);
    assert_eq!(encoded(&again).len(), 11);
}

#[test]
fn offsets_beyond_the_range_of_the_log_are_not_taken_in() {
    let mut offsets = Offsets::start(u64::MAX);
    assert_eq!(offsets.committed(), OFFSET_MAX);
    assert_eq!(offsets.admit(u64::MAX), Admission::Full);
    assert!(!offsets.skip_to(OFFSET_MAX + 1));
    assert_eq!(offsets.admit(OFFSET_MAX), Admission::Fresh);
}

#[test]
fn an_unknown_version_is_told_apart_from_damage() {
    let mut bytes = encoded(&Offsets::start(5));
    bytes[0] = 2;
    assert_eq!(Progress::decode(&bytes), Err(Error::Version(2)));
    bytes[0] = VERSION;
    bytes.push(0);
    assert_eq!(
        Progress::decode(&bytes),
        Err(Error::Invalid("bytes are left over"))
    );
    assert_eq!(Progress::decode(&[]), Err(Error::Truncated));
}

/// Progress with runs (of a hundred) or a bitmap (of every second), and an attempt.
fn rich(every: u64) -> Offsets {
    let mut offsets = admitted(5, 5..705);
    for offset in (6..705).filter(|offset| offset % every != 0) {
        offsets.finish(offset);
    }
    offsets.fail(5, 2, 9, "why");
    offsets
}

#[test]
fn a_cut_progress_is_an_error_wherever_it_is_cut() {
    for (every, kind) in [(100, FINISHED_RUNS), (2, FINISHED_BITMAP)] {
        let bytes = encoded(&rich(every));
        assert_eq!(bytes[9], kind);
        for len in 0..bytes.len() {
            assert_eq!(
                Progress::decode(&bytes[..len]),
                Err(Error::Truncated),
                "{len}"
            );
        }
    }
}

/// `version | committed 5 | rest`.
fn decode_after_committed(rest: &[u8]) -> Result<Progress, Error> {
    let mut bytes = vec![VERSION, 5, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(rest);
    Progress::decode(&bytes)
}

#[test]
fn damaged_progress_is_refused_by_what_is_wrong_with_it() {
    let invalid = |rest: &[u8]| match decode_after_committed(rest) {
        Err(Error::Invalid(why)) => why,
        other => panic!("{rest:?}: {other:?}"),
    };
    let mut far = vec![VERSION];
    far.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(
        Progress::decode(&far),
        Err(Error::Invalid("the committed offset is out of range"))
    );
    assert_eq!(invalid(&[3]), "finished offsets are of an unknown kind");
    assert_eq!(invalid(&[1, 0x81, 0x80, 0x01, 1]), "too many runs");
    assert_eq!(invalid(&[1, 0x80, 0x80, 0x80]), "a number is too long");
    for run in [
        [0, 1].as_slice(),
        &[1, 0],
        &[0x81, 0x80, 0x01, 1],
        &[1, 0x81, 0x80, 0x01],
        &[1, 0x80, 0x80, 0x01],
    ] {
        assert_eq!(
            invalid(&[&[1, 1], run, &[0]].concat()),
            "a run is out of range",
            "{run:?}"
        );
    }
    assert_eq!(invalid(&[2, 0xff, 0xff]), "the bitmap is too long");
    for bit in [4, 5] {
        assert_eq!(
            invalid(&[2, 1, 0, 1 << bit, 0]),
            "the bitmap is out of range"
        );
    }
    let mut last_word = vec![2, 8, 8];
    last_word.resize(3 + BITMAP_BYTES_MAX - 8, 0);
    last_word.extend_from_slice(&[1 << 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(invalid(&last_word), "the bitmap is out of range");
    assert_eq!(invalid(&[0, 251]), "too many attempts");
    let attempt = |delta: u16, error_len: u16| {
        let mut bytes = delta.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 20]);
        bytes.extend_from_slice(&error_len.to_le_bytes());
        bytes
    };
    let order = "an attempt is out of range or order";
    assert_eq!(
        invalid(&[vec![0, 1], attempt(SPAN_MAX as u16, 0)].concat()),
        order
    );
    assert_eq!(
        invalid(&[vec![0, 2], attempt(1, 0), attempt(1, 0)].concat()),
        order
    );
    assert_eq!(
        invalid(&[vec![0, 1], attempt(0, 257)].concat()),
        "an attempt's error is too long"
    );
    assert_eq!(
        invalid(&[vec![0, 1], attempt(0, 1), vec![0xff]].concat()),
        "an attempt's error is not UTF-8"
    );
}

#[test]
fn a_progress_made_by_hand_is_brought_into_range() {
    let attempt = |offset| Attempt {
        offset,
        count: 1,
        first_failed_at_ms: 0,
        last_failed_at_ms: 0,
        error: String::new(),
    };
    let progress = Progress {
        committed: 10,
        completed: vec![
            0..11,
            12..14,
            10 + SPAN_MAX - 1..10 + SPAN_MAX + 9,
            99_999..100_000,
        ],
        attempts: vec![attempt(9), attempt(11), attempt(12), attempt(10 + SPAN_MAX)],
    };
    let offsets = Offsets::restore(progress);
    assert_eq!((offsets.committed(), offsets.position()), (11, 11));
    assert_eq!(
        offsets.progress().completed,
        [12..14, 10 + SPAN_MAX - 1..10 + SPAN_MAX]
    );
    assert_eq!(offsets.progress().attempts, [attempt(11)]);
}

/// Every offset by itself.
#[derive(Debug, Default)]
struct Model {
    finished: BTreeSet<u64>,
    unfinished: BTreeSet<u64>,
    position: u64,
    attempts: BTreeMap<u64, Attempt>,
}

impl Model {
    fn committed(&self) -> u64 {
        self.unfinished.first().copied().unwrap_or(self.position)
    }

    fn pass_finished(&mut self) {
        while self.finished.contains(&self.position) {
            self.position += 1;
        }
    }

    fn skip_to(&mut self, offset: u64) -> bool {
        if offset <= self.position {
            return true;
        }
        if !self.unfinished.is_empty() && offset - self.committed() > SPAN_MAX {
            return false;
        }
        self.finished.extend(self.position..offset);
        self.attempts
            .retain(|at, _| !(self.position..offset).contains(at));
        self.position = offset;
        self.pass_finished();
        true
    }

    fn admit(&mut self, offset: u64) -> Admission {
        if offset < self.position {
            return Admission::Done;
        }
        if !self.skip_to(offset) {
            return Admission::Full;
        }
        if offset < self.position {
            return Admission::Done;
        }
        if !self.unfinished.is_empty() && offset - self.committed() >= SPAN_MAX {
            return Admission::Full;
        }
        self.unfinished.insert(offset);
        self.position = offset + 1;
        self.pass_finished();
        match self.attempts.get(&offset) {
            None => Admission::Fresh,
            Some(attempt) => Admission::Again {
                attempts: attempt.count,
            },
        }
    }

    fn finish(&mut self, offset: u64) {
        if self.unfinished.remove(&offset) {
            self.finished.insert(offset);
            self.attempts.remove(&offset);
        }
    }

    fn fail(&mut self, offset: u64, count: u32, now_ms: i64, error: &str) {
        if self.unfinished.contains(&offset) {
            let first_failed_at_ms = self
                .attempts
                .get(&offset)
                .map_or(now_ms, |a| a.first_failed_at_ms);
            let error = error.to_owned();
            let last_failed_at_ms = now_ms;
            self.attempts.insert(
                offset,
                Attempt {
                    offset,
                    count,
                    first_failed_at_ms,
                    last_failed_at_ms,
                    error,
                },
            );
        }
    }

    fn restart(&mut self) {
        self.position = self.committed();
        self.unfinished.clear();
        self.pass_finished();
        let kept: Vec<u64> = self.attempts.keys().copied().take(ATTEMPTS_MAX).collect();
        self.attempts.retain(|at, _| kept.contains(at));
    }

    fn progress(&self) -> Progress {
        let committed = self.committed();
        let mut completed = Vec::new();
        for &offset in self.finished.range(committed..) {
            extend(&mut completed, offset..offset + 1);
        }
        let attempts = self.attempts.values().take(ATTEMPTS_MAX).cloned().collect();
        Progress {
            committed,
            completed,
            attempts,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Reads `count` offsets, each `gap` above the one before.
    Read {
        count: u16,
        gap: u8,
    },
    /// Finishes every `each`-th of the unfinished, from the back if `late`.
    Finish {
        count: u16,
        each: u8,
        late: bool,
    },
    Fail {
        nth: u16,
        count: u16,
        now_ms: i64,
        error: String,
    },
    Jump(u32),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u16..400, 0u8..3).prop_map(|(count, gap)| Step::Read { count, gap }),
        1 => (1u16..9000, 0u8..2).prop_map(|(count, gap)| Step::Read { count, gap }),
        6 => (1u16..500, 1u8..4, any::<bool>())
            .prop_map(|(count, each, late)| Step::Finish { count, each, late }),
        1 => Just(Step::Finish { count: u16::MAX, each: 1, late: false }),
        3 => (0u16..500, 1u16..400, any::<i64>(), ".{0,20}")
            .prop_map(|(nth, count, now_ms, error)| Step::Fail { nth, count, now_ms, error }),
        1 => prop_oneof![0u32..300, 0u32..40_000].prop_map(Step::Jump),
        2 => Just(Step::Restart),
    ]
}

fn run(model: &mut Model, offsets: &mut Offsets, step: Step) {
    match step {
        Step::Read { count, gap } => {
            for _ in 0..count {
                let offset = model.position + u64::from(gap);
                let expected = model.admit(offset);
                assert_eq!(offsets.admit(offset), expected, "{offset}");
                if expected == Admission::Full {
                    break;
                }
                // Reading again what was read changes nothing.
                assert_eq!(offsets.admit(offset), Admission::Done);
            }
        }
        Step::Finish { count, each, late } => {
            let all: Vec<u64> = model.unfinished.iter().copied().collect();
            let mut chosen: Vec<u64> = all.into_iter().step_by(usize::from(each)).collect();
            if late {
                chosen.reverse();
            }
            for offset in chosen.into_iter().take(usize::from(count)) {
                model.finish(offset);
                offsets.finish(offset);
            }
        }
        Step::Fail {
            nth,
            count,
            now_ms,
            error,
        } => {
            let failing: Vec<u64> = model
                .unfinished
                .iter()
                .copied()
                .skip(usize::from(nth))
                .take(usize::from(count))
                .collect();
            for offset in failing {
                let tried = model.attempts.get(&offset).map_or(0, |a| a.count) + 1;
                model.fail(offset, tried, now_ms, &error);
                offsets.fail(offset, tried, now_ms, &error);
            }
        }
        Step::Jump(by) => {
            let to = model.position + u64::from(by);
            assert_eq!(offsets.skip_to(to), model.skip_to(to));
        }
        Step::Restart => {
            model.restart();
            *offsets = restarted(offsets);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn offsets_behave_as_a_set_of_every_offset_by_itself(
        start in prop_oneof![0u64..200, (OFFSET_MAX / 2)..(OFFSET_MAX / 2 + 200)],
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut model = Model { position: start, ..Model::default() };
        let mut offsets = Offsets::start(start);
        for step in steps {
            run(&mut model, &mut offsets, step);
            prop_assert_eq!(offsets.position(), model.position);
            prop_assert_eq!(offsets.committed(), model.committed());
            prop_assert_eq!(offsets.unfinished(), model.unfinished.len() as u64);
            prop_assert_eq!(offsets.span() + offsets.room(), SPAN_MAX);
            let progress = model.progress();
            prop_assert_eq!(&offsets.progress(), &progress);
            let bytes = encoded(&offsets);
            prop_assert!(bytes.len() <= PROGRESS_BYTES_MAX);
            prop_assert_eq!(Progress::decode(&bytes), Ok(progress.clone()));
            let mut by_hand = Vec::new();
            progress.encode(&mut by_hand);
            prop_assert_eq!(by_hand, bytes);
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Some(top) = bytes.get_mut(8) {
            *top &= 0x7f;
        }
        if let Some(kind) = bytes.get_mut(9) {
            *kind %= 3;
        }
        if let Ok(progress) = Progress::decode(&bytes) {
            let again = Offsets::restore(progress.clone()).progress();
            prop_assert!(again.committed >= progress.committed);
        }
    }

    #[test]
    fn a_flipped_progress_is_an_error_or_a_progress_in_range(
        every in 2u64..5, flip in any::<prop::sample::Index>(),
    ) {
        let bytes = encoded(&rich(every));
        let mut flipped = bytes.clone();
        let at = flip.index(bytes.len() * 8);
        flipped[at / 8] ^= 1 << (at % 8);
        if let Ok(progress) = Progress::decode(&flipped) {
            let end = progress.committed + SPAN_MAX;
            prop_assert!(progress.completed.iter().all(|r| r.start > progress.committed && r.end <= end));
            prop_assert!(progress.attempts.iter().all(|a| a.offset >= progress.committed && a.offset < end));
        }
    }
}
