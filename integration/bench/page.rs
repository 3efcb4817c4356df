//! `docs/benchmarks.md`: one section a measurement, each for itself.

use std::path::Path;

const HEAD: &str = "\
# Benchmarks

What layerd costs and saves, as ratios within one run: the kinds take turns, and each figure is the median of all rounds, with the least and the most beside it. Times are wall times of `buildctl` from its start to its end; daemons are started before. Every measured build is checked for what it stands for (steps that ran, steps that came from the cache, bytes that were sent), and a run in which one is not what it should be ends without a figure.

`integration/bench.sh` writes this page, or the sections that are named to it; `integration/bench.sh --help` lists them.
";

/// Puts a section in, in the place of its predecessor or else at the end.
pub fn put(page: &Path, heading: &str, text: &str) {
    let before = std::fs::read_to_string(page).unwrap_or_default();
    let mut sections = split(&before);
    let same = |old: &&mut String| old.lines().next() == Some(heading);
    match sections.iter_mut().find(same) {
        Some(old) => text.clone_into(old),
        None => sections.push(text.to_owned()),
    }
    let text = format!("{HEAD}\n{}\n", sections.join("\n\n"));
    std::fs::write(page, text).expect("the page can be written");
}

/// The sections of a page, without what stands before the first.
fn split(page: &str) -> Vec<String> {
    let parts = page.split("\n## ").skip(1);
    parts
        .map(|part| format!("## {}", part.trim_end()))
        .collect()
}
