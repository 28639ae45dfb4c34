//! The bounds of single questions: records, pages, long polls.

use std::time::{Duration, Instant};

use super::console::{PAGE_BYTES_MAX, PAGE_MESSAGES_MAX, PRODUCE_RECORDS_MAX};
use super::error::Code;
use super::routes::WAIT_MAX;
use super::tests::{Host, host, record};
use super::wire::{ReadRequest, Record};

fn first_page(host: &Host, limit: Option<u32>) -> (usize, u64) {
    let request = ReadRequest {
        partition: 0,
        offset: 0,
        limit,
        wait_ms: None,
    };
    let page = host.remote().read("orders", &request).unwrap();
    (page.messages.len(), page.next_offset)
}

fn records(count: usize, bytes: usize) -> Vec<Record> {
    let one = Record {
        partition: Some(0),
        ..record(None, &vec![b'x'; bytes])
    };
    vec![one; count]
}

#[test]
fn produce_records_max_bounds_one_request() {
    let host = host();
    let too_many = records(PRODUCE_RECORDS_MAX + 1, 1);
    let why = host.remote().produce("orders", &too_many).unwrap_err();
    assert_eq!(why.code, Code::TooLarge);
    assert_eq!(host.remote_topics()[0].messages, 0);
    let most = &too_many[1..];
    let done = host.remote().produce("orders", most).unwrap();
    assert_eq!(done.acknowledged, PRODUCE_RECORDS_MAX as u64);
}

#[test]
fn page_messages_max_bounds_a_page_whatever_is_asked_for() {
    let host = host();
    let most = u64::from(PAGE_MESSAGES_MAX);
    let all = records(PAGE_MESSAGES_MAX as usize + 1, 1);
    host.remote().produce("orders", &all).unwrap();
    for limit in [None, Some(u32::MAX)] {
        assert_eq!(first_page(&host, limit), (most as usize, most));
    }
}

#[test]
fn page_bytes_max_ends_a_page() {
    let host = host();
    let bytes = 900 << 10;
    for _ in 0..7 {
        host.remote().produce("orders", &records(1, bytes)).unwrap();
    }
    let most = PAGE_BYTES_MAX.div_ceil(bytes);
    assert_eq!(first_page(&host, None), (most, most as u64));
}

#[test]
fn a_long_poll_waits_wait_max_at_most() {
    let host = host();
    let request = ReadRequest {
        partition: 0,
        offset: 0,
        limit: None,
        wait_ms: Some(u64::MAX),
    };
    let began = Instant::now();
    let page = host.remote().read("orders", &request).unwrap();
    let took = began.elapsed();
    assert!(page.messages.is_empty());
    assert!(
        took >= WAIT_MAX && took < WAIT_MAX + Duration::from_secs(10),
        "{took:?}"
    );
}
