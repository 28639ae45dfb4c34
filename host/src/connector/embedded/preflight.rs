//! What is checked in fjall's files before fjall may open them, because fjall drops or deletes what it
//! cannot decode: journals (every batch carries our commit number, so a hole shows), and the pointer
//! and manifest of each keyspace. Reads only, but for cutting a tail that was never acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::error::Error;

/// Key (in the meta keyspace) of the commit number; the first item of every batch.
pub(super) const COMMIT_KEY: &[u8] = b"\0wasmill.commit";
/// Prefix of directories that were keyspaces without a pointer.
const ASIDE: &str = "set-aside-";
const TRAILER: &[u8; 4] = b"FJL\x03";
/// An item after its tag: value type, compression, keyspace u64, key_len u16, value_len u32, stored_len u32.
const ITEM_HEAD: usize = 20;

/// Where one batch lies in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    start: u64,
    end: u64,
    seq: u64,
}

/// What a journal holds.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    batches: Vec<Batch>,
    /// Nothing but zeros after the last batch.
    clean: bool,
}

/// Checks the files below `dir` (fjall's directory). Batches above `keep` are cut off: they were
/// never acknowledged and their caller writes them again. `acknowledged` is the mark's commit number.
pub(super) fn check(dir: &Path, acknowledged: u64, keep: u64) -> Result<(), Error> {
    check_keyspaces(&dir.join("keyspaces"), acknowledged)?;
    let journals = scan_journals(dir)?;
    if journals.is_empty() && acknowledged > 0 {
        return Err(Error::damaged(format!(
            "no journal is left in {}",
            dir.display()
        )));
    }
    check_sequence(&journals, acknowledged)?;
    for journal in &journals {
        let end = journal
            .batches
            .iter()
            .take_while(|b| b.seq <= keep)
            .last()
            .map_or(0, |b| b.end);
        let unacknowledged = journal.batches.iter().any(|b| b.seq > keep);
        if unacknowledged || !journal.clean {
            preserve(dir, journal)?;
            cut(&journal.path, end)?;
        }
    }
    Ok(())
}

/// Commit numbers follow each other without a hole, up to what was acknowledged.
fn check_sequence(journals: &[Journal], acknowledged: u64) -> Result<(), Error> {
    let mut last: Option<u64> = None;
    let mut suspect: Option<&Journal> = None;
    for journal in journals {
        for batch in &journal.batches {
            if let Some(before) = last
                && batch.seq != before + 1
            {
                let place = suspect.unwrap_or(journal);
                return Err(Error::damaged(format!(
                    "commits {} to {} are missing in journal {} after byte {}",
                    before + 1,
                    batch.seq.saturating_sub(1),
                    place.path.display(),
                    place.end()
                )));
            }
            last = Some(batch.seq);
        }
        if !journal.clean && suspect.is_none() {
            suspect = Some(journal);
        }
    }
    match (last, suspect.or(journals.last())) {
        (Some(last), Some(place)) if last < acknowledged => Err(Error::damaged(format!(
            "commits {} to {acknowledged} are missing in journal {} after byte {}",
            last + 1,
            place.path.display(),
            place.end()
        ))),
        _ => Ok(()),
    }
}

impl Journal {
    fn end(&self) -> u64 {
        self.batches.last().map_or(0, |b| b.end)
    }
}

/// Keeps what would be cut when no batch says whether it had been acknowledged.
fn preserve(dir: &Path, journal: &Journal) -> Result<(), Error> {
    if !journal.batches.is_empty() {
        return Ok(());
    }
    let copy = dir.join("last-unreadable-journal");
    std::fs::copy(&journal.path, &copy).map_err(|e| Error::io("copy", &journal.path, &e))?;
    Ok(())
}

fn cut(path: &Path, len: u64) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| {
            file.set_len(len)?;
            file.sync_all()
        })
        .map_err(|e| Error::io("cut", path, &e))
}

