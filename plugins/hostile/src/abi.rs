//! The canonical ABI of the world `framed-handler`, by hand: two imports, three exports and the
//! allocator that the host calls for what it passes in.

use std::alloc::{Layout, alloc, handle_alloc_error, realloc};
use std::cell::RefCell;

#[link(wasm_import_module = "wasmill:handler/log@0.1.0")]
unsafe extern "C" {
    #[link_name = "log"]
    fn import_log(level: u32, about: u32, index: u32, text: *const u8, len: usize);
}

#[link(wasm_import_module = "wasmill:handler/config@0.1.0")]
unsafe extern "C" {
    #[link_name = "get"]
    fn import_config_get(key: *const u8, len: usize, result: *mut OptionalString);
}

#[repr(C)]
struct OptionalString {
    some: u32,
    pointer: *mut u8,
    len: usize,
}

#[repr(C)]
struct Slice {
    pointer: *const u8,
    len: usize,
}

thread_local! {
    /// The last reply, alive until the host has copied it.
    static REPLY: RefCell<(Vec<u8>, Slice)> =
        const { RefCell::new((Vec::new(), Slice { pointer: std::ptr::null(), len: 0 })) };
}

/// Level 0 (debug) to 3 (error).
pub fn log(level: u32, about: Option<u32>, text: &str) {
    let (some, index) = about.map_or((0, 0), |index| (1, index));
    unsafe { import_log(level, some, index, text.as_ptr(), text.len()) }
}

/// `handler.config` of the pipeline.
pub fn config(key: &str) -> Option<String> {
    let mut result = OptionalString {
        some: 0,
        pointer: std::ptr::null_mut(),
        len: 0,
    };
    unsafe { import_config_get(key.as_ptr(), key.len(), &mut result) };
    (result.some & 0xFF == 1).then(|| {
        let text = unsafe { Vec::from_raw_parts(result.pointer, result.len, result.len) };
        String::from_utf8(text).unwrap_or_default()
    })
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    crate::start();
}

#[unsafe(export_name = "wasmill:handler/framed@0.1.0#frame-version")]
extern "C" fn frame_version() -> u32 {
    1
}

#[unsafe(export_name = "wasmill:handler/framed@0.1.0#handle")]
extern "C" fn handle(pointer: *mut u8, len: usize) -> *const u8 {
    let batch = unsafe { Vec::from_raw_parts(pointer, len, len) };
    let reply = crate::handle(&batch);
    REPLY.with_borrow_mut(|(bytes, slice)| {
        *bytes = reply;
        *slice = Slice {
            pointer: bytes.as_ptr(),
            len: bytes.len(),
        };
        (&raw const *slice).cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    unsafe {
        let layout = Layout::from_size_align_unchecked(new_size, align);
        let new = if old_size == 0 {
            alloc(layout)
        } else {
            realloc(
                old,
                Layout::from_size_align_unchecked(old_size, align),
                new_size,
            )
        };
        if new.is_null() {
            handle_alloc_error(layout);
        }
        new
    }
}
