//! Small guests for tests, assembled here, so that they need no Wasm toolchain: each is a framed
//! handler whose whole behaviour is one function body. Guests in Rust are in plugins/hostile.

use std::path::PathBuf;
use std::time::Duration;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, InstructionSink, MemArg, MemorySection, MemoryType,
    Module, RefType, TableSection, TableType, TypeSection, ValType,
};

use super::componentize::componentize;
use super::engine::{Engine, Options};
use super::plugin::Plugin;
use crate::config::valid::{Allow, Limits, StateGrant};

/// Where a fixed reply lies.
const REPLY_AT: u32 = 64;
/// Where arguments are put, page-aligned.
const HEAP_AT: u32 = 1 << 20;
const PAGES: u64 = 256;

/// What `handle` does.
#[derive(Debug, Clone)]
pub(super) enum Behaviour {
    /// Success without outputs for each message.
    Ack,
    /// These bytes, whatever was asked.
    Reply(Vec<u8>),
    Spin,
    Trap,
    Recurse,
    GrowMemory,
    GrowTable,
    /// Says that its reply has this many bytes, from address 0.
    ReplyLength(u32),
    /// Says that its reply lies outside its memory.
    ReplyOutside,
    /// Acknowledges what fits into 1 MiB, traps on more unless a reserve frame came first.
    NeedsReserve,
}

/// A component with that behaviour.
pub(super) fn guest(behaviour: &Behaviour) -> Vec<u8> {
    componentize(&core_module(behaviour, "0.1.0", 1)).unwrap()
}

/// The core module behind [`guest`].
pub(super) fn core_module(behaviour: &Behaviour, wit_version: &str, frame_version: i32) -> Vec<u8> {
    let mut types = TypeSection::new();
    let i = ValType::I32;
    types.ty().function([i; 4], [i]); // cabi_realloc
    types.ty().function([i; 2], [i]); // handle
    types.ty().function([], [i]); // frame-version
    let mut functions = FunctionSection::new();
    functions.function(0).function(1).function(2);
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: 1,
        maximum: None,
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: PAGES,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    let mutable = GlobalType {
        val_type: i,
        mutable: true,
        shared: false,
    };
    globals.global(mutable, &ConstExpr::i32_const(HEAP_AT as i32)); // 0: top of the heap
    globals.global(mutable, &ConstExpr::i32_const(1 << 20)); // 1: bytes it may take in one piece
    let interface = format!("wasmill:handler/framed@{wit_version}");
    let mut exports = ExportSection::new();
    exports
        .export("memory", ExportKind::Memory, 0)
        .export("cabi_realloc", ExportKind::Func, 0)
        .export(&format!("{interface}#handle"), ExportKind::Func, 1)
        .export(&format!("{interface}#frame-version"), ExportKind::Func, 2);
    let mut code = CodeSection::new();
    code.function(&realloc());
    code.function(&handle(behaviour));
    let mut version = Function::new([]);
    version.instructions().i32_const(frame_version).end();
    code.function(&version);
    let mut data = DataSection::new();
    if let Behaviour::Reply(bytes) = behaviour {
        data.active(
            0,
            &ConstExpr::i32_const(REPLY_AT as i32),
            bytes.iter().copied(),
        );
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&tables)
        .section(&memories)
        .section(&globals)
        .section(&exports)
        .section(&code)
        .section(&data);
    module.finish()
}

fn realloc() -> Function {
    let mut f = Function::new([]);
    f.instructions()
        .local_get(3)
        .global_get(1)
        .i32_gt_u()
        .if_(BlockType::Empty)
        .unreachable()
        .end()
        .global_get(0)
        .global_get(0)
        .local_get(3)
        .i32_add()
        .i32_const(15)
        .i32_add()
        .i32_const(-16)
        .i32_and()
        .global_set(0)
        .end();
    f
}

