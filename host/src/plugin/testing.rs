//! Small guests for tests, assembled here, so that they need no Wasm toolchain: each is a framed
//! handler whose whole behaviour is one function body. Guests in Rust are in plugins/hostile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstructionSink, MemArg,
    MemorySection, MemoryType, Module, RefType, TableSection, TableType, TypeSection, ValType,
};

use super::componentize::componentize;
use super::engine::{Engine, Options};
use super::load::Plugin;
use super::lock;
use super::state::StateView;
use crate::config::valid::{Allow, Limits, StateGrant};

/// Where a fixed reply lies.
pub(super) const REPLY_AT: u32 = 64;
/// Where `handle` leaves address and length of its answer.
pub(super) const ANSWER_AT: i32 = 16;
/// Where results without content are written; zero beyond it.
const ACK_AT: u32 = 64 * 1024;
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
    componentize(&core_module(behaviour)).unwrap()
}

/// The core module behind [`guest`].
pub(super) fn core_module(behaviour: &Behaviour) -> Vec<u8> {
    let data = match behaviour {
        Behaviour::Reply(bytes) => bytes.as_slice(),
        _ => &[],
    };
    Core {
        data,
        ..Core::default()
    }
    .module(|body| handle(behaviour, body))
}

/// A function that a core module imports: module, name, number of i32 parameters; it returns an i32.
pub(super) type CoreImport = (&'static str, &'static str, usize);

/// A core module that exports the framed world.
pub(super) struct Core<'a> {
    pub(super) wit_version: &'a str,
    pub(super) frame_version: i32,
    pub(super) imports: &'a [CoreImport],
    /// At address 64.
    pub(super) data: &'a [u8],
    /// Forget at each call what was allocated before.
    pub(super) reset_heap: bool,
}

impl Default for Core<'_> {
    fn default() -> Self {
        Self {
            wit_version: "0.1.0",
            frame_version: 1,
            imports: &[],
            data: &[],
            reset_heap: true,
        }
    }
}

impl Core<'_> {
    /// `handle` is the body of `handle(pointer, length)`; it must leave an address on the stack.
    pub(super) fn module(&self, handle: impl FnOnce(&mut InstructionSink<'_>)) -> Vec<u8> {
        let mut module = Module::new();
        let (types, imports) = self.types_and_imports();
        let mut functions = FunctionSection::new();
        functions.function(0).function(1).function(2);
        module.section(&types).section(&imports).section(&functions);
        add_table_and_memory(&mut module);
        let first = self.imports.len() as u32;
        let interface = format!("wasmill:handler/framed@{}", self.wit_version);
        let mut exports = ExportSection::new();
        exports
            .export("memory", ExportKind::Memory, 0)
            .export("cabi_realloc", ExportKind::Func, first)
            .export(&format!("{interface}#handle"), ExportKind::Func, first + 1)
            .export(
                &format!("{interface}#frame-version"),
                ExportKind::Func,
                first + 2,
            );
        let mut handler = Function::new([]);
        let mut body = handler.instructions();
        if self.reset_heap {
            body.i32_const(HEAP_AT as i32).global_set(0);
        }
        handle(&mut body);
        body.end();
        let mut version = Function::new([]);
        version.instructions().i32_const(self.frame_version).end();
        let mut code = CodeSection::new();
        code.function(&realloc())
            .function(&handler)
            .function(&version);
        let mut data = DataSection::new();
        data.active(
            0,
            &ConstExpr::i32_const(REPLY_AT as i32),
            self.data.iter().copied(),
        );
        module.section(&exports).section(&code).section(&data);
        module.finish()
    }

    fn types_and_imports(&self) -> (TypeSection, ImportSection) {
        let i = ValType::I32;
        let mut types = TypeSection::new();
        types.ty().function([i; 4], [i]); // cabi_realloc
        types.ty().function([i; 2], [i]); // handle
        types.ty().function([], [i]); // frame-version
        let mut imports = ImportSection::new();
        for (index, (module, name, parameters)) in self.imports.iter().enumerate() {
            types.ty().function(vec![i; *parameters], [i]);
            imports.import(module, name, EntityType::Function(3 + index as u32));
        }
        (types, imports)
    }
}

