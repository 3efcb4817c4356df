//! As much of PromQL as says what a query names: selectors with their matchers,
//! and the labels that it groups by. That it is PromQL at all, Prometheus says.

use std::collections::BTreeSet;

/// What one query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub selectors: Vec<Selector>,
    /// Labels in `by (…)` and the like.
    pub grouped: BTreeSet<String>,
    /// Whether anything is aggregated, and loses its labels.
    pub aggregates: bool,
}

/// A metric, and what its labels must be.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

/// A label, and the values that are named for it, whatever the operator.
#[derive(Debug, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    pub values: Vec<String>,
}

const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
const AGGREGATIONS: [&str; 6] = ["sum", "max", "min", "avg", "count", "topk"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// Reads a query.
pub fn read(text: &str) -> Query {
    let mut query = Query::default();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = beyond(rest, ']').1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_of_name(first) {
            let name;
            (name, rest) = split(rest, is_of_name);
            rest = named(name, rest.trim_start(), &mut query);
        } else {
            assert!(!matches!(first, '{' | '"' | '\''), "at {rest:?} in {text}");
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    query
}

/// What stands for itself, what for a metric; gives what is left to be read.
fn named<'a>(name: &str, rest: &'a str, query: &mut Query) -> &'a str {
    if GROUPING.contains(&name) {
        let (labels, rest) = beyond(rest.strip_prefix('(').expect("labels"), ')');
        let labels = labels.split(',').map(str::trim);
        query
            .grouped
            .extend(labels.filter(|label| !label.is_empty()).map(str::to_owned));
        return rest;
    }
    if AGGREGATIONS.contains(&name) {
        query.aggregates = true;
        return rest;
    }
    if OPERATORS.contains(&name) || rest.starts_with('(') {
        return rest;
    }
    let (matchers, rest) = match rest.strip_prefix('{') {
        Some(rest) => beyond(rest, '}'),
        None => ("", rest),
    };
    query.selectors.push(Selector {
        metric: name.to_owned(),
        matchers: read_matchers(matchers),
    });
    rest
}

/// `label="value",other=~"one|two"`.
fn read_matchers(mut rest: &str) -> Vec<Matcher> {
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once('"').expect("a value in quotes");
        let (value, behind) = beyond(value, '"');
        let label = label.trim_matches(|c: char| !is_of_name(c));
        matchers.push(Matcher {
            label: label.to_owned(),
            values: value.split('|').map(str::to_owned).collect(),
        });
        rest = behind.trim_start_matches([',', ' ']);
    }
    matchers
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn split(text: &str, within: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !within(c)).unwrap_or(text.len()))
}

/// What is before the next `end`, and what is behind it.
fn beyond(text: &str, end: char) -> (&str, &str) {
    text.split_once(end)
        .unwrap_or_else(|| panic!("no {end} in {text:?}"))
}

#[test]
fn a_query_is_read_for_what_it_names() {
    let query = read(
        "sum by (job, le) (rate(a_total{kind=~\"x|y\", job!=\"z\"}[5m])) > 0.5 * max(b) and on (job) c offset 1h",
    );
    let matcher = |label: &str, values: &[&str]| Matcher {
        label: label.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let selector = |metric: &str, matchers| Selector {
        metric: metric.to_owned(),
        matchers,
    };
    let expected = Query {
        selectors: vec![
            selector(
                "a_total",
                vec![matcher("kind", &["x", "y"]), matcher("job", &["z"])],
            ),
            selector("b", Vec::new()),
            selector("c", Vec::new()),
        ],
        grouped: ["job", "le"].map(str::to_owned).into(),
        aggregates: true,
    };
    assert_eq!(query, expected);
}