/// `handle(pointer, length) -> pointer to (pointer, length)`.
fn handle(behaviour: &Behaviour) -> Function {
    let mut f = Function::new([(1, ValType::I32)]);
    let mut body = f.instructions();
    body.i32_const(HEAP_AT as i32).global_set(0);
    match behaviour {
        Behaviour::Ack => ack(&mut body),
        Behaviour::Reply(bytes) => answer(&mut body, REPLY_AT, bytes.len() as u32),
        Behaviour::ReplyLength(length) => answer(&mut body, 0, *length),
        Behaviour::ReplyOutside => answer(&mut body, u32::MAX - 16, 8),
        Behaviour::Spin => {
            body.loop_(BlockType::Empty).br(0).end();
        }
        Behaviour::Trap => {
            body.unreachable();
        }
        Behaviour::Recurse => {
            body.local_get(0).local_get(1).call(1).drop();
        }
        Behaviour::GrowMemory => {
            body.loop_(BlockType::Empty);
            body.i32_const(16).memory_grow(0).i32_const(-1).i32_ne();
            body.br_if(0).end().unreachable();
        }
        Behaviour::GrowTable => {
            body.loop_(BlockType::Empty);
            body.ref_null(wasm_encoder::HeapType::FUNC);
            body.i32_const(1000).table_grow(0).i32_const(-1).i32_ne();
            body.br_if(0).end().unreachable();
        }
        Behaviour::NeedsReserve => {
            // A reserve frame (kind 1) raises the limit and is answered with kind 1, count 0.
            body.local_get(0).i32_load16_u(at(2)).if_(BlockType::Empty);
            body.local_get(0)
                .i32_load(at(4))
                .i32_const(64)
                .i32_add()
                .global_set(1);
            body.i32_const(REPLY_AT as i32)
                .i32_const(0x1_0001)
                .i32_store(at(0));
            body.i32_const(REPLY_AT as i32)
                .i32_const(0)
                .i32_store(at(4));
            store_answer(&mut body, REPLY_AT, 8);
            body.i32_const(16).return_().end();
            ack(&mut body);
        }
    }
    body.i32_const(16).end();
    f
}

/// Head with the batch's count, then as many results of twelve zero bytes, which the memory has.
fn ack(body: &mut InstructionSink<'_>) {
    body.i32_const(REPLY_AT as i32)
        .i32_const(1)
        .i32_store(at(0));
    body.i32_const(REPLY_AT as i32)
        .local_get(0)
        .i32_load(at(4))
        .i32_store(at(4));
    body.i32_const(16)
        .i32_const(REPLY_AT as i32)
        .i32_store(at(0));
    body.i32_const(16).local_get(0).i32_load(at(4));
    body.i32_const(12)
        .i32_mul()
        .i32_const(8)
        .i32_add()
        .i32_store(at(4));
}

fn answer(body: &mut InstructionSink<'_>, pointer: u32, length: u32) {
    store_answer(body, pointer, length);
}

fn store_answer(body: &mut InstructionSink<'_>, pointer: u32, length: u32) {
    body.i32_const(16)
        .i32_const(pointer as i32)
        .i32_store(at(0));
    body.i32_const(16).i32_const(length as i32).i32_store(at(4));
}

const fn at(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 0,
        memory_index: 0,
    }
}

/// An engine with a cache of its own.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) folder: tempfile::TempDir,
}

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn limits() -> Limits {
    Limits {
        memory: 64 * MIB,
        time: Duration::from_secs(5),
        outputs: 1000,
        output_size: MIB,
        log_lines: 100_000,
    }
}

pub(super) fn everything() -> Allow {
    Allow {
        state: Some(StateGrant { max_size: MIB }),
        clock: true,
        random: true,
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(512 * MIB, 8)
    }

    pub(super) fn with(guest_memory: u64, instances_max: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(Options {
            cache_dir: folder.path().join("cache"),
            guest_memory,
            instances_max,
            memory_max: 128 * MIB,
        })
        .unwrap();
        Self { engine, folder }
    }

    pub(super) fn file(&self, wasm: &[u8]) -> PathBuf {
        let path = self.folder.path().join("plugin.wasm");
        std::fs::write(&path, wasm).unwrap();
        path
    }

    pub(super) fn plugin(&self, behaviour: &Behaviour) -> Plugin {
        self.load(&guest(behaviour), &limits())
    }

    pub(super) fn load(&self, wasm: &[u8], limits: &Limits) -> Plugin {
        let path = self.file(wasm);
        self.engine.load(&path, &everything(), limits).unwrap()
    }
}

/// A plugin that `cargo xtask plugins` built.
pub(super) fn built(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../target/plugins/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; run `cargo xtask plugins`"))
}
