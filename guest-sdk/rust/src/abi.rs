//! The only unsafe code of the SDK: the canonical ABI of wit/handler.wit by hand, for wasm targets.
//! Exports `cabi_realloc`; the attribute exports the rest in the user's crate. Imports are plain
//! extern functions, so the linker drops those nobody calls and the component does not ask for them.
#![expect(
    unsafe_code,
    reason = "the component model passes addresses; safe functions stand around every one of them"
)]

use crate::dispatch::{self, IntoResult};
use crate::{Message, log, state};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::cell::{Cell, OnceCell, RefCell};

/// Address and length of a list of bytes, as the host reads it after a call.
pub type Returned = [usize; 2];

thread_local! {
    /// The frame of the current call. The host fills it through `cabi_realloc`, kept between calls.
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Whether `INPUT` holds the frame of a call that is under way.
    static INPUT_TAKEN: Cell<bool> = const { Cell::new(false) };
    /// The answer of the last call; the host reads it before it calls again.
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static RETURNED: Cell<Returned> = const { Cell::new([0; 2]) };
    static CONFIG: OnceCell<Vec<(String, String)>> = const { OnceCell::new() };
    static HOOKED: Cell<bool> = const { Cell::new(false) };
}

/// What the host's copies into this memory go through. The first block of a call is its frame and
/// lands in `INPUT`; others are results of imports, owned by whoever called the import.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_len: usize,
    align: usize,
    len: usize,
) -> *mut u8 {
    if old_len == 0 && align == 1 && !INPUT_TAKEN.get() {
        INPUT_TAKEN.set(true);
        return INPUT.with_borrow_mut(|input| {
            input.clear();
            input.reserve(len);
            input.as_mut_ptr()
        });
    }
    if len == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the canonical ABI promises a power of two and sizes below 4 GiB, and that `old` with
    // `old_len` came from here.
    unsafe {
        let block = if old_len == 0 {
            alloc(Layout::from_size_align_unchecked(len, align))
        } else {
            realloc(old, Layout::from_size_align_unchecked(old_len, align), len)
        };
        if block.is_null() {
            handle_alloc_error(Layout::from_size_align_unchecked(len, align));
        }
        block
    }
}

/// Answers a frame.
///
/// # Safety
/// `frame` and `len` are the block that the host filled for this call.
pub unsafe fn handle<R: IntoResult>(
    frame: *const u8,
    len: usize,
    handler: impl for<'a> Fn(Message<'a>) -> R,
) -> *const Returned {
    hook_panics();
    // SAFETY: see above. Nothing writes to INPUT before INPUT_TAKEN is reset.
    let input = unsafe { std::slice::from_raw_parts(frame, len) };
    OUTPUT.with_borrow_mut(|out| {
        if let Err(error) = dispatch::answer(input, out, &handler) {
            log::error(error.to_string());
            std::process::abort();
        }
        RETURNED.set([out.as_ptr().addr(), out.len()]);
    });
    INPUT_TAKEN.set(false);
    RETURNED.with(|returned| returned.as_ptr().cast_const())
}

/// Panics end the instance; the text would be lost without this.
fn hook_panics() {
    if !HOOKED.replace(true) {
        std::panic::set_hook(Box::new(|panic| log::error(panic.to_string())));
    }
}

pub(crate) fn log(level: log::Level, about: Option<u32>, text: &str) {
    // SAFETY: the host only reads `text`.
    unsafe {
        imports::log(
            level as u32,
            u32::from(about.is_some()),
            about.unwrap_or_default(),
            text.as_ptr(),
            text.len(),
        );
    }
}

/// Asks the host once and keeps the answer: configuration does not change under an instance.
pub(crate) fn with_config<T>(read: impl FnOnce(&[(String, String)]) -> T) -> T {
    CONFIG.with(|config| read(config.get_or_init(config_all)))
}

fn config_all() -> Vec<(String, String)> {
    let mut list = [0; 2];
    // SAFETY: the host writes two words, the address and length of a list of two strings each.
    unsafe {
        imports::config_all(&mut list);
        take_pairs(list, |bytes| String::from_utf8_unchecked(bytes))
    }
}

pub(crate) fn state_get(key: &str) -> Option<Vec<u8>> {
    let mut option = [0; 3];
    // SAFETY: the host writes three words: whether there is a value (one byte), address, length.
    unsafe {
        imports::state_get(key.as_ptr(), key.len(), &mut option);
        let [some, address, len] = option;
        (some & 0xff != 0).then(|| take_bytes(address, len))
    }
}

