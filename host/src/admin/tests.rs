//! Both ports over real sockets: who is let in, what is bounded, what is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::console::Console;
use super::error::Code;
use super::ports::{self, Ports};
use super::remote::Remote;
use super::routes::BODY_BYTES_MAX;
use super::token::Token;
use super::wire::{
    Blob, CreateTopic, DeadLetterFilter, Header, ReadRequest, Record, Status, TopicSummary,
};
use crate::connector::embedded::{Commit, Log, Options, TopicSpec, Write as LogWrite};
use crate::message::HEADERS_MAX;
use crate::pipeline::offsets::Progress;
use crate::pipeline::snapshot::{PartitionSnapshot, Snapshot, State, Topics, Totals};
use crate::telemetry::metrics::Metrics;

pub(super) struct Host {
    dir: tempfile::TempDir,
    log: Log,
    ports: Ports,
    snapshots: Arc<Mutex<Vec<Snapshot>>>,
}

pub(super) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(super) fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
    let partitions = NonZeroU32::new(2).unwrap();
    log.create_topic(&TopicSpec::new("orders", partitions))
        .unwrap();
    let snapshots = Arc::new(Mutex::new(vec![snapshot(State::Running)]));
    let seen = Arc::clone(&snapshots);
    let console = Arc::new(Console::new(log.clone(), move || {
        seen.lock().unwrap().clone()
    }));
    let metrics = Metrics::new().unwrap();
    let ports = Ports::open(dir.path(), loopback(), loopback(), console, metrics).unwrap();
    Host {
        dir,
        log,
        ports,
        snapshots,
    }
}

fn snapshot(state: State) -> Snapshot {
    Snapshot {
        topics: Topics::default(),
        pipeline: "p".into(),
        consumer_group: "g".into(),
        state,
        why: (state != State::Running).then(|| "the disk is full".into()),
        plugin_digest: "sha256:00".into(),
        partitions: vec![PartitionSnapshot {
            topic: "orders".into(),
            partition: 1,
            committed: 0,
            position: 0,
            end: 2,
            held: 0,
            held_bytes: 0,
            oldest_unfinished_ms: None,
            holder: None,
        }],
        totals: Totals::default(),
        alerts: Vec::new(),
        in_flight: 0,
        handler_memory_bytes: 0,
    }
}

impl Host {
    pub(super) fn token(&self) -> String {
        let token = Token::read(self.dir.path()).unwrap().unwrap();
        token.reveal().to_owned()
    }

    pub(super) fn admin_address(&self) -> SocketAddr {
        self.ports.address().admin
    }

    pub(super) fn remote_topics(&self) -> Vec<TopicSummary> {
        self.remote().topics().unwrap()
    }

    fn remote(&self) -> Remote {
        let token = Token::from_text(&self.token()).unwrap();
        Remote::new(&format!("http://{}", self.ports.address().admin), token).unwrap()
    }

    /// Status and body of a raw request to the admin port.
    pub(super) fn admin(&self, request: &str) -> (u16, String) {
        raw(self.ports.address().admin, request)
    }

    fn health(&self, path: &str) -> (u16, String) {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n");
        raw(self.ports.address().health, &request)
    }
}

