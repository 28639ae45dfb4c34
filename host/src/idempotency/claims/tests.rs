//! §7.3 to §7.5 as examples, a model, and threads.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::idempotency::completion::Status;

const KEY: KeyHash = 7 << 100;
const TTL_MS: i64 = 1_000;

fn owner(offset: u64) -> Owner {
    Owner {
        worker: 0,
        partition: 0,
        offset,
    }
}

fn completion(fingerprint: u64, expires_at_ms: i64) -> Completion {
    Completion {
        fingerprint,
        status: Status::Completed,
        expires_at_ms,
        outputs: None,
    }
}

fn claim(claims: &Claims, offset: u64, fingerprint: u64, now_ms: i64) -> Claim {
    let stored = || Ok::<_, Infallible>(None);
    claims
        .claim(KEY, fingerprint, owner(offset), false, now_ms, stored)
        .unwrap()
}

fn claim_with_stored(claims: &Claims, now_ms: i64, stored: Completion) -> Claim {
    claims
        .claim(KEY, 1, owner(0), false, now_ms, || {
            Ok::<_, Infallible>(Some(stored))
        })
        .unwrap()
}

fn taken(claim: Claim) -> Fence {
    match claim {
        Claim::Taken(fence) => fence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_key_is_taken_and_others_wait_whatever_they_contain() {
    let claims = Claims::new();
    taken(claim(&claims, 1, 10, 0));
    assert_eq!(claim(&claims, 2, 10, 0), Claim::Wait);
    assert_eq!(claim(&claims, 3, 99, 0), Claim::Wait);
    assert_eq!(claims.len(), 1);
}

#[test]
fn a_completed_key_answers_duplicates_before_it_is_durable() {
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert_eq!(
        claim(&claims, 2, 10, 0),
        Claim::Duplicate(completion(10, TTL_MS))
    );
    assert_eq!(claim(&claims, 2, 11, 0), Claim::Conflict);
}

#[test]
fn a_durable_key_is_answered_by_the_table() {
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert!(claims.durable(KEY, fence));
    assert!(claims.is_empty());
    let same = completion(1, TTL_MS);
    assert_eq!(
        claim_with_stored(&claims, 0, same.clone()),
        Claim::Duplicate(same)
    );
    assert_eq!(
        claim_with_stored(&claims, 0, completion(2, TTL_MS)),
        Claim::Conflict
    );
    assert!(claims.is_empty(), "an answer claims nothing");
}

#[test]
fn a_dead_letter_is_a_completion_too() {
    let failed = Completion {
        status: Status::Failed,
        ..completion(1, TTL_MS)
    };
    assert_eq!(
        claim_with_stored(&Claims::new(), 0, failed.clone()),
        Claim::Duplicate(failed)
    );
}

/// §7.4, §7.5: a redrive opens its own failure again, not that of another message with its key.
#[test]
fn a_failure_is_opened_again_for_the_same_content_only() {
    let failed = Completion {
        status: Status::Failed,
        ..completion(1, TTL_MS)
    };
    let reopen = |claims: &Claims, offset, fingerprint, stored: Option<&Completion>| {
        let stored = || Ok::<_, Infallible>(stored.cloned());
        let claimed = claims.claim(KEY, fingerprint, owner(offset), true, 0, stored);
        claimed.unwrap()
    };
    let claims = Claims::new();
    assert_eq!(reopen(&claims, 5, 2, Some(&failed)), Claim::Conflict);
    let fence = taken(reopen(&claims, 6, 1, Some(&failed)));
    // The same before it is durable.
    claims.complete(KEY, fence, failed).unwrap();
    assert_eq!(reopen(&claims, 5, 2, None), Claim::Conflict);
    taken(reopen(&claims, 7, 1, None));
}

#[test]
fn memory_answers_before_the_table_is_asked() {
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    let unasked = || -> Result<_, Infallible> { panic!("the table was asked") };
    assert_eq!(
        claims.claim(KEY, 10, owner(2), false, 0, unasked),
        Ok(Claim::Wait)
    );
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    let duplicate = claims.claim(KEY, 10, owner(2), false, 0, unasked);
    assert_eq!(duplicate, Ok(Claim::Duplicate(completion(10, TTL_MS))));
}

#[test]
fn a_table_that_cannot_be_read_leaves_no_claim() {
    let claims = Claims::new();
    assert_eq!(
        claims.claim(KEY, 1, owner(1), false, 0, || Err("disk")),
        Err("disk")
    );
    assert!(claims.is_empty());
    taken(claim(&claims, 2, 1, 0));
}

#[test]
fn an_expired_completion_counts_as_absent_in_memory_and_in_the_table() {
    let claims = Claims::new();
    taken(claim_with_stored(&claims, TTL_MS, completion(1, TTL_MS)));
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert_eq!(
        claim(&claims, 2, 10, TTL_MS - 1),
        Claim::Duplicate(completion(10, TTL_MS))
    );
    let later = taken(claim(&claims, 2, 10, TTL_MS));
    assert!(
        !claims.durable(KEY, fence),
        "the old settlement's news concerns another claim"
    );
    claims
        .complete(KEY, later, completion(10, 2 * TTL_MS))
        .unwrap();
}

#[test]
fn a_clock_that_steps_back_and_forth_expires_nothing_early() {
    let claims = Claims::new();
    let start = 3_600_000;
    assert_eq!(claims.now(start), start);
    // An hour back, a message completes; its record counts from the latest time seen.
    let expires_at_ms = claims.now(0) + TTL_MS;
    let fence = taken(claim(&claims, 1, 10, 0));
    claims
        .complete(KEY, fence, completion(10, expires_at_ms))
        .unwrap();
    // And forth again: it still has its whole time.
    let live = Claim::Duplicate(completion(10, expires_at_ms));
    assert_eq!(claim(&claims, 2, 10, start), live);
    assert_eq!(claim(&claims, 2, 10, start + TTL_MS - 1), live);
    taken(claim(&claims, 2, 10, start + TTL_MS));
}

#[test]
fn a_released_key_goes_to_whoever_asks_next() {
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    assert!(claims.release(KEY, fence));
    assert!(claims.is_empty());
    let next = taken(claim(&claims, 2, 99, 0));
    assert!(next > fence);
}

#[test]
fn the_same_delivery_claims_again_with_a_new_fence_and_its_former_self_changes_nothing() {
    // The zombie of anchors, pitfall 18: it wakes up after the delivery was taken up again.
    let claims = Claims::new();
    let zombie = taken(claim(&claims, 1, 10, 0));
    let fence = taken(claim(&claims, 1, 10, 0));
    assert!(fence > zombie);
    assert_eq!(
        claims.complete(KEY, zombie, completion(10, TTL_MS)),
        Err(Stale)
    );
    assert!(!claims.release(KEY, zombie));
    assert_eq!(claim(&claims, 2, 10, 0), Claim::Wait);
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert!(!claims.durable(KEY, zombie));
    assert_eq!(
        claim(&claims, 2, 10, 0),
        Claim::Duplicate(completion(10, TTL_MS))
    );
}

#[test]
fn deliveries_of_two_workers_are_two_though_partition_and_offset_look_the_same() {
    // Workers number their partitions by themselves.
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    let other = Owner {
        worker: 1,
        ..owner(1)
    };
    let ask = || {
        claims
            .claim(KEY, 10, other, false, 0, || Ok::<_, Infallible>(None))
            .unwrap()
    };
    assert_eq!(ask(), Claim::Wait);
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    // Nothing orders the settlement of one worker behind that of another: only durable is certain.
    assert_eq!(ask(), Claim::Wait);
    let before = claims.generation();
    assert!(claims.durable(KEY, fence));
    assert_ne!(claims.generation(), before, "it may ask again");
}

#[test]
fn a_delivery_that_comes_again_although_it_completed_is_processed_again() {
    // Its settlement cannot have been made, or its offset would be finished.
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    let again = taken(claim(&claims, 1, 10, 0));
    assert!(!claims.durable(KEY, fence));
    assert_eq!(claim(&claims, 2, 10, 0), Claim::Wait);
    claims.complete(KEY, again, completion(10, TTL_MS)).unwrap();
}

#[test]
fn a_completion_is_never_overwritten_or_released() {
    let claims = Claims::new();
    let fence = taken(claim(&claims, 1, 10, 0));
    assert!(!claims.durable(KEY, fence), "it has not completed");
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert_eq!(
        claims.complete(KEY, fence, completion(11, TTL_MS)),
        Err(Stale)
    );
    assert!(!claims.release(KEY, fence));
    assert_eq!(
        claim(&claims, 2, 10, 0),
        Claim::Duplicate(completion(10, TTL_MS))
    );
    assert!(claims.durable(KEY, fence));
    assert!(!claims.durable(KEY, fence));
    assert!(!claims.release(KEY, fence));
    assert_eq!(
        claims.complete(KEY, fence, completion(10, TTL_MS)),
        Err(Stale)
    );
}

#[test]
fn the_generation_changes_exactly_when_a_waiter_may_go_on() {
    let claims = Claims::new();
    let before = claims.generation();
    let fence = taken(claim(&claims, 1, 10, 0));
    claims.release(KEY, fence);
    let fence = taken(claim(&claims, 1, 10, 0));
    assert_eq!(claims.generation(), before, "nobody waits");
    assert_eq!(claim(&claims, 2, 10, 0), Claim::Wait);
    // Claimed again by the same delivery, the one who waits still does.
    let again = taken(claim(&claims, 1, 10, 0));
    claims.release(KEY, fence);
    assert_eq!(claims.generation(), before, "stale");
    claims.release(KEY, again);
    assert_ne!(claims.generation(), before);

    let before = claims.generation();
    let fence = taken(claim(&claims, 1, 10, 0));
    assert_eq!(claim(&claims, 2, 10, 0), Claim::Wait);
    claims.complete(KEY, fence, completion(10, TTL_MS)).unwrap();
    assert_ne!(claims.generation(), before);
    let before = claims.generation();
    claims.durable(KEY, fence);
    assert_eq!(claims.generation(), before, "who waited was answered");
}

#[test]
fn a_panic_under_the_lock_poisons_nothing() {
    let claims = Claims::new();
    std::thread::scope(|scope| {
        let died = scope
            .spawn(|| {
                claims.claim(KEY, 1, owner(1), false, 0, || -> Result<_, Infallible> {
                    panic!("on purpose")
                })
            })
            .join();
        assert!(died.is_err());
    });
    taken(claim(&claims, 1, 1, 0));
    assert_eq!(claims.len(), 1);
}

/// One step of some delivery; keys and deliveries are few, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Claim {
        key: u8,
        delivery: u8,
        fingerprint: u8,
    },
    Complete {
        nth: u8,
        ttl_ms: u16,
    },
    Durable {
        nth: u8,
    },
    Release {
        nth: u8,
    },
    Clock(i16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3, 0u8..4, 0u8..2)
            .prop_map(|(key, delivery, fingerprint)| Step::Claim { key, delivery, fingerprint }),
        2 => (any::<u8>(), 0u16..200).prop_map(|(nth, ttl_ms)| Step::Complete { nth, ttl_ms }),
        2 => any::<u8>().prop_map(|nth| Step::Durable { nth }),
        2 => any::<u8>().prop_map(|nth| Step::Release { nth }),
        1 => (-100i16..200).prop_map(Step::Clock),
    ]
}

