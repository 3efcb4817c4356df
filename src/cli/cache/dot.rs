//! A union as a graph for Graphviz.

use std::fmt::Write as _;

use super::graph::{few, short, step};
use crate::cache::look::View;
use crate::graph::SurveyedRecord;

/// A line of a label, in letters.
const WIDTH: usize = 60;

/// The `shown` records. Boxes have a result; an edge goes from a record to what
/// stands on it, dashed where another one would do.
pub(super) fn dot(view: &View, shown: &[usize]) -> String {
    let records = &view.survey.records;
    let mut within = vec![false; records.len()];
    let mut text =
        String::from("digraph cache {\n  rankdir=LR;\n  node [fontname=\"monospace\"];\n");
    // Writing to a string does not fail.
    for &at in shown {
        within[at] = true;
        let shape = if records[at].results > 0 {
            "box"
        } else {
            "ellipse"
        };
        let label = label(view, at, &records[at]);
        writeln!(text, "  r{at} [shape={shape}, label={label}];").ok();
    }
    for &at in shown {
        for input in &records[at].inputs {
            let style = if input.len() > 1 {
                " [style=dashed]"
            } else {
                ""
            };
            for parent in input.iter().filter(|parent| within[**parent]) {
                writeln!(text, "  r{parent} -> r{at}{style};").ok();
            }
        }
    }
    text.push('}');
    text
}

fn label(view: &View, at: usize, record: &SurveyedRecord) -> String {
    let name = step(view, record);
    let mut lines: Vec<String> = Vec::new();
    let letters: Vec<char> = name.chars().collect();
    lines.extend(letters.chunks(WIDTH).map(|line| line.iter().collect()));
    lines.push(format!("{at}: {}", short(record)));
    lines.push(format!(
        "exports {}",
        few(record.exports.iter().map(u64::to_string))
    ));
    let lines: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
    format!("\"{}\"", lines.join("\\n"))
}

/// A text that Graphviz shows as it is: within a quoted label a backslash
/// begins an escape, and an ampersand the name of a letter. Brackets would be
/// markup to whoever shows the picture on a page.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '&' => quoted.push_str("&amp;"),
            '<' => quoted.push_str("&lt;"),
            '>' => quoted.push_str("&gt;"),
            letter if letter.is_control() => quoted.push(char::REPLACEMENT_CHARACTER),
            letter => quoted.push(letter),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::cache::look::Names;
    use crate::graph::Survey;
    use crate::step::{Step, StepName};

    #[test]
    fn a_name_does_not_end_its_label() {
        let name = "RUN echo \"a\"]; x -> y [label=<b>\\N</b>\n} & \\";
        let shown =
            "RUN echo \\\"a\\\"]; x -&gt; y [label=&lt;b&gt;\\\\N&lt;/b&gt;\u{fffd}} &amp; \\\\";
        assert_eq!(quoted(name), shown);
    }

    #[test]
    fn a_graph_has_its_own_nodes_and_edges_whatever_steps_are_called() {
        let record = |inputs: &[&[usize]]| SurveyedRecord {
            digest: "sha256:a".parse().unwrap(),
            inputs: inputs.iter().map(|input| input.to_vec()).collect(),
            depth: 0,
            results: 1,
            made: Vec::new(),
            exports: vec![1],
        };
        let records = vec![record(&[]), record(&[&[0]]), record(&[&[0, 1]])];
        let step = Step {
            record: "sha256:a".parse().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            name: StepName::of("x\"];\n r9 -> r9; a [label=\"\u{1b}[2J"),
            duration: Default::default(),
            origin: None,
        };
        let view = View {
            survey: Survey { records, loops: 0 },
            names: Names::of_steps(vec![step]),
            ..View::default()
        };
        let text = dot(&view, &[0, 1]);
        let lines: Vec<&str> = text.lines().collect();
        let label = r#""x\"];  r9 -&gt; r9; a [label=\"?[2J\n0: a\nexports 1""#;
        let label = label.replace('?', "\u{fffd}");
        assert_eq!(lines[3], format!("  r0 [shape=box, label={label}];"));
        assert_eq!(lines[5..], ["  r0 -> r1;", "}"]);
    }

    proptest! {
        #[test]
        fn no_text_leaves_the_quotes_that_it_is_put_into(text in any::<String>()) {
            let quoted = quoted(&text);
            let mut letters = quoted.chars();
            while let Some(letter) = letters.next() {
                prop_assert!(!letter.is_control() && letter != '"');
                if letter == '\\' {
                    prop_assert!(matches!(letters.next(), Some('\\' | '"')));
                }
            }
        }
    }
}
