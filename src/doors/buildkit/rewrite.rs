//! Cache entries, wherever they travel, and how they are rewritten.
//!
//! Exports travel in one place, imports in four: `Control.Solve` has them in
//! `Cache` and, for the frontend, as JSON in `FrontendAttrs["cache-imports"]`;
//! the gateway's `Solve` has them in `FrontendOpt["cache-imports"]` and in
//! `CacheImports`. All of these functions are pure, keep every byte that is not
//! ours, and change nothing the second time.

use std::collections::HashMap;

use prost::Message as _;
use serde_json::{Map, Value};

use super::attributes::{Attributes, SECRET, TYPE};
use super::proto::{control, gateway};
use super::splice::{Edit, Malformed, put_field, splice};

/// The key of the JSON list that frontends read.
const CACHE_IMPORTS: &str = "cache-imports";
/// The attribute of a rewritten import that keeps what the user wrote, so that
/// the build history can show it, whenever and by whomever it is read.
const WRITTEN: &str = "layerd-written";

/// One cache entry: `type=…` and its attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// `local`, `registry`, …
    pub kind: String,
    /// Its attributes.
    pub attributes: Attributes,
}

impl Entry {
    /// Whether a user wrote this for layerd.
    pub fn is_ours(&self) -> bool {
        self.kind == TYPE
    }

    /// Adds what the user wrote, without its secrets.
    pub fn remember(&mut self, written: &[Self]) {
        let written = Value::Array(
            written
                .iter()
                .map(|entry| entry.without_secrets().to_json())
                .collect(),
        );
        self.attributes
            .insert(WRITTEN.to_owned(), written.to_string());
    }

