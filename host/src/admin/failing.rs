//! What both ports answer in an incident: when the store cannot write, when orders and writes wait.

use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::console::PRODUCE_TIME_MAX;
use super::error::Code;
use super::lanes::{ORDERS_AT_ONCE_MAX, READS_AT_ONCE_MAX, WRITES_AT_ONCE_MAX};
use super::operations::{Answer, Changes, Order};
use super::ports::CLOSE_TIME_MAX;
use super::tests::{Host, host, host_with, record};
use crate::connector::embedded::{Append, ChunkBuilder, Commit, Health, Options};
use crate::message::MessageRef;

const LIMITED: &str = "WASMILL_TEST_ADMIN_FILE_LIMIT";
const SIGXFSZ: i32 = 25;
/// Far below the time that a produce request waits for its fsync.
const AT_ONCE: Duration = Duration::from_secs(PRODUCE_TIME_MAX.as_secs() / 2);

fn append(host: &Host, bytes: usize) -> Commit {
    let mut chunk = ChunkBuilder::new();
    let payload = vec![1; bytes];
    chunk.push(&MessageRef {
        payload: Some(&payload),
        ..MessageRef::default()
    });
    let partition = host.log().topic("orders").unwrap().partition(0).unwrap();
    Commit {
        appends: vec![Append {
            partition,
            chunk: chunk.finish(),
        }],
        ..Commit::default()
    }
}

/// Whoever wants to know how the host is gets an answer.
fn looks_answer(host: &Host, is_healthy: bool) {
    let began = Instant::now();
    let status = host.remote().status().unwrap();
    assert_eq!(status.store.healthy, is_healthy);
    assert_eq!(host.health("/livez").0, 200);
    assert_eq!(host.health("/readyz").0, if is_healthy { 200 } else { 503 });
    assert_eq!(host.health("/metrics").0, 200);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Not a test by itself: the one below runs it as a process, because a file limit is a process's.
#[test]
fn produces_past_a_file_limit() {
    if std::env::var_os(LIMITED).is_none() {
        return;
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    signal_hook::flag::register(SIGXFSZ, Arc::default()).unwrap();
    let before = getrlimit(Resource::Fsize);
    // fjall reserves 64 MiB for a journal; what goes beyond fails.
    let limited = Rlimit {
        current: Some(64 << 20),
        maximum: before.maximum,
    };
    setrlimit(Resource::Fsize, limited).unwrap();
    let options = Options {
        memtable_bytes: 512 << 20,
        ..Options::default()
    };
    let host = host_with(options, |console| console);
    let mut submitted = 0;
    while host.log().health() == Health::Ok {
        let soon = Instant::now() + Duration::from_millis(300);
        let commit = append(&host, 1 << 19);
        let _full = host.log().submit_before(commit, Box::new(|_| {}), soon);
        submitted += 1;
        assert!(submitted < 10_000, "it never failed");
    }
    let began = Instant::now();
    let produce = || host.remote().produce("orders", &[record(None, b"x")]);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..2 * WRITES_AT_ONCE_MAX)
            .map(|_| scope.spawn(produce))
            .collect();
        for one in all {
            let why = one.join().unwrap().unwrap_err();
            assert_eq!(why.code, Code::StoreUnavailable, "{why:?}");
        }
    });
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    looks_answer(&host, false);
    setrlimit(Resource::Fsize, before).unwrap();
    until("health is ok", || host.log().health() == Health::Ok);
    produce().unwrap();
    looks_answer(&host, true);
}