#[derive(Debug, Clone)]
enum Known {
    InProgress {
        fence: Fence,
        delivery: u8,
    },
    Settled {
        fence: Fence,
        delivery: u8,
        completion: Completion,
    },
}

/// What the table and the memory should hold, by key, in one map each.
#[derive(Debug, Default)]
struct Model {
    memory: HashMap<u8, Known>,
    table: HashMap<u8, Completion>,
    now_ms: i64,
    /// The latest that the claims were told.
    latest_ms: i64,
    /// Every fence given, with its key: also stale ones are used.
    fences: Vec<(u8, Fence)>,
}

impl Model {
    fn expected(&self, key: u8, delivery: u8, fingerprint: u8) -> Option<Claim> {
        let answered =
            |completion: &Completion| match completion.fingerprint == u64::from(fingerprint) {
                true => Claim::Duplicate(completion.clone()),
                false => Claim::Conflict,
            };
        let live = |completion: &&Completion| completion.expires_at_ms > self.latest_ms;
        match self.memory.get(&key) {
            Some(Known::InProgress {
                delivery: other, ..
            }) => (*other != delivery).then_some(Claim::Wait),
            Some(Known::Settled {
                delivery: other,
                completion,
                ..
            }) => Some(completion)
                .filter(|c| *other != delivery && live(c))
                .map(|completion| {
                    match delivery_of(*other).worker == delivery_of(delivery).worker {
                        true => answered(completion),
                        false => Claim::Wait,
                    }
                }),
            None => self.table.get(&key).filter(live).map(answered),
        }
    }

