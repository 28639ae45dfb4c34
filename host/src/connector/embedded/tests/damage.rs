//! Damage by action × place: every outcome is everything acknowledged, or an error that says what is
//! damaged; never silent loss.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What was acknowledged.
struct Acknowledged {
    partitions: Vec<PartitionId>,
    messages: BTreeMap<PartitionId, Vec<(u64, Vec<u8>)>>,
    group: GroupId,
    progress: BTreeMap<PartitionId, Vec<u8>>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    completions: BTreeMap<u128, Vec<u8>>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    now_ms: i64,
}

/// Fills a log so that journals, tables of every kind and rolled segments exist.
fn fill(log: &Log, rounds: u64) -> Acknowledged {
    let partitions = topic(log, "t", 2).partitions.clone();
    let group = log.group("g").unwrap();
    let mut a = Acknowledged {
        partitions: partitions.clone(),
        messages: BTreeMap::new(),
        group,
        progress: BTreeMap::new(),
        state: BTreeMap::new(),
        completions: BTreeMap::new(),
        meta: BTreeMap::new(),
        now_ms: log.now_ms(),
    };
    for n in 0..rounds {
        let p = partitions[(n % 2) as usize];
        let payload = vec![n as u8; 300 + (n % 7) as usize];
        let mut commit = append(p, &[&payload, b"second"]);
        let text = format!("{n:0>200}").into_bytes();
        let hash = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let key = format!("k{}", n % 50).into_bytes();
        commit.writes = vec![
            Write::Progress {
                group,
                partition: p,
                value: text.clone(),
            },
            Write::State {
                group,
                partition: p,
                key: key.clone(),
                value: Some(text.clone()),
            },
            Write::Completion {
                group,
                hash,
                expires_at_ms: a.now_ms + 3_600_000,
                value: text.clone(),
            },
            Write::Meta {
                key: key.clone(),
                value: Some(text.clone()),
            },
        ];
        let base = log.commit(commit).unwrap().base_offsets[0];
        let list = a.messages.entry(p).or_default();
        list.extend([(base, payload), (base + 1, b"second".to_vec())]);
        a.progress.insert(p, text.clone());
        a.state
            .insert([p.0.to_be_bytes().as_slice(), &key].concat(), text.clone());
        a.completions.insert(hash, text.clone());
        a.meta.insert(key, text);
    }
    a
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Intact,
    Refused,
    ReportedAtRead,
}

/// Opens and holds everything against what was acknowledged.
fn examine(dir: &Path, a: &Acknowledged, place: &str) -> Outcome {
    let log = match Log::open(dir, small()) {
        Ok(log) => log,
        Err(Error::Damaged { .. } | Error::Io(_)) => return Outcome::Refused,
        Err(other) => panic!("{place}: {other}"),
    };
    let mut reported = false;
    for p in &a.partitions {
        match read_all(&log, *p) {
            Ok(seen) => assert_eq!(&seen, &a.messages[p], "{place}: messages"),
            Err(Error::Damaged { .. } | Error::Io(_)) => reported = true,
            Err(other) => panic!("{place}: {other}"),
        }
    }
    let mut check = |what: &str, got: Result<Option<Slice>, Error>, expected: &[u8]| match got {
        Ok(value) => assert_eq!(value.as_deref(), Some(expected), "{place}: {what}"),
        Err(Error::Damaged { .. } | Error::Io(_)) => reported = true,
        Err(other) => panic!("{place}: {what}: {other}"),
    };
    for (p, value) in &a.progress {
        check("progress", log.progress(a.group, *p), value);
    }
    for (key, value) in &a.state {
        let p = PartitionId(u32::from_be_bytes(key[..4].try_into().unwrap()));
        check("state", log.state_get(a.group, p, &key[4..]), value);
    }
    for (hash, value) in &a.completions {
        check(
            "completion",
            log.completion(a.group, *hash, a.now_ms),
            value,
        );
    }
    for (key, value) in &a.meta {
        check("meta", log.meta_get(key), value);
    }
    if reported {
        Outcome::ReportedAtRead
    } else {
        Outcome::Intact
    }
}

/// A file of the store: its path inside, its bytes up to the last that is not zero, its length.
struct Image {
    path: PathBuf,
    bytes: Vec<u8>,
    len: u64,
}

fn images(dir: &Path) -> Vec<Image> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len() as u64;
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            bytes.truncate(used);
            found.push(Image {
                path: path.strip_prefix(dir).unwrap().to_owned(),
                bytes,
                len,
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn write_images(images: &[Image], dir: &Path) {
    for image in images {
        let path = dir.join(&image.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &image.bytes).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(image.len)
            .unwrap();
    }
}

/// Places spread over all files: a few in each, the rest by size.
fn places(images: &[Image], count: usize) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (file, image) in images.iter().enumerate() {
        let len = image.bytes.len();
        let some = [0, len / 3, len.saturating_sub(1)];
        places.extend(some.into_iter().filter(|at| *at < len).map(|at| (file, at)));
    }
    let total: usize = images.iter().map(|i| i.bytes.len()).sum();
    let mut n = 0usize;
    while places.len() < count {
        // The golden ratio spreads evenly.
        n += 1;
        let mut at = (n as f64 * 0.618_033_988_749 % 1.0 * total as f64) as usize;
        for (file, image) in images.iter().enumerate() {
            if at < image.bytes.len() {
                places.push((file, at));
                break;
            }
            at -= image.bytes.len();
        }
    }
    places
}

/// A store as a crash leaves it: copied while it is open.
fn crashed_store() -> (Vec<Image>, Acknowledged) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let acknowledged = fill(&log, 400);
    log.0.shared.settle_for_test();
    let images = images(dir.path());
    let tables = images
        .iter()
        .filter(|i| i.path.to_string_lossy().contains("tables"))
        .count();
    assert!(tables > 10, "only {tables} tables");
    (images, acknowledged)
}

