//! Which files make a configuration, and their text.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::problem::{Code, Problems, Source};
use super::yaml::FILE_LEN_MAX;

/// Files of one configuration.
pub(super) const FILES_MAX: usize = 256;

/// Reads the files and the `*.yaml` and `*.yml` of the folders, by name, into the sources.
pub(super) fn read(paths: &[PathBuf], problems: &mut Problems) {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            folder(path, &mut files, problems);
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    if files.len() > FILES_MAX
        && let Some(extra) = files.get(FILES_MAX)
    {
        let message = format!("there are more than {FILES_MAX} files");
        problems.file(
            Code::TooBig,
            extra,
            message,
            "put several pipelines into one file",
        );
    }
    for path in files.into_iter().take(FILES_MAX) {
        file(path, problems);
    }
}

fn folder(path: &Path, files: &mut Vec<PathBuf>, problems: &mut Problems) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            problems.file(
                Code::Unreadable,
                path,
                format!("the folder cannot be read: {error}"),
                "check its permissions",
            );
            return;
        }
    };
    let mut found: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    found.retain(|path| {
        path.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml")
    });
    found.sort();
    if found.is_empty() {
        problems.file(
            Code::Unreadable,
            path,
            "the folder has no *.yaml and no *.yml",
            "name a file, or another folder",
        );
    }
    files.extend(found);
}

fn file(path: PathBuf, problems: &mut Problems) {
    if let Some(text) = text(&path, problems) {
        problems.sources.push(Source { path, text });
    }
}

/// The text of one file; `None` when it cannot be had, with the reason among the problems.
pub(super) fn text(path: &Path, problems: &mut Problems) -> Option<String> {
    let mut bytes = Vec::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        problems.file(
            Code::Unreadable,
            path,
            format!("the file cannot be read: {error}"),
            "check the path and its permissions",
        );
        return None;
    }
    if bytes.len() as u64 > FILE_LEN_MAX {
        problems.file(
            Code::TooBig,
            path,
            format!("the file is longer than {FILE_LEN_MAX} bytes"),
            "split it",
        );
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error
                .as_bytes()
                .iter()
                .take(valid)
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            let message = format!("the file is not UTF-8: byte {valid}, in line {line}");
            problems.file(Code::Unreadable, path, message, "save it as UTF-8");
            None
        }
    }
}
