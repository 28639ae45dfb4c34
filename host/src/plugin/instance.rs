//! One instance of a plugin, owned by one worker: a batch in, outcomes or a fault out. After a fault
//! the store is thrown away and the next call starts a new one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasmtime::component::Func;
use wasmtime::{Store, UpdateDeadline};

use super::blame::{blame, blame_start};
use super::contract::World;
use super::engine::TICK;
use super::error::Error;
use super::fault::{Fault, FaultKind};
use super::frame::{
    self, Batch, FRAME_VERSION, OutcomeLimits, Outcomes, RESERVE_ABOVE_BYTES, check_reserved,
};
use super::guest::{Guest, MemoryAccount, Session};
use super::load::Loaded;
use super::lock;
use super::logs::LogLine;
use super::records::{self, MessageIn, ResultOut};
use super::state::StateWrite;

/// Most bytes that one call may return.
pub const RESULT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most WASI resources (streams, pollables) that a guest may hold open.
pub const HANDLES_MAX: usize = 10_000;

/// An instance; the guest is started by the first call. Not shared between threads.
pub struct Instance {
    plugin: Arc<Loaded>,
    session: Arc<Mutex<Session>>,
    running: Option<Running>,
}

struct Running {
    store: Store<Guest>,
    handle: Func,
    /// The largest frame that the guest was told to expect.
    reserved: usize,
}

impl Instance {
    pub(super) const fn new(plugin: Arc<Loaded>, session: Arc<Mutex<Session>>) -> Self {
        Self {
            plugin,
            session,
            running: None,
        }
    }

    /// Calls the handler with a batch. `state_partition` is the namespace of `state` for this call.
    /// State writes of earlier calls that nobody took are forgotten. An error means that nothing of
    /// the batch counts; the instance is usable again.
    pub fn call(&mut self, batch: &Batch, state_partition: u32) -> Result<Outcomes, Fault> {
        {
            let mut session = lock(&self.session);
            session.logs.begin_call();
            session.state.begin_call(state_partition);
            session.messages = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        }
        let answer = self.started().and_then(|()| self.exchange(batch));
        if answer.is_err() {
            self.reset();
            self.discard();
        }
        answer
    }

    /// Throws the guest away; the next call starts a new one (`isolation: message`).
    pub fn reset(&mut self) {
        self.running = None;
    }

    /// Forgets the state writes of the last call.
    pub fn discard(&mut self) {
        lock(&self.session).state.discard();
    }

    /// State writes of the last call, in key order; they belong to its settlement.
    pub fn take_state_writes(&mut self) -> Vec<StateWrite> {
        lock(&self.session).state.take_writes()
    }

