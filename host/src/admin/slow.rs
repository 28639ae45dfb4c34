//! Clients that take their time (slowloris): they are cut off, and hold nobody up meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::guard::REQUEST_TIME_MAX;
use super::port::{CONNECTION_AGE_MAX, HEAD_TIME_MAX};
use super::tests::{Host, host};

/// A loaded machine may be so late.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Reads until the host closes: what came, and after how long.
fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    stream
        .set_read_timeout(Some(HEAD_TIME_MAX + REQUEST_TIME_MAX + LATE_MAX))
        .unwrap();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    (
        String::from_utf8_lossy(&answer).into_owned(),
        began.elapsed(),
    )
}

fn connect(host: &Host) -> TcpStream {
    TcpStream::connect(host.admin_address()).unwrap()
}

#[test]
fn a_head_that_does_not_come_within_head_time_max_ends_its_connection() {
    let host = host();
    let mut slow = connect(&host);
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nHost: 127")
        .unwrap();
    // Nobody waits for it.
    assert_eq!(host.remote_topics().len(), 1);
    let (answer, took) = until_closed(&mut slow);
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(
        took >= HEAD_TIME_MAX - Duration::from_secs(1) && took < HEAD_TIME_MAX + LATE_MAX,
        "{took:?}"
    );
}

#[test]
fn a_connection_older_than_connection_age_max_is_closed_after_its_request() {
    let host = host();
    let mut old = connect(&host);
    let began = Instant::now();
    // Never idle for as long as a connection may be.
    for pause in [0, 7] {
        std::thread::sleep(Duration::from_secs(pause));
        let asks = b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n";
        old.write_all(asks).unwrap();
        let mut answer = [0; 12];
        old.read_exact(&mut answer).unwrap();
        let mut rest = [0; 4096];
        let _rest = old.read(&mut rest).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401");
    }
    let _end = until_closed(&mut old);
    let took = began.elapsed();
    assert!(
        took >= CONNECTION_AGE_MAX && took < CONNECTION_AGE_MAX + Duration::from_millis(2_500),
        "{took:?}"
    );
}

#[test]
fn a_body_that_does_not_come_within_request_time_max_is_answered_too_slow() {
    let host = host();
    let mut slow = connect(&host);
    let head = format!(
        "POST /v1/topics HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{{",
        host.token()
    );
    slow.write_all(head.as_bytes()).unwrap();
    assert_eq!(host.remote_topics().len(), 1);
    let (answer, took) = until_closed(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("too_slow"), "{answer}");
    assert!(took < REQUEST_TIME_MAX + LATE_MAX, "{took:?}");
}