pub(super) fn raw(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // The host may refuse before it has read everything.
    let _sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// Every route, an unknown one and a wrong method.
const ROUTES: [(&str, &str); 14] = [
    ("GET", "/v1/status"),
    ("GET", "/v1/topics"),
    ("POST", "/v1/topics"),
    ("GET", "/v1/topics/orders"),
    ("GET", "/v1/topics/orders/messages?partition=0&offset=0"),
    ("POST", "/v1/topics/orders/messages"),
    (
        "GET",
        "/v1/topics/orders/partitions/0/offset?timestamp_ms=0",
    ),
    ("GET", "/v1/groups"),
    ("GET", "/v1/groups/g"),
    ("GET", "/v1/dlq"),
    ("GET", "/v1/dlq/abc"),
    ("GET", "/v1/dlq/orders/0/0"),
    ("GET", "/nothing/here"),
    ("DELETE", "/v1/topics/orders"),
];

#[test]
fn no_route_answers_without_the_token_or_with_a_wrong_one() {
    let host = host();
    let wrong = format!("Bearer {}", "0".repeat(64));
    for (method, path) in ROUTES {
        for headers in [
            vec![("Host", "127.0.0.1")],
            vec![("Host", "127.0.0.1"), ("Authorization", wrong.as_str())],
        ] {
            let (status, body) = host.admin(&request(method, path, &headers));
            assert_eq!(status, 401, "{method} {path}: {body}");
            assert!(body.contains("\"unauthorized\""), "{body}");
        }
    }
    assert_eq!(
        host.remote().topics().unwrap().len(),
        1,
        "nothing was created"
    );
}

#[test]
fn no_route_answers_to_a_foreign_host_name_or_another_site() {
    let host = host();
    let bearer = format!("Bearer {}", host.token());
    for (method, path) in ROUTES {
        let rebound = [("Host", "evil.example"), ("Authorization", bearer.as_str())];
        assert_eq!(
            host.admin(&request(method, path, &rebound)).0,
            403,
            "{method} {path}"
        );
        let foreign = [
            ("Host", "127.0.0.1"),
            ("Authorization", bearer.as_str()),
            ("Origin", "http://evil.example"),
        ];
        assert_eq!(
            host.admin(&request(method, path, &foreign)).0,
            403,
            "{method} {path}"
        );
    }
}

#[test]
fn an_unknown_route_and_a_wrong_method_are_told_apart_with_the_token() {
    let host = host();
    let bearer = format!("Bearer {}", host.token());
    let headers = [("Host", "localhost"), ("Authorization", bearer.as_str())];
    assert_eq!(host.admin(&request("GET", "/etc/passwd", &headers)).0, 404);
    assert_eq!(
        host.admin(&request("GET", "/v1/topics/%2e%2e%2f%2e%2e", &headers))
            .0,
        404
    );
    assert_eq!(
        host.admin(&request("DELETE", "/v1/topics", &headers)).0,
        405
    );
}

#[test]
fn body_bytes_max() {
    let host = host();
    let bearer = format!("Bearer {}", host.token());
    let length = (BODY_BYTES_MAX + 1).to_string();
    let headers = [
        ("Host", "127.0.0.1"),
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
    ];
    let mut text = request("POST", "/v1/topics/orders/messages", &headers);
    text.push_str(&" ".repeat(BODY_BYTES_MAX + 1));
    let (status, body) = host.admin(&text);
    assert_eq!(status, 413, "{body}");
}

#[test]
fn head_bytes_max() {
    let host = host();
    let long = "x".repeat(super::port::HEAD_BYTES_MAX);
    let text = request(
        "GET",
        "/v1/status",
        &[("Host", "127.0.0.1"), ("X-Long", &long)],
    );
    assert_eq!(host.admin(&text).0, 431);
}

#[test]
fn headers_max() {
    let host = host();
    let many: Vec<(&str, &str)> = (0..=super::port::HEADERS_MAX)
        .map(|_| ("X-Many", "1"))
        .collect();
    assert_eq!(host.admin(&request("GET", "/v1/status", &many)).0, 431);
}

#[test]
fn a_body_that_is_not_declared_as_json_is_refused() {
    let host = host();
    let bearer = format!("Bearer {}", host.token());
    let body = r#"{"name":"made","partitions":1}"#;
    let length = body.len().to_string();
    let headers = [
        ("Host", "127.0.0.1"),
        ("Authorization", bearer.as_str()),
        ("Content-Type", "text/plain"),
        ("Content-Length", length.as_str()),
    ];
    let (status, answer) = host.admin(&format!(
        "{}{body}",
        request("POST", "/v1/topics", &headers)
    ));
    assert_eq!(status, 400, "{answer}");
    assert_eq!(host.remote().topics().unwrap().len(), 1);
}

#[test]
fn without_tls_the_admin_port_does_not_leave_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
    let console = Arc::new(Console::new(log, Vec::new));
    let anywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let opened = Ports::open(
        dir.path(),
        anywhere,
        loopback(),
        console,
        Metrics::new().unwrap(),
    );
    assert!(matches!(opened, Err(ports::Error::NotLoopback(_))));
    assert_eq!(Token::read(dir.path()).unwrap(), None);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
    let console = Arc::new(Console::new(log, Vec::new));
    let address = taken.local_addr().unwrap();
    let opened = Ports::open(
        dir.path(),
        address,
        loopback(),
        console,
        Metrics::new().unwrap(),
    );
    let error = opened.err().unwrap().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("host.admin.listen"),
        "{error}"
    );
}

#[test]
fn closing_takes_the_token_and_the_address_away() {
    let host = host();
    let (dir, ports) = (host.dir, host.ports);
    let admin = ports.address().admin;
    ports.close();
    assert_eq!(Token::read(dir.path()).unwrap(), None);
    assert!(TcpStream::connect(admin).is_err());
}