    /// Lines that the guest wrote since they were last taken; also after a fault. When some were over
    /// a limit, the last line says how many.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        let mut session = lock(&self.session);
        let Session { logs, rate, .. } = &mut *session;
        logs.take(rate)
    }

    /// Linear memory that the guest holds now.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.running
            .as_ref()
            .map_or(0, |running| running.store.data().memory.bytes())
    }

    /// Starts the guest to see its frame version. Another fault than that is left to the first call,
    /// which has the real configuration.
    pub(super) fn check_frame_version(mut self) -> Result<(), Error> {
        match self.start() {
            Ok(Err(found)) => Err(Error::FrameVersion {
                found,
                supported: FRAME_VERSION,
            }),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    fn started(&mut self) -> Result<(), Fault> {
        if self.running.is_none() {
            match self.start()? {
                Ok(running) => self.running = Some(running),
                Err(version) => {
                    return Err(Fault::new(
                        FaultKind::Instantiation,
                        format!(
                            "the handler speaks frame version {version}, the host {FRAME_VERSION}"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The inner error is a frame version that this host does not speak.
    fn start(&mut self) -> Result<Result<Running, u32>, Fault> {
        let plugin = self.plugin.clone();
        let shared = &plugin.engine.shared;
        let guest = Guest {
            memory: MemoryAccount::new(shared.budget.clone(), plugin.limits.memory),
            session: self.session.clone(),
            wasi: super::wasi::Wasi::default(),
            deadline: Instant::now(),
        };
        let mut store = Store::new(&shared.wasm, guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(RESULT_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        // A ticker that comes late makes up for it with short ticks: the clock has the last word.
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() < store.data().deadline {
                UpdateDeadline::Continue(1)
            } else {
                UpdateDeadline::Interrupt
            })
        });
        arm(&mut store, plugin.limits.time);
        let started = plugin.pre.instantiate(&mut store).and_then(|instance| {
            let handle = instance.get_func(&mut store, plugin.handle);
            let version = match &plugin.frame_version {
                None => u32::from(FRAME_VERSION),
                Some(index) => instance
                    .get_typed_func::<(), (u32,)>(&mut store, index)?
                    .call(&mut store, ())
                    .map(|(version,)| version)?,
            };
            Ok((handle, version))
        });
        match started {
            Err(error) => Err(blame_start(&error, &store, shared.instances_max)),
            Ok((_, version)) if version != u32::from(FRAME_VERSION) => Ok(Err(version)),
            Ok((None, _)) => Err(Fault::new(
                FaultKind::Instantiation,
                "the handler has no function `handle`",
            )),
            Ok((Some(handle), _)) => Ok(Ok(Running {
                store,
                handle,
                reserved: RESERVE_ABOVE_BYTES,
            })),
        }
    }

    fn exchange(&mut self, batch: &Batch) -> Result<Outcomes, Fault> {
        let plugin = &self.plugin;
        let Some(running) = &mut self.running else {
            return Err(Fault::new(
                FaultKind::Instantiation,
                "the guest is not running",
            ));
        };
        let answer = match plugin.world {
            World::Framed => running.frame(batch, plugin.limits.time)?,
            World::Handler => running.records(batch, plugin.limits.time)?,
        };
        let limits = OutcomeLimits {
            outputs: plugin.limits.outputs,
            output_size: plugin.limits.output_size,
        };
        Outcomes::read(answer, batch.len(), limits)
    }
}

impl Running {
    fn frame(&mut self, batch: &Batch, time: Duration) -> Result<Vec<u8>, Fault> {
        if batch.bytes() > self.reserved {
            let answer = self.send(&frame::reserve(batch.bytes()), time)?;
            check_reserved(&answer)?;
            self.reserved = batch.bytes();
        }
        self.send(batch.frame(), time)
    }

    fn send(&mut self, bytes: &[u8], time: Duration) -> Result<Vec<u8>, Fault> {
        let Self { store, handle, .. } = self;
        arm(store, time);
        let answer = handle
            .typed::<(&[u8],), (Vec<u8>,)>(&*store)
            .and_then(|handle| handle.call(&mut *store, (bytes,)));
        answer
            .map(|(answer,)| answer)
            .map_err(|error| blame(&error, store))
    }

    fn records(&mut self, batch: &Batch, time: Duration) -> Result<Vec<u8>, Fault> {
        let Self { store, handle, .. } = self;
        let undecodable = |what: String| Fault::new(FaultKind::Undecodable, what);
        let messages = records::messages(batch.frame()).map_err(undecodable)?;
        arm(store, time);
        let results = handle
            .typed::<(&[MessageIn<'_>],), (Vec<ResultOut>,)>(&*store)
            .and_then(|handle| handle.call(&mut *store, (&messages,)))
            .map_err(|error| blame(&error, store))?;
        records::outcome_frame(&results.0).map_err(undecodable)
    }
}

/// Gives the guest its time from now: interrupted after `time` and at most one tick more.
fn arm(store: &mut Store<Guest>, time: Duration) {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos()) + 1;
    store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX));
    let guest = store.data_mut();
    guest.memory.refused = None;
    guest.deadline = Instant::now() + time;
}
