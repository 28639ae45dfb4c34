//! One run of the host: started, watched through its ports and its log, ended by signal. It never
//! outlives the test. Not here: what it left behind (`checker`).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wasmill::admin::remote::Remote;
use wasmill::admin::token::{Address, Token};
use wasmill::admin::wire::Status;
use wasmill::pipeline::snapshot::PartitionSnapshot;

use crate::site::Site;

/// How long anything that must happen may take on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// How often a state is looked at.
pub const POLL: Duration = Duration::from_millis(5);

/// A running (or ended) host.
pub struct Process {
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
    /// Where this run's lines begin in the log.
    log_from: u64,
    remote: Option<Remote>,
    health: Option<SocketAddr>,
}

/// Looks until `look` gives something; panics with `what` at the deadline.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, &mut look).unwrap_or_else(|| panic!("{what}: not within {DEADLINE:?}"))
}

/// Looks until `look` gives something, at most so long.
pub fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

impl Process {
    /// `arguments` are more of `run`.
    pub(crate) fn spawn(
        binary: &Path,
        site: &Site,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let log = site.host_log();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let log_from = file.metadata().unwrap().len();
        let mut command = Command::new(binary);
        command
            .arg("run")
            .arg(site.config())
            .args(arguments)
            .env_remove("RUST_LOG")
            .env_remove("WASMILL_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        Self {
            child: command.spawn().unwrap(),
            data_dir: site.data_dir(),
            log,
            log_from,
            remote: None,
            health: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the admin port answers; panics with the log when the host ends instead.
    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.is_ready() {
            if let Some(status) = self.ended() {
                panic!(
                    "the host ended ({status}) at its start:\n{}",
                    self.log_text()
                );
            }
            assert!(
                Instant::now() < deadline,
                "the host does not answer:\n{}",
                self.log_text()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Whether the admin port answers yet.
    pub fn is_ready(&mut self) -> bool {
        if self.remote.is_some() {
            return true;
        }
        let Ok(Some(address)) = Address::read(&self.data_dir) else {
            return false;
        };
        if address.pid != self.pid() {
            return false;
        }
        let Ok(Some(token)) = Token::read(&self.data_dir) else {
            return false;
        };
        let remote = Remote::new(&format!("http://{}", address.admin), token).unwrap();
        if remote.status().is_err() {
            return false;
        }
        self.health = Some(address.health);
        self.remote = Some(remote);
        true
    }

    /// The admin port of a host that was ready.
    pub fn remote(&self) -> &Remote {
        self.remote.as_ref().expect("the host was not awaited")
    }

    pub fn status(&self) -> Status {
        self.remote().status().unwrap()
    }

    /// All partitions of all pipelines.
    pub fn partitions(&self) -> Vec<PartitionSnapshot> {
        let pipelines = self.status().pipelines;
        pipelines.into_iter().flat_map(|p| p.partitions).collect()
    }

    /// The health port of a host that was ready.
    pub fn health_address(&self) -> SocketAddr {
        self.health.expect("the host was not awaited")
    }

    /// Code and body of a page of the health port.
    pub fn health(&self, page: &str) -> (u16, String) {
        let address = self.health_address();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .build()
            .new_agent();
        let mut response = agent.get(format!("http://{address}{page}")).call().unwrap();
        let code = response.status().as_u16();
        (code, response.body_mut().read_to_string().unwrap())
    }

    /// The sum over all series of `name` whose labels contain all of `labels` (`outcome="success"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.health("/metrics");
        text.lines()
            .filter(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Whether every partition is known and finished. Until a worker has shown itself it is not.
    pub fn is_drained(&self) -> bool {
        let Ok(status) = self.remote().status() else {
            return false;
        };
        let mut pipelines = status.pipelines.iter().map(|p| &p.partitions);
        pipelines.all(|partitions| {
            let mut all = partitions.iter();
            !partitions.is_empty() && all.all(|p| p.committed >= p.end && p.held == 0)
        })
    }

    /// Waits until every pipeline has finished all that is in its topics.
    pub fn await_drained(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.is_drained() {
                return;
            }
            if let Some(status) = self.ended() {
                panic!("the host ended ({status}):\n{}", self.log_text());
            }
            assert!(
                Instant::now() < deadline,
                "not drained: {:?}\n{}",
                self.status(),
                self.log_text()
            );
            std::thread::sleep(POLL);
        }
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until the host ended by itself.
    pub fn await_end(&mut self) -> ExitStatus {
        let mut ended = None;
        within(DEADLINE, || {
            ended = self.ended();
            ended
        })
        .unwrap_or_else(|| panic!("the host still runs:\n{}", self.log_text()))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "the host had ended before it was killed:\n{}",
            self.log_text()
        );
    }

    /// SIGTERM, and a clean end.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.await_end();
        assert!(
            status.success(),
            "the host did not end well ({status}):\n{}",
            self.log_text()
        );
    }

    /// What this run has logged.
    pub fn log_text(&self) -> String {
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.log_from)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}
