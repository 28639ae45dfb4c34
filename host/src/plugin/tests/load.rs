//! What may be loaded, what each refusal says, and the compile cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::batch;
use crate::config::valid::{Allow, Limits, StateGrant};
use crate::plugin::testing::{
    Behaviour, Bench, Core, built, core_module, everything, guest, limits,
};
use crate::plugin::{Error, PLUGIN_BYTES_MAX, WIT, World, componentize, inspect};

fn refusal(bench: &Bench, path: &Path, allow: &Allow) -> String {
    match bench.engine.load(path, allow, &limits()) {
        Ok(_) => panic!("was loaded"),
        Err(error) => error.to_string(),
    }
}

fn refused(wasm: &[u8]) -> String {
    let bench = Bench::new();
    let path = bench.file(wasm);
    refusal(&bench, &path, &everything())
}

/// A component against another text of the contract.
fn against(wit: &str, world: &str, core: &[u8]) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("handler.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut core = core.to_vec();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().module(&core).unwrap();
    encoder.encode().unwrap()
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let bench = Bench::new();
    let path = bench.folder.path().join("missing.wasm");
    assert!(refusal(&bench, &path, &everything()).contains("missing.wasm"));
}

#[test]
fn a_file_that_is_not_wasm_is_refused() {
    for bytes in [&b"#!/bin/sh\necho hello\n"[..], b"", b"\0as"] {
        let text = refused(bytes);
        assert!(
            text.contains("not WebAssembly") && text.contains("wasmill build"),
            "{text}"
        );
    }
}

#[test]
fn a_core_module_is_refused_and_told_about_wasmill_build() {
    let text = refused(&core_module(&Behaviour::Ack));
    assert!(text.contains("wasmill build"), "{text}");
}

#[test]
fn a_precompiled_artifact_is_refused() {
    // §11.5
    let bench = Bench::new();
    let wasm = &bench.engine.shared.wasm;
    let precompiled = wasm.precompile_component(&guest(&Behaviour::Ack)).unwrap();
    let text = refused(&precompiled);
    assert!(text.contains("never accepted"), "{text}");
}

#[test]
fn a_component_that_exports_no_handler_is_refused_with_what_it_exports() {
    let empty = wasm_encoder::Component::new().finish();
    let text = refused(&empty);
    assert!(
        text.contains("exports nothing") && text.contains("wasmill:handler/framed@0.1.0"),
        "{text}"
    );
}

#[test]
fn a_component_of_another_wit_version_is_refused_naming_both() {
    let core = Core {
        wit_version: "0.2.0",
        ..Core::default()
    };
    let core = core.module(|body| {
        body.i32_const(0);
    });
    let wasm = against(&WIT.replace("@0.1.0", "@0.2.0"), "framed-handler", &core);
    let text = refused(&wasm);
    assert!(
        text.contains("framed@0.2.0") && text.contains("framed@0.1.0"),
        "{text}"
    );
}

#[test]
fn a_component_of_an_unknown_frame_version_is_refused_naming_both() {
    let core = Core {
        frame_version: 7,
        ..Core::default()
    };
    let core = core.module(|body| {
        body.i32_const(0);
    });
    let text = refused(&componentize(&core).unwrap());
    assert!(
        text.contains("frame version 7") && text.contains("speaks 1"),
        "{text}"
    );
}

#[test]
fn an_import_that_is_not_granted_is_named_with_the_yaml_that_grants_it() {
    // §11.1
    let bench = Bench::new();
    let path = bench.file(&built("records"));
    let state = Some(StateGrant {
        max_size: 1,
        name: "default".to_owned(),
        version: 1,
    });
    for (allow, import, grant) in [
        (
            Allow {
                state: None,
                ..everything()
            },
            "wasmill:handler/state@0.1.0",
            "allow: { state: {} }",
        ),
        (
            Allow {
                state: state.clone(),
                clock: false,
                random: true,
            },
            "wasmill:handler/clock@0.1.0",
            "allow: { clock: true }",
        ),
        (
            Allow {
                state,
                clock: true,
                random: false,
            },
            "wasmill:handler/random@0.1.0",
            "allow: { random: true }",
        ),
    ] {
        let text = refusal(&bench, &path, &allow);
        assert!(text.contains(import) && text.contains(grant), "{text}");
    }
}

#[test]
fn an_import_that_the_host_does_not_have_is_named() {
    let core = Core {
        imports: &[("wasmill:handler/weather@0.1.0", "now", 0)],
        ..Core::default()
    };
    let core = core.module(|body| {
        body.call(0);
    });
    let wit = WIT
        .replace("interface clock", "interface weather")
        .replace("import clock", "import weather")
        .replace("now: func() -> u64", "now: func() -> u32");
    let text = refused(&against(&wit, "framed-handler", &core));
    assert!(text.contains("wasmill:handler/weather@0.1.0"), "{text}");
}

#[test]
fn an_interface_with_other_types_is_refused() {
    let core = Core {
        imports: &[("wasmill:handler/clock@0.1.0", "now", 0)],
        ..Core::default()
    };
    let core = core.module(|body| {
        body.call(0);
    });
    let wit = WIT.replace("now: func() -> u64", "now: func() -> u32");
    let text = refused(&against(&wit, "framed-handler", &core));
    assert!(text.contains("handler.wit"), "{text}");
}

