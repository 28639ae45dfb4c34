//! The host's log lines in files of its data directory, `logs/host.<n>.jsonl`, the highest number the
//! newest. A thread of its own writes them: who logs hands a line over and never waits; what the bounds
//! do not let through is counted, and the count is a line of its own. Written through to the operating
//! system, so that lines survive a killed host. Not here: how a line looks (`logging.rs`), who reads
//! them (`admin/logs.rs`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Their place in the data directory.
pub const LOGS_DIR: &str = "logs";
/// Lines that wait to be written.
pub const LOG_QUEUE_LINES_MAX: usize = 8_192;
/// Bytes of the lines that wait to be written.
pub const LOG_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines written in one second.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 5_000;
/// How often the count of dropped lines is written while there are any.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a flush waits.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes after which a file is followed by the next.
    pub size: u64,
    /// Files kept, the one being written included.
    pub files: u32,
}

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Where log lines are handed over. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sink {
    queue: SyncSender<Item>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The other end of a sink: lines wait in it until the host knows where its files are.
pub struct Keeper {
    sink: Sink,
    waiting: Option<Receiver<Item>>,
}

pub(super) fn pair() -> (Sink, Keeper) {
    let (queue, waiting) = sync_channel(LOG_QUEUE_LINES_MAX);
    let sink = Sink {
        queue,
        waiting_bytes: Arc::default(),
        dropped: Arc::default(),
    };
    let waiting = Some(waiting);
    (sink.clone(), Keeper { sink, waiting })
}

impl Keeper {
    /// Begins to write into `folder`, what was logged before included. Only the process that holds the
    /// data directory may.
    pub fn open(&mut self, folder: &Path, bounds: Bounds) -> io::Result<()> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let files = Files::open(folder, bounds)?;
        let sink = self.sink.clone();
        std::thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || keep(files, &waiting, &sink))?;
        Ok(())
    }

    /// Nothing goes to files: what waits is let go, and no more is taken.
    pub fn off(&mut self) {
        self.waiting = None;
    }

    /// Waits, at most two seconds, until what was logged so far is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let until = Instant::now() + FLUSH_TIME_MAX;
        let mut item = Item::Flush(done);
        loop {
            match self.sink.queue.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < until => {
                    item = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
        if self.waiting.is_none() {
            let _late = written.recv_timeout(FLUSH_TIME_MAX);
        }
    }
}