fn damage_everywhere(action: impl Fn(&Path, &Image, usize)) -> BTreeMap<String, usize> {
    let (images, acknowledged) = crashed_store();
    let mut outcomes = BTreeMap::new();
    for (file, at) in places(&images, 200.max(images.len() * 3)) {
        let dir = tempfile::tempdir().unwrap();
        write_images(&images, dir.path());
        let image = &images[file];
        action(&dir.path().join(&image.path), image, at);
        let place = format!("{} at {at} of {}", image.path.display(), image.bytes.len());
        let outcome = examine(dir.path(), &acknowledged, &place);
        *outcomes.entry(format!("{outcome:?}")).or_default() += 1;
    }
    outcomes
}

#[test]
fn an_undamaged_copy_of_a_running_store_is_intact() {
    let (images, acknowledged) = crashed_store();
    let dir = tempfile::tempdir().unwrap();
    write_images(&images, dir.path());
    assert_eq!(examine(dir.path(), &acknowledged, "copy"), Outcome::Intact);
}

#[test]
fn files_cut_anywhere_never_lose_anything_silently() {
    let outcomes = damage_everywhere(|path, _, at| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(at as u64)
            .unwrap();
    });
    assert!(outcomes["Refused"] > 50, "{outcomes:?}");
}

#[test]
fn bits_flipped_anywhere_never_lose_anything_silently() {
    let outcomes = damage_everywhere(|path, image, at| {
        let mut bytes = image.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(path, bytes).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(image.len)
            .unwrap();
    });
    assert!(outcomes["Refused"] > 50, "{outcomes:?}");
    assert!(outcomes["ReportedAtRead"] > 10, "{outcomes:?}");
}

#[test]
fn a_file_that_is_gone_never_loses_anything_silently() {
    let (images, acknowledged) = crashed_store();
    for image in &images {
        let dir = tempfile::tempdir().unwrap();
        write_images(&images, dir.path());
        fs::remove_file(dir.path().join(&image.path)).unwrap();
        examine(
            dir.path(),
            &acknowledged,
            &format!("{} removed", image.path.display()),
        );
    }
}

/// What the operating system had and the disk had not: the newest commit is cut from the journal.
fn lose_the_newest_commit(images: &[Image], dir: &Path, commit_bytes: usize) {
    write_images(images, dir);
    let journal = images
        .iter()
        .rfind(|i| i.path.extension().is_some_and(|e| e == "jnl"))
        .unwrap();
    let cut = journal.bytes.len() - commit_bytes / 2;
    fs::OpenOptions::new()
        .write(true)
        .open(dir.join(&journal.path))
        .unwrap()
        .set_len(cut as u64)
        .unwrap();
}

#[test]
fn with_durability_os_only_a_crash_of_the_machine_may_lose_the_newest_commits() {
    let source = tempfile::tempdir().unwrap();
    let options = Options {
        durability: crate::config::valid::Durability::Os,
        ..small()
    };
    let log = Log::open(source.path(), options).unwrap();
    let p = topic(&log, "t", 1).partitions[0];
    log.commit(append(p, &[b"first"])).unwrap();
    log.commit(append(p, &[&[7; 1_000]])).unwrap();
    let images = images(source.path());
    // The same run of the machine: the operating system cannot have lost it, so this is damage.
    let same = tempfile::tempdir().unwrap();
    lose_the_newest_commit(&images, same.path(), 1_000);
    let error = Log::open(same.path(), small()).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    // Another run of the machine: a valid prefix is what was promised.
    let other = tempfile::tempdir().unwrap();
    lose_the_newest_commit(&images, other.path(), 1_000);
    let (mut file, mut mark) = MarkFile::open(other.path()).unwrap();
    mark.boot_id = [9; 16];
    file.write(&mark, true).unwrap();
    let log = open(other.path());
    assert_eq!(read_all(&log, p).unwrap(), [(0, b"first".to_vec())]);
    // What was synced (here: the topic's creation) is asked for all the same.
    let damaged = tempfile::tempdir().unwrap();
    write_images(&images, damaged.path());
    let (mut file, mut mark) = MarkFile::open(damaged.path()).unwrap();
    (mark.boot_id, mark.synced_seq) = ([9; 16], mark.seq + 1);
    mark.seq += 2;
    file.write(&mark, true).unwrap();
    assert!(matches!(
        Log::open(damaged.path(), small()),
        Err(Error::Damaged { .. })
    ));
}
