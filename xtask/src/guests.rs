//! Building the guests under plugins/: each folder there that has a manifest of its own is a
//! workspace; each `cdylib` in it becomes one component. Not here: how a module becomes a component,
//! which the host knows (`wasmill build`).

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Error, Program, cargo, program, root, target_dir};
use crate::tools::{GuestToolchain, TARGET, guest_toolchain, web_compiler};

/// Where workspaces of guests may lie, below the root of the repository.
const GUEST_FOLDERS: [&str; 3] = ["plugins/examples", "plugins/hostile", "plugins/probe"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "dev" => Some(Self::Dev),
            "release" => Some(Self::Release),
            _ => None,
        }
    }

    /// The folder cargo uses for it.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// One guest crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Its package, and the name of its component.
    pub(crate) name: String,
    /// What cargo calls the module it makes.
    module: String,
}

/// One folder with a manifest of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestWorkspace {
    pub(crate) dir: PathBuf,
    pub(crate) guests: Vec<Guest>,
}

/// Where the components are put.
pub(crate) fn plugins_dir() -> PathBuf {
    target_dir().join("plugins")
}

/// Builds the host binary for use by people and returns where it is. The whole workspace is selected
/// so that dependencies are built with the same features as for the tests, and only once.
pub(crate) fn build_host(profile: Profile) -> Result<PathBuf, Error> {
    let mut build = cargo().args(["build", "--workspace", "--bin", "wasmill"]);
    if profile == Profile::Release {
        build = build.arg("--release");
    }
    build.succeed()?;
    Ok(host_binary(profile))
}

/// Where cargo puts the host binary.
pub(crate) fn host_binary(profile: Profile) -> PathBuf {
    target_dir().join(profile.folder()).join("wasmill")
}

/// `cargo xtask plugins`.
pub(crate) fn build_with_fresh_host() -> Result<(), Error> {
    let host = build_host(Profile::Dev)?;
    build(&host)?;
    println!("components are in {}", plugins_dir().display());
    Ok(())
}

/// Builds every guest and makes a component of each with `host`.
pub(crate) fn build(host: &Path) -> Result<(), Error> {
    let toolchain = guest_toolchain()?;
    for workspace in workspaces()? {
        compile(
            &toolchain,
            "build",
            &workspace.dir,
            &["--workspace", "--release"],
        )?;
        for guest in &workspace.guests {
            componentize(host, guest)?;
        }
    }
    Ok(())
}

/// Builds the guest `name` alone.
pub(crate) fn build_one(host: &Path, name: &str) -> Result<(), Error> {
    let toolchain = guest_toolchain()?;
    for workspace in workspaces()? {
        if let Some(guest) = workspace.guests.iter().find(|guest| guest.name == name) {
            compile(
                &toolchain,
                "build",
                &workspace.dir,
                &["--release", "--package", name],
            )?;
            return componentize(host, guest);
        }
    }
    Err(format!("no guest under plugins/ is called `{name}`").into())
}

/// Lints every guest for the target it runs on.
pub(crate) fn lint() -> Result<(), Error> {
    let toolchain = guest_toolchain()?;
    for workspace in workspaces()? {
        cargo()
            .args(["fmt", "--all", "--check"])
            .dir(&workspace.dir)
            .succeed()?;
        // Clippy comes with the host's own toolchain only.
        if toolchain == GuestToolchain::Own {
            compile(
                &toolchain,
                "clippy",
                &workspace.dir,
                &["--workspace", "--release", "--", "--deny", "warnings"],
            )?;
        }
    }
    Ok(())
}

/// Every workspace of guests, in order of their folders.
pub(crate) fn workspaces() -> Result<Vec<GuestWorkspace>, Error> {
    let mut found = Vec::new();
    for folder in GUEST_FOLDERS {
        let mut dirs = manifest_dirs(&root().join(folder))?;
        dirs.sort();
        for dir in dirs {
            let guests = guests_of(&dir)?;
            found.push(GuestWorkspace { dir, guests });
        }
    }
    Ok(found)
}

/// The topmost folders below (or at) `dir` that have a manifest.
fn manifest_dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    if dir.join("Cargo.toml").exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(found);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.append(&mut manifest_dirs(&path)?);
        }
    }
    Ok(found)
}

fn guests_of(dir: &Path) -> Result<Vec<Guest>, Error> {
    let text = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .dir(dir)
        .output()?;
    let metadata: Value = serde_json::from_str(&text)?;
    let mut guests = Vec::new();
    for package in metadata
        .get("packages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = package
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for target in package
            .get("targets")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let kinds = target.get("crate_types").and_then(Value::as_array);
            if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib")) {
                let module = target
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                guests.push(Guest {
                    name: name.to_owned(),
                    module: module.replace('-', "_"),
                });
            }
        }
    }
    Ok(guests)
}

/// Runs a cargo command for the guests' target in the workspace `dir`. All workspaces share one
/// target directory, so that what they have in common is compiled once.
fn compile(
    toolchain: &GuestToolchain,
    command: &str,
    dir: &Path,
    arguments: &[&str],
) -> Result<(), Error> {
    let mut cargo: Program = match toolchain {
        GuestToolchain::Own => cargo().arg(command),
        GuestToolchain::Web { linker } => {
            let (cargo, rustc) = web_compiler();
            program(cargo)
                .args([command, "-Zbuild-std=std,panic_abort"])
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        }
    };
    cargo = cargo
        .args(["--target", TARGET, "--target-dir"])
        .arg(guests_target());
    cargo.args(arguments).dir(dir).succeed()
}

fn componentize(host: &Path, guest: &Guest) -> Result<(), Error> {
    let module = guests_target()
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", guest.module));
    std::fs::create_dir_all(plugins_dir())?;
    program(host)
        .args(["build", "--module"])
        .arg(module)
        .arg("--out")
        .arg(plugins_dir().join(format!("{}.wasm", guest.name)))
        .output()
        .map(drop)
}

/// Where modules are built, and where the guests' own tests are.
pub(crate) fn guests_target() -> PathBuf {
    target_dir().join("guests")
}