fn scan_journals(dir: &Path) -> Result<Vec<Journal>, Error> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let path = entry.map_err(|e| Error::io("list", dir, &e))?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            let number = path.file_stem().and_then(|s| s.to_str()?.parse().ok());
            let number = number.ok_or_else(|| {
                Error::damaged(format!("journal name {} is not a number", path.display()))
            })?;
            found.push((number, path));
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|(_, path)| {
            let scan = scan_journal(&path).map_err(|e| Error::io("read", &path, &e))?;
            Ok(Journal {
                clean: scan.1,
                batches: scan.0,
                path,
            })
        })
        .collect()
}

fn scan_journal(path: &Path) -> std::io::Result<(Vec<Batch>, bool)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut reader = Reader {
        inner: BufReader::with_capacity(256 * 1_024, file),
        pos: 0,
        len,
        scratch: Vec::new(),
    };
    let mut batches = Vec::new();
    loop {
        let start = reader.pos;
        match reader.batch()? {
            Some(seq) => batches.push(Batch {
                start,
                end: reader.pos,
                seq,
            }),
            None => break,
        }
    }
    let end = batches.last().map_or(0, |b| b.end);
    Ok((batches, only_zeros_from(path, end)?))
}

fn only_zeros_from(path: &Path, start: u64) -> std::io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0u8; 256 * 1_024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(true);
        }
        if buffer.get(..n).is_some_and(|b| b.iter().any(|x| *x != 0)) {
            return Ok(false);
        }
    }
}

struct Reader {
    inner: BufReader<File>,
    pos: u64,
    len: u64,
    scratch: Vec<u8>,
}

impl Reader {
    /// The commit number of the next batch, `None` when what follows is not a whole, valid batch.
    fn batch(&mut self) -> std::io::Result<Option<u64>> {
        let Some(1) = self.byte()? else {
            return Ok(None);
        };
        let Some(head) = self.array::<12>()? else {
            return Ok(None);
        };
        let items = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let mut hasher = Xxh3::new();
        let mut seq = None;
        for index in 0..items {
            match self.item(&mut hasher, index == 0)? {
                Item::Commit(number) => seq = Some(number),
                Item::Other => {}
                Item::Invalid => return Ok(None),
            }
        }
        let Some(3) = self.byte()? else {
            return Ok(None);
        };
        let Some(sum) = self.array::<8>()? else {
            return Ok(None);
        };
        let Some(trailer) = self.array::<4>()? else {
            return Ok(None);
        };
        if u64::from_le_bytes(sum) != hasher.digest() || trailer != *TRAILER {
            return Ok(None);
        }
        Ok(seq)
    }

    fn item(&mut self, hasher: &mut Xxh3, first: bool) -> std::io::Result<Item> {
        let Some(2) = self.byte()? else {
            return Ok(Item::Invalid);
        };
        let Some(head) = self.array::<ITEM_HEAD>()? else {
            return Ok(Item::Invalid);
        };
        hasher.update(&[2]);
        hasher.update(&head);
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            k0,
            k1,
            _,
            _,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
        ] = head;
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let stored = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let total = key_len + stored;
        if total as u64 > self.len.saturating_sub(self.pos) {
            return Ok(Item::Invalid);
        }
        self.scratch.resize(total, 0);
        self.inner.read_exact(&mut self.scratch)?;
        self.pos += total as u64;
        hasher.update(&self.scratch);
        let number = self
            .scratch
            .strip_prefix(COMMIT_KEY)
            .filter(|_| first && key_len == COMMIT_KEY.len())
            .and_then(|value| value.first_chunk::<8>());
        Ok(number.map_or(Item::Other, |n| Item::Commit(u64::from_le_bytes(*n))))
    }

    fn byte(&mut self) -> std::io::Result<Option<u8>> {
        Ok(self.array::<1>()?.map(|[b]| b))
    }

    fn array<const N: usize>(&mut self) -> std::io::Result<Option<[u8; N]>> {
        if self.len.saturating_sub(self.pos) < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.pos += N as u64;
        Ok(Some(bytes))
    }
}

