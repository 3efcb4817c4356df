//! Tables and units for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// A table without lines; the given columns hold numbers.
pub(super) fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
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

/// A size with three digits, in powers of 1024: `12.3 MiB`.
pub(super) fn bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut scaled = size as f64 / 1024.0;
    let mut unit = 0;
    // Where rounding would show 1024.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(scaled < 99.95);
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// How long ago, in the largest whole unit: `3m`, `2h`, `9d`.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    const UNITS: [(i64, &str); 3] = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
    let seconds = now.duration_since(then).as_secs().max(0);
    let unit = UNITS.iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(
        || format!("{seconds}s"),
        |(length, name)| format!("{}{name}", seconds / length),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (size, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (99 * 1024 + 1000, "100 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (97 << 20, "97.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), shown, "{size}");
        }
    }

    #[test]
    fn an_age_is_in_its_largest_unit_and_never_negative() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (then, shown) in [
            ("2026-11-22T12:00:00Z", "0s"),
            ("2026-11-22T11:59:01Z", "59s"),
            ("2026-11-22T11:59:00Z", "1m"),
            ("2026-11-21T12:00:01Z", "23h"),
            ("2026-10-22T12:00:00Z", "31d"),
            ("2026-11-22T12:05:00Z", "0s"),
        ] {
            assert_eq!(age(then.parse().unwrap(), now), shown, "{then}");
        }
    }
}
