//! Buffers of outputs that were sent, kept for the next ones: a handler that writes JSON of about
//! the same size each time does not allocate.

use std::cell::RefCell;

/// Buffers kept at most.
const COUNT_MAX: usize = 64;
/// A buffer that grew beyond this is freed, in bytes.
const CAPACITY_MAX: usize = 64 * 1024;
/// What a new buffer starts with, in bytes.
const CAPACITY_INITIAL: usize = 512;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn take() -> Vec<u8> {
    SPARE
        .try_with(|spare| spare.try_borrow_mut().ok()?.pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| Vec::with_capacity(CAPACITY_INITIAL))
}

pub(crate) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > CAPACITY_MAX {
        return;
    }
    buffer.clear();
    // There is none while the thread ends; then the buffer is simply freed.
    SPARE
        .try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < COUNT_MAX
            {
                spare.push(buffer);
            }
        })
        .unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_and_size_of_kept_buffers_are_bounded() {
        for _ in 0..2 * COUNT_MAX {
            give_back(Vec::with_capacity(10));
        }
        give_back(Vec::with_capacity(CAPACITY_MAX + 1));
        SPARE.with_borrow(|spare| {
            assert_eq!(spare.len(), COUNT_MAX);
            assert!(spare.iter().all(|buffer| buffer.capacity() <= CAPACITY_MAX));
        });
    }

    #[test]
    fn a_buffer_comes_back_empty() {
        give_back(b"left over".to_vec());
        assert!(take().is_empty());
    }
}
