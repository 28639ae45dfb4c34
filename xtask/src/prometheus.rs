//! The Prometheus that tests give the rules of `wasmill alerts` to: Debian's package, unpacked under the
//! target directory. It is not installed: that would start a service of its own and need root for good.

use std::path::{Path, PathBuf};

use crate::process::{Error, program, target_dir};
use crate::tools::is_installed;

/// Makes sure that tests find `prometheus` and `promtool`, on the path or under the target directory.
pub(crate) fn prepare() -> Result<(), Error> {
    if is_installed("prometheus") && is_installed("promtool") {
        return Ok(());
    }
    let dir = target_dir().join("tools").join("prometheus");
    if is_complete(&dir) {
        return Ok(());
    }
    if !is_installed("apt-get") || !is_installed("dpkg-deb") {
        return Err(
            "no `prometheus` and `promtool` on the path; install both, then try again".into(),
        );
    }
    println!("unpacking Debian's prometheus under {}", dir.display());
    // What an interrupted run left is not unpacked over.
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    download(&dir)?;
    let package = package(&dir)?;
    program("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&dir)
        .output()?;
    std::fs::remove_file(package)?;
    if is_complete(&dir) {
        return Ok(());
    }
    Err(
        "Debian's prometheus has no `promtool`; put both programs on the path, then try again"
            .into(),
    )
}

fn is_complete(dir: &Path) -> bool {
    ["prometheus", "promtool"]
        .iter()
        .all(|name| is_installed(&dir.join("usr/bin").join(name).to_string_lossy()))
}

/// A new machine has no lists of packages, and making them needs root: only when they are missing.
fn download(dir: &Path) -> Result<(), Error> {
    let get = || {
        program("apt-get")
            .args(["download", "prometheus"])
            .dir(dir)
            .output()
    };
    if get().is_ok() {
        return Ok(());
    }
    program("apt-get").arg("update").output()?;
    get().map(drop)
}

fn package(dir: &Path) -> Result<PathBuf, Error> {
    let mut entries = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let found = entries.find(|path| path.extension().is_some_and(|ext| ext == "deb"));
    found.ok_or_else(|| "apt-get downloaded no package".into())
}
