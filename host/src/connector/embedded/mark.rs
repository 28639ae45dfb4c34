//! The high-water mark: what was acknowledged, in a file of its own. A store that recovers less than
//! this was damaged, whatever it says itself. Two slots are written in turn, so that a torn write
//! leaves the one before; each slot:
//! `crc32c u32 | version u32 (1) | turn u64 | seq u64 | synced_seq u64 | boot_id 16 | count u32 | 0 u32 |
//! end u64 per partition`, little-endian, the CRC over everything after it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::options::PARTITIONS_MAX;

const FILE: &str = "mark";
const VERSION: u32 = 1;
const HEAD: usize = 56;
const SLOT: usize = (HEAD + 8 * PARTITIONS_MAX).next_multiple_of(4_096);

/// What was acknowledged last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seq: u64,
    /// The last acknowledged seq that an fsync covered.
    pub(super) synced_seq: u64,
    /// Of the machine's run in which it was written.
    pub(super) boot_id: [u8; 16],
    /// Per partition id: the offset after the last acknowledged message.
    pub(super) ends: Vec<u64>,
}

/// The open file.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    turn: u64,
    buffer: Vec<u8>,
}

impl MarkFile {
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        let path = path(dir);
        let create = || -> std::io::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            // Written, not only reserved: later writes then need no metadata and cannot meet a full disk.
            file.write_all_at(&vec![0; 2 * SLOT], 0)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        Ok(Self {
            file: create().map_err(|e| Error::io("create", &path, &e))?,
            turn: 0,
            buffer: Vec::new(),
        })
    }

    /// Opens and reads; no readable slot is damage.
    pub(super) fn open(dir: &Path) -> Result<(Self, Mark), Error> {
        let path = path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::damaged(format!("the high-water mark {} is missing", path.display()))
                }
                _ => Error::io("open", &path, &e),
            })?;
        let mut bytes = vec![0; 2 * SLOT];
        file.read_exact_at(&mut bytes, 0).map_err(|e| {
            Error::damaged(format!(
                "the high-water mark {} is cut short ({e})",
                path.display()
            ))
        })?;
        let newest = bytes
            .chunks(SLOT)
            .filter_map(decode)
            .max_by_key(|(turn, _)| *turn);
        let (turn, mark) = newest.ok_or_else(|| {
            Error::damaged(format!(
                "the high-water mark {} is not readable",
                path.display()
            ))
        })?;
        let this = Self {
            file,
            turn,
            buffer: Vec::new(),
        };
        Ok((this, mark))
    }

    /// Writes the next slot; durable on return when `sync`.
    pub(super) fn write(&mut self, mark: &Mark, sync: bool) -> std::io::Result<()> {
        let turn = self.turn + 1;
        encode(mark, turn, &mut self.buffer);
        let at = (turn % 2) * SLOT as u64;
        self.file.write_all_at(&self.buffer, at)?;
        if sync {
            self.file.sync_data()?;
        }
        self.turn = turn;
        Ok(())
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn encode(mark: &Mark, turn: u64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&turn.to_le_bytes());
    out.extend_from_slice(&mark.seq.to_le_bytes());
    out.extend_from_slice(&mark.synced_seq.to_le_bytes());
    out.extend_from_slice(&mark.boot_id);
    out.extend_from_slice(&(mark.ends.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for end in &mark.ends {
        out.extend_from_slice(&end.to_le_bytes());
    }
    let crc = crc32c::crc32c(out.get(4..).unwrap_or_default());
    if let Some(place) = out.first_chunk_mut::<4>() {
        *place = crc.to_le_bytes();
    }
}

fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
    let word = |at: usize| {
        slot.get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    let long = |at: usize| {
        slot.get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    let count = word(48)? as usize;
    let used = slot.get(..HEAD.checked_add(count.checked_mul(8)?)?)?;
    if crc32c::crc32c(used.get(4..)?) != word(0)? || word(4)? != VERSION {
        return None;
    }
    let (ends, _) = used.get(HEAD..)?.as_chunks::<8>();
    let mark = Mark {
        seq: long(16)?,
        synced_seq: long(24)?,
        boot_id: slot.get(32..48)?.try_into().ok()?,
        ends: ends.iter().map(|b| u64::from_le_bytes(*b)).collect(),
    };
    Some((long(8)?, mark))
}

/// Identifies this run of the machine; zero where the system does not say.
pub(super) fn boot_id() -> [u8; 16] {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| uuid::Uuid::parse_str(text.trim()).ok())
        .map(uuid::Uuid::into_bytes)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: u64) -> Mark {
        Mark {
            seq,
            synced_seq: seq,
            boot_id: [3; 16],
            ends: vec![seq * 10, 7],
        }
    }

    #[test]
    fn the_newest_slot_is_read_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = MarkFile::create(dir.path()).unwrap();
        for seq in 1..=3 {
            file.write(&mark(seq), true).unwrap();
        }
        assert_eq!(MarkFile::open(dir.path()).unwrap().1, mark(3));
        // Turns 3 and 2.
        let (newest, older) = (SLOT as u64, 0);
        file.file.write_all_at(&[0xff; 40], newest + 20).unwrap();
        assert_eq!(MarkFile::open(dir.path()).unwrap().1, mark(2));
        file.file.write_all_at(&[0xff; 40], older + 20).unwrap();
        assert!(matches!(
            MarkFile::open(dir.path()),
            Err(Error::Damaged { .. })
        ));
    }
}
