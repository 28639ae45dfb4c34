//! The contract as names: which world a component exports, what each import needs, and the version
//! both must have. Reads the component's own lists; compiles and runs nothing.

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

use super::error::Error;
use crate::config::valid::Allow;

/// The text of wit/handler.wit.
pub const WIT: &str = include_str!("../../../wit/handler.wit");
/// The version of the WIT package that this host speaks.
pub const WIT_VERSION: &str = "0.1.0";

pub(super) const PACKAGE: &str = "wasmill:handler/";
pub(super) const FRAMED: &str = "wasmill:handler/framed@0.1.0";
pub(super) const RECORDS: &str = "wasmill:handler/records@0.1.0";
pub(super) const STATE: &str = "wasmill:handler/state@0.1.0";

/// Which of the two worlds a plugin exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// Plain records (`records`).
    Handler,
    /// One frame each way (`framed`).
    Framed,
}

/// What must be true for a plugin to get an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Always granted.
    Nothing,
    State,
    Clock,
    Random,
    /// No configuration grants it; the text says why.
    Refused(&'static str),
    /// Another version of the contract.
    OtherVersion,
    Unknown,
}

/// One import of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// `namespace:package/interface@version`.
    pub name: String,
    pub need: Need,
    /// The YAML under `handler:` that grants it, where one is needed.
    pub grant: Option<&'static str>,
}

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surface {
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<String>,
}

impl Need {
    /// What the interface of this name needs.
    #[must_use]
    pub fn of(import: &str) -> Self {
        let (path, version) = import.split_once('@').unwrap_or((import, ""));
        if let Some(interface) = path.strip_prefix(PACKAGE) {
            return match interface {
                _ if version != WIT_VERSION => Self::OtherVersion,
                "log" | "config" | "types" => Self::Nothing,
                "state" => Self::State,
                "clock" => Self::Clock,
                "random" => Self::Random,
                _ => Self::Unknown,
            };
        }
        let package = path.split_once('/').map_or(path, |(package, _)| package);
        match package {
            "wasi:cli" | "wasi:io" | "wasi:filesystem" => Self::Nothing,
            "wasi:clocks" => Self::Clock,
            "wasi:random" => Self::Random,
            "wasi:sockets" => Self::Refused("handlers get no sockets; build it without networking"),
            "wasi:http" => Self::Refused("HTTP is not available to handlers in this version"),
            _ => Self::Unknown,
        }
    }

    /// The YAML that grants it.
    #[must_use]
    pub const fn grant(self) -> Option<&'static str> {
        match self {
            Self::State => Some("allow: { state: {} }"),
            Self::Clock => Some("allow: { clock: true }"),
            Self::Random => Some("allow: { random: true }"),
            Self::Nothing | Self::Refused(_) | Self::OtherVersion | Self::Unknown => None,
        }
    }

    const fn is_granted(self, allow: &Allow) -> bool {
        match self {
            Self::Nothing => true,
            Self::State => allow.state.is_some(),
            Self::Clock => allow.clock,
            Self::Random => allow.random,
            Self::Refused(_) | Self::OtherVersion | Self::Unknown => false,
        }
    }
}

impl Surface {
    /// Reads the outermost imports and exports of a component.
    pub(super) fn read(wasm: &[u8]) -> Result<Self, Error> {
        let invalid = |error: wasmparser::BinaryReaderError| Error::Invalid(error.to_string());
        let (mut imports, mut exports) = (Vec::new(), Vec::new());
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(invalid)? {
                Payload::Version { encoding, .. } if depth == 0 && encoding == Encoding::Module => {
                    return Err(Error::Invalid("a core module".to_owned()));
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        imports.push(Import::named(import.map_err(invalid)?.name.name));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        exports.push(export.map_err(invalid)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(Self { imports, exports })
    }

    /// The world, or why there is none.
    pub(super) fn world(&self) -> Result<World, Error> {
        let exports = |name: &str| self.exports.iter().any(|export| export == name);
        if exports(FRAMED) {
            return Ok(World::Framed);
        }
        if exports(RECORDS) {
            return Ok(World::Handler);
        }
        let other = |interface: &str| {
            let prefix = format!("{PACKAGE}{interface}@");
            self.exports.iter().find(|e| e.starts_with(&prefix))
        };
        if let Some(found) = other("framed").or_else(|| other("records")) {
            return Err(Error::WitVersion {
                found: found.clone(),
                supported: format!("{}@{WIT_VERSION}", interface_of(found)),
            });
        }
        Err(Error::NoHandler {
            found: match self.exports.as_slice() {
                [] => "nothing".to_owned(),
                names => super::logs::escape(&format!("`{}`", names.join("`, `")), 300),
            },
        })
    }

    /// Refuses the first import that is not granted (§11.1).
    pub(super) fn check_grants(&self, allow: &Allow) -> Result<(), Error> {
        for Import { name, need, grant } in &self.imports {
            if need.is_granted(allow) {
                continue;
            }
            let import = super::logs::escape(name, 200);
            return Err(match (*need, *grant) {
                (Need::OtherVersion, _) => Error::WitVersion {
                    supported: format!("{}@{WIT_VERSION}", interface_of(&import)),
                    found: import,
                },
                (Need::Refused(reason), _) => Error::Refused { import, reason },
                (_, Some(grant)) => Error::NotGranted { import, grant },
                (_, None) => Error::UnknownImport { import },
            });
        }
        Ok(())
    }
}

impl Import {
    fn named(name: &str) -> Self {
        let need = Need::of(name);
        Self {
            name: name.to_owned(),
            need,
            grant: need.grant(),
        }
    }
}

fn interface_of(name: &str) -> &str {
    name.split_once('@')
        .map_or(name, |(interface, _)| interface)
}