    /// Bytes of the attributes.
    pub fn length(&self) -> usize {
        self.attributes
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    /// The same without what nobody else may see.
    pub fn without_secrets(&self) -> Self {
        let mut entry = self.clone();
        entry
            .attributes
            .retain(|key, _| !SECRET.contains(&key.as_str()));
        entry
    }

    /// Equal attributes mean equal entries to buildkitd too.
    fn is_served(&self, served: Option<&Self>) -> bool {
        served == Some(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let entry = control::CacheOptionsEntry::decode(bytes).map_err(|_| Malformed)?;
        Ok(entry.into())
    }

    /// As it stands in `CacheOptions`.
    pub fn encode(&self) -> Vec<u8> {
        let attrs = self
            .attributes
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        control::CacheOptionsEntry {
            r#type: self.kind.clone(),
            attrs,
        }
        .encode_to_vec()
    }

    fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        // As Go reads it: names match whatever their case.
        let field = |name: &str| {
            object
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let kind = field("Type")?.as_str()?.to_owned();
        let attributes = field("Attrs").and_then(Value::as_object).map(|attrs| {
            attrs
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        });
        Some(Self {
            kind,
            attributes: attributes.unwrap_or_default(),
        })
    }

    fn to_json(&self) -> Value {
        let attributes: Map<String, Value> = self
            .attributes
            .iter()
            .map(|(key, value)| (key.clone(), Value::String(value.clone())))
            .collect();
        serde_json::json!({ "Type": self.kind, "Attrs": attributes })
    }
}

impl From<control::CacheOptionsEntry> for Entry {
    fn from(entry: control::CacheOptionsEntry) -> Self {
        Self {
            kind: entry.r#type,
            attributes: entry.attrs.into_iter().collect(),
        }
    }
}

impl From<gateway::CacheOptionsEntry> for Entry {
    fn from(entry: gateway::CacheOptionsEntry) -> Self {
        Self {
            kind: entry.r#type,
            attributes: entry.attrs.into_iter().collect(),
        }
    }
}

/// What matters of a `Control.Solve` request.
#[derive(Debug)]
pub struct SolveRequest {
    /// The build's id.
    pub id: String,
    /// The session's id.
    pub session: String,
    /// A client asks what buildkitd can do; no build of a user.
    pub internal: bool,
    /// Every cache export, in order.
    pub exports: Vec<Entry>,
    /// Every cache import, each once, in order.
    pub imports: Vec<Entry>,
}

impl SolveRequest {
    /// Reads a request.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let request = control::SolveRequest::decode(message).map_err(|_| Malformed)?;
        let cache = request.cache.unwrap_or_default();
        Ok(Self {
            id: request.r#ref,
            session: request.session,
            internal: request.internal,
            exports: cache.exports.into_iter().map(Entry::from).collect(),
            imports: all_imports(
                cache.imports.into_iter().map(Entry::from),
                &request.frontend_attrs,
            ),
        })
    }
}

/// The imports of a gateway `Solve`, each once, in order.
pub fn gateway_imports(message: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let request = gateway::SolveRequest::decode(message).map_err(|_| Malformed)?;
    Ok(all_imports(
        request.cache_imports.into_iter().map(Entry::from),
        &request.frontend_opt,
    ))
}

fn all_imports(
    listed: impl Iterator<Item = Entry>,
    frontend: &HashMap<String, String>,
) -> Vec<Entry> {
    let json = frontend
        .get(CACHE_IMPORTS)
        .and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let told = json.unwrap_or_default();
    let mut imports: Vec<Entry> = Vec::new();
    for entry in listed.chain(told.iter().filter_map(Entry::from_json)) {
        if !imports.contains(&entry) {
            imports.push(entry);
        }
    }
    imports
}

/// A `Control.Solve` request with `exports` first among its exports, and
/// `import`, if any, where our imports stood.
pub fn solve_request(
    message: &[u8],
    exports: &[Entry],
    import: Option<&Entry>,
) -> Result<Vec<u8>, Malformed> {
    const FRONTEND_ATTRS: u32 = 7;
    const CACHE: u32 = 8;
    let mut exports = Some(exports);
    let mut imports = Imports::new(import);
    splice(message, |number, content| {
        Ok(match number {
            FRONTEND_ATTRS => frontend_attribute(content, import)?,
            CACHE => Edit::Replace(cache_options(
                content,
                exports.take().unwrap_or_default(),
                &mut imports,
            )?),
            _ => Edit::Keep,
        })
    })
}

fn cache_options(
    content: &[u8],
    exports: &[Entry],
    imports: &mut Imports<'_>,
) -> Result<Vec<u8>, Malformed> {
    const EXPORTS: u32 = 4;
    const IMPORTS: u32 = 5;
    let mut out = Vec::new();
    for export in exports {
        put_field(&mut out, EXPORTS, &export.encode());
    }
    out.extend(splice(content, |number, content| match number {
        EXPORTS if Entry::decode(content)?.is_ours() => Ok(Edit::Drop),
        IMPORTS => Ok(imports.edit(&Entry::decode(content)?)),
        _ => Ok::<_, Malformed>(Edit::Keep),
    })?);
    Ok(out)
}

/// A gateway `Solve` request with `import`, if any, where our imports stood.
pub fn gateway_solve_request(message: &[u8], import: Option<&Entry>) -> Result<Vec<u8>, Malformed> {
    const FRONTEND_OPT: u32 = 3;
    const CACHE_IMPORTS: u32 = 12;
    let mut imports = Imports::new(import);
    splice(message, |number, content| {
        Ok(match number {
            FRONTEND_OPT => frontend_attribute(content, import)?,
            CACHE_IMPORTS => imports.edit(&Entry::decode(content)?),
            _ => Edit::Keep,
        })
    })
}

/// Puts one import where the first of ours stood, and drops the others.
struct Imports<'a> {
    import: Option<&'a Entry>,
    placed: bool,
}

impl<'a> Imports<'a> {
    fn new(import: Option<&'a Entry>) -> Self {
        Self {
            import,
            placed: false,
        }
    }

