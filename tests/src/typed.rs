//! Commands as a person types them: a line for a shell in one folder, and a host in another terminal.
//! Not here: what they should say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wasmill::admin::token::Address;

use crate::process::{until, within};
use crate::site::host_binary;

/// Where lines are typed.
pub struct Terminal {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Terminal {
    pub fn new(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            folder: folder.to_owned(),
            environment: environment.iter().map(own).collect(),
        }
    }

    fn shell(&self, line: &str) -> Command {
        let path = format!(
            "{}:{}",
            host_binary().parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env_remove("WASMILL_URL")
            .env_remove("WASMILL_TOKEN")
            .env_remove("WASMILL_DATA_DIR")
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Types a line, whatever comes of it.
    pub fn output(&self, line: &str) -> Output {
        self.shell(line).output().unwrap()
    }

    /// Types a line that must succeed, and gives what it wrote to stdout.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for a line that writes JSON.
    pub fn json(&self, line: &str) -> Value {
        let text = self.run(line);
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{line}: {why}: {text}"))
    }

    /// Starts a host in another terminal and waits until it answers; `data_dir` is where it works. Nothing
    /// is typed before it has the directory: the command would take it.
    pub fn host(&self, line: &str, data_dir: &Path, log: &Path) -> Host {
        let stderr = File::options().create(true).append(true).open(log).unwrap();
        let child = self
            .shell(&format!("exec {line}"))
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut host = Host(child);
        until("the host answers", || {
            if let Some(status) = host.0.try_wait().unwrap() {
                let said = std::fs::read_to_string(log).unwrap();
                panic!("{line} ended ({status}): {said}");
            }
            let address = Address::read(data_dir).ok()??;
            (address.pid == host.0.id() && self.status().is_some()).then_some(())
        });
        host
    }

    /// `wasmill status`, when it answers.
    pub fn status(&self) -> Option<Value> {
        let output = self.output("wasmill status -o json");
        if !output.status.success() {
            return None;
        }
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until every pipeline that reads `topic` has finished so many of its messages, and holds none.
    pub fn await_finished(&self, topic: &str, messages: u64) {
        until("everything is finished", || {
            let status = self.status()?;
            let done = |pipeline: &Value| {
                let partitions = pipeline["partitions"].as_array().unwrap().iter();
                let own = partitions.filter(|one| one["topic"] == topic);
                let committed: u64 = own
                    .clone()
                    .filter_map(|one| one["committed"].as_u64())
                    .sum();
                committed == messages && own.clone().all(|one| one["held"] == 0)
            };
            status["pipelines"]
                .as_array()?
                .iter()
                .all(done)
                .then_some(())
        });
    }
}

/// A running host.
pub struct Host(Child);

impl Host {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        if matches!(self.0.try_wait(), Ok(None)) {
            let _sent = kill_process(pid, Signal::TERM);
            let ended = within(std::time::Duration::from_secs(40), || {
                self.0.try_wait().ok().flatten()
            });
            if ended.is_none() {
                let _killed = self.0.kill();
                let _waited = self.0.wait();
            }
        }
    }
}