pub(crate) fn state_set(key: &str, value: &[u8]) -> Result<(), state::Error> {
    let mut result = [0; 2];
    // SAFETY: the host reads key and value and writes two bytes: whether it is an error, and which.
    unsafe {
        imports::state_set(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            &mut result,
        );
    }
    match result {
        [0, _] => Ok(()),
        [_, 0] => Err(state::Error::Full),
        [_, _] => Err(state::Error::TooLarge),
    }
}

pub(crate) fn state_delete(key: &str) {
    // SAFETY: the host only reads `key`.
    unsafe { imports::state_delete(key.as_ptr(), key.len()) }
}

pub(crate) fn state_scan(prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
    let mut list = [0; 2];
    // SAFETY: as in `config_all`, with bytes for the second of each pair.
    unsafe {
        imports::state_scan(prefix.as_ptr(), prefix.len(), limit, &mut list);
        take_pairs(list, |bytes| bytes)
    }
}

pub(crate) fn clock_now() -> u64 {
    // SAFETY: no memory is involved.
    unsafe { imports::clock_now() }
}

pub(crate) fn random_bytes(count: u32) -> Vec<u8> {
    let mut list = [0; 2];
    // SAFETY: the host writes two words, the address and length of a list of bytes.
    unsafe {
        imports::random_bytes(count, &mut list);
        let [address, len] = list;
        take_bytes(address, len)
    }
}

/// Takes over a list of bytes that the host made through `cabi_realloc`.
///
/// # Safety
/// The block is such a list and is taken once.
unsafe fn take_bytes(address: usize, len: usize) -> Vec<u8> {
    // SAFETY: allocated with this length and an alignment of 1, or dangling when empty.
    unsafe { Vec::from_raw_parts(std::ptr::with_exposed_provenance_mut(address), len, len) }
}

/// Takes over a list of pairs whose parts are text (first) and bytes or text (second).
///
/// # Safety
/// As for [`take_bytes`], for the list and every part; `second` may rely on UTF-8 where the contract
/// says string.
unsafe fn take_pairs<T>(list: [usize; 2], second: impl Fn(Vec<u8>) -> T) -> Vec<(String, T)> {
    let [address, len] = list;
    let pairs: *mut [usize; 4] = std::ptr::with_exposed_provenance_mut(address);
    let mut taken = Vec::with_capacity(len);
    // SAFETY: `len` pairs of two (address, length) each; the list itself has an alignment of 4.
    unsafe {
        for index in 0..len {
            let [key, key_len, value, value_len] = pairs.add(index).read();
            taken.push((
                String::from_utf8_unchecked(take_bytes(key, key_len)),
                second(take_bytes(value, value_len)),
            ));
        }
        if len > 0 {
            dealloc(
                pairs.cast(),
                Layout::from_size_align_unchecked(
                    len * size_of::<[usize; 4]>(),
                    align_of::<usize>(),
                ),
            );
        }
    }
    taken
}

/// The functions of wit/handler.wit, lowered.
mod imports {
    #[link(wasm_import_module = "wasmill:handler/log@0.1.0")]
    unsafe extern "C" {
        pub(super) fn log(level: u32, has_about: u32, about: u32, text: *const u8, len: usize);
    }

    #[link(wasm_import_module = "wasmill:handler/config@0.1.0")]
    unsafe extern "C" {
        #[link_name = "all"]
        pub(super) fn config_all(list: *mut [usize; 2]);
    }

    #[link(wasm_import_module = "wasmill:handler/state@0.1.0")]
    unsafe extern "C" {
        #[link_name = "get"]
        pub(super) fn state_get(key: *const u8, key_len: usize, option: *mut [usize; 3]);
        #[link_name = "set"]
        pub(super) fn state_set(
            key: *const u8,
            key_len: usize,
            value: *const u8,
            value_len: usize,
            result: *mut [u8; 2],
        );
        #[link_name = "delete"]
        pub(super) fn state_delete(key: *const u8, key_len: usize);
        #[link_name = "scan"]
        pub(super) fn state_scan(
            prefix: *const u8,
            prefix_len: usize,
            limit: u32,
            list: *mut [usize; 2],
        );
    }

    #[link(wasm_import_module = "wasmill:handler/clock@0.1.0")]
    unsafe extern "C" {
        #[link_name = "now"]
        pub(super) fn clock_now() -> u64;
    }

    #[link(wasm_import_module = "wasmill:handler/random@0.1.0")]
    unsafe extern "C" {
        #[link_name = "bytes"]
        pub(super) fn random_bytes(count: u32, list: *mut [usize; 2]);
    }
}