enum Item {
    Commit(u64),
    Other,
    Invalid,
}

/// Each keyspace's `current` names a manifest and its checksum; fjall trusts both unread.
fn check_keyspaces(dir: &Path, acknowledged: u64) -> Result<(), Error> {
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && acknowledged == 0 => return Ok(()),
        Err(e) => {
            return Err(Error::damaged(format!(
                "{} cannot be listed ({e})",
                dir.display()
            )));
        }
    };
    let mut meta = false;
    for entry in list {
        let path = entry.map_err(|e| Error::io("list", dir, &e))?.path();
        let current = path.join("current");
        let is_meta = path.file_name().is_some_and(|n| n == "0");
        meta |= is_meta;
        if current.exists() || is_meta {
            check_manifest(&path, &current)?;
        } else {
            set_aside(dir, &path)?;
        }
    }
    if meta || acknowledged == 0 {
        Ok(())
    } else {
        Err(Error::damaged(format!(
            "keyspace 0 is missing in {}",
            dir.display()
        )))
    }
}

/// fjall would delete a keyspace without its pointer. When its own deletion was interrupted that is
/// right; when the pointer was lost the messages in it are worth keeping until somebody looked.
fn set_aside(dir: &Path, keyspace: &Path) -> Result<(), Error> {
    let name = keyspace.file_name().unwrap_or_default();
    let mut aside = std::ffi::OsString::from(ASIDE);
    aside.push(name);
    let aside = dir.parent().unwrap_or(dir).join(aside);
    std::fs::rename(keyspace, &aside).map_err(|e| Error::io("set aside", keyspace, &e))
}

/// Deletes what was set aside, once the catalogue says that nothing is missing.
pub(super) fn delete_set_aside(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let path = entry.map_err(|e| Error::io("list", dir, &e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(ASIDE) {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, &e))?;
        }
    }
    Ok(())
}