fn record(key: Option<&str>, payload: &[u8]) -> Record {
    Record {
        key: key.map(|key| Blob(key.as_bytes().to_vec())),
        payload: Some(Blob(payload.to_vec())),
        ..Record::default()
    }
}

fn from(partition: u32, offset: u64) -> ReadRequest {
    ReadRequest {
        partition,
        offset,
        limit: None,
        wait_ms: None,
    }
}

#[test]
fn what_is_produced_over_http_reads_back_byte_for_byte() {
    let host = host();
    let remote = host.remote();
    let binary = Record {
        key: Some(Blob(vec![0, 0xff])),
        payload: None,
        headers: vec![
            Header {
                name: "h".into(),
                value: Some(Blob(vec![0xfe])),
            },
            Header {
                name: "n".into(),
                value: None,
            },
        ],
        timestamp_ms: Some(7),
        partition: Some(1),
    };
    let reply = remote
        .produce("orders", &[binary.clone(), binary.clone()])
        .unwrap();
    assert_eq!(reply.acknowledged, 2);
    let page = remote.read("orders", &from(1, 0)).unwrap();
    assert_eq!(
        (page.messages.len(), page.next_offset, page.end_offset),
        (2, 2, 2)
    );
    let message = page.messages.last().unwrap();
    assert_eq!(
        (&message.key, &message.payload),
        (&binary.key, &binary.payload)
    );
    // The record had no correlation ID, so it was given one at our edge (§12.2).
    let (made, own) = message.headers.split_last().unwrap();
    assert_eq!((own, message.timestamp_ms), (&binary.headers[..], 7));
    assert_eq!(made.name, "correlation-id");
    let id = String::from_utf8(made.value.clone().unwrap().0).unwrap();
    assert_eq!(reply.correlation_ids.last(), Some(&id));
    let version = uuid::Uuid::parse_str(&id).unwrap().get_version_num();
    assert_eq!(version, 7);
    assert_ne!(reply.correlation_ids[0], reply.correlation_ids[1]);
}

#[test]
fn a_message_that_has_a_correlation_id_keeps_it() {
    let host = host();
    let mut record = record(None, b"x");
    record.headers.push(Header {
        name: "correlation-id".into(),
        value: Some(Blob(b"mine".to_vec())),
    });
    let reply = host.remote().produce("orders", &[record]).unwrap();
    assert_eq!(reply.correlation_ids, ["mine"]);
    let trace = host
        .remote()
        .trace("mine", &crate::admin::trace::TraceQuery::default())
        .unwrap();
    assert_eq!(trace.events.len(), 1);
}

