//! The guest under test, and what it is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use wasmill::config::valid::{Allow, Limits, StateGrant};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::plugin::frame::{Batch, Call, Outcomes};
use wasmill::plugin::{Engine, Fault, Instance, Options, StateView};

/// The component that `cargo xtask plugins` made of the guest `name`.
pub(crate) fn component(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let path = target.join("plugins").join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask plugins`",
        path.display()
    );
    path
}

/// An engine whose compile cache ends with it.
pub(crate) struct TestEngine {
    engine: Engine,
    _cache: tempfile::TempDir,
}

pub(crate) fn engine() -> TestEngine {
    let cache = tempfile::tempdir().unwrap();
    let engine = Engine::new(Options {
        cache_dir: cache.path().to_owned(),
        guest_memory: 256 * 1024 * 1024,
        instances_max: 4,
        memory_max: 128 * 1024 * 1024,
    })
    .unwrap();
    TestEngine {
        engine,
        _cache: cache,
    }
}

/// One message and what it asks for.
pub(crate) struct Ask {
    headers: HeadersBuf,
    payload: Option<Vec<u8>>,
}

impl Ask {
    pub(crate) fn new(word: &str) -> Self {
        let ask = Self {
            headers: HeadersBuf::new(),
            payload: Some(Vec::new()),
        };
        ask.header("ask", word)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        assert!(self.headers.push(name, Some(value.as_bytes())));
        self
    }

    pub(crate) fn payload(mut self, payload: Option<&[u8]>) -> Self {
        self.payload = payload.map(<[u8]>::to_vec);
        self
    }
}

/// The guest `conformance` with everything granted.
pub(crate) struct Guest {
    pub(crate) instance: Instance,
    batch: Batch,
}

impl Guest {
    pub(crate) fn new(engine: &TestEngine) -> Self {
        let allow = Allow {
            state: Some(StateGrant {
                name: "default".to_owned(),
                version: 1,
                max_size: 1024 * 1024,
            }),
            clock: true,
            random: true,
        };
        let path = component("conformance");
        let limits = Limits {
            memory: 128 * 1024 * 1024,
            time: Duration::from_secs(5),
            outputs: 1000,
            output_size: 1024 * 1024,
            log_lines: 100,
        };
        let plugin = engine.engine.load(&path, &allow, &limits).unwrap();
        let config = [("currency", "EUR"), ("empty", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            instance: plugin.instance(&BTreeMap::from(config), Some(Box::new(EmptyTable))),
            batch: Batch::new(&["asked"]),
        }
    }

    /// One call with these messages, at offsets 100 and up.
    pub(crate) fn call(&mut self, asks: &[Ask]) -> Result<Outcomes, Fault> {
        self.batch.clear();
        for (offset, ask) in (100..).zip(asks) {
            let message = MessageRef {
                key: Some(b"k"),
                payload: ask.payload.as_deref(),
                headers: ask.headers.as_headers(),
                timestamp_ms: 1_700_000_000_123,
            };
            let call = Call {
                topic: 0,
                partition: 3,
                offset,
                message,
                attempt: 2,
                correlation_id: "corr",
                idempotency_key: Some("once"),
            };
            assert!(self.batch.push(&call));
        }
        self.instance.call(&self.batch, 3)
    }
}

/// State before the first write.
struct EmptyTable;

impl StateView for EmptyTable {
    fn get(&self, _: u32, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn scan(&self, _: u32, _: &str, _: usize, _: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(Vec::new())
    }

    fn room(&self) -> u64 {
        1024 * 1024
    }
}
