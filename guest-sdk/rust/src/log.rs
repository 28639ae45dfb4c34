//! Log lines. They carry the message being handled by themselves. Always granted, rate-limited by
//! the host (100 a second by default). Tests read them back with [`crate::testing::logs`].

use crate::{dispatch, host};

#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// For whoever writes the handler.
    Debug = 0,
    /// Worth knowing.
    Info = 1,
    /// Odd, and handled.
    Warn = 2,
    /// Wrong.
    Error = 3,
}

/// Writes a line of this level.
pub fn log(level: Level, text: impl AsRef<str>) {
    host::log(level, dispatch::current(), text.as_ref());
}

/// Writes a line for whoever writes the handler. There is a macro of the same name that formats.
pub fn debug(text: impl AsRef<str>) {
    log(Level::Debug, text);
}

/// Writes a line worth knowing. There is a macro of the same name that formats.
pub fn info(text: impl AsRef<str>) {
    log(Level::Info, text);
}

/// Writes a line about something odd. There is a macro of the same name that formats.
pub fn warn(text: impl AsRef<str>) {
    log(Level::Warn, text);
}

/// Writes a line about something wrong. There is a macro of the same name that formats.
pub fn error(text: impl AsRef<str>) {
    log(Level::Error, text);
}

/// `log::debug!("{} of {}", 1, 2)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($text:tt)+) => { $crate::log::debug(::std::format!($($text)+)) };
}

/// `log::info!("{} of {}", 1, 2)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($text:tt)+) => { $crate::log::info(::std::format!($($text)+)) };
}

/// `log::warn!("{} of {}", 1, 2)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($text:tt)+) => { $crate::log::warn(::std::format!($($text)+)) };
}

/// `log::error!("{} of {}", 1, 2)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($text:tt)+) => { $crate::log::error(::std::format!($($text)+)) };
}
