//! The oracle's process: a question a line, an answer a line.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use super::case::Case;
use crate::harness::oracle_command;

/// How hard a union is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often BuildKit loads it: its maps have no order.
    pub loads: usize,
    /// In how many orders BuildKit parses the configs themselves.
    pub orders: usize,
    /// How many random queries are asked on top.
    pub queries: usize,
}

impl Effort {
    /// Enough for a set that is one of thousands.
    pub const USUAL: Self = Self {
        loads: 3,
        orders: 3,
        queries: 10,
    };
}

/// What the oracle found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Whether the union is right.
    pub ok: bool,
    /// What kind of wrong: integration/oracle/check.go lists them.
    pub kind: String,
    /// The query that shows it.
    pub detail: String,
    /// How many different records the configs have.
    pub records: usize,
    /// How many random queries were answered.
    pub hits: usize,
    /// How many were not, and rightly so.
    pub misses: usize,
    /// Whether the records of several configs form a cycle.
    pub cyclic: bool,
    union: Value,
}

/// A running oracle.
pub struct Oracle {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts it.
    pub fn start() -> Self {
        let mut child = Command::new(oracle_command())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the oracle starts");
        Self {
            questions: child.stdin.take().expect("it is piped"),
            answers: BufReader::new(child.stdout.take().expect("it is piped")),
            child,
        }
    }

    /// Whether `union` is right for the configs of a case.
    pub fn check(&mut self, case: &Case, union: &[u8], effort: Effort) -> Answer {
        self.check_configs(
            &case.configs(),
            &json!(case.names()),
            case.seed,
            union,
            effort,
        )
    }

    /// Whether `union` is right for configs that real builds wrote.
    pub fn check_exports(&mut self, configs: &[Vec<u8>], union: &[u8], effort: Effort) -> Answer {
        self.check_configs(configs, &json!({}), 0, union, effort)
    }

    /// The union that the oracle's model makes.
    pub fn model(&mut self, configs: &[Vec<u8>], form: &str) -> Vec<u8> {
        let question = json!({"do": "make", "configs": values(configs), "form": form});
        serde_json::to_vec(&self.ask(&question).union).expect("JSON")
    }

    fn check_configs(
        &mut self,
        configs: &[Vec<u8>],
        names: &Value,
        seed: u64,
        union: &[u8],
        effort: Effort,
    ) -> Answer {
        let Ok(union) = serde_json::from_slice::<Value>(union) else {
            return Answer {
                kind: "malformed".to_owned(),
                detail: "the union is no JSON".to_owned(),
                ..Answer::default()
            };
        };
        self.ask(&json!({
            "do": "check",
            "configs": values(configs),
            "union": union,
            "ops": names,
            "seed": seed,
            "loads": effort.loads,
            "orders": effort.orders,
            "queries": effort.queries,
        }))
    }

    fn ask(&mut self, question: &Value) -> Answer {
        let mut line = question.to_string();
        line.push('\n');
        let sent = self.questions.write_all(line.as_bytes());
        let mut answer = String::new();
        let read = sent.and_then(|()| self.answers.read_line(&mut answer));
        match read {
            Ok(1..) => serde_json::from_str(&answer).expect("an answer"),
            _ => self.died(),
        }
    }

    /// BuildKit took it down: that is an answer, too.
    fn died(&mut self) -> Answer {
        let mut told = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = stderr.take(2_000).read_to_string(&mut told);
        }
        let _ = self.child.kill();
        *self = Self::start();
        Answer {
            kind: "crash".to_owned(),
            detail: told,
            ..Answer::default()
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn values(configs: &[Vec<u8>]) -> Vec<Value> {
    let value = |config: &Vec<u8>| serde_json::from_slice(config).expect("JSON");
    configs.iter().map(value).collect()
}
