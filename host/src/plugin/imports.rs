//! The host's side of handler.wit: log, config, state, clock, random. All of them are linked; what a
//! plugin may have is decided before it is instantiated (`contract.rs`). Sizes are checked before
//! anything is copied out of the guest.

use std::sync::MutexGuard;
use std::time::SystemTime;

use rand::Rng as _;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, WasmList, WasmStr};

use super::contract::{PACKAGE, WIT_VERSION};
use super::fault::{Fault, FaultKind};
use super::guest::{Guest, Session};
use super::lock;
use super::logs::LogLevel;
use super::state::{Refused, STATE_KEY_MAX, STATE_VALUE_MAX};
use super::wasi;

/// Most bytes of one `random.bytes`.
pub const RANDOM_BYTES_MAX: u32 = 64 * 1024;

type Store<'a> = StoreContextMut<'a, Guest>;
type Entries = Vec<(String, Vec<u8>)>;

/// A host function ends the call with a fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Abort(pub(super) Fault);

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum StateError {
    #[component(name = "full")]
    Full,
    #[component(name = "too-large")]
    TooLarge,
}

/// Everything that can be imported.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    add_log_and_config(&mut linker)?;
    add_state(&mut linker)?;
    let mut clock = linker.instance(&interface("clock"))?;
    clock.func_wrap("now", |_: Store<'_>, ()| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok((since.map_or(0, |d| d.as_millis() as u64),))
    })?;
    let mut random = linker.instance(&interface("random"))?;
    random.func_wrap("bytes", |_: Store<'_>, (count,): (u32,)| {
        if count > RANDOM_BYTES_MAX {
            let text =
                format!("random.bytes was asked for {count} bytes, {RANDOM_BYTES_MAX} are allowed");
            return Err(Abort(Fault::new(FaultKind::Trap, text)).into());
        }
        let mut bytes = vec![0; count as usize];
        rand::rng().fill_bytes(&mut bytes);
        Ok((bytes,))
    })?;
    Ok(linker)
}

fn interface(name: &str) -> String {
    format!("{PACKAGE}{name}@{WIT_VERSION}")
}

fn add_log_and_config(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut log = linker.instance(&interface("log"))?;
    log.func_wrap(
        "log",
        |store: Store<'_>, (level, about, text): (LogLevel, Option<u32>, WasmStr)| {
            let text = text.to_str(&store)?;
            let mut session = session(&store);
            let Session {
                logs,
                rate,
                messages,
                ..
            } = &mut *session;
            logs.line(rate, level, about.filter(|index| index < messages), &text);
            Ok(())
        },
    )?;
    let mut config = linker.instance(&interface("config"))?;
    config.func_wrap("get", |store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?;
        Ok((session(&store).config.get(&*key).cloned(),))
    })?;
    config.func_wrap("all", |store: Store<'_>, ()| {
        let config = session(&store).config.clone();
        let all: Vec<(String, String)> = config
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Ok((all,))
    })
}

fn add_state(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut state = linker.instance(&interface("state"))?;
    state.func_wrap("get", |store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?;
        if key.len() > STATE_KEY_MAX {
            return Ok((None,));
        }
        let value = session(&store).state.get(&key).map_err(Abort)?;
        Ok((value,))
    })?;
    state.func_wrap(
        "set",
        |store: Store<'_>, (key, value): (WasmStr, WasmList<u8>)| {
            let value_len = value.len();
            let key = key.to_str(&store)?;
            if key.len() > STATE_KEY_MAX || value_len > STATE_VALUE_MAX {
                return Ok((Err(StateError::TooLarge),));
            }
            let value = value.as_le_slice(&store).to_vec();
            let set = session(&store).state.set(&key, value).map_err(Abort)?;
            let set = set.map_err(|refused| match refused {
                Refused::Full => StateError::Full,
                Refused::TooLarge => StateError::TooLarge,
            });
            Ok((set,))
        },
    )?;
    state.func_wrap("delete", |store: Store<'_>, (key,): (WasmStr,)| {
        let key = key.to_str(&store)?;
        if key.len() <= STATE_KEY_MAX {
            session(&store).state.delete(&key).map_err(Abort)?;
        }
        Ok(())
    })?;
    state.func_wrap(
        "scan",
        |store: Store<'_>, (prefix, limit): (WasmStr, u32)| {
            let prefix = prefix.to_str(&store)?;
            let entries = if prefix.len() > STATE_KEY_MAX {
                Entries::new()
            } else {
                session(&store).state.scan(&prefix, limit).map_err(Abort)?
            };
            Ok((entries,))
        },
    )
}

fn session<'a>(store: &'a Store<'_>) -> MutexGuard<'a, Session> {
    lock(&store.data().session)
}