    fn nth(&self, nth: u8) -> Option<(u8, Fence)> {
        let len = self.fences.len();
        (len > 0).then(|| self.fences[len - 1 - usize::from(nth) % len.min(6)])
    }
}

/// Two of two workers that differ in nothing else, and so on.
fn delivery_of(delivery: u8) -> Owner {
    Owner {
        worker: u16::from(delivery % 2),
        ..owner(u64::from(delivery / 2))
    }
}

fn hash_of(key: u8) -> KeyHash {
    KeyHash::from(key) << 96
}

fn run(model: &mut Model, claims: &Claims, step: &Step) {
    match *step {
        Step::Claim {
            key,
            delivery,
            fingerprint,
        } => {
            model.latest_ms = model.latest_ms.max(model.now_ms);
            let expected = model.expected(key, delivery, fingerprint);
            let (hash, who) = (hash_of(key), delivery_of(delivery));
            let stored = || Ok::<_, Infallible>(model.table.get(&key).cloned());
            let got = claims
                .claim(
                    hash,
                    u64::from(fingerprint),
                    who,
                    false,
                    model.now_ms,
                    stored,
                )
                .unwrap();
            if let Some(expected) = expected {
                assert_eq!(got, expected);
                return;
            }
            let fence = taken(got);
            assert!(model.fences.iter().all(|(_, older)| *older < fence));
            model.fences.push((key, fence));
            model
                .memory
                .insert(key, Known::InProgress { fence, delivery });
        }
        Step::Complete { nth, ttl_ms } => {
            let Some((key, fence)) = model.nth(nth) else {
                return;
            };
            model.latest_ms = model.latest_ms.max(model.now_ms);
            assert_eq!(claims.now(model.now_ms), model.latest_ms);
            let expires_at_ms = model.latest_ms + i64::from(ttl_ms);
            let completion = completion(u64::from(ttl_ms) % 2, expires_at_ms);
            let result = claims.complete(hash_of(key), fence, completion.clone());
            match model.memory.get(&key) {
                Some(Known::InProgress {
                    fence: current,
                    delivery,
                }) if *current == fence => {
                    assert_eq!(result, Ok(()));
                    let delivery = *delivery;
                    model.memory.insert(
                        key,
                        Known::Settled {
                            fence,
                            delivery,
                            completion,
                        },
                    );
                }
                _ => assert_eq!(result, Err(Stale)),
            }
        }
        Step::Durable { nth } => {
            let Some((key, fence)) = model.nth(nth) else {
                return;
            };
            let settled = match model.memory.get(&key) {
                Some(Known::Settled {
                    fence: current,
                    completion,
                    ..
                }) if *current == fence => {
                    model.table.insert(key, completion.clone());
                    true
                }
                _ => false,
            };
            if settled {
                model.memory.remove(&key);
            }
            assert_eq!(claims.durable(hash_of(key), fence), settled);
        }
        Step::Release { nth } => {
            let Some((key, fence)) = model.nth(nth) else {
                return;
            };
            let held = matches!(model.memory.get(&key),
                Some(Known::InProgress { fence: current, .. }) if *current == fence);
            if held {
                model.memory.remove(&key);
            }
            assert_eq!(claims.release(hash_of(key), fence), held);
        }
        Step::Clock(by) => model.now_ms += i64::from(by),
    }
}

