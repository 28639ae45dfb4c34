//! Who may open a data directory: the lock file with its holder's pid (§10.3) and the format file
//! that names the version of everything in the directory (§13.4).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::error::Error;

/// The version this build writes and the newest it reads.
pub(super) const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";

/// Held as long as the directory is open; the operating system releases it when the process dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// Where the creation of a directory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// No format file.
    Absent,
    /// Creation began and did not end: nothing was ever acknowledged.
    Creating,
    Ready,
}

impl DirectoryLock {
    pub(super) fn acquire(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))?;
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(Error::io("lock", &path, &errno.into()));
            }
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            return Err(Error::Held {
                dir: Arc::from(dir.display().to_string()),
                holder: Arc::from(if known {
                    holder.trim()
                } else {
                    "another process"
                }),
            });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}", std::process::id()))
            .map_err(|e| Error::io("write", &path, &e))?;
        Ok(Self { _file: file })
    }
}

impl Format {
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FORMAT_FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(e) => return Err(Error::io("read", &path, &e)),
        };
        let (version, state) = parse(&text).ok_or_else(|| {
            Error::damaged(format!("the file {} is not readable", path.display()))
        })?;
        if version > FORMAT {
            return Err(Error::Newer {
                dir: Arc::from(dir.display().to_string()),
                found: version,
                known: FORMAT,
            });
        }
        Ok(state)
    }

    pub(super) fn write(self, dir: &Path) -> Result<(), Error> {
        let word = if self == Self::Ready {
            "ready"
        } else {
            "creating"
        };
        let line = format!("wasmill log format {FORMAT} {word}");
        let text = format!("{line} crc32c {:08x}\n", crc32c::crc32c(line.as_bytes()));
        let path = dir.join(FORMAT_FILE);
        let new = dir.join("format.new");
        File::create(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(|e| Error::io("write", &path, &e))
    }
}

fn parse(text: &str) -> Option<(u32, Format)> {
    let (line, crc) = text.strip_suffix('\n')?.split_once(" crc32c ")?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(line.as_bytes()) {
        return None;
    }
    let rest = line.strip_prefix("wasmill log format ")?;
    let (version, word) = rest.split_once(' ')?;
    let state = if word == "creating" {
        Format::Creating
    } else {
        Format::Ready
    };
    Some((version.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let line = "wasmill log format 7 ready";
        std::fs::write(
            dir.path().join(FORMAT_FILE),
            format!("{line} crc32c {:08x}\n", crc32c::crc32c(line.as_bytes())),
        )
        .unwrap();
        assert!(matches!(
            Format::read(dir.path()),
            Err(Error::Newer {
                found: 7,
                known: FORMAT,
                ..
            })
        ));
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(dir.path()).unwrap();
        let error = DirectoryLock::acquire(dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(DirectoryLock::acquire(dir.path()).is_ok());
    }
}
