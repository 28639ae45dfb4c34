//! Secrets by name: from the environment, or from a file that the environment names. Their values never
//! stand in a configuration, an error or a log. Not here: which fields are secrets.

use std::path::PathBuf;

use super::valid::SecretName;

/// Bytes of a secret's file; a longer one is refused.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Why a secret is not there; says its name and never its value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the secret {0} is not set; set the environment variable {0}, or {0}_FILE to the path of a file that holds it"
    )]
    Unset(String),
    #[error("the secret {0} is set twice; unset one of {0} and {0}_FILE")]
    Twice(String),
    #[error("the secret {name} cannot be read from {path}: {why}")]
    File {
        name: String,
        path: PathBuf,
        why: String,
    },
}

/// The value of the secret, without the line break that editors leave at the end of a file.
pub fn read(name: &SecretName) -> Result<String, Error> {
    let name = name.0.as_str();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    from(name, variable(name), variable(&format!("{name}_FILE")))
}

fn from(name: &str, value: Option<String>, file: Option<String>) -> Result<String, Error> {
    match (value, file) {
        (Some(_), Some(_)) => Err(Error::Twice(name.to_owned())),
        (Some(value), None) => Ok(value),
        (None, None) => Err(Error::Unset(name.to_owned())),
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            let failed = |why: String| Error::File {
                name: name.to_owned(),
                path: path.clone(),
                why,
            };
            let len = std::fs::metadata(&path)
                .map_err(|why| failed(why.to_string()))?
                .len();
            if len > SECRET_BYTES_MAX {
                return Err(failed(format!("it has over {SECRET_BYTES_MAX} bytes")));
            }
            let text = std::fs::read_to_string(&path).map_err(|why| failed(why.to_string()))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_the_environment_or_a_file_and_not_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "from a file\n").unwrap();
        let file = || Some(path.display().to_string());
        assert_eq!(from("S", Some("v".into()), None).unwrap(), "v");
        assert_eq!(from("S", None, file()).unwrap(), "from a file");
        assert!(matches!(
            from("S", Some("v".into()), file()),
            Err(Error::Twice(_))
        ));
        assert!(matches!(from("S", None, None), Err(Error::Unset(_))));
        let gone = Some(dir.path().join("gone").display().to_string());
        assert!(matches!(from("S", None, gone), Err(Error::File { .. })));
    }

    #[test]
    fn a_secret_file_over_secret_bytes_max_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX as usize + 1)).unwrap();
        let error = from("S", None, Some(path.display().to_string())).unwrap_err();
        assert!(!error.to_string().contains("xxx"), "{error}");
    }
}
