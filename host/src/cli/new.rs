//! `wasmill new LANG NAME`: writes a project that builds, passes its tests and runs. Not here: what is
//! in it (`host/templates/`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::error::Error;
use super::output::Out;
use super::text;

#[path = "../../templates/rust.rs"]
mod rust_project;

/// Longest name of a project: it becomes a crate, a pipeline and a consumer group.
const NAME_LEN_MAX: usize = 64;
/// Words that cargo does not take as the name of a package.
const RESERVED: [&str; 12] = [
    "as",
    "const",
    "crate",
    "enum",
    "fn",
    "for",
    "if",
    "impl",
    "self",
    "super",
    "test",
    "wasmill-sdk",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
}

#[derive(Debug, Args)]
pub(super) struct New {
    #[arg(value_enum)]
    language: Language,
    /// Name of the handler and of the folder that is made
    name: String,
    /// Make the folder in this one
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,
}

pub(super) fn run(new: &New, out: &mut Out) -> Result<(), Error> {
    let Language::Rust = new.language;
    check_name(&new.name)?;
    let here = new.path.as_os_str() == ".";
    let folder = if here {
        PathBuf::from(&new.name)
    } else {
        new.path.join(&new.name)
    };
    make_empty(&folder)?;
    for (path, content) in rust_project::FILES {
        write(&folder.join(path), &content.replace("{{name}}", &new.name))?;
    }
    for (path, content) in rust_project::SDK_FILES {
        write(&folder.join(path), content)?;
    }
    let schema = serde_json::to_string_pretty(&crate::config::schema()).unwrap_or_default();
    write(&folder.join("wasmill.schema.json"), &format!("{schema}\n"))?;
    let shown = text::escape(&folder.display().to_string()).into_owned();
    out.line(format!("made {}", out.bold(&shown)))?;
    out.line("")?;
    out.line("next:")?;
    out.line(format!("  cd {shown}"))?;
    out.line("  cargo test                  # the handler as a plain function")?;
    out.line(format!(
        "  wasmill build               # makes {}.wasm",
        new.name
    ))?;
    out.line("  wasmill run pipeline.yaml")
}

fn check_name(name: &str) -> Result<(), Error> {
    let legal = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if legal && !RESERVED.contains(&name) {
        return Ok(());
    }
    Err(Error::usage(
        format!("{:?} cannot be the name of a project", text::escape(name)),
        format!(
            "use 1 to {NAME_LEN_MAX} of a-z 0-9 - _, a letter first, and no word of Rust; --path says where it goes"
        ),
    ))
}

fn make_empty(folder: &Path) -> Result<(), Error> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Err(Error::failed(
            format!("{} is there already", folder.display()),
            "choose another name, or remove it",
        )),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Err(Error::failed(
            format!(
                "cannot make {}: its parent folder is not there",
                folder.display()
            ),
            "correct --path, or make that folder first",
        )),
        Err(why) => Err(failed(folder, &why)),
    }
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|why| failed(parent, &why))?;
    }
    fs::write(path, content).map_err(|why| failed(path, &why))
}

fn failed(path: &Path, why: &io::Error) -> Error {
    Error::failed(
        format!("cannot write {}: {why}", path.display()),
        "check the folder and its permissions",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cargo_or_a_path_would_refuse_are_refused_here() {
        for good in ["hello", "order-enrichment", "a_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Hello",
            "1a",
            "-a",
            "a b",
            "../x",
            "a/b",
            "ä",
            "test",
            &"x".repeat(65),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_project_is_written_whole_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let new = New {
            language: Language::Rust,
            name: "hello".into(),
            path: dir.path().to_owned(),
        };
        run(&new, &mut Out::stdout()).unwrap();
        let manifest = fs::read_to_string(dir.path().join("hello/Cargo.toml")).unwrap();
        assert!(manifest.contains("name = \"hello\""), "{manifest}");
        assert!(dir.path().join("hello/.wasmill/sdk/src/lib.rs").is_file());
        assert!(matches!(
            run(&new, &mut Out::stdout()),
            Err(Error::Failed { .. })
        ));
    }
}