impl Sink {
    fn hand_over(&self, line: &[u8]) {
        let before = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = before.saturating_add(line.len()) <= LOG_QUEUE_BYTES_MAX;
        let sent = fits.then(|| self.queue.try_send(Item::Line(line.to_vec())));
        if !matches!(sent, Some(Ok(()))) {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.hand_over(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Lines let through in this second.
struct Rate {
    since: Instant,
    lines: u32,
}

impl Rate {
    fn lets_through(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LOG_LINES_PER_SECOND_MAX
    }
}

fn keep(mut files: Files, waiting: &Receiver<Item>, sink: &Sink) {
    let mut rate = Rate {
        since: Instant::now(),
        lines: 0,
    };
    let mut told_at = Instant::now();
    loop {
        let received = waiting.recv_timeout(TELL_EVERY);
        // Also while lines keep coming: that is when some are dropped.
        if told_at.elapsed() >= TELL_EVERY {
            tell_dropped(&mut files, sink);
            told_at = Instant::now();
        }
        match received {
            Ok(Item::Line(line)) => {
                sink.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                if !rate.lets_through(Instant::now()) || files.write(&line).is_err() {
                    sink.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(Item::Flush(done)) => {
                tell_dropped(&mut files, sink);
                let _nobody_waits = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn tell_dropped(files: &mut Files, sink: &Sink) {
    let lines = sink.dropped.swap(0, Ordering::Relaxed);
    if lines == 0 {
        return;
    }
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let line = serde_json::json!({
        "timestamp_ms": now_ms,
        "level": "WARN",
        "message": "log lines were dropped: more came than the files take",
        "target": "wasmill::telemetry::log_files",
        "lines": lines,
    });
    if files.write(format!("{line}\n").as_bytes()).is_err() {
        sink.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The numbers of the files in `folder`, ascending.
pub fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            name.strip_prefix("host.")?
                .strip_suffix(".jsonl")?
                .parse::<u64>()
                .ok()
        });
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The path of a file.
#[must_use]
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("host.{number}.jsonl"))
}

/// The file being written, and those before it.
struct Files {
    folder: PathBuf,
    bounds: Bounds,
    number: u64,
    file: File,
    written: u64,
}

impl Files {
    fn open(folder: &Path, bounds: Bounds) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let number = numbers(folder)?.last().copied().unwrap_or(0);
        let mut file = appended(&path(folder, number))?;
        let mut written = file.metadata()?.len();
        // A host that was killed in the middle of a line must not spoil the next one.
        if written > 0 {
            file.write_all(b"\n")?;
            written += 1;
        }
        let mut files = Self {
            folder: folder.to_owned(),
            bounds,
            number,
            file,
            written,
        };
        files.remove_old();
        Ok(files)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written + line.len() as u64 > self.bounds.size {
            self.file = appended(&path(&self.folder, self.number + 1))?;
            self.number += 1;
            self.written = self.file.metadata()?.len();
            self.remove_old();
        }
        self.file.write_all(line)?;
        self.written += line.len() as u64;
        Ok(())
    }

    /// A file that cannot be removed now is removed at the next turn.
    fn remove_old(&mut self) {
        for number in numbers(&self.folder).unwrap_or_default() {
            if number + u64::from(self.bounds.files.max(1)) <= self.number {
                let _next_turn = fs::remove_file(path(&self.folder, number));
            }
        }
    }
}

fn appended(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // What handlers log may be about people.
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Bounds = Bounds {
        size: 100,
        files: 2,
    };

    fn text(folder: &Path) -> String {
        let numbers = numbers(folder).unwrap();
        numbers
            .iter()
            .map(|number| fs::read_to_string(path(folder, *number)).unwrap())
            .collect()
    }

    #[test]
    fn log_files_are_bounded_in_size_and_number_and_the_newest_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(folder.path(), SMALL).unwrap();
        for line in 0..50 {
            files
                .write(format!("line {line:030}\n").as_bytes())
                .unwrap();
        }
        let kept = numbers(folder.path()).unwrap();
        assert_eq!(kept.len(), 2, "{kept:?}");
        for number in kept {
            let len = fs::metadata(path(folder.path(), number)).unwrap().len();
            assert!(len <= SMALL.size, "{len}");
        }
        assert!(text(folder.path()).contains(&format!("line {:030}", 49)));
        assert!(!text(folder.path()).contains(&format!("line {:030}", 0)));
    }

    #[test]
    fn a_restarted_host_goes_on_in_the_newest_file_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            size: 1 << 20,
            files: 2,
        };
        Files::open(folder.path(), bounds)
            .unwrap()
            .write(b"{\"cut of")
            .unwrap();
        Files::open(folder.path(), bounds)
            .unwrap()
            .write(b"{}\n")
            .unwrap();
        assert_eq!(text(folder.path()), "{\"cut of\n{}\n");
    }

    #[test]
    fn lines_logged_before_the_files_are_open_are_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let (sink, mut keeper) = pair();
        sink.hand_over(b"early\n");
        keeper.open(folder.path(), SMALL).unwrap();
        sink.hand_over(b"late\n");
        keeper.flush();
        assert_eq!(text(folder.path()), "early\nlate\n");
    }

    #[test]
    fn who_logs_never_waits_and_dropped_lines_are_counted_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let (sink, mut keeper) = pair();
        for _ in 0..LOG_QUEUE_LINES_MAX + 7 {
            sink.hand_over(b"x\n");
        }
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 7);
        let bounds = Bounds {
            size: 1 << 20,
            files: 2,
        };
        keeper.open(folder.path(), bounds).unwrap();
        keeper.flush();
        let text = text(folder.path());
        let written = text.lines().filter(|line| *line == "x").count();
        assert_eq!(written, LOG_LINES_PER_SECOND_MAX as usize);
        let told = LOG_QUEUE_LINES_MAX + 7 - written;
        assert!(text.contains(&format!("\"lines\":{told}")), "{told}");
    }

    #[test]
    fn dropped_lines_are_told_while_lines_keep_coming() {
        let folder = tempfile::tempdir().unwrap();
        let (sink, mut keeper) = pair();
        for _ in 0..LOG_QUEUE_LINES_MAX + 7 {
            sink.hand_over(b"x\n");
        }
        let bounds = Bounds {
            size: 1 << 20,
            files: 2,
        };
        keeper.open(folder.path(), bounds).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !text(folder.path()).contains("were dropped") {
            assert!(Instant::now() < until, "nothing told of the dropped lines");
            sink.hand_over(b"y\n");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn lines_beyond_log_queue_bytes_max_are_dropped() {
        let (sink, _keeper) = pair();
        let line = vec![b'x'; LOG_QUEUE_BYTES_MAX / 4];
        for _ in 0..6 {
            sink.hand_over(&line);
        }
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 2);
    }
}
