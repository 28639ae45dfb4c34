//! WASI for guests whose language needs it to start: no arguments, environment, directories or sockets;
//! what is written to standard output and error becomes log lines. Waiting ends with the call's time.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::io::poll;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::runtime::in_tokio;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::fault::{Fault, FaultKind};
use super::guest::{Guest, Session};
use super::imports::{Abort, RANDOM_BYTES_MAX};
use super::lock;

/// Longest unfinished line of standard output or error that is held, in bytes; then it is cut there.
const LINE_MAX: usize = 8 * 1024;
/// Most bytes of one write.
const WRITE_MAX: usize = 64 * 1024;
const POLL: &str = "wasi:io/poll@0.2.12";

/// Made when the guest first asks, because most never do.
#[derive(Default)]
pub(super) struct Wasi {
    open: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let session = &self.session;
        let (ctx, table) = &mut **self.wasi.open.get_or_insert_with(|| {
            let ctx = WasiCtx::builder()
                .stdout(Stdio::new(session, Kind::Out))
                .stderr(Stdio::new(session, Kind::Error))
                .allow_tcp(false)
                .allow_udp(false)
                .max_random_size(RANDOM_BYTES_MAX.into())
                .build();
            Box::new((ctx, ResourceTable::new()))
        });
        WasiCtxView { ctx, table }
    }
}

/// All of WASI 0.2; grants are checked elsewhere. `poll` is replaced by one that knows the deadline.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut io = linker.instance(POLL)?;
    io.func_wrap(
        "poll",
        |mut store: Store<'_>, (pollables,): (Vec<Resource<DynPollable>>,)| {
            let guest = store.data_mut();
            let deadline = guest.deadline;
            let table = guest.ctx().table;
            wait(deadline, poll::Host::poll(table, pollables)).map(|ready| (ready,))
        },
    )?;
    io.func_wrap(
        "[method]pollable.block",
        |mut store: Store<'_>, (pollable,): (Resource<DynPollable>,)| {
            let guest = store.data_mut();
            let deadline = guest.deadline;
            let table = guest.ctx().table;
            wait(deadline, poll::HostPollable::block(table, pollable))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type Store<'a> = StoreContextMut<'a, Guest>;

fn wait<T>(
    deadline: Instant,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    in_tokio(async { tokio::time::timeout_at(deadline.into(), work).await }).unwrap_or_else(|_| {
        let text = "the handler waited longer than limits.time allows";
        Err(Abort(Fault::new(FaultKind::Timeout, text)).into())
    })
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Out,
    Error,
}

/// Standard output or error as lines of the session's log.
#[derive(Clone)]
struct Stdio {
    session: Arc<Mutex<Session>>,
    kind: Kind,
    /// The line that has no end yet.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Stdio {
    fn new(session: &Arc<Mutex<Session>>, kind: Kind) -> Self {
        Self {
            session: session.clone(),
            kind,
            partial: Arc::default(),
        }
    }

    fn accept(&self, bytes: &[u8]) {
        let mut partial = lock(&self.partial);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = LINE_MAX.saturating_sub(partial.len());
            let ended = piece.ends_with(b"\n");
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            partial.extend_from_slice(text.get(..room).unwrap_or(text));
            if ended {
                self.line(&partial);
                partial.clear();
            }
        }
    }

    /// What has no end yet is not lost: a fault may follow.
    fn finish_line(&self) {
        let mut partial = lock(&self.partial);
        if !partial.is_empty() {
            self.line(&partial);
            partial.clear();
        }
    }

    fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let mut session = lock(&self.session);
        let Session { logs, rate, .. } = &mut *session;
        match self.kind {
            Kind::Out => logs.stdout_line(rate, &text),
            Kind::Error => logs.stderr_line(rate, &text),
        }
    }
}

impl IsTerminal for Stdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdio {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Only WASI 0.3 asks for this one, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdio {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Stdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.accept(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.finish_line();
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}
