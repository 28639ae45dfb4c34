//! Why an operator's request failed: a stable code, what happened, what to do. The same value from a
//! directory opened here and from a host's admin port.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request that failed. Shown to people as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    /// Lowercase, no full stop.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// Stable: programs match on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    Unauthorized,
    ForbiddenHost,
    ForbiddenOrigin,
    UnknownRoute,
    MethodNotAllowed,
    Invalid,
    TooLarge,
    TooSlow,
    UnknownTopic,
    UnknownPartition,
    UnknownGroup,
    UnknownDeadLetter,
    UnknownMessage,
    /// Of a redrive.
    UnknownJob,
    TopicExists,
    /// Something else is under way, or over.
    Conflict,
    UnknownPipeline,
    /// The message is not one that waits.
    NotHeld,
    /// The new configuration cannot take the place of the old one.
    BadConfiguration,
    /// What was asked for needs a running host.
    NoHost,
    /// The host has too much to do.
    Busy,
    /// A request with this ID was made and may still be answered.
    CorrelationInUse,
    /// Nobody answered the request in time.
    NoAnswer,
    /// The store refuses reads or writes: disk full, damaged, held by another process.
    StoreUnavailable,
    /// No host answers.
    Unreachable,
    Internal,
}

impl Error {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// A fault of wasmill itself.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            Code::Internal,
            message,
            "this is a fault of wasmill; the host's log has more, please report it",
        )
    }
}

impl Code {
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForbiddenHost | Self::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Self::UnknownRoute
            | Self::UnknownTopic
            | Self::UnknownPartition
            | Self::UnknownGroup
            | Self::UnknownPipeline
            | Self::UnknownDeadLetter
            | Self::UnknownMessage
            | Self::UnknownJob => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TopicExists
            | Self::Conflict
            | Self::NotHeld
            | Self::BadConfiguration
            | Self::NoHost => StatusCode::CONFLICT,
            Self::CorrelationInUse => StatusCode::CONFLICT,
            Self::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::StoreUnavailable | Self::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut response = (status, axum::Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                axum::http::header::WWW_AUTHENTICATE,
                axum::http::HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}
