//! What a build reported, parsed from `--progress rawjson`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What became of a step in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its result came from a cache.
    Cached,
    /// It was run.
    Ran,
    /// It failed.
    Failed,
    /// It was never needed, or never finished.
    Untouched,
}

/// Everything that a build reported.
#[derive(Debug, Default)]
pub struct Progress {
    vertexes: BTreeMap<String, Vertex>,
    logs: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Event {
    vertexes: Vec<Vertex>,
    logs: Vec<Log>,
    warnings: Vec<Warning>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Vertex {
    pub digest: String,
    pub name: String,
    pub started: Option<String>,
    pub completed: Option<String>,
    pub cached: bool,
    pub error: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Log {
    data: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Warning {
    short: String,
    detail: Vec<String>,
}

impl Progress {
    /// Reads the JSON lines in what a client printed; other lines are its own
    /// words and left to the reader of the outcome.
    pub fn parse(text: &str) -> Self {
        let mut progress = Self::default();
        for event in text
            .lines()
            .filter_map(|line| serde_json::from_str::<Event>(line).ok())
        {
            for vertex in event.vertexes {
                progress.see(vertex);
            }
            progress
                .logs
                .extend(event.logs.iter().map(|log| text_of(&log.data)));
            for warning in event.warnings {
                progress.warn(text_of(&warning.short));
                progress
                    .warnings
                    .extend(warning.detail.iter().map(|line| text_of(line)));
            }
        }
        progress
    }

    /// Takes in the newest state of a vertex. It may start and complete several
    /// times: a layer that can't be loaded shows as cached with an error, and
    /// then the step runs; a cached one whose layers are pulled later starts
    /// and completes again for each, without the mark.
    pub(super) fn see(&mut self, mut vertex: Vertex) {
        let before = self.vertexes.get(&vertex.digest);
        let loaded = before.is_some_and(|before| before.fate() == Fate::Cached);
        vertex.cached |= loaded && vertex.error.is_empty();
        self.vertexes.insert(vertex.digest.clone(), vertex);
    }

    /// Takes in a warning.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The steps of the Dockerfile and what became of each, by name.
    pub fn steps(&self) -> BTreeMap<&str, Fate> {
        self.vertexes
            .values()
            .filter(|vertex| is_step(&vertex.name))
            .map(|v| (v.name.as_str(), v.fate()))
            .collect()
    }

    /// The names of the steps that ended so.
    pub fn with(&self, fate: Fate) -> Vec<&str> {
        self.steps()
            .into_iter()
            .filter(|(_, found)| *found == fate)
            .map(|(name, _)| name)
            .collect()
    }

    /// What became of the step whose name holds `part`; panics if there is not
    /// exactly one.
    pub fn fate(&self, part: &str) -> Fate {
        let steps = self.steps();
        let found: Vec<_> = steps
            .iter()
            .filter(|(name, _)| name.contains(part))
            .collect();
        assert_eq!(found.len(), 1, "steps with {part:?} in {steps:#?}");
        *found[0].1
    }

    /// Every line shown to the user: names of vertices, errors, logs and
    /// warnings.
    pub fn lines(&self) -> Vec<&str> {
        let named = self
            .vertexes
            .values()
            .flat_map(|vertex| [vertex.name.as_str(), vertex.error.as_str()]);
        named
            .chain(self.logs.iter().map(String::as_str))
            .flat_map(str::lines)
            .filter(|line| !line.is_empty())
            .collect()
    }

    /// What layerd warned of: something of the cache that could not be used.
    pub fn warnings(&self) -> Vec<&str> {
        let warnings = self.warnings.iter().map(String::as_str);
        warnings
            .filter(|line| line.starts_with("layerd: "))
            .collect()
    }

    /// What layerd itself had to say.
    pub fn messages(&self) -> Vec<&str> {
        self.lines()
            .into_iter()
            .filter(|line| line.contains("layerd: "))
            .collect()
    }
}

impl Vertex {
    fn fate(&self) -> Fate {
        if !self.error.is_empty() {
            Fate::Failed
        } else if self.cached {
            Fate::Cached
        } else if self.started.is_some() && self.completed.is_some() {
            Fate::Ran
        } else {
            Fate::Untouched
        }
    }
}

/// Whether a vertex is a step of a Dockerfile: `[stage 1/2] RUN …`, or
/// `[target stage 1/2] RUN …` in a bake.
fn is_step(name: &str) -> bool {
    let bracket = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let number = bracket.and_then(|(inside, _)| inside.rsplit(' ').next()?.split_once('/'));
    number.is_some_and(|(step, of)| step.parse::<u32>().is_ok() && of.parse::<u32>().is_ok())
}

/// Bytes travel as base64 in JSON.
fn text_of(data: &str) -> String {
    let bytes = STANDARD.decode(data).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn what_is_loaded_stays_cached_and_what_could_not_be_loaded_ran() {
    let text = concat!(
        r#"{"vertexes":[{"digest":"a","name":"[a 1/2] RUN x","started":"1","completed":"2","cached":true,"error":"gone"}]}"#,
        "\n",
        r#"{"vertexes":[{"digest":"a","name":"[a 1/2] RUN x","started":"2","completed":"3"}]}"#,
        "\n",
        r#"{"vertexes":[{"digest":"b","name":"[a 2/2] RUN y","started":"1","completed":"2","cached":true}]}"#,
        "\n",
        r#"{"vertexes":[{"digest":"b","name":"[a 2/2] RUN y","started":"3"}]}"#,
        "\n",
        r#"{"vertexes":[{"digest":"b","name":"[a 2/2] RUN y","started":"3","completed":"4"}]}"#,
        "\n",
        r#"{"logs":[{"vertex":"a","data":"bGF5ZXJkOiBubyBjYWNoZSB5ZXQK"}]}"#,
        "\nERROR: not JSON\n",
    );
    let progress = Progress::parse(text);
    assert_eq!(progress.fate("RUN x"), Fate::Ran);
    assert_eq!(progress.fate("RUN y"), Fate::Cached);
    assert_eq!(progress.messages(), ["layerd: no cache yet"]);
}