proptest! {
    #[test]
    fn claims_behave_as_a_map_of_keys_and_a_table(steps in proptest::collection::vec(step(), 0..120)) {
        let claims = Claims::new();
        let mut model = Model { latest_ms: i64::MIN, ..Model::default() };
        for step in &steps {
            run(&mut model, &claims, step);
            prop_assert_eq!(claims.len(), model.memory.len());
        }
    }
}

/// The table of the threads below.
type Table = Mutex<HashMap<KeyHash, Completion>>;

/// Takes a message through claim, a first failed try for some, completion and durability.
fn process(
    claims: &Claims,
    table: &Table,
    worker: u16,
    key: KeyHash,
    offset: u64,
    done: &AtomicU32,
) -> u32 {
    let me = Owner {
        worker,
        partition: u32::from(worker),
        offset,
    };
    let mut waits = 0;
    let mut fails = offset.is_multiple_of(3);
    loop {
        let seen = claims.generation();
        let stored = || Ok::<_, Infallible>(lock_table(table).get(&key).cloned());
        match claims.claim(key, 1, me, false, 0, stored).unwrap() {
            Claim::Taken(fence) if std::mem::take(&mut fails) => {
                assert!(claims.release(key, fence))
            }
            Claim::Taken(fence) => {
                assert_eq!(done.fetch_add(1, Ordering::SeqCst), 0, "processed twice");
                claims.complete(key, fence, completion(1, TTL_MS)).unwrap();
                lock_table(table).insert(key, completion(1, TTL_MS));
                assert!(claims.durable(key, fence));
                return waits;
            }
            Claim::Wait => {
                waits += 1;
                // A lost wake-up would spin here for ever.
                while claims.generation() == seen {
                    std::thread::yield_now();
                }
            }
            Claim::Duplicate(_) => return waits,
            Claim::Conflict => panic!("conflict"),
        }
    }
}

fn lock_table(table: &Table) -> std::sync::MutexGuard<'_, HashMap<KeyHash, Completion>> {
    table.lock().unwrap()
}

#[test]
fn among_threads_each_key_is_processed_once_and_nobody_waits_for_ever() {
    const KEYS: u32 = 2_000;
    const THREADS: u16 = 4;
    let claims = Claims::new();
    let table = Table::default();
    let done: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    let barrier = Barrier::new(usize::from(THREADS));
    std::thread::scope(|scope| {
        for worker in 0..THREADS {
            let (claims, table, done, barrier) = (&claims, &table, &done, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for (key, done) in (0u32..).zip(done) {
                    let hash = crate::idempotency::hash(&key.to_le_bytes());
                    let offset = u64::from(key) + u64::from(worker);
                    process(claims, table, worker, hash, offset, done);
                }
            });
        }
    });
    assert!(done.iter().all(|count| count.load(Ordering::SeqCst) == 1));
    assert!(claims.is_empty());
    assert_eq!(lock_table(&table).len(), KEYS as usize);
}
