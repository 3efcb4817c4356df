//! What an export holds, layer by layer, as lines for the build's progress: so
//! that its user can compare them with an image of theirs.

use std::collections::BTreeMap;

use crate::catalog::ExportId;
use crate::digest::Digest;
use crate::graph::{Config, blobs};
use crate::step::{Step, StepName};
use crate::units::ByteSize;

/// Lines that one export has at most.
const MAX_LINES: usize = 50;

/// A line for each layer blob of `config`, the lowest first: its digest, its
/// size out of `sizes`, whether it is among the `new` ones, and the step that
/// made it, where that is known.
pub(super) fn lines(
    export: Option<ExportId>,
    config: &Config,
    sizes: &BTreeMap<Digest, u64>,
    new: &BTreeMap<Digest, u64>,
    steps: &[Step],
) -> Vec<String> {
    let blobs = blobs(config, steps);
    let line = |(blob, made_by): &(Digest, Vec<&StepName>)| {
        let size = ByteSize(sizes.get(blob).copied().unwrap_or(0)).to_string();
        let state = if new.contains_key(blob) {
            "new"
        } else {
            "already there"
        };
        let made_by: Vec<&str> = made_by.iter().map(|name| name.as_str()).collect();
        let line = format!("{blob} {size:>9}  {state:<13}  {}", made_by.join(", "));
        line.trim_end().to_owned()
    };
    let mut lines: Vec<String> = blobs.iter().take(MAX_LINES).map(line).collect();
    if blobs.len() > MAX_LINES {
        let more = blobs.len() - MAX_LINES;
        lines.push(match export {
            Some(export) => format!("and {more} layers more: layerd cache show {export}"),
            None => format!("and {more} layers more"),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(at: usize) -> Digest {
        Digest::of(&at.to_le_bytes())
    }

    /// A chain of layers, each with a record of its own.
    fn config(layers: usize) -> Config {
        let date = "2026-11-22T05:00:00Z";
        let json = serde_json::json!({
            "layers": (0..layers).map(|at| serde_json::json!({"blob": blob(at), "parent": at as i64 - 1})).collect::<Vec<_>>(),
            "records": (0..layers).map(|at| serde_json::json!({"digest": format!("sha256:{at}"), "layers": [{"layer": at, "createdAt": date}]})).collect::<Vec<_>>(),
        });
        Config::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_layer_is_a_line_with_its_size_state_and_step() {
        let sizes = BTreeMap::from([(blob(0), 5), (blob(1), 34_200_000)]);
        let new = BTreeMap::from([(blob(1), 34_200_000)]);
        let step = Step {
            record: "sha256:0".parse().unwrap(),
            created_at: "2026-11-22T05:00:00Z".parse().unwrap(),
            name: StepName::of("[1/2] RUN make"),
            duration: Default::default(),
            origin: None,
        };
        let expected = [
            format!("{}       5 B  already there  [1/2] RUN make", blob(0)),
            format!("{}   34.2 MB  new", blob(1)),
        ];
        assert_eq!(
            lines(Some(ExportId(3)), &config(2), &sizes, &new, &[step]),
            expected
        );
    }

    #[test]
    fn many_layers_end_with_how_many_more_there_are_and_where() {
        let all = BTreeMap::new();
        let lines = lines(Some(ExportId(3)), &config(MAX_LINES + 2), &all, &all, &[]);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[MAX_LINES], "and 2 layers more: layerd cache show 3");
    }
}
