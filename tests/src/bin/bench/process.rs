//! The real binary as a process: its memory at full speed, and how long it takes to its first output.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wasmill::admin::remote::Remote;
use wasmill::admin::token::{Address, Token};
use wasmill::admin::wire::ReadRequest;

use crate::report::{self, Row};
use crate::store::{self, INPUT};
use crate::{Arguments, hosted};

const POLL: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(120);
/// Messages of a start: enough for every partition.
const START_MESSAGES: u64 = 1_000;

/// Most resident memory of a host that works a topic off, MB.
pub(crate) fn memory(arguments: &Arguments) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let mut peaks = Vec::new();
    for round in 0..arguments.pairs.min(5) {
        let dir = arguments.dir.join(format!("memory-{round}"));
        store::prepare(&dir, arguments.messages)?;
        store::warm(&dir, &plugin)?;
        let process = Process::start(arguments, &dir, "memory", &plugin)?;
        let remote = process.remote()?;
        until("the topic is worked off", || {
            let status = remote.status().ok()?;
            let committed: u64 = status
                .pipelines
                .iter()
                .flat_map(|pipeline| &pipeline.partitions)
                .map(|partition| partition.committed)
                .sum();
            std::thread::sleep(Duration::from_millis(50));
            (committed >= arguments.messages).then_some(())
        })?;
        peaks.push(process.peak_mb()?);
        process.stop()?;
        store::clear(&dir)?;
    }
    report::rows(
        "Memory of the process at full speed (peak resident, VmHWM)",
        &[Row::new("resident memory, MB", peaks).limit(150.0)],
    );
    Ok(())
}

/// From the start of the process to its first output, with a warm compile cache, ms.
pub(crate) fn start(arguments: &Arguments) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let dir = arguments.dir.join("start");
    store::prepare(&dir, START_MESSAGES)?;
    store::warm(&dir, &plugin)?;
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    for round in 0..arguments.pairs.max(10) {
        let name = format!("start-{round}");
        let began = Instant::now();
        let process = Process::start(arguments, &dir, &name, &plugin)?;
        let remote = process.remote()?;
        ready.push(began.elapsed().as_secs_f64() * 1e3);
        let request = ReadRequest {
            partition: 0,
            offset: 0,
            limit: Some(1),
            wait_ms: Some(1_000),
        };
        let output = store::output_of(&name);
        until("the first output", || {
            let page = remote.read(&output, &request).ok()?;
            (!page.messages.is_empty()).then_some(())
        })?;
        first.push(began.elapsed().as_secs_f64() * 1e3);
        process.stop()?;
    }
    store::clear(&dir)?;
    report::rows(
        "Start of the process, warm compile cache",
        &[
            Row::new("to an admin port that answers, ms", ready),
            Row::new("to the first output that can be read, ms", first).limit(300.0),
        ],
    );
    Ok(())
}

/// A host that never outlives the bench.
struct Process {
    child: Child,
    dir: std::path::PathBuf,
}

impl Process {
    fn start(arguments: &Arguments, dir: &Path, name: &str, plugin: &Path) -> Result<Self, String> {
        let config = dir.join("pipeline.yaml");
        std::fs::write(&config, yaml(dir, name, plugin)?).map_err(|error| error.to_string())?;
        let child = Command::new(&arguments.host)
            .arg("run")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", arguments.host.display()))?;
        Ok(Self {
            child,
            dir: dir.to_owned(),
        })
    }

    /// Waits until the admin port answers.
    fn remote(&self) -> Result<Remote, String> {
        until("the admin port", || {
            let address = Address::read(&self.dir).ok()??;
            let token = Token::read(&self.dir).ok()??;
            if address.pid != self.child.id() {
                return None;
            }
            let remote = Remote::new(&format!("http://{}", address.admin), token).ok()?;
            remote.status().is_ok().then_some(remote)
        })
    }

    fn peak_mb(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6)
            .ok_or_else(|| "the kernel does not say VmHWM".to_owned())
    }

    fn stop(mut self) -> Result<(), String> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the host ended with {status}"))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > DEADLINE {
            return Err(format!("{what}: not within {DEADLINE:?}"));
        }
        std::thread::sleep(POLL);
    }
}

/// The configuration of `hosted`, as a user writes it.
fn yaml(dir: &Path, name: &str, plugin: &Path) -> Result<String, String> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| error.to_string());
    let (dir, plugin) = (absolute(dir)?, absolute(plugin)?);
    Ok(format!(
        "version: 1
host:
  data_dir: {}
  admin: {{ listen: \"127.0.0.1:0\" }}
  health: {{ listen: \"127.0.0.1:0\" }}
pipelines:
  - name: {name}
    source: {{ topics: [{INPUT}], consumer_group: {name}, start: earliest }}
    handler:
      plugin: {}
      concurrency: {}
    outputs:
      default: {{ topic: {} }}
",
        dir.display(),
        plugin.display(),
        hosted::WORKERS,
        store::output_of(name),
    ))
}
