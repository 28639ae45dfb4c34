//! Life after a full disk or a write that fails, without a restart.

use super::*;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LIMITED: &str = "WASMILL_TEST_FILE_LIMIT_DIR";
const SIGXFSZ: i32 = 25;

/// Waits for a condition of the log's own threads; fails after half a minute.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        std::thread::yield_now();
    }
}

/// Submits until the log fails; then calls `repair`; then everything acknowledged must be there once.
fn fails_and_goes_on(log: &Log, payload_bytes: usize, repair: impl FnOnce()) {
    let p = topic(log, "t", 1).partitions[0];
    log.commit(append(p, &[&[0; 8]])).unwrap();
    let acknowledged = Arc::new(AtomicU64::new(1));
    let mut submitted = 1u64;
    let submit = |n: u64| {
        let mut payload = vec![1u8; payload_bytes];
        payload[..8].copy_from_slice(&n.to_be_bytes());
        let acknowledged = Arc::clone(&acknowledged);
        let ack = move |result: Result<Committed, Error>| {
            assert_eq!(result.unwrap().base_offsets, [n]);
            acknowledged.fetch_add(1, Ordering::SeqCst);
        };
        log.submit_before(
            append(p, &[&payload]),
            Box::new(ack),
            Instant::now() + Duration::from_millis(300),
        )
    };
    while log.health() == Health::Ok {
        if submit(submitted).is_ok() {
            submitted += 1;
        }
        assert!(submitted < 100_000, "it never failed");
    }
    let durable = acknowledged.load(Ordering::SeqCst);
    // Readers go on, producers with a deadline are told.
    assert!(log.read(p, durable - 1).unwrap().is_some());
    let refused = log.commit_within(
        append(p, &[&vec![0; payload_bytes]]),
        Duration::from_millis(200),
    );
    assert!(
        matches!(refused, Err(Error::Failing { .. } | Error::Busy { .. })),
        "{refused:?}"
    );
    let extra = u64::from(matches!(refused, Err(Error::Failing { .. })));
    repair();
    until("health is ok", || log.health() == Health::Ok);
    until("everything is acknowledged", || {
        acknowledged.load(Ordering::SeqCst) == submitted
    });
    let numbers: Vec<u64> = read_all(log, p)
        .unwrap()
        .iter()
        .map(|(_, payload)| u64::from_be_bytes(payload[..8].try_into().unwrap()))
        .collect();
    let mut expected: Vec<u64> = (0..submitted).collect();
    until("the commit that timed out is done as well", || {
        log.end(p).unwrap() <= submitted + extra
    });
    expected.extend(std::iter::repeat_n(0, numbers.len() - expected.len()));
    assert_eq!(numbers, expected);
}

/// Not a test by itself: the parent below runs it as a process, because a file limit is a process's.
#[test]
fn writes_past_a_file_limit() {
    let Some(dir) = std::env::var_os(LIMITED) else {
        return;
    };
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
    let log = Log::open(Path::new(&dir), options.clone()).unwrap();
    fails_and_goes_on(&log, 1 << 19, || {
        setrlimit(Resource::Fsize, before).unwrap()
    });
    log.close().unwrap();
    let log = Log::open(Path::new(&dir), options).unwrap();
    assert!(log.end(PartitionId(0)).unwrap() > 100);
    assert!(read_all(&log, PartitionId(0)).is_ok());
}

#[test]
fn a_write_that_fails_is_repeated_until_it_succeeds_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "connector::embedded::tests::failing::writes_past_a_file_limit",
            "--exact",
            "--nocapture",
        ])
        .env(LIMITED, dir.path())
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
fn a_full_disk_is_lived_through_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        let status = Command::new("mount").args(args).arg(dir.path()).output();
        status.is_ok_and(|o| o.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=6m", "tmpfs"]) {
        use std::io::Write as _;
        writeln!(
            std::io::stderr(),
            "skipped: no permission to mount a small file system"
        )
        .unwrap();
        return;
    }
    let options = Options {
        segment_bytes: 1 << 20,
        memtable_bytes: 256 * 1_024,
        ..Options::default()
    };
    let result = std::panic::catch_unwind(|| {
        let log = Log::open(dir.path(), options).unwrap();
        fails_and_goes_on(&log, 20_000, || {
            assert!(mount(&["-o", "remount,size=256m", "tmpfs"]))
        });
        log.close().unwrap();
    });
    let unmounted = Command::new("umount").arg("-l").arg(dir.path()).status();
    assert!(unmounted.unwrap().success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_panic_of_the_committer_is_told_and_hangs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    log.commit(append(p, &[b"x"])).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    log.0.shared.queue.push(queue::Job::Panic, 0, None).unwrap();
    let late = log.submit(append(p, &[b"y"]), Box::new(move |r| send.send(r).unwrap()));
    match late {
        Ok(()) => assert_eq!(receive.recv().unwrap().unwrap_err(), Error::Closed),
        Err(error) => assert_eq!(error, Error::Closed),
    }
    until("the log is dead", || {
        matches!(log.health(), Health::Dead { .. })
    });
    assert_eq!(log.commit(append(p, &[b"z"])).unwrap_err(), Error::Closed);
    assert!(log.read(p, 0).unwrap().is_some());
    assert!(log.close().is_err());
    assert_eq!(open(dir.path()).end(p).unwrap(), 1);
}

#[test]
fn a_full_queue_refuses_at_the_deadline_and_an_acknowledgement_that_panics_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(
        dir.path(),
        Options {
            queue_commits: 1,
            ..small()
        },
    )
    .unwrap();
    let p = topic(&log, "t", 1).partitions[0];
    let (send, receive) = std::sync::mpsc::sync_channel::<()>(0);
    let (began, begun) = std::sync::mpsc::channel();
    let block = Box::new(move |_| {
        began.send(()).unwrap();
        receive.recv().unwrap();
        panic!("as a test of what follows");
    });
    log.submit(append(p, &[b"a"]), block).unwrap();
    begun.recv().unwrap();
    log.submit(append(p, &[b"b"]), Box::new(|_| {})).unwrap();
    let soon = Instant::now() + Duration::from_millis(20);
    let refused = log.submit_before(append(p, &[b"c"]), Box::new(|_| {}), soon);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    send.send(()).unwrap();
    log.commit(append(p, &[b"d"])).unwrap();
    let payloads: Vec<_> = read_all(&log, p)
        .unwrap()
        .into_iter()
        .map(|(_, m)| m)
        .collect();
    assert_eq!(payloads, [b"a", b"b", b"d"]);
}

#[test]
fn whoever_makes_a_topic_waits_for_make_time_max_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let p = topic(&log, "t", 1).partitions[0];
    let (send, receive) = std::sync::mpsc::sync_channel::<()>(0);
    let (began, begun) = std::sync::mpsc::channel();
    let block = Box::new(move |_| {
        began.send(()).unwrap();
        receive.recv().unwrap();
    });
    log.submit(append(p, &[b"a"]), block).unwrap();
    begun.recv().unwrap();
    let at = Instant::now();
    let spec = TopicSpec::new("late", std::num::NonZeroU32::MIN);
    let refused = log.create_topic(&spec);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert!(at.elapsed() < MAKE_TIME_MAX + Duration::from_secs(2));
    send.send(()).unwrap();
    // It was only late.
    until("the topic is there", || log.topic("late").is_some());
    assert!(log.create_topic(&spec).is_ok());
}
