//! `docs/benchmarks.md`: one section a measurement, each for itself.

use std::path::Path;

use crate::section::Section;

const HEAD: &str = "\
# Benchmarks

What layerd costs and saves, as ratios within one run: the kinds take turns, and each figure is the median of all rounds, with the least and the most beside it. What is measured is the wall time of `buildctl` from its start to its end; daemons are started before. Every measured build is checked for what it stands for (steps that ran, steps that came from the cache, bytes that were sent), and a run in which one is not what it should be ends without a figure.

`integration/bench.sh` writes this page, or the sections that are named to it; `integration/bench.sh --help` lists them.
";

/// Puts sections in, each in the place of its predecessor or else at the end.
pub fn put(page: &Path, sections: &[Section], stamp: &str) {
    let before = std::fs::read_to_string(page).unwrap_or_default();
    let mut kept = split(&before);
    for section in sections {
        let (heading, text) = (section.heading(), section.text(stamp));
        match kept
            .iter_mut()
            .find(|old| old.lines().next() == Some(&heading))
        {
            Some(old) => *old = text,
            None => kept.push(text),
        }
    }
    let text = format!("{HEAD}\n{}\n", kept.join("\n\n"));
    std::fs::write(page, text).expect("the page can be written");
}

/// The sections of a page, without what stands before the first.
fn split(page: &str) -> Vec<String> {
    let parts = page.split("\n## ").skip(1);
    parts
        .map(|part| format!("## {}", part.trim_end()))
        .collect()
}