fn check_manifest(path: &Path, current: &Path) -> Result<(), Error> {
    let pointer = std::fs::read(current)
        .map_err(|e| Error::damaged(format!("{} cannot be read ({e})", current.display())))?;
    let (Some(id), Some(sum), 25) = (
        pointer.first_chunk::<8>(),
        pointer.get(8..24).and_then(|b| b.try_into().ok()),
        pointer.len(),
    ) else {
        return Err(Error::damaged(format!(
            "{} has a wrong length",
            current.display()
        )));
    };
    let manifest = path.join(format!("v{}", u64::from_le_bytes(*id)));
    let bytes = std::fs::read(&manifest).map_err(|e| {
        Error::damaged(format!(
            "manifest {}, which {} names, cannot be read ({e})",
            manifest.display(),
            current.display()
        ))
    })?;
    if xxh3_128(&bytes) != u128::from_le_bytes(sum) || pointer.get(24) != Some(&0) {
        return Err(Error::damaged(format!(
            "manifest {} does not match its checksum in {}",
            manifest.display(),
            current.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as fjall writes it: the commit number and one other item of 300 bytes.
    fn batch(seq: u64) -> Vec<u8> {
        let item = |key: &[u8], value: &[u8]| {
            let mut out = vec![2, 0, 0];
            out.extend_from_slice(&1u64.to_le_bytes());
            out.extend_from_slice(&(key.len() as u16).to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            [out.as_slice(), key, value].concat()
        };
        let items = [item(COMMIT_KEY, &seq.to_le_bytes()), item(b"k", &[7; 300])].concat();
        let mut out = vec![1];
        out.extend_from_slice(&2u32.to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(&items);
        out.push(3);
        let mut hasher = Xxh3::new();
        hasher.update(&items);
        out.extend_from_slice(&hasher.digest().to_le_bytes());
        out.extend_from_slice(TRAILER);
        out
    }

    fn journal(dir: &Path, number: u64, seqs: std::ops::RangeInclusive<u64>) -> PathBuf {
        let path = dir.join(format!("{number}.jnl"));
        let mut bytes = seqs.flat_map(batch).collect::<Vec<u8>>();
        bytes.extend_from_slice(&[0; 100]);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }

    /// `check` without keyspaces.
    fn check_journals(dir: &Path, acknowledged: u64) -> Result<(), Error> {
        check_sequence(&scan_journals(dir)?, acknowledged)
    }

    #[test]
    fn a_batch_of_fjall_is_read_as_it_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = fjall::Database::builder(dir.path()).open().unwrap();
        let keyspace = db
            .keyspace("k", fjall::KeyspaceCreateOptions::default)
            .unwrap();
        for seq in 1u64..=3 {
            let mut write = db.batch();
            write.insert(&keyspace, COMMIT_KEY, seq.to_le_bytes().as_slice());
            write.insert(&keyspace, "other", vec![1; 500]);
            write.commit().unwrap();
        }
        let journals = scan_journals(dir.path()).unwrap();
        let seqs: Vec<u64> = journals[0].batches.iter().map(|b| b.seq).collect();
        assert_eq!((seqs, journals[0].clean), (vec![1, 2, 3], true));
    }

    #[test]
    fn a_hole_in_a_sealed_journal_is_damage_although_later_journals_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = journal(dir.path(), 0, 1..=5);
        journal(dir.path(), 1, 6..=9);
        assert!(check_journals(dir.path(), 9).is_ok());
        let batch_len = batch(1).len();
        flip(&sealed, 3 * batch_len);
        let error = check_journals(dir.path(), 9).unwrap_err().to_string();
        let place = format!(
            "commits 4 to 5 are missing in journal {} after byte {}",
            sealed.display(),
            3 * batch_len
        );
        assert!(error.contains(&place), "{error}");
    }

    #[test]
    fn a_journal_that_is_gone_from_between_others_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        journal(dir.path(), 0, 1..=2);
        std::fs::remove_file(journal(dir.path(), 1, 3..=4)).unwrap();
        journal(dir.path(), 2, 5..=6);
        assert!(check_journals(dir.path(), 6).is_err());
    }

    #[test]
    fn a_tail_that_was_not_acknowledged_is_cut_and_one_that_was_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = journal(dir.path(), 0, 1..=5);
        let batch_len = batch(1).len();
        flip(&path, 4 * batch_len + 60);
        let before = std::fs::read(&path).unwrap();
        std::fs::create_dir_all(dir.path().join("keyspaces/0")).unwrap();
        let sums = [
            7u64.to_le_bytes().as_slice(),
            &xxh3_128(b"manifest").to_le_bytes(),
            &[0],
        ]
        .concat();
        std::fs::write(dir.path().join("keyspaces/0/current"), sums).unwrap();
        std::fs::write(dir.path().join("keyspaces/0/v7"), b"manifest").unwrap();
        assert!(check(dir.path(), 5, u64::MAX).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        check(dir.path(), 4, u64::MAX).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            4 * batch_len as u64
        );
        // What a failed try left behind is cut before it is written again.
        check(dir.path(), 2, 2).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            2 * batch_len as u64
        );
        std::fs::write(dir.path().join("keyspaces/0/v7"), b"another").unwrap();
        assert!(check(dir.path(), 2, 2).is_err());
    }

    #[test]
    fn a_keyspace_without_its_pointer_is_set_aside_and_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let tables = dir.path().join("keyspaces/5/tables");
        std::fs::create_dir_all(&tables).unwrap();
        std::fs::write(tables.join("0"), b"messages").unwrap();
        check_keyspaces(&dir.path().join("keyspaces"), 0).unwrap();
        let aside = dir.path().join(format!("{ASIDE}5/tables/0"));
        assert_eq!(std::fs::read(&aside).unwrap(), b"messages");
        delete_set_aside(dir.path()).unwrap();
        assert!(!aside.exists());
    }
}
