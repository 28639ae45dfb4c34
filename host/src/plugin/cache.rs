//! The compile cache: machine code of plugins, made by this host and kept under the digest of the
//! plugin and the engine it was made for. A file that is not exactly what was written is compiled anew;
//! nothing here can make a load fail. Precompiled artifacts of users never come here (§11.5).

use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use wasmtime::component::Component;
use xxhash_rust::xxh3;

/// Most compiled plugins kept; the oldest go first.
pub const CACHED_PLUGINS_MAX: usize = 64;

const CODE: &str = "cwasm";
const SUM: &str = "sum";

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Of wasmtime's version, its settings and the machine's instructions.
    engine_hash: u64,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, engine: &wasmtime::Engine) -> Self {
        let mut hasher = xxh3::Xxh3::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            folder,
            engine_hash: hasher.finish(),
        }
    }

    /// The compiled component, from the cache or from `wasm`.
    pub(super) fn component(
        &self,
        engine: &wasmtime::Engine,
        digest_hex: &str,
        wasm: &[u8],
    ) -> wasmtime::Result<Component> {
        let stem = format!("{digest_hex}-{:016x}", self.engine_hash);
        let code = self.folder.join(format!("{stem}.{CODE}"));
        let sum = self.folder.join(format!("{stem}.{SUM}"));
        match self.read(engine, &code, &sum) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(file = %code.display(), %error, "compiled plugin is not usable and is made anew");
            }
        }
        let component = Component::new(engine, wasm)?;
        if let Err(error) = self.write(&component, &code, &sum) {
            tracing::warn!(folder = %self.folder.display(), %error, "compiled plugin was not cached; the next start compiles it again");
        }
        Ok(component)
    }

    fn read(
        &self,
        engine: &wasmtime::Engine,
        code: &Path,
        sum: &Path,
    ) -> Result<Option<Component>, Error> {
        if !code.try_exists()? {
            return Ok(None);
        }
        self.check_owner(&self.folder)?;
        self.check_owner(code)?;
        let expected = std::fs::read_to_string(sum)?;
        if checksum(&std::fs::read(code)?) != expected {
            return Err(Error::Checksum);
        }
        #[expect(
            unsafe_code,
            reason = "the file was written by this host for this engine: folder and file are its user's alone and the checksum matches"
        )]
        let component = unsafe { Component::deserialize_file(engine, code) }
            .map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Some(component))
    }

    fn write(&self, component: &Component, code: &Path, sum: &Path) -> Result<(), Error> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        self.check_owner(&self.folder)?;
        let bytes = component
            .serialize()
            .map_err(|error| Error::Refused(error.to_string()))?;
        self.put(code, &bytes)?;
        self.put(sum, checksum(&bytes).as_bytes())?;
        self.drop_oldest()
    }

    /// A reader sees the old file or the new one, never a part.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn drop_oldest(&self) -> Result<(), Error> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == CODE) {
                found.push((path.symlink_metadata()?.modified()?, path));
            }
        }
        found.sort();
        let surplus = found.len().saturating_sub(CACHED_PLUGINS_MAX);
        for (_, path) in found.into_iter().take(surplus) {
            std::fs::remove_file(&path)?;
            std::fs::remove_file(path.with_extension(SUM))?;
        }
        Ok(())
    }

    /// Code is run from here, so nobody else may be able to write it.
    fn check_owner(&self, path: &Path) -> Result<(), Error> {
        let metadata = path.symlink_metadata()?;
        let ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if metadata.is_symlink() || !ours || metadata.mode() & 0o022 != 0 {
            return Err(Error::Owner(path.to_path_buf()));
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("its checksum does not match")]
    Checksum,
    #[error("{0} may be written by others; make it yours alone (chmod go-w)")]
    Owner(PathBuf),
    #[error("{0}")]
    Refused(String),
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:032x} {}\n", xxh3::xxh3_128(bytes), bytes.len())
}
