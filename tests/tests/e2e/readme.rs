//! The commands of README, as they stand there, by somebody who has just installed the binary
//! (acceptance 6). `cargo xtask demo` and `cargo xtask test` are steps of the test command itself.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use wasmill_tests::process::until;
use wasmill_tests::site::{host_binary, root};

/// The lines of README's code blocks that begin with `wasmill`, without their comments.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let commands: Vec<String> = readme
        .lines()
        .filter(|line| line.starts_with("wasmill "))
        .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
        .collect();
    assert!(commands.len() >= 7, "{commands:?}");
    commands
}

fn shell(line: &str, folder: &Path) -> Command {
    let path = format!(
        "{}:{}",
        host_binary().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new("bash");
    command
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("WASMILL_DATA_DIR")
        .stdin(Stdio::null());
    command
}

fn run(line: &str, folder: &Path) -> Output {
    let output = shell(line, folder).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    output
}

struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.0);
        let _sent = kill_process(pid, Signal::TERM);
        let _ended = self.0.wait();
    }
}

#[test]
fn every_command_of_readme_does_what_it_says() {
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let mut commands = commands().into_iter();
    let new = commands.next().unwrap();
    assert_eq!(new, "wasmill new rust hello && cd hello");
    run(&new, folder.path());
    let project = folder.path().join("hello");

    let build = commands.next().unwrap();
    assert!(build.starts_with("wasmill build"), "{build}");
    run(&build, &project);
    println!("new and build took {:?}", began.elapsed());

    // Only the ports differ: another host may have the usual ones.
    let pipeline = project.join("pipeline.yaml");
    let text = std::fs::read_to_string(&pipeline).unwrap();
    let ports =
        "host: { admin: { listen: \"127.0.0.1:0\" }, health: { listen: \"127.0.0.1:0\" } }\n";
    std::fs::write(&pipeline, format!("{text}{ports}")).unwrap();
    let start = commands.next().unwrap();
    assert_eq!(start, "wasmill run pipeline.yaml");
    let log = std::fs::File::create(folder.path().join("host.log")).unwrap();
    let host = shell(&format!("exec {start}"), &project)
        .stderr(log)
        .spawn()
        .unwrap();
    let _host = Host(host);
    let admin = project.join("wasmill-data/admin.json");
    until("the host runs", || admin.exists().then_some(()));

    let mut seen = String::new();
    for line in commands {
        // The host works while the next command is typed.
        let output = until(&line, || {
            let output = run(&line, &project);
            let is_early = line.contains("consume") && output.stdout.is_empty();
            (!is_early).then_some(output)
        });
        seen.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    assert!(seen.contains("Hello"), "the greeting is consumed: {seen}");
    println!("from new to the first greeting: {:?}", began.elapsed());
}
