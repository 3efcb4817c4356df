//! Tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::units::Age;

/// A table without lines; the given columns hold numbers.
pub(super) fn table<'a>(header: impl IntoIterator<Item = &'a str>, numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.into_iter().collect::<Vec<_>>());
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints to stdout. A reader that went away (`| head`) is no error.
pub(super) fn print(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints JSON, indented.
pub(super) fn print_json(content: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(serde_json::to_string_pretty(content)?)?)
}

/// How long ago something was.
pub(super) fn age(then: Timestamp, now: Timestamp) -> Age {
    // A clock that runs ahead of ours wrote just now.
    Age(now.duration_since(then).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_the_future_was_just_now() {
        let [earlier, later] = [1, 90].map(|second| Timestamp::from_second(second).unwrap());
        assert_eq!(age(earlier, later).to_string(), "1 min ago");
        assert_eq!(age(later, earlier).to_string(), "just now");
    }
}
