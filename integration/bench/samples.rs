//! The figures of one kind of build, over all rounds.

use std::fmt;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time.
    Seconds,
    /// A part of 1.
    Rate,
    /// Whole things.
    Count,
    /// Millions of bytes.
    Megabytes,
    /// Millions of bytes in a second.
    Speed,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.3} s"),
            Self::Rate => format!("{value:.2}"),
            Self::Count => format!("{value:.0}"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Speed => format!("{value:.0} MB/s"),
        }
    }
}

/// Measured figures; never empty when they are read.
#[derive(Clone, Debug)]
pub struct Samples {
    unit: Unit,
    values: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub fn new(unit: Unit) -> Self {
        Self {
            unit,
            values: Vec::new(),
        }
    }

    /// One more.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// A figure like these, with its unit.
    pub fn write(&self, value: f64) -> String {
        self.unit.write(value)
    }

    /// The one in the middle, or the mean of the two there.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }

    /// The least.
    pub fn least(&self) -> f64 {
        self.sorted()[0]
    }

    fn sorted(&self) -> Vec<f64> {
        assert!(!self.values.is_empty(), "nothing was measured");
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// The median, and between what all lie.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = self.sorted();
        let [least, most] = [sorted[0], sorted[sorted.len() - 1]].map(|value| self.write(value));
        write!(f, "**{}**", self.write(self.median()))?;
        if least == most {
            return Ok(());
        }
        let number = |text: &str| text.split(' ').next().map(str::to_owned);
        let [least, most] = [least, most].map(|text| number(&text).unwrap_or(text));
        write!(f, " ({least} to {most})")
    }
}