#[test]
fn a_key_always_goes_to_the_same_partition_and_messages_keep_their_order() {
    let host = host();
    let remote = host.remote();
    let records: Vec<Record> = (0..20)
        .map(|n| record(Some("k"), format!("{n}").as_bytes()))
        .collect();
    let reply = remote.produce("orders", &records).unwrap();
    assert_eq!(reply.partitions.len(), 1);
    let page = remote
        .read("orders", &from(reply.partitions[0].partition, 0))
        .unwrap();
    let payloads: Vec<String> = page
        .messages
        .iter()
        .map(|message| String::from_utf8(message.payload.clone().unwrap().0).unwrap())
        .collect();
    assert_eq!(payloads, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_page_is_cut_at_the_limit_and_the_next_begins_where_it_ended() {
    let host = host();
    let remote = host.remote();
    let records: Vec<Record> = (0..5)
        .map(|_| Record {
            partition: Some(0),
            ..record(None, b"x")
        })
        .collect();
    remote.produce("orders", &records).unwrap();
    let first = remote
        .read(
            "orders",
            &ReadRequest {
                limit: Some(3),
                ..from(0, 0)
            },
        )
        .unwrap();
    assert_eq!((first.messages.len(), first.next_offset), (3, 3));
    let second = remote.read("orders", &from(0, first.next_offset)).unwrap();
    assert_eq!((second.messages.len(), second.next_offset), (2, 5));
    let beyond = remote.read("orders", &from(0, 99)).unwrap();
    assert_eq!((beyond.messages.len(), beyond.next_offset), (0, 99));
}

#[test]
fn a_long_poll_returns_when_a_message_arrives() {
    let host = host();
    let remote = host.remote();
    let other = host.remote();
    let writer = std::thread::spawn(move || {
        other.produce(
            "orders",
            &[Record {
                partition: Some(0),
                ..record(None, b"x")
            }],
        )
    });
    let request = ReadRequest {
        wait_ms: Some(15_000),
        ..from(0, 0)
    };
    assert_eq!(remote.read("orders", &request).unwrap().messages.len(), 1);
    writer.join().unwrap().unwrap();
}

/// What the host adds to a dead letter or a deferred retry has to fit as well (§5.2, §6.1).
#[test]
fn headers_max_bounds_a_message_that_is_produced() {
    let host = host();
    let remote = host.remote();
    let with = |count: u16| {
        let header = Header {
            name: "h".to_owned(),
            value: None,
        };
        Record {
            headers: vec![header; usize::from(count)],
            ..record(None, b"x")
        }
    };
    let error = remote.produce("orders", &[with(HEADERS_MAX)]).unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.message.contains("65472 headers"), "{error}");
    // The correlation ID is one.
    remote.produce("orders", &[with(HEADERS_MAX - 1)]).unwrap();
}

#[test]
fn all_records_of_a_request_are_written_or_none() {
    let host = host();
    let remote = host.remote();
    let bad = Record {
        partition: Some(9),
        ..record(None, b"x")
    };
    let error = remote
        .produce("orders", &[record(None, b"ok"), bad])
        .unwrap_err();
    assert_eq!(error.code, Code::UnknownPartition);
    assert!(error.message.contains("record 1"), "{error}");
    let huge = record(None, &vec![b'x'; 2 << 20]);
    let error = remote
        .produce("orders", &[record(None, b"ok"), huge])
        .unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    assert_eq!(remote.topics().unwrap()[0].messages, 0);
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    let host = host();
    let remote = host.remote();
    let error = remote.topic("odrers").unwrap_err();
    assert_eq!(error.code, Code::UnknownTopic);
    assert!(error.help.contains("did you mean orders?"), "{error:?}");
    assert_eq!(remote.group("nobody").unwrap_err().code, Code::UnknownGroup);
    assert_eq!(
        remote.dead_letter("nothing").unwrap_err().code,
        Code::UnknownDeadLetter
    );
}

#[test]
fn topics_are_created_described_and_not_twice() {
    let host = host();
    let remote = host.remote();
    let wanted = CreateTopic {
        name: "made".into(),
        partitions: 3,
        retention_ms: Some(60_000),
        retention_bytes: None,
    };
    let made = remote.create_topic(&wanted).unwrap();
    assert_eq!(
        (made.partitions.len(), made.retention_ms),
        (3, Some(60_000))
    );
    assert_eq!(
        remote.create_topic(&wanted).unwrap_err().code,
        Code::TopicExists
    );
    let bad = CreateTopic {
        name: "a/b".into(),
        ..wanted
    };
    assert_eq!(remote.create_topic(&bad).unwrap_err().code, Code::Invalid);
    let names: Vec<String> = remote
        .topics()
        .unwrap()
        .into_iter()
        .map(|one: TopicSummary| one.topic)
        .collect();
    assert_eq!(names, ["made", "orders"]);
}

#[test]
fn groups_show_committed_offsets_and_lag() {
    let host = host();
    let remote = host.remote();
    let records = vec![
        Record {
            partition: Some(1),
            ..record(None, b"x")
        };
        4
    ];
    remote.produce("orders", &records).unwrap();
    let group = host.log.group("g").unwrap();
    let partition = host.log.topic("orders").unwrap().partition(1).unwrap();
    let mut value = Vec::new();
    Progress {
        committed: 1,
        ..Progress::default()
    }
    .encode(&mut value);
    let write = LogWrite::Progress {
        group,
        partition,
        value,
    };
    host.log
        .commit(Commit {
            writes: vec![write],
            ..Commit::default()
        })
        .unwrap();
    let groups = remote.groups().unwrap();
    assert_eq!(
        (groups[0].lag, groups[0].pipelines.as_slice()),
        (3, &["p".to_owned()][..])
    );
    let described = remote.group("g").unwrap();
    assert_eq!(
        (
            described.partitions[0].committed,
            described.partitions[0].end
        ),
        (1, 4)
    );
    assert_eq!(remote.topic("orders").unwrap().groups, ["g"]);
}

fn dead(id: &str, pipeline: &str, failed_at: &str) -> Record {
    let header = |name: &str, value: &str| Header {
        name: format!("wasmill-dlq-{name}"),
        value: Some(Blob(value.as_bytes().to_vec())),
    };
    Record {
        headers: vec![
            header("id", id),
            header("pipeline", pipeline),
            header("reason", "rejected"),
            header("last-failed-at", failed_at),
        ],
        ..record(None, b"payload")
    }
}

#[test]
fn dead_letters_are_listed_newest_first_filtered_and_found_by_id_and_place() {
    let host = host();
    let remote = host.remote();
    remote
        .create_topic(&CreateTopic {
            name: "orders.g.dlq".into(),
            partitions: 1,
            retention_ms: None,
            retention_bytes: None,
        })
        .unwrap();
    let letters = [
        dead("first", "p", "2026-01-01T00:00:00.000Z"),
        dead("second", "q", "2026-01-02T00:00:00.000Z"),
        dead("third", "p", "2026-01-03T00:00:00.000Z"),
    ];
    remote.produce("orders.g.dlq", &letters).unwrap();
    // A dead letter topic may have any name, and other topics no dead letters.
    remote.produce("orders", &[record(None, b"x")]).unwrap();
    let ids = |filter: &DeadLetterFilter| {
        let list = remote.dead_letters(filter).unwrap();
        let ids: Vec<String> = list
            .dead_letters
            .into_iter()
            .filter_map(|one| one.id)
            .collect();
        (ids, list.scanned.more)
    };
    let all = DeadLetterFilter::default();
    assert_eq!(
        ids(&all),
        (vec!["third".into(), "second".into(), "first".into()], false)
    );
    let of_p = DeadLetterFilter {
        pipeline: Some("p".into()),
        ..all.clone()
    };
    assert_eq!(ids(&of_p), (vec!["third".into(), "first".into()], false));
    let one = DeadLetterFilter {
        limit: Some(1),
        ..all.clone()
    };
    assert_eq!(ids(&one), (vec!["third".into()], true));
    let found = remote.dead_letter("second").unwrap();
    assert_eq!(found.position, "orders.g.dlq/0@1");
    assert_eq!(remote.dead_letter_at("orders.g.dlq", 0, 1).unwrap(), found);
    assert_eq!(
        remote
            .dead_letter_at("orders.g.dlq", 0, 9)
            .unwrap_err()
            .code,
        Code::UnknownDeadLetter
    );
    assert_eq!(remote.status().unwrap().dead_letters[0].messages, 3);
}

#[test]
fn status_shows_the_host_the_store_and_the_pipelines() {
    let host = host();
    let status: Status = host.remote().status().unwrap();
    assert_eq!(status.host.unwrap().pid, std::process::id());
    assert!(status.store.healthy);
    assert_eq!(status.pipelines, [snapshot(State::Running)]);
}

#[test]
fn readyz_is_503_with_the_reason_until_every_pipeline_runs() {
    let host = host();
    assert_eq!(host.health("/readyz").0, 200);
    for state in [
        State::Starting,
        State::Blocked,
        State::Draining,
        State::Stopped,
        State::Failed,
    ] {
        *host.snapshots.lock().unwrap() = vec![snapshot(State::Running), snapshot(state)];
        let (status, body) = host.health("/readyz");
        assert_eq!(status, 503, "{state:?}");
        assert!(body.contains("the disk is full"), "{body}");
        assert_eq!(host.health("/livez").0, 200);
    }
}

#[test]
fn the_health_port_has_three_routes_and_nothing_else() {
    let host = host();
    for path in [
        "/",
        "/v1/status",
        "/v1/topics/orders/messages?partition=0&offset=0",
        "/metrics/x",
    ] {
        assert_eq!(host.health(path).0, 404, "{path}");
    }
    assert_eq!(host.health("/livez").0, 200);
}

#[test]
fn a_scrape_reads_the_age_of_the_oldest_message_from_the_log() {
    let host = host();
    let old = Record {
        partition: Some(1),
        timestamp_ms: Some(host.log.now_ms() - 90_000),
        ..record(None, b"x")
    };
    host.remote()
        .produce("orders", &[old.clone(), old])
        .unwrap();
    let (status, body) = host.health("/metrics");
    assert_eq!(status, 200);
    let age = body
        .lines()
        .find(|line| line.starts_with("wasmill_oldest_message_age_seconds{"))
        .and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse::<f64>().ok())
        .unwrap();
    assert!((90.0..120.0).contains(&age), "{age}");
}

#[test]
fn connections_max() {
    let host = host();
    let admin = host.ports.address().admin;
    let idle: Vec<TcpStream> = (0..super::port::CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    let mut one_more = TcpStream::connect(admin).unwrap();
    let status = request("GET", "/v1/status", &[("Host", "127.0.0.1")]);
    one_more.write_all(status.as_bytes()).unwrap();
    one_more
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut answer = [0; 12];
    assert!(
        one_more.read(&mut answer).is_err(),
        "served above the limit"
    );
    drop(idle);
    one_more
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    one_more.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}
