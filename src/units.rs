//! Sizes, ages and durations as people read and write them.

use std::fmt;
use std::time::Duration;

/// A number of bytes, shown in decimal units: `34.2 MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // What would be shown as 1000.0 belongs to the next unit.
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// How many of something there are: `1 layer`, `2 layers`.
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A size in bytes as people write it: `20GiB`, `500MB`, `0`.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a size such as 20GiB, 500MB or 0";
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("b", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| EXPECTED)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, bytes) = known.ok_or(EXPECTED)?;
    number.checked_mul(*bytes).ok_or("a size beyond all disks")
}

/// How long ago something was: `3 min ago`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        let seconds = self.0.as_secs();
        match seconds {
            0 => f.write_str("just now"),
            1..MINUTE => write!(f, "{seconds} s ago"),
            MINUTE..HOUR => write!(f, "{} min ago", seconds / MINUTE),
            HOUR..DAY => write!(f, "{} h ago", seconds / HOUR),
            _ => write!(f, "{} d ago", seconds / DAY),
        }
    }
}

/// How long something took: `3 min 32 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent(pub Duration);

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOUR: u64 = 3600;
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => {
                let tenths = self.0.subsec_millis() / 100;
                write!(f, "{seconds}.{tenths} s")
            }
            60..HOUR => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / HOUR, seconds % HOUR / 60),
        }
    }
}

/// A duration as people write it: `90s`, `10m`, `1h30m`, `7d`, and `0`.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a duration such as 90s, 10m, 1h30m or 7d";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::Span = text.parse().map_err(|_| EXPECTED)?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| EXPECTED)?;
    Duration::try_from(signed).map_err(|_| "a duration can't be negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_as_one() {
        let told = [0, 1, 2].map(|count: u64| counted(count, "layer"));
        assert_eq!(told, ["0 layers", "1 layer", "2 layers"]);
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "90", "-1s", "soon", "1s2"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("20GiB", 20 << 30),
            ("500 MB", 500_000_000),
            ("1kb", 1000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "10 parsecs", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (34_200_000, "34.2 MB"),
            (999_950, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), shown);
        }
    }

    #[test]
    fn what_was_spent_is_shown_in_the_units_that_fit() {
        for (milliseconds, shown) in [
            (0, "0.0 s"),
            (59_999, "59.9 s"),
            (212_300, "3 min 32 s"),
            (90_000_000, "25 h 0 min"),
        ] {
            let spent = Spent(Duration::from_millis(milliseconds));
            assert_eq!(spent.to_string(), shown);
        }
    }

    #[test]
    fn ages_are_shown_in_the_unit_that_fits() {
        for (seconds, shown) in [
            (0, "just now"),
            (59, "59 s ago"),
            (180, "3 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 d ago"),
        ] {
            assert_eq!(Age(Duration::from_secs(seconds)).to_string(), shown);
        }
    }
}
