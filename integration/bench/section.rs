//! What a measurement found: a table of times, and the goals they were held to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::samples::{Samples, Unit};

/// One measurement, as the page shows it.
pub struct Section {
    /// Its heading, by which it is found on the page again.
    title: &'static str,
    /// What was built, in a paragraph.
    about: String,
    columns: Vec<&'static str>,
    /// In the order in which they are shown.
    rows: Vec<&'static str>,
    cells: BTreeMap<(&'static str, &'static str), Samples>,
    goals: Vec<Goal>,
}

struct Goal {
    what: &'static str,
    figure: f64,
    limit: f64,
}

impl Section {
    /// An empty table.
    pub fn new(
        title: &'static str,
        about: impl Into<String>,
        columns: &[&'static str],
        rows: &[&'static str],
    ) -> Self {
        Self {
            title,
            about: about.into(),
            columns: columns.to_vec(),
            rows: rows.to_vec(),
            cells: BTreeMap::new(),
            goals: Vec::new(),
        }
    }

    /// One more time for a cell.
    pub fn push(&mut self, row: &'static str, column: &'static str, took: Duration) {
        self.figure(row, column, Unit::Seconds, took.as_secs_f64());
    }

    /// One more figure of any other kind.
    pub fn figure(&mut self, row: &'static str, column: &'static str, unit: Unit, value: f64) {
        assert!(self.rows.contains(&row) && self.columns.contains(&column));
        let cell = self.cells.entry((row, column));
        let cell = cell.or_insert_with(|| Samples::new(unit));
        eprintln!("{}: {row}, {column}: {}", self.title, cell.write(value));
        cell.push(value);
    }

    /// The median of a cell.
    pub fn median(&self, row: &'static str, column: &'static str) -> f64 {
        self.cells[&(row, column)].median()
    }

    /// The least of a cell.
    pub fn least(&self, row: &'static str, column: &'static str) -> f64 {
        self.cells[&(row, column)].least()
    }

    /// A figure that is to be at most `limit`.
    pub fn goal(&mut self, what: &'static str, figure: f64, limit: f64) {
        self.goals.push(Goal {
            what,
            figure,
            limit,
        });
    }

    /// Its heading as a line.
    pub fn heading(&self) -> String {
        format!("## {}", self.title)
    }

    /// As Markdown; `stamp` says when and where it was measured.
    pub fn text(&self, stamp: &str) -> String {
        let mut text = format!("{}\n\n{}\n\n", self.heading(), self.about);
        writeln!(text, "| | {} |", self.columns.join(" | ")).unwrap();
        writeln!(text, "|---|{}", "---|".repeat(self.columns.len())).unwrap();
        for row in &self.rows {
            let cell = |column: &&'static str| {
                let samples = self.cells.get(&(*row, *column));
                samples.map_or_else(String::new, Samples::to_string)
            };
            let cells: Vec<String> = self.columns.iter().map(cell).collect();
            writeln!(text, "| {row} | {} |", cells.join(" | ")).unwrap();
        }
        writeln!(text, "\n| goal | at most | measured | |\n|---|---|---|---|").unwrap();
        for goal in &self.goals {
            let met = if goal.figure <= goal.limit {
                "met"
            } else {
                "**missed**"
            };
            let (what, limit, figure) = (goal.what, goal.limit, goal.figure);
            writeln!(text, "| {what} | {limit:.2} | {figure:.3} | {met} |").unwrap();
        }
        write!(text, "\n{stamp}").unwrap();
        text
    }
}
