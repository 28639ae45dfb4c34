//! Why a plugin cannot be loaded, in words that say what to do.

use std::path::PathBuf;

/// Why a plugin, or the engine, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the Wasm engine: {0}")]
    Engine(String),
    #[error("cannot read the plugin {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is larger than {max} bytes, the most a plugin may have")]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{path} is not WebAssembly; give the file that `wasmill build` makes")]
    NotWasm { path: PathBuf },
    #[error(
        "{path} is a core module, not a component; run `wasmill build` to make a component of it"
    )]
    CoreModule { path: PathBuf },
    #[error(
        "{path} is machine code compiled ahead of time, which is never accepted; give the component it was made from"
    )]
    Precompiled { path: PathBuf },
    #[error("the plugin is not valid: {0}")]
    Invalid(String),
    #[error("the plugin exports {found}, not a handler: it must export `{framed}` or `{records}`; build it with an SDK or against wit/handler.wit", framed = super::contract::FRAMED, records = super::contract::RECORDS)]
    NoHandler { found: String },
    #[error(
        "the plugin was built for `{found}`, this host speaks `{supported}`; rebuild it with an SDK of that version"
    )]
    WitVersion { found: String, supported: String },
    #[error(
        "the plugin was built for frame version {found}, this host speaks {supported}; rebuild it or update the host"
    )]
    FrameVersion { found: u32, supported: u16 },
    #[error(
        "the plugin imports `{import}`, which is not granted; to grant it write `{grant}` under `handler:`"
    )]
    NotGranted { import: String, grant: &'static str },
    #[error("the plugin imports `{import}`, which no plugin may have: {reason}")]
    Refused {
        import: String,
        reason: &'static str,
    },
    #[error("the plugin imports `{import}`, which this host does not have")]
    UnknownImport { import: String },
    #[error(
        "the plugin and this host differ about an interface: {0}; rebuild it against wit/handler.wit"
    )]
    Interface(String),
    #[error("the plugin starts with {needed} bytes of memory, limits.memory allows {allowed}")]
    Memory { needed: u64, allowed: u64 },
    #[error("cannot make a component: {0}")]
    Componentize(String),
}
