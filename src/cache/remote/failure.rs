//! How a call ends without an answer, and what is made of that.

use std::time::Duration;

use tonic::{Code, Status};

use super::connection::{self, begun_small};
use crate::cache::CacheError;
use crate::cache::wire::{busy_for, error_of};
use crate::digest::Digest;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// A hub said so, and would say so again.
    Refused(Box<Status>),
    /// A hub that is well has too much to do, and did nothing: it may be asked
    /// again after that.
    Busy(String, Duration),
    /// Nobody could be asked, or nobody answered: why, address by address.
    Unreachable(String),
}

impl Failure {
    /// Of a stream that was open.
    pub(super) fn of(status: Status) -> Self {
        match Ending::of(status) {
            Ending::Refused(status) => Self::Refused(status),
            Ending::Busy(why, pause) => Self::Busy(format!("the hub: {why}"), pause),
            Ending::Failed(why) | Ending::Said(why) | Ending::Broken(why) => {
                Self::Unreachable(format!("the hub: {why}"))
            }
        }
    }

    /// In the engine's words; `about` is the blob that was asked for, if any.
    pub(super) fn cache_error(&self, about: Option<Digest>) -> CacheError {
        match self {
            Self::Refused(status) => error_of(status, about),
            Self::Busy(why, _) | Self::Unreachable(why) => CacheError::Unavailable(why.clone()),
        }
    }
}

/// How an attempt went wrong.
pub(super) enum Ending {
    /// The hub says no.
    Refused(Box<Status>),
    /// The hub says that it has too much to do now.
    Busy(String, Duration),
    /// There is no connection.
    Failed(String),
    /// The hub says that it can't.
    Said(String),
    /// The connection is no good, most likely.
    Broken(String),
}

impl Ending {
    pub(super) fn of(status: Status) -> Self {
        if let Some(pause) = busy_for(&status) {
            return Self::Busy(status.message().to_owned(), pause);
        }
        let said = match status.message() {
            "" => format!("{:?}", status.code()),
            // In tonic's words: there is a connection, and it was closed.
            said if said.starts_with("Service was not ready") => {
                return Self::Broken(connection::CLOSED.to_owned());
            }
            said => said.to_owned(),
        };
        match status.code() {
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted => match std::error::Error::source(&status) {
                Some(source) => Self::Broken(innermost(source)),
                None => Self::Said(said),
            },
            _ => Self::Refused(Box::new(status)),
        }
    }
}

/// What lies at the bottom of an error says most.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    format!("the connection broke: {}", begun_small(text))
}
