//! The admin port's key and address as files in the data directory: `admin-token` (mode 0600, made at
//! every start) and `admin.json` (where the host listens). The command line reads both.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const TOKEN_FILE: &str = "admin-token";
const ADDRESS_FILE: &str = "admin.json";
/// Random bytes of a token; it is written as hex, twice as long.
const TOKEN_BYTES: usize = 32;
/// Shortest token that an operator may choose.
pub const TOKEN_LEN_MIN: usize = 16;
/// Longest token that is compared; a longer one is refused unread.
const TOKEN_LEN_MAX: usize = 256;

/// Why the files could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct Error {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// The secret that every request to the admin port carries. Never printed: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Where a running host is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub admin: SocketAddr,
    pub health: SocketAddr,
    /// The admin port speaks TLS.
    #[serde(default)]
    pub tls: bool,
    pub pid: u32,
    pub version: String,
}

impl Token {
    /// 256 bits from the system's generator.
    #[must_use]
    pub fn random() -> Self {
        use std::fmt::Write as _;
        let bytes: [u8; TOKEN_BYTES] = rand::random();
        let mut text = String::with_capacity(TOKEN_BYTES * 2);
        for byte in bytes {
            // Writing to a String cannot fail.
            let _written = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// A token that came from outside; surrounding white space is not part of it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let sane = (1..=TOKEN_LEN_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        sane.then(|| Self(text.to_owned()))
    }

    /// A token that the operator chose: long enough not to be guessed.
    #[must_use]
    pub fn from_secret(text: &str) -> Option<Self> {
        Self::from_text(text).filter(|token| token.0.len() >= TOKEN_LEN_MIN)
    }

    /// For the `Authorization` header, and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `offered` is this token, in a time that depends on the lengths only.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if offered.len() != own.len() {
            return false;
        }
        let difference = own
            .iter()
            .zip(offered)
            .fold(0u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        difference == 0
    }

    /// Writes the token to `data_dir`, readable by its owner only.
    pub fn write(&self, data_dir: &Path) -> Result<(), Error> {
        replace(&data_dir.join(TOKEN_FILE), self.0.as_bytes())
    }

    /// The token of the host that holds `data_dir`; `None` when there is no such file.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = data_dir.join(TOKEN_FILE);
        Ok(read_if_there(&path)?.and_then(|text| Self::from_text(&text)))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

impl Address {
    pub fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        replace(&data_dir.join(ADDRESS_FILE), &text)
    }

    /// Where the host of `data_dir` listens, as it said at its start; it may be gone since.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, Error> {
        let text = read_if_there(&data_dir.join(ADDRESS_FILE))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

/// Removes both files; a host does so when it stops. That they are gone already is no error.
pub fn remove(data_dir: &Path) {
    for name in [ADDRESS_FILE, TOKEN_FILE] {
        if let Err(error) = std::fs::remove_file(data_dir.join(name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = name, %error, "could not remove the file; it is stale and harmless");
        }
    }
}

/// Writes beside the file and renames, so that a reader sees the old or the new one, and the new one
/// never with wider permissions than 0600.
fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |source| Error {
        path: path.to_owned(),
        source,
    };
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_chosen_token_has_at_least_token_len_min_characters() {
        assert!(Token::from_secret(&"t".repeat(TOKEN_LEN_MIN - 1)).is_none());
        assert!(Token::from_secret(&"t".repeat(TOKEN_LEN_MIN)).is_some());
        assert!(Token::from_secret("with a space in it, and long").is_none());
    }

    #[test]
    fn a_token_has_at_most_token_len_max_characters() {
        assert!(Token::from_text(&"t".repeat(TOKEN_LEN_MAX)).is_some());
        assert!(Token::from_text(&"t".repeat(TOKEN_LEN_MAX + 1)).is_none());
    }

    #[test]
    fn the_token_file_is_readable_by_its_owner_only_and_new_at_every_start() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Token::random(), Token::random());
        assert_ne!(first, second);
        first.write(dir.path()).unwrap();
        second.write(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::read(dir.path()).unwrap(), Some(second));
        remove(dir.path());
        assert_eq!(Token::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token::random();
        let text = token.reveal().to_owned();
        assert!(token.matches(text.as_bytes()));
        assert!(!token.matches(&text.as_bytes()[1..]));
        assert!(!token.matches(b""));
        let mut other = text.into_bytes();
        other[63] ^= 1;
        assert!(!token.matches(&other));
    }

    #[test]
    fn a_token_shows_in_no_debug_output() {
        let token = Token::random();
        assert!(!format!("{token:?}").contains(token.reveal()));
    }
}
