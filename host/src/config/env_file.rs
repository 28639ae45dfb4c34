//! Files of variables (`--env-file`): `NAME=value` lines, `#` comments, quotes, nothing expanded. Their
//! values may be secret, so no problem shows a line of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files;
use super::problem::{Code, Problems};

/// Variables of all files.
const VARIABLES_MAX: usize = 10_000;

/// What the files say, a later one before an earlier one.
#[derive(Debug, Default)]
pub(super) struct Variables {
    values: BTreeMap<String, (String, PathBuf)>,
}

impl Variables {
    pub(super) fn read(paths: &[PathBuf], problems: &mut Problems) -> Self {
        let mut variables = Self::default();
        for path in paths {
            if let Some(text) = files::text(path, problems) {
                variables.file(path, &text, problems);
            }
        }
        variables
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|(value, _)| value.clone())
    }

    /// The names whose value counts because `env` has none.
    pub(super) fn names(&self, env: &dyn Fn(&str) -> Option<String>) -> Vec<(String, PathBuf)> {
        let counts = self.values.iter().filter(|(name, _)| env(name).is_none());
        counts
            .map(|(name, (_, path))| (name.clone(), path.clone()))
            .collect()
    }

    fn file(&mut self, path: &Path, text: &str, problems: &mut Problems) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            match variable(trimmed) {
                Ok((name, value)) if self.values.len() < VARIABLES_MAX => {
                    self.values
                        .insert(name.to_owned(), (value, path.to_owned()));
                }
                Ok(_) => {
                    let message = format!("there are more than {VARIABLES_MAX} variables");
                    problems.file(Code::TooBig, path, message, "give fewer");
                    return;
                }
                Err(why) => {
                    let message = format!("line {}: {why}", at + 1);
                    let help = "expected NAME=value, NAME=\"value\" or NAME='value'";
                    problems.file(Code::Syntax, path, message, help);
                }
            }
        }
    }
}

/// Name and value of a line that is neither empty nor a comment.
fn variable(line: &str) -> Result<(&str, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("it has no `=`")?;
    let name = name.trim_end();
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        return Err("what stands before `=` is not a name of letters, digits and `_`");
    }
    Ok((name, value_of(value.trim_start())?))
}

fn value_of(text: &str) -> Result<String, &'static str> {
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let inside = text.strip_prefix('\'').unwrap_or_default();
            let (value, rest) = inside.split_once('\'').ok_or("the quote is not closed")?;
            (value.to_owned(), rest)
        }
        Some('"') => double_quoted(text.strip_prefix('"').unwrap_or_default())?,
        _ => {
            let end = text.find(" #").or_else(|| text.find("\t#"));
            let value = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
            return Ok(value.trim_end().to_owned());
        }
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err("something stands behind the closing quote")
    }
}

fn double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other @ ('"' | '\\' | '$'))) => value.push(other),
                _ => return Err("a `\\` stands before what it cannot escape"),
            },
            c => value.push(c),
        }
    }
    Err("the quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_a_value_and_nothing_is_expanded() {
        for (line, name, value) in [
            ("A=1", "A", "1"),
            ("export A_B = x y  # why", "A_B", "x y"),
            ("A=", "A", ""),
            ("A=a#b", "A", "a#b"),
            ("A='$B \\n' # c", "A", "$B \\n"),
            (r#"A="x \"y\"\n${B}""#, "A", "x \"y\"\n${B}"),
        ] {
            assert_eq!(variable(line), Ok((name, value.to_owned())), "{line}");
        }
        for bad in [
            "A",
            "=1",
            "1A=2",
            "A B=1",
            "A='x",
            "A=\"x",
            "A='x' y",
            r#"A="\q""#,
        ] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_max_bounds_a_file() {
        let text: String = (0..=VARIABLES_MAX).map(|n| format!("A{n}=x\n")).collect();
        let mut problems = Problems::default();
        let mut variables = Variables::default();
        variables.file(Path::new("e"), &text, &mut problems);
        assert!(problems.has_errors());
        assert_eq!(variables.values.len(), VARIABLES_MAX);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_never_shown() {
        let mut problems = Problems::default();
        let mut variables = Variables::default();
        variables.file(Path::new("e"), "A=1\nhunter2\n", &mut problems);
        let (found, sources) = problems.finish();
        let shown = super::super::render(&found, &sources, false);
        assert!(shown.contains("line 2"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
