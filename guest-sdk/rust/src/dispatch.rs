//! One frame in, one frame out: calls the handler for each message of a batch and remembers which
//! message is being handled, so that log lines and panics can name it.

use crate::frame::{self, Frame};
use crate::{Failure, Message, Outputs};
use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a handler may return: `Result` of anything that becomes [`Outputs`] or a [`Failure`].
#[diagnostic::on_unimplemented(
    message = "a handler returns `Result<Outputs, Failure>`, not `{Self}`",
    note = "for the success `Output`, `Vec<Output>`, `Option<Output>` or `()` will do as well",
    note = "for the error anything that converts into `wasmill_sdk::Failure`"
)]
pub trait IntoResult {
    /// The one form the frame is written from.
    fn into_result(self) -> Result<Outputs, Failure>;
}

impl<T: Into<Outputs>, E: Into<Failure>> IntoResult for Result<T, E> {
    fn into_result(self) -> Result<Outputs, Failure> {
        match self {
            Ok(outputs) => Ok(outputs.into()),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// The index in its batch of the message being handled.
pub(crate) fn current() -> Option<u32> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// Answers `input` in `out`, which is emptied first. Fails only on a frame the host should not have
/// sent; there is no outcome for that, so the caller ends the instance.
pub(crate) fn answer<R: IntoResult>(
    input: &[u8],
    out: &mut Vec<u8>,
    handler: &impl for<'a> Fn(Message<'a>) -> R,
) -> Result<(), frame::Error> {
    out.clear();
    let mut batch = match Frame::read(input)? {
        Frame::Batch(batch) => batch,
        Frame::Reserve => {
            frame::write_reserve_answer(out);
            return Ok(());
        }
    };
    frame::write_outcome_head(out, batch.count());
    for index in 0..batch.count() {
        let message = batch.next()?;
        CURRENT.set(Some(index));
        let result = handler(message).into_result();
        frame::write_result(out, &result);
    }
    CURRENT.set(None);
    batch.end()
}