fn add_table_and_memory(module: &mut Module) {
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
    let mutable = GlobalType {
        val_type: ValType::I32,
        mutable: true,
        shared: false,
    };
    let mut globals = GlobalSection::new();
    globals.global(mutable, &ConstExpr::i32_const(HEAP_AT as i32)); // 0: top of the heap
    globals.global(mutable, &ConstExpr::i32_const(1 << 20)); // 1: bytes it may take in one piece
    module.section(&tables).section(&memories).section(&globals);
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
fn handle(behaviour: &Behaviour, body: &mut InstructionSink<'_>) {
    match behaviour {
        Behaviour::Ack => ack(body),
        Behaviour::Reply(bytes) => answer(body, REPLY_AT, bytes.len() as u32),
        Behaviour::ReplyLength(length) => answer(body, 0, *length),
        Behaviour::ReplyOutside => answer(body, u32::MAX - 16, 8),
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
            answer(body, REPLY_AT, 8);
            body.i32_const(ANSWER_AT).return_().end();
            ack(body);
        }
    }
    body.i32_const(ANSWER_AT);
}

/// Head with the batch's count, then as many results of twelve zero bytes, which the memory has.
pub(super) fn ack(body: &mut InstructionSink<'_>) {
    body.i32_const(ACK_AT as i32).i32_const(1).i32_store(at(0));
    body.i32_const(ACK_AT as i32)
        .local_get(0)
        .i32_load(at(4))
        .i32_store(at(4));
    body.i32_const(ANSWER_AT)
        .i32_const(ACK_AT as i32)
        .i32_store(at(0));
    body.i32_const(ANSWER_AT).local_get(0).i32_load(at(4));
    body.i32_const(12)
        .i32_mul()
        .i32_const(8)
        .i32_add()
        .i32_store(at(4));
}

fn answer(body: &mut InstructionSink<'_>, pointer: u32, length: u32) {
    body.i32_const(ANSWER_AT)
        .i32_const(pointer as i32)
        .i32_store(at(0));
    body.i32_const(ANSWER_AT)
        .i32_const(length as i32)
        .i32_store(at(4));
}

pub(super) const fn at(offset: u64) -> MemArg {
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
        state: Some(StateGrant {
            max_size: MIB,
            name: "default".to_owned(),
            version: 1,
        }),
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

/// A state table in memory, shared by its clones.
#[derive(Clone)]
pub(super) struct Table(Arc<Mutex<TableRows>>);

struct TableRows {
    rows: BTreeMap<(u32, String), Vec<u8>>,
    max: u64,
    failing: Option<String>,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_max(MIB)
    }
}

impl Table {
    pub(super) fn with_max(max: u64) -> Self {
        Self(Arc::new(Mutex::new(TableRows {
            rows: BTreeMap::new(),
            max,
            failing: None,
        })))
    }

    pub(super) fn put(&self, partition: u32, key: &str, value: &str) {
        let value = value.as_bytes().to_vec();
        lock(&self.0)
            .rows
            .insert((partition, key.to_owned()), value);
    }

    pub(super) fn fail(&self, with: &str) {
        lock(&self.0).failing = Some(with.to_owned());
    }
}

impl StateView for Table {
    fn get(&self, partition: u32, key: &str) -> Result<Option<Vec<u8>>, String> {
        let table = lock(&self.0);
        match &table.failing {
            Some(error) => Err(error.clone()),
            None => Ok(table.rows.get(&(partition, key.to_owned())).cloned()),
        }
    }

    fn scan(
        &self,
        partition: u32,
        prefix: &str,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for ((p, key), value) in lock(&self.0).rows.range((partition, prefix.to_owned())..) {
            if *p != partition
                || !key.starts_with(prefix)
                || found.len() == limit
                || bytes > bytes_max
            {
                break;
            }
            bytes += key.len() + value.len();
            found.push((key.clone(), value.clone()));
        }
        Ok(found)
    }

    fn room(&self) -> u64 {
        let table = lock(&self.0);
        let used: usize = table.rows.iter().map(|((_, k), v)| k.len() + v.len()).sum();
        table.max.saturating_sub(used as u64)
    }
}
