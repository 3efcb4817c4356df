//! Unions that are wrong in one way: the oracle must see each.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::case::digest;

/// What a bad union does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Takes records with one digest for one.
    MergesByDigestAlone,
    /// Forgets a result.
    DropsAResult,
    /// Forgets one alternative of one input.
    DropsALink,
    /// Does without the record that joins the leaves.
    DropsTheJoiningRecord,
    /// Gives two records each other's results.
    SwapsTwoResults,
    /// Serves a record under an input that it was never seen with.
    AddsALink,
    /// Takes the digest of one record for another's.
    SwapsTwoDigests,
    /// Claims that a result is older than it is.
    AgesAResult,
}

/// A right union with one mistake, or nothing where it can't be made.
pub fn spoil(union: &[u8], mistake: Mistake, seed: u64) -> Option<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut config: Value = serde_json::from_slice(union).expect("JSON");
    let joins = joining_record(&config);
    let records = config["records"].as_array_mut()?;
    match mistake {
        Mistake::MergesByDigestAlone => merge_by_digest(records)?,
        Mistake::DropsAResult => {
            let at = one(&mut random, &with_results(records))?;
            clear_results(&mut records[at]);
        }
        Mistake::DropsALink => {
            let (at, input) = one(&mut random, &choices(records, joins))?;
            let links = records[at]["inputs"][input].as_array_mut()?;
            let link = random.random_range(0..links.len());
            links.remove(link);
        }
        Mistake::DropsTheJoiningRecord => {
            let at = joins?;
            records.remove(at);
        }
        Mistake::SwapsTwoResults => {
            let (a, b) = two_unlike(&mut random, records, &with_results(records), results)?;
            for key in ["layers", "chains"] {
                let left = records[a][key].take();
                records[a][key] = records[b][key].take();
                records[b][key] = left;
            }
        }
        Mistake::AddsALink => {
            let served: Vec<usize> = (0..records.len()).filter(|at| Some(*at) != joins).collect();
            let roots: Vec<usize> = served
                .iter()
                .copied()
                .filter(|&at| inputs(&records[at]) == 0)
                .collect();
            let above: Vec<usize> = served
                .iter()
                .copied()
                .filter(|&at| inputs(&records[at]) > 0)
                .collect();
            let (at, root) = (one(&mut random, &above)?, one(&mut random, &roots)?);
            let input = random.random_range(0..inputs(&records[at]));
            let links = records[at]["inputs"][input].as_array_mut()?;
            links.push(json!({"selector": "/never", "link": root}));
        }
        Mistake::SwapsTwoDigests => {
            let above: Vec<usize> = (0..records.len())
                .filter(|&at| Some(at) != joins && inputs(&records[at]) > 0)
                .collect();
            let digest = |record: &Value| record["digest"].clone();
            let (a, b) = two_unlike(&mut random, records, &above, digest)?;
            let left = records[a]["digest"].take();
            records[a]["digest"] = records[b]["digest"].take();
            records[b]["digest"] = left;
        }
        Mistake::AgesAResult => {
            let at = one(&mut random, &with_results(records))?;
            for key in ["layers", "chains"] {
                if let Some(results) = records[at][key].as_array_mut() {
                    results[0]["createdAt"] = json!("2025-01-01T00:00:00Z");
                }
            }
        }
    }
    for record in records {
        // An absent field, not null: as BuildKit writes it.
        if let Some(fields) = record.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
    }
    Some(serde_json::to_vec(&config).expect("JSON"))
}

/// Where the model's joining record is.
fn joining_record(config: &Value) -> Option<usize> {
    let joins = json!(digest("joins the leaves"));
    let mut records = config["records"].as_array()?.iter();
    records.position(|record| record["digest"] == joins)
}

fn inputs(record: &Value) -> usize {
    record["inputs"].as_array().map_or(0, Vec::len)
}

fn links(record: &Value, input: usize) -> usize {
    record["inputs"][input].as_array().map_or(0, Vec::len)
}

fn results(record: &Value) -> Value {
    match &record["layers"] {
        Value::Null => record["chains"].clone(),
        layers => layers.clone(),
    }
}

fn with_results(records: &[Value]) -> Vec<usize> {
    (0..records.len())
        .filter(|&at| !results(&records[at]).is_null())
        .collect()
}

fn clear_results(record: &mut Value) {
    record["layers"] = Value::Null;
    record["chains"] = Value::Null;
}

/// The inputs that have a choice.
fn choices(records: &[Value], joins: Option<usize>) -> Vec<(usize, usize)> {
    let all = (0..records.len()).filter(|at| Some(*at) != joins);
    all.flat_map(|at| (0..inputs(&records[at])).map(move |input| (at, input)))
        .filter(|&(at, input)| links(&records[at], input) > 1)
        .collect()
}

fn one<T: Copy>(random: &mut StdRng, of: &[T]) -> Option<T> {
    (!of.is_empty()).then(|| of[random.random_range(0..of.len())])
}

fn two_unlike(
    random: &mut StdRng,
    records: &[Value],
    of: &[usize],
    by: impl Fn(&Value) -> Value,
) -> Option<(usize, usize)> {
    let a = one(random, of)?;
    let unlike: Vec<usize> = of
        .iter()
        .copied()
        .filter(|&b| by(&records[a]) != by(&records[b]))
        .collect();
    Some((a, one(random, &unlike)?))
}

/// The first of those with one digest gets the links of all of them.
fn merge_by_digest(records: &mut Vec<Value>) -> Option<()> {
    let first = |records: &[Value], at: usize| {
        (0..=at)
            .find(|&of| records[of]["digest"] == records[at]["digest"])
            .unwrap_or(at)
    };
    let same: Vec<usize> = (0..records.len()).map(|at| first(records, at)).collect();
    if same.iter().enumerate().all(|(at, &of)| at == of) {
        return None;
    }
    for at in 0..records.len() {
        let of = same[at];
        if of == at {
            continue;
        }
        let inputs = records[at]["inputs"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for (input, links) in inputs.into_iter().enumerate() {
            let more = links.as_array().cloned().unwrap_or_default();
            records[of]["inputs"][input].as_array_mut()?.extend(more);
        }
    }
    let mut place = Vec::new();
    for (at, &of) in same.iter().enumerate() {
        place.push(match of == at {
            true => (0..at).filter(|&of| same[of] == of).count(),
            false => place[of],
        });
    }
    let mut at = 0;
    records.retain(|_| {
        at += 1;
        same[at - 1] == at - 1
    });
    for record in records {
        for links in record["inputs"].as_array_mut().into_iter().flatten() {
            for link in links.as_array_mut().into_iter().flatten() {
                let to = usize::try_from(link["link"].as_u64()?).ok()?;
                link["link"] = json!(place[to]);
            }
        }
    }
    Some(())
}