#[test]
fn while_the_store_cannot_write_a_produce_is_refused_at_once_and_status_and_metrics_answer() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "admin::failing::produces_past_a_file_limit",
            "--exact",
            "--nocapture",
        ])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn writes_that_wait_for_the_disk_leave_status_metrics_and_reads_their_threads() {
    let host = host();
    let (go, gate) = sync_channel::<()>(0);
    let (began, begun) = sync_channel(1);
    let waits = Box::new(move |_| {
        began.send(()).unwrap();
        let _opened = gate.recv();
    });
    host.log().submit(append(&host, 1), waits).unwrap();
    begun.recv().unwrap();
    std::thread::scope(|scope| {
        let produce = || host.remote().produce("orders", &[record(None, b"x")]);
        let all: Vec<_> = (0..WRITES_AT_ONCE_MAX + 4)
            .map(|_| scope.spawn(produce))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        looks_answer(&host, true);
        assert_eq!(host.remote_topics().len(), 1);
        assert!(all.iter().all(|one| !one.is_finished()));
        drop(go);
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_produce_request_waits_produce_time_max_for_the_disk_and_no_longer() {
    let host = host();
    let (go, gate) = sync_channel::<()>(0);
    let waits = Box::new(move |_| {
        let _opened = gate.recv();
    });
    host.log().submit(append(&host, 1), waits).unwrap();
    let began = Instant::now();
    let why = host.remote().produce("orders", &[record(None, b"x")]);
    let took = began.elapsed();
    let why = why.unwrap_err();
    assert!(
        [Code::Busy, Code::StoreUnavailable].contains(&why.code),
        "{why:?}"
    );
    assert!(
        took >= PRODUCE_TIME_MAX && took < PRODUCE_TIME_MAX + AT_ONCE,
        "{took:?}"
    );
    drop(go);
}

#[test]
fn ports_close_within_close_time_max_while_an_order_waits() {
    let (go, gate) = sync_channel::<()>(0);
    let (host, running) = slow_orders(gate);
    let remote = host.remote();
    let pause = std::thread::spawn(move || {
        remote.order(&Order::Pause {
            pipeline: "p".to_owned(),
        })
    });
    until("the order is being carried out", || {
        running.lock().unwrap().0 == 1
    });
    let began = Instant::now();
    host.close();
    let took = began.elapsed();
    assert!(
        took >= CLOSE_TIME_MAX && took < CLOSE_TIME_MAX + AT_ONCE,
        "{took:?}"
    );
    assert!(pause.join().unwrap().is_err(), "it was cut off");
    drop(go);
}

/// A host whose orders wait for `gate`, and how many are being carried out at most.
fn slow_orders(gate: Receiver<()>) -> (Host, Arc<Mutex<(usize, usize)>>) {
    let running = Arc::new(Mutex::new((0, 0)));
    let (gate, counts) = (Mutex::new(gate), Arc::clone(&running));
    let operations = move |_: Order| {
        {
            let mut counts = counts.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        let _opened = gate.lock().unwrap().recv();
        counts.lock().unwrap().0 -= 1;
        Ok(Answer::Done(Changes::default()))
    };
    let host = host_with(Options::default(), |console| {
        console.with_operations(Arc::new(operations))
    });
    (host, running)
}

#[test]
fn orders_that_wait_for_the_host_leave_everybody_else_their_threads() {
    let (go, gate) = sync_channel::<()>(0);
    let (host, running) = slow_orders(gate);
    std::thread::scope(|scope| {
        let pause = || {
            host.remote().order(&Order::Pause {
                pipeline: "p".to_owned(),
            })
        };
        let all: Vec<_> = (0..ORDERS_AT_ONCE_MAX + WRITES_AT_ONCE_MAX + READS_AT_ONCE_MAX + 8)
            .map(|_| scope.spawn(pause))
            .collect();
        until("as many orders run as may", || {
            running.lock().unwrap().0 == ORDERS_AT_ONCE_MAX
        });
        std::thread::sleep(Duration::from_millis(200));
        looks_answer(&host, true);
        host.remote()
            .produce("orders", &[record(None, b"x")])
            .unwrap();
        assert_eq!(running.lock().unwrap().1, ORDERS_AT_ONCE_MAX);
        drop(go);
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
}
