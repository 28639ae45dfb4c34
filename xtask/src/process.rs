//! Running other programs: which ones, where, and that none of them outlives this one. Not here: what
//! they are run for.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What went wrong, for a person.
pub(crate) type Error = Box<dyn std::error::Error>;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where cargo puts what it builds for this workspace.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// One program to run, from the root of the repository.
#[derive(Debug)]
pub(crate) struct Program(Command);

/// The cargo that runs this.
pub(crate) fn cargo() -> Program {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub(crate) fn program(name: impl AsRef<OsStr>) -> Program {
    let mut command = Command::new(name);
    // Guests are built by other toolchains and workspaces: what cargo told xtask is not for them.
    for inherited in ["RUSTC", "RUSTDOC", "CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"] {
        command.env_remove(inherited);
    }
    command.current_dir(root()).stdin(Stdio::null());
    Program(command)
}

impl Program {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Runs it with its output going to the terminal; an exit code other than 0 is an error.
    pub(crate) fn succeed(mut self) -> Result<(), Error> {
        let status = self.0.status().map_err(|error| self.not_started(&error))?;
        self.check(status, "")
    }

    /// Runs it and returns what it printed; an exit code other than 0 is an error with what it said.
    pub(crate) fn output(mut self) -> Result<String, Error> {
        let output = self.0.output().map_err(|error| self.not_started(&error))?;
        self.check(output.status, &String::from_utf8_lossy(&output.stderr))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it, shows each line it prints and gives it to `each`. Returns how it ended.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Result<ExitStatus, Error> {
        self.0.stdout(Stdio::piped());
        let mut running = Running(self.0.spawn().map_err(|error| self.not_started(&error))?);
        if let Some(stdout) = running.0.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                each(&line);
            }
        }
        Ok(running.0.wait()?)
    }

    /// Starts it with its output appended to the file `log`; dropping the result kills it.
    pub(crate) fn spawn(mut self, log: &Path) -> Result<Running, Error> {
        let file = std::fs::File::create(log)?;
        self.0.stderr(file.try_clone()?).stdout(file);
        let child = self.0.spawn().map_err(|error| self.not_started(&error))?;
        Ok(Running(child))
    }

    fn check(&self, status: ExitStatus, said: &str) -> Result<(), Error> {
        if status.success() {
            return Ok(());
        }
        Err(format!("`{}` failed ({status})\n{said}", self.line())
            .trim_end()
            .into())
    }

    fn not_started(&self, error: &std::io::Error) -> Error {
        format!("cannot run `{}`: {error}", self.line()).into()
    }

    /// The command as one would type it.
    fn line(&self) -> String {
        let mut words: Vec<OsString> = vec![self.0.get_program().to_owned()];
        words.extend(self.0.get_args().map(OsStr::to_owned));
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }
}

/// A child that is killed when this is dropped, so that no way out of here leaves it behind.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Fails when the child has ended.
    pub(crate) fn still_runs(&mut self) -> Result<(), Error> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("it ended by itself ({status})").into()),
        }
    }

    /// Asks it to end (SIGTERM) and waits up to `limit`; an exit code other than 0 is an error.
    pub(crate) fn terminate(mut self, limit: Duration) -> Result<(), Error> {
        program("sh")
            .args(["-c", &format!("kill -TERM {}", self.0.id())])
            .succeed()?;
        let asked = Instant::now();
        while asked.elapsed() < limit {
            if let Some(status) = self.0.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("it ended with {status}").into())
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it did not end within {} s of SIGTERM", limit.as_secs()).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Ending anyway: nothing is left to do about a child that cannot be killed.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
