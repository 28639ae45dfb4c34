//! Recovery after SIGKILL at any moment: everything acknowledged is there, in order, without holes.

use super::*;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const DIR: &str = "WASMILL_TEST_CRASH_DIR";

/// Not a test by itself: the parent below runs it as a process and kills it.
#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let log = open(Path::new(&dir));
    let partitions = topic(&log, "t", 3).partitions.clone();
    let group = log.group("g").unwrap();
    let out = Arc::new(Mutex::new(std::io::stdout()));
    let expires_at_ms = log.now_ms() + 3_600_000;
    for turn in 0u64.. {
        let p = partitions[(turn % 3) as usize];
        let payload = vec![turn as u8; 200];
        let mut commit = append(p, &[&payload, &payload]);
        commit.writes = vec![
            Write::Progress {
                group,
                partition: p,
                value: turn.to_be_bytes().to_vec(),
            },
            Write::Completion {
                group,
                hash: unique(turn),
                expires_at_ms,
                value: vec![],
            },
        ];
        let out = Arc::clone(&out);
        let ack = move |result: Result<Committed, Error>| {
            let base = result.unwrap().base_offsets[0];
            writeln!(out.lock().unwrap(), "ack {} {base} {turn}", p.0).unwrap();
        };
        log.submit(commit, Box::new(ack)).unwrap();
    }
}

fn unique(turn: u64) -> u128 {
    (u128::from(std::process::id()) << 64) | u128::from(turn)
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "connector::embedded::tests::crash::writes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn everything_acknowledged_survives_sigkill_at_25_moments() {
    let dir = tempfile::tempdir().unwrap();
    let mut ends = [0u64; 3];
    let mut acknowledged = 0;
    for round in 0..25u64 {
        let mut child = start(dir.path());
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after a number of acknowledgements that grows unevenly, so never at a place of its own.
        let mut left = 1 + round * round * 37 % 900;
        let mut acks = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some(ack) = line.split("ack ").nth(1) {
                acks.push(ack.to_owned());
                left -= 1;
            }
            if left == 0 {
                child.kill().unwrap();
                break;
            }
        }
        acks.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|l| l.split("ack ").nth(1).map(str::to_owned)),
        );
        child.wait().unwrap();
        acknowledged += acks.len();
        let log = open(dir.path());
        check_round(&log, pid, &acks, &mut ends);
        log.close().unwrap();
    }
    assert!(acknowledged > 1_000, "only {acknowledged} acknowledgements");
}

fn check_round(log: &Log, pid: u32, acks: &[String], ends: &mut [u64; 3]) {
    let partitions = log.topic("t").unwrap().partitions.clone();
    let group = log.find_group("g").unwrap();
    let mut turns = [None; 3];
    for ack in acks {
        let numbers: Vec<u64> = ack.split(' ').filter_map(|n| n.parse().ok()).collect();
        // The line in which the process was killed may be cut.
        let [partition, base, turn] = numbers[..] else {
            continue;
        };
        if !partitions.iter().any(|p| u64::from(p.0) == partition) {
            continue;
        }
        let p = PartitionId(partition as u32);
        let chunk = log
            .read(p, base)
            .unwrap()
            .expect("an acknowledged message is missing");
        assert_eq!((chunk.base_offset(), chunk.count()), (base, 2));
        let payloads: Vec<_> = chunk
            .iter()
            .map(|(_, _, m)| m.payload.unwrap()[0])
            .collect();
        assert_eq!(payloads, [turn as u8; 2]);
        turns[partition as usize] = Some(turn);
        let hash = (u128::from(pid) << 64) | u128::from(turn);
        assert!(log.completion(group, hash, log.now_ms()).unwrap().is_some());
    }
    for p in partitions {
        let index = p.0 as usize;
        let seen: Vec<u64> = read_all(log, p).unwrap().iter().map(|(o, _)| *o).collect();
        assert_eq!(seen, (0..log.end(p).unwrap()).collect::<Vec<_>>());
        assert!(log.end(p).unwrap() >= ends[index]);
        ends[index] = log.end(p).unwrap();
        if let Some(turn) = turns[index] {
            let value = log.progress(group, p).unwrap().unwrap();
            assert!(u64::from_be_bytes((*value).try_into().unwrap()) >= turn);
        }
    }
}

#[test]
fn a_directory_held_by_another_process_is_refused_until_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .by_ref()
            .map_while(Result::ok)
            .any(|l| l.contains("ack "))
    );
    let error = Log::open(dir.path(), small()).err().unwrap();
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", child.id())),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lines);
    let log = open(dir.path());
    assert!(
        log.commit_within(append(PartitionId(0), &[b"x"]), Duration::from_secs(30))
            .is_ok()
    );
}