    fn edit(&mut self, entry: &Entry) -> Edit {
        if !entry.is_ours() && !entry.is_served(self.import) {
            return Edit::Keep;
        }
        match self.import {
            Some(import) if !std::mem::replace(&mut self.placed, true) => {
                Edit::Replace(import.encode())
            }
            _ => Edit::Drop,
        }
    }
}

/// One entry of the map of frontend attributes.
#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn frontend_attribute(content: &[u8], import: Option<&Entry>) -> Result<Edit, Malformed> {
    edit_cache_imports(content, |entries| {
        let mut placed = false;
        let mut out = Vec::with_capacity(entries.len());
        for value in entries {
            match Entry::from_json(&value) {
                Some(entry) if entry.is_ours() || entry.is_served(import) => {
                    if let Some(import) = import.filter(|_| !std::mem::replace(&mut placed, true)) {
                        out.push(import.to_json());
                    }
                }
                _ => out.push(value),
            }
        }
        out
    })
}

/// Edits the JSON list of imports where `content` is that attribute. What is no
/// list is left for the frontend to complain about.
fn edit_cache_imports(
    content: &[u8],
    edit: impl FnOnce(Vec<Value>) -> Vec<Value>,
) -> Result<Edit, Malformed> {
    let mut attribute = Attribute::decode(content).map_err(|_| Malformed)?;
    if attribute.key != CACHE_IMPORTS {
        return Ok(Edit::Keep);
    }
    let Ok(entries) = serde_json::from_str::<Vec<Value>>(&attribute.value) else {
        return Ok(Edit::Keep);
    };
    attribute.value = Value::Array(edit(entries)).to_string();
    Ok(Edit::Replace(attribute.encode_to_vec()))
}

/// A `BuildHistoryEvent` in which every import is what the user wrote.
/// `left_out` gives, by build id, the imports of a build that had none served.
pub fn history_event(
    event: &[u8],
    left_out: impl Fn(&str) -> Vec<Entry>,
) -> Result<Vec<u8>, Malformed> {
    const RECORD: u32 = 2;
    splice(event, |number, record| {
        Ok(if number == RECORD {
            Edit::Replace(history_record(record, &left_out)?)
        } else {
            Edit::Keep
        })
    })
}

fn history_record(
    record: &[u8],
    left_out: &impl Fn(&str) -> Vec<Entry>,
) -> Result<Vec<u8>, Malformed> {
    const FRONTEND_ATTRS: u32 = 3;
    let id = control::BuildHistoryRecord::decode(record)
        .map_err(|_| Malformed)?
        .r#ref;
    splice(record, |number, content| {
        if number != FRONTEND_ATTRS {
            return Ok(Edit::Keep);
        }
        edit_cache_imports(content, |entries| {
            let unserved = left_out(&id)
                .into_iter()
                .map(|entry| entry.without_secrets().to_json());
            unserved
                .chain(entries.into_iter().flat_map(as_written))
                .collect()
        })
    })
}

/// What the user wrote for one import that buildkitd was given.
fn as_written(value: Value) -> Vec<Value> {
    let Some(entry) = Entry::from_json(&value) else {
        return vec![value];
    };
    if entry.is_ours() {
        return vec![entry.without_secrets().to_json()];
    }
    let written = entry
        .attributes
        .get(WRITTEN)
        .and_then(|text| serde_json::from_str(text).ok());
    written.unwrap_or_else(|| vec![value])
}

/// A `SolveResponse` without the cache manifest's descriptor.
pub fn without_cache_manifest(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    const EXPORTER_RESPONSE: u32 = 1;
    splice(message, |number, content| {
        let attribute = || Attribute::decode(content).map_err(|_| Malformed);
        Ok(
            if number == EXPORTER_RESPONSE && attribute()?.key == "cache.manifest" {
                Edit::Drop
            } else {
                Edit::Keep
            },
        )
    })
}

#[cfg(test)]
mod tests;
