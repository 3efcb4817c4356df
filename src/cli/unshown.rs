//! Values of options that somebody may put a secret into, though none belongs
//! there: what is wrong with one is said without it.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Reads a value; an empty one is none, as of an option that is set to nothing.
pub(super) struct Unshown<T>(PhantomData<fn() -> T>);

impl<T> Default for Unshown<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Unshown<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> TypedValueParser for Unshown<T>
where
    T: FromStr<Err: fmt::Display> + Clone + Send + Sync + 'static,
{
    type Value = Option<T>;

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Option<T>, Error> {
        let why = match value.to_str().map(|text| (text, text.parse())) {
            Some(("", _)) => return Ok(None),
            Some((_, Ok(value))) => return Ok(Some(value)),
            Some((_, Err(why))) => format!("{why}"),
            None => "it is no text".to_owned(),
        };
        let option = option.and_then(Arg::get_long).unwrap_or_default();
        let text = format!("invalid value for --{option}: {why}\n");
        Err(Error::raw(ErrorKind::ValueValidation, text).with_cmd(command))
    }
}