#[test]
fn damaged_components_are_refused_and_never_a_panic() {
    let bench = Bench::new();
    let wasm = guest(&Behaviour::Ack);
    for cut in (8..wasm.len()).step_by(61) {
        let path = bench.file(&wasm[..cut]);
        assert!(
            bench.engine.load(&path, &everything(), &limits()).is_err(),
            "cut at {cut}"
        );
    }
    for at in (8..wasm.len()).step_by(37) {
        let mut damaged = wasm.clone();
        damaged[at] ^= 0x55;
        let path = bench.file(&damaged);
        // A flipped byte may leave a valid component (a name, a constant); it must only not panic.
        drop(bench.engine.load(&path, &everything(), &limits()));
    }
}

#[test]
fn a_plugin_that_needs_more_memory_than_its_limit_is_refused_at_load() {
    let bench = Bench::new();
    let path = bench.file(&guest(&Behaviour::Ack));
    let small = Limits {
        memory: 1 << 20,
        ..limits()
    };
    let error = bench.engine.load(&path, &everything(), &small).err();
    assert!(
        matches!(
            error,
            Some(Error::Memory {
                needed: 16_777_216,
                allowed: 1_048_576
            })
        ),
        "{error:?}"
    );
}

#[test]
fn a_file_over_the_size_limit_is_refused_without_reading_it_all() {
    let bench = Bench::new();
    let path = bench.folder.path().join("large.wasm");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(PLUGIN_BYTES_MAX + 1).unwrap();
    assert!(refusal(&bench, &path, &everything()).contains("larger than"));
}

#[test]
fn inspect_tells_what_a_plugin_is_and_wants_without_any_grant() {
    let bench = Bench::new();
    let inspection = inspect(&bench.file(&built("records"))).unwrap();
    assert!(inspection.digest.starts_with("sha256:") && inspection.digest.len() == 71);
    assert_eq!(inspection.world, Some(World::Handler));
    assert_eq!(inspection.problem, None);
    let grants: Vec<_> = inspection.imports.iter().filter_map(|i| i.grant).collect();
    assert_eq!(
        grants,
        [
            "allow: { state: {} }",
            "allow: { clock: true }",
            "allow: { random: true }"
        ]
    );
    let empty = inspect(&bench.file(&wasm_encoder::Component::new().finish())).unwrap();
    assert!(empty.world.is_none() && empty.problem.is_some());
}

#[test]
fn componentize_says_what_is_missing() {
    let nothing = wasm_encoder::Module::new().finish();
    let text = componentize(&nothing).unwrap_err().to_string();
    assert!(text.contains("exports no handler"), "{text}");
    let text = componentize(b"text").unwrap_err().to_string();
    assert!(text.contains("not WebAssembly"), "{text}");
    let core = Core {
        imports: &[("env", "puts", 1)],
        ..Core::default()
    };
    let core = core.module(|body| {
        body.i32_const(0).call(0);
    });
    let text = componentize(&core).unwrap_err().to_string();
    assert!(
        text.contains("env") && text.contains("wit/handler.wit"),
        "{text}"
    );
}

#[test]
fn componentize_returns_a_component_as_it_is() {
    let wasm = guest(&Behaviour::Ack);
    assert_eq!(componentize(&wasm).unwrap(), wasm);
}

fn cached(bench: &Bench, extension: &str) -> Vec<PathBuf> {
    std::fs::read_dir(bench.folder.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

fn works(bench: &Bench) {
    let plugin = bench.plugin(&Behaviour::Ack);
    let mut instance = plugin.instance(&BTreeMap::new(), None);
    assert_eq!(instance.call(&batch(2), 0).unwrap().len(), 2);
}

#[test]
fn the_second_load_comes_from_the_cache() {
    let bench = Bench::new();
    works(&bench);
    let [code] = cached(&bench, "cwasm").try_into().unwrap();
    let written = code.metadata().unwrap().modified().unwrap();
    works(&bench);
    assert_eq!(code.metadata().unwrap().modified().unwrap(), written);
    assert_eq!(cached(&bench, "cwasm").len(), 1);
}

#[test]
fn a_damaged_cache_entry_is_compiled_anew() {
    let bench = Bench::new();
    works(&bench);
    let [code] = cached(&bench, "cwasm").try_into().unwrap();
    let [sum] = cached(&bench, "sum").try_into().unwrap();
    let good = std::fs::read(&code).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damage in [&flipped[..], &good[..good.len() / 2], b""] {
        // A new file: the old one is mapped by the plugin that was loaded from it.
        std::fs::remove_file(&code).unwrap();
        std::fs::write(&code, damage).unwrap();
        works(&bench);
        assert_eq!(std::fs::read(&code).unwrap(), good);
    }
    std::fs::remove_file(&sum).unwrap();
    works(&bench);
    assert!(sum.exists());
}

#[test]
fn a_cache_that_others_may_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let folder = bench.folder.path().join("cache");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    works(&bench);
    assert!(cached(&bench, "cwasm").is_empty());
}

#[test]
fn the_cache_keeps_a_bounded_number_of_plugins() {
    use crate::plugin::CACHED_PLUGINS_MAX;
    let bench = Bench::new();
    works(&bench);
    let folder = bench.folder.path().join("cache");
    let old = std::time::SystemTime::UNIX_EPOCH;
    for n in 0..CACHED_PLUGINS_MAX + 5 {
        for extension in ["cwasm", "sum"] {
            let path = folder.join(format!("{n}.{extension}"));
            std::fs::File::create(&path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    }
    bench.load(&guest(&Behaviour::Trap), &limits());
    assert_eq!(cached(&bench, "cwasm").len(), CACHED_PLUGINS_MAX);
    works(&bench);
}
