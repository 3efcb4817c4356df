//! Values as the columns of a database have them, each parsed again on its way
//! out: what is stored is input, too.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::CatalogError;
use super::context::Context;
use super::ledger;
use crate::step::{Origin, Step, StepName};

/// A time as nanoseconds since 1970. Beyond the year 2262 there is no room, and
/// before 1678; a date out there is nobody's.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// A length of time as milliseconds.
pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A sum, or the largest that there is room for.
pub(super) fn most(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

/// A name, or a digest.
pub(super) fn parsed<T>(context: &Context, text: &str) -> Result<T, CatalogError>
where
    T: FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| context.corrupt(error))
}

/// A step out of its record, its date in nanoseconds, its name and its length
/// in milliseconds.
pub(super) fn step(
    context: &Context,
    (record, created_at): (&str, i64),
    name: &str,
    duration: i64,
    origin: Option<Origin>,
) -> Result<Step, CatalogError> {
    Ok(Step {
        record: parsed(context, record)?,
        created_at: Timestamp::from_nanosecond(created_at.into())
            .map_err(|error| context.corrupt(error))?,
        name: StepName::of(name),
        duration: Duration::from_millis(context.count(duration)?),
        origin,
    })
}

/// A time out of microseconds since 1970.
pub(super) fn microsecond(context: &Context, time: i64) -> Result<Timestamp, CatalogError> {
    Timestamp::from_microsecond(time).map_err(|error| context.corrupt(error))
}

/// So much of a text from outside as is kept of it.
pub(super) fn short(text: Option<&str>) -> Option<String> {
    text.map(ledger::cut)
}
