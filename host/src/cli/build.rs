//! `wasmill build`: a cargo project becomes one plugin file beside it. Cargo compiles, this host makes
//! the component; nothing else needs to be installed. Not here: what a component is
//! (`plugin::componentize`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::Value;

use super::error::Error;
use super::output::{self, Format, Out};
use super::{plugin, text};
use crate::plugin::{componentize, inspect};

const TARGET: &str = "wasm32-unknown-unknown";

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The project, where its Cargo.toml is
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Where the plugin goes [default: NAME.wasm in the project]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compile nothing: make the plugin of this core module, whatever compiler it is from
    #[arg(
        long,
        value_name = "FILE",
        requires = "out",
        conflicts_with = "project"
    )]
    module: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(build: &Build, out: &mut Out) -> Result<(), Error> {
    let (core, target) = match (&build.module, &build.out) {
        (Some(module), Some(target)) => (module.clone(), target.clone()),
        (_, target) => {
            let (core, beside) = build_project(&build.project)?;
            (core, target.clone().unwrap_or(beside))
        }
    };
    let core = fs::read(&core)
        .map_err(|why| Error::failed(format!("cannot read {}: {why}", core.display()), ""))?;
    let component = componentize(&core).map_err(|why| Error::failed(why.to_string(), ""))?;
    replace(&target, &component)?;
    let inspection = inspect(&target).map_err(|why| Error::failed(why.to_string(), ""))?;
    if let Format::Json = build.output {
        return out.json(&inspection);
    }
    out.line(format!(
        "built {}",
        out.bold(&text::escape(&target.display().to_string()))
    ))?;
    plugin::show(&inspection, out)
}

/// Compiles the project; returns its core module and where its plugin goes by default.
fn build_project(project: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let manifest = project.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::failed(
            format!("there is no {}", manifest.display()),
            "name the project's folder, or make a project with `wasmill new rust NAME`",
        ));
    }
    ensure_target(project)?;
    let name = package_name(project)?;
    let core = compile(project, &name)?;
    Ok((core, project.join(format!("{name}.wasm"))))
}

/// Without the target cargo fails with a page of missing `core`; rustup can add it.
fn ensure_target(project: &Path) -> Result<(), Error> {
    let sysroot = answer(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(project),
        "rustc",
    )?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    if library.is_dir() {
        return Ok(());
    }
    output::note(&format!("adding the Rust target {TARGET} (once)"));
    let by_hand = "add it by hand: `rustup target add wasm32-unknown-unknown`, or install your system's package of it";
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(project)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::failed(
            format!("rustup could not add the target {TARGET}"),
            by_hand,
        )),
        Err(why) => Err(Error::failed(
            format!("the Rust target {TARGET} is not installed, and rustup cannot be run: {why}"),
            by_hand,
        )),
    }
}

fn package_name(project: &Path) -> Result<String, Error> {
    let metadata = answer(
        Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(project),
        "cargo",
    )?;
    let metadata: Value = serde_json::from_str(&metadata).unwrap_or_default();
    let manifest = fs::canonicalize(project.join("Cargo.toml"))?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    packages
        .into_iter()
        .flatten()
        .find(|package| {
            let path = package.get("manifest_path").and_then(Value::as_str);
            path.and_then(|path| fs::canonicalize(path).ok()) == Some(manifest.clone())
        })
        .and_then(|package| package.get("name")?.as_str().map(ToOwned::to_owned))
        .ok_or_else(|| {
            Error::failed(
                format!("{} has no package", manifest.display()),
                "name the folder of a package, not of a workspace",
            )
        })
}

/// Compiles and returns the core module.
fn compile(project: &Path, name: &str) -> Result<PathBuf, Error> {
    let messages = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET])
        .args(["--package", name])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(project)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| not_there("cargo", &why))?;
    if !messages.status.success() {
        // Cargo has said what is wrong.
        return Err(Error::failed("the handler does not compile", ""));
    }
    let made = String::from_utf8_lossy(&messages.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| module_of(&message, project))
        .next_back();
    made.ok_or_else(|| {
        Error::failed(
            format!("{name} builds, but makes no WebAssembly module"),
            "give it `[lib] crate-type = [\"cdylib\"]` in its Cargo.toml",
        )
    })
}

/// The file of a cdylib that belongs to the project (dependencies may make modules too).
fn module_of(message: &Value, project: &Path) -> Option<PathBuf> {
    let is = |name: &str, wanted: &str| message.get(name).and_then(Value::as_str) == Some(wanted);
    let manifest = message.get("manifest_path")?.as_str()?;
    let own =
        fs::canonicalize(project.join("Cargo.toml")).ok()? == fs::canonicalize(manifest).ok()?;
    if !is("reason", "compiler-artifact") || !own {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    let mut modules = files.iter().filter_map(Value::as_str);
    modules
        .find(|file| file.ends_with(".wasm"))
        .map(PathBuf::from)
}

fn answer(command: &mut Command, program: &str) -> Result<String, Error> {
    let asked = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| not_there(program, &why))?;
    if !asked.status.success() {
        return Err(Error::failed(
            format!("{program} failed"),
            "see what it says above",
        ));
    }
    Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
}

fn not_there(program: &str, why: &io::Error) -> Error {
    Error::failed(
        format!("cannot run {program}: {why}"),
        "install Rust with rustup, and see that cargo is in PATH",
    )
}

/// Writes beside the file and renames: a host that starts meanwhile sees the old or the new plugin.
fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("wasm.new");
    fs::write(&fresh, content)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|why| {
            Error::failed(
                format!("cannot write {}: {why}", path.display()),
                "check the folder and its permissions",
            )
        })
}
