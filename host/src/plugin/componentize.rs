//! What `wasmill build` does to a compiler's output: core module or component in, component out, in
//! this process, so that users install no Wasm tools.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::contract::{FRAMED, PACKAGE, RECORDS, Surface, WIT};
use super::error::Error;
use super::logs::escape;

/// Where wit-bindgen and the SDKs leave the world's type.
const TYPE_SECTION: &str = "component-type";

/// Makes a component that this host can load, whatever it will be granted. A component is returned as
/// it is, once it is known to export a handler.
pub fn componentize(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    if Parser::is_component(wasm) {
        Surface::read(wasm)?.world()?;
        return Ok(wasm.to_vec());
    }
    if !Parser::is_core_wasm(wasm) {
        return Err(failed(
            "this is not WebAssembly; give the .wasm file that the compiler made",
        ));
    }
    let module = Module::read(wasm)?;
    let mut wasm = wasm.to_vec();
    if !module.has_type {
        embed_type(&mut wasm, module.world()?)?;
    }
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(&wasm)
        .map_err(rephrase)?;
    if module.wants_wasi {
        encoder = encoder
            .adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
            .map_err(rephrase)?;
    }
    let component = encoder.encode().map_err(rephrase)?;
    Surface::read(&component)?.world()?;
    Ok(component)
}

/// What matters about a core module.
struct Module {
    has_type: bool,
    wants_wasi: bool,
    exports: Vec<String>,
}

impl Module {
    fn read(wasm: &[u8]) -> Result<Self, Error> {
        let invalid = |error: wasmparser::BinaryReaderError| failed(&error.to_string());
        let mut module = Self {
            has_type: false,
            wants_wasi: false,
            exports: Vec::new(),
        };
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(invalid)? {
                Payload::CustomSection(section) => {
                    module.has_type |= section.name().starts_with(TYPE_SECTION);
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let from = import.map_err(invalid)?.module;
                        module.wants_wasi |= from == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        module
                            .exports
                            .push(export.map_err(invalid)?.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }

    /// The world of wit/handler.wit that its exports belong to.
    fn world(&self) -> Result<&'static str, Error> {
        let exports = |interface: &str| {
            self.exports.iter().any(|export| {
                export
                    .strip_prefix(interface)
                    .is_some_and(|rest| rest.starts_with('#'))
            })
        };
        if exports(FRAMED) {
            return Ok("framed-handler");
        }
        if exports(RECORDS) {
            return Ok("handler");
        }
        match self
            .exports
            .iter()
            .find(|export| export.starts_with(PACKAGE))
        {
            Some(other) => Err(failed(&format!(
                "the module exports `{}`, this host speaks `{FRAMED}` and `{RECORDS}`",
                escape(other, 200)
            ))),
            None => Err(failed(&format!(
                "the module exports no handler; mark a function with #[wasmill_sdk::handler], or export `{FRAMED}#handle`"
            ))),
        }
    }
}

fn embed_type(wasm: &mut Vec<u8>, world: &str) -> Result<(), Error> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("handler.wit", WIT).map_err(rephrase)?;
    let world = resolve
        .select_world(&[package], Some(world))
        .map_err(rephrase)?;
    embed_component_metadata(wasm, &resolve, world, StringEncoding::UTF8).map_err(rephrase)
}

fn failed(what: &str) -> Error {
    Error::Componentize(what.to_owned())
}

fn rephrase(error: impl std::fmt::Display) -> Error {
    // With all its causes.
    let text = format!("{error:#}");
    let hint = if text.contains("cabi_realloc") {
        "; the SDK exports it, or export a `cabi_realloc` of your own"
    } else if text.contains("failed to find export of interface") {
        "; does the module export every function of the interface, with the version of wit/handler.wit?"
    } else if text.contains("module requires an import interface named") {
        "; a handler may import only what wit/handler.wit and WASI name"
    } else {
        ""
    };
    failed(&format!("{}{hint}", escape(&text, 600)))
}
