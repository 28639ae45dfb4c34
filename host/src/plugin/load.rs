//! A loaded plugin: checked, compiled, its imports granted. Loading runs the guest once, to ask for its
//! frame version; everything else is read from the file.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use super::contract::{FRAMED, Import, Need, RECORDS, STATE, Surface, WIT_VERSION, World};
use super::engine::Engine;
use super::error::Error;
use super::guest::{Guest, Session};
use super::instance::Instance;
use super::logs::{LineRate, LogBuffer, escape};
use super::state::{StateSession, StateView};
use crate::config::valid::{Allow, Limits};

/// Largest plugin file in bytes.
pub const PLUGIN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Unit in which a component declares its memory.
const WASM_PAGE: u64 = 64 * 1024;

/// A plugin for one pipeline. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(super) loaded: Arc<Loaded>,
}

pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<Guest>,
    pub(super) world: World,
    pub(super) handle: ComponentExportIndex,
    /// Of the framed world.
    pub(super) frame_version: Option<ComponentExportIndex>,
    pub(super) limits: Limits,
    digest: String,
    imports: Vec<Import>,
    rate: Arc<LineRate>,
}

/// What `wasmill plugin inspect` shows. Nothing needs to be granted for it.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// `sha256:<hex>`.
    pub digest: String,
    pub size_bytes: u64,
    /// The world that is exported, when there is one.
    pub world: Option<World>,
    /// Why a host would refuse it whatever is granted.
    pub problem: Option<String>,
    /// The version of the contract that this host speaks.
    pub host_wit_version: &'static str,
    pub imports: Vec<Import>,
    pub exports: Vec<String>,
}

impl Engine {
    /// Reads, checks and compiles a plugin, and checks that `allow` grants what it imports (§11.1).
    pub fn load(&self, path: &Path, allow: &Allow, limits: &Limits) -> Result<Plugin, Error> {
        let wasm = read_component(path)?;
        let surface = Surface::read(&wasm)?;
        let world = surface.world()?;
        surface.check_grants(allow)?;
        let digest_hex = digest_hex(&wasm);
        let shared = &self.shared;
        let component = shared
            .cache
            .component(&shared.wasm, &digest_hex, &wasm)
            .map_err(|error| Error::Invalid(escape(&format!("{error:#}"), 500)))?;
        check_memory(&component, limits)?;
        let pre = shared
            .linker
            .instantiate_pre(&component)
            .map_err(|error| Error::Interface(escape(&format!("{error:#}"), 500)))?;
        let (handle, frame_version) = exports(&component, world)?;
        let plugin = Plugin {
            loaded: Arc::new(Loaded {
                engine: self.clone(),
                pre,
                world,
                handle,
                frame_version,
                limits: *limits,
                digest: format!("sha256:{digest_hex}"),
                imports: surface.imports,
                rate: Arc::new(LineRate::new(limits.log_lines, Instant::now())),
            }),
        };
        plugin
            .instance(&BTreeMap::new(), None)
            .check_frame_version()?;
        Ok(plugin)
    }

    /// Says what a plugin file is and wants, without running it.
    pub fn inspect(&self, path: &Path) -> Result<Inspection, Error> {
        inspect(path)
    }
}

/// Says what a plugin file is and wants, without compiling or running it.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let wasm = read_component(path)?;
    let surface = Surface::read(&wasm)?;
    let (world, problem) = match surface.world() {
        Ok(world) => (Some(world), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let beyond_grants = surface.imports.iter().find_map(|import| match import.need {
        Need::Refused(reason) => Some(format!("`{}`: {reason}", import.name)),
        Need::OtherVersion => Some(format!(
            "`{}` is of another version than {WIT_VERSION}",
            import.name
        )),
        Need::Unknown => Some(format!("this host does not have `{}`", import.name)),
        Need::Nothing | Need::State | Need::Clock | Need::Random => None,
    });
    Ok(Inspection {
        digest: format!("sha256:{}", digest_hex(&wasm)),
        size_bytes: wasm.len() as u64,
        world,
        problem: problem.or(beyond_grants),
        host_wit_version: WIT_VERSION,
        imports: surface.imports,
        exports: surface.exports,
    })
}

impl Plugin {
    /// `sha256:<hex>` of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.loaded.digest
    }

    #[must_use]
    pub fn world(&self) -> World {
        self.loaded.world
    }

    /// In the order of the file.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.loaded.imports
    }

    /// Whether a call can change something besides its outcome, so that one message a call is the rule.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        self.loaded
            .imports
            .iter()
            .any(|import| import.name == STATE)
    }

    /// An instance for one worker; the guest starts with the first call. `state` must be given when the
    /// plugin imports it.
    #[must_use]
    pub fn instance(
        &self,
        config: &BTreeMap<String, String>,
        state: Option<Box<dyn StateView>>,
    ) -> Instance {
        let session = Session {
            logs: LogBuffer::default(),
            rate: self.loaded.rate.clone(),
            state: StateSession::new(state),
            config: Arc::new(config.clone()),
            messages: 0,
        };
        Instance::new(self.loaded.clone(), Arc::new(Mutex::new(session)))
    }
}

/// Reads a file that must be a component.
fn read_component(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut wasm = Vec::new();
    file.take(PLUGIN_BYTES_MAX + 1)
        .read_to_end(&mut wasm)
        .map_err(failed)?;
    let path = path.to_path_buf();
    if wasm.len() as u64 > PLUGIN_BYTES_MAX {
        let max = PLUGIN_BYTES_MAX;
        return Err(Error::TooLarge { path, max });
    }
    if wasmtime::Engine::detect_precompiled(&wasm).is_some() {
        return Err(Error::Precompiled { path });
    }
    if wasmparser::Parser::is_core_wasm(&wasm) {
        return Err(Error::CoreModule { path });
    }
    if !wasmparser::Parser::is_component(&wasm) {
        return Err(Error::NotWasm { path });
    }
    Ok(wasm)
}

fn digest_hex(wasm: &[u8]) -> String {
    let digest = Sha256::digest(wasm);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_memory(component: &Component, limits: &Limits) -> Result<(), Error> {
    let needed = component
        .resources_required()
        .and_then(|resources| resources.max_initial_memory_size)
        .unwrap_or(0)
        .saturating_mul(WASM_PAGE);
    if needed > limits.memory {
        let allowed = limits.memory;
        return Err(Error::Memory { needed, allowed });
    }
    Ok(())
}

fn exports(
    component: &Component,
    world: World,
) -> Result<(ComponentExportIndex, Option<ComponentExportIndex>), Error> {
    let interface = match world {
        World::Framed => FRAMED,
        World::Handler => RECORDS,
    };
    let function = |name: &str| {
        let instance = component.get_export_index(None, interface)?;
        component.get_export_index(Some(&instance), name)
    };
    let missing = |name: &str| Error::Interface(format!("`{interface}` has no function `{name}`"));
    let handle = function("handle").ok_or_else(|| missing("handle"))?;
    let version = match world {
        World::Handler => None,
        World::Framed => Some(function("frame-version").ok_or_else(|| missing("frame-version"))?),
    };
    Ok((handle, version))
}
