//! Write a wasmill handler in Rust: one plain function from a message to outputs or a failure.
//!
//! ```
//! use wasmill_sdk::{Failure, Message, Output, Outputs};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     quantity: i64,
//! }
//!
//! #[wasmill_sdk::handler]
//! fn handle(message: Message) -> Result<Outputs, Failure> {
//!     let order: Order = message.json()?;
//!     if order.quantity < 0 {
//!         return Err(Failure::rejected("quantity is below zero"));
//!     }
//!     Ok(Outputs::one(Output::to("default").header("kind", "order")))
//! }
//!
//! let outputs = Message::test().payload(r#"{"quantity": 2}"#).handle(handle)?;
//! assert_eq!(outputs.len(), 1);
//! # Ok::<(), Failure>(())
//! ```
//!
//! The host owns commits, retries, dead letters and idempotency. A handler never sees them: it returns
//! outputs, which become visible together, or a [`Failure`], which leaves nothing behind. A panic ends
//! the instance and counts as an attempt; its text appears in the log.
//!
//! Build for `wasm32-unknown-unknown` with `crate-type = ["cdylib"]` (`wasmill build` does it). Only
//! the imports that a handler really uses end up in the component: [`state`], [`clock`] and [`random`]
//! must be granted by the pipeline, [`config`] and [`log`] always are.
//!
//! This crate is about the guest's side of one call. It knows nothing of topics' settings, offsets or
//! brokers. Bytes on the wire: wit/FRAME.md.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a test may stop at once"
    )
)]

#[cfg(target_family = "wasm")]
mod abi;
pub mod clock;
pub mod config;
mod dispatch;
mod failure;
mod frame;
mod headers;
pub mod log;
mod message;
mod output;
mod outputs;
pub mod random;
mod spare;
#[cfg(not(target_family = "wasm"))]
mod stand_in;
pub mod state;
pub mod testing;

pub use failure::Failure;
pub use headers::{Headers, Iter as HeadersIter};
pub use message::Message;
pub use output::{Field, Output};
pub use outputs::Outputs;
pub use testing::TestMessage;
pub use wasmill_sdk_macros::handler;

#[cfg(target_family = "wasm")]
use abi as host;
#[cfg(not(target_family = "wasm"))]
use stand_in as host;

/// For the code that `#[handler]` writes. Not a public interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::abi::{Returned, handle};
    pub use crate::dispatch::IntoResult;

    /// The frame version this SDK speaks.
    #[must_use]
    pub fn frame_version() -> u32 {
        u32::from(crate::frame::VERSION)
    }

    /// Compiles when `handler` can be one.
    pub fn check_signature<R: IntoResult>(_: impl for<'a> Fn(crate::Message<'a>) -> R) {}
}

/// What `#[handler]` refuses. The example at the head of this file is what it takes.
///
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler]
/// async fn handle(_: Message<'_>) -> Result<Outputs, Failure> { Ok(Outputs::none()) }
/// ```
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler(batch)]
/// fn handle(_: Message) -> Result<Outputs, Failure> { Ok(Outputs::none()) }
/// ```
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler]
/// fn handle(_: &str) -> Result<Outputs, Failure> { Ok(Outputs::none()) }
/// ```
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler]
/// fn handle(_: Message) -> Outputs { Outputs::none() }
/// ```
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler]
/// fn handle(_: Message<'static>) -> Result<Outputs, Failure> { Ok(Outputs::none()) }
/// ```
/// ```compile_fail
/// # use wasmill_sdk::{Failure, Message, Outputs};
/// #[wasmill_sdk::handler]
/// struct Handler;
/// ```
#[cfg(doctest)]
struct Refused;
