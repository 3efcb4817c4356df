//! The steps of an export as a document.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use super::format::written;
use crate::cache::Document;
use crate::digest::RecordDigest;
use crate::step::{Origin, Step, StepName};

const MEDIA_TYPE: &str = "application/vnd.layerd.steps.v1+json";
/// Bytes of a host's name, and of a daemon's.
const MAX_NAME: usize = 256;
/// Steps that are taken: as many as an export keeps.
const MAX_STEPS: usize = 10_000;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Steps {
    media_type: String,
    steps: Vec<Written>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    record: String,
    created_at: Timestamp,
    name: String,
    duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    builder: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    daemon: Option<String>,
}

/// The document, or none where nothing is known.
pub(super) fn document(steps: &[Step]) -> Result<Option<Document>, ArchiveError> {
    if steps.is_empty() {
        return Ok(None);
    }
    let steps = steps.iter().map(|step| Written {
        record: step.record.to_string(),
        created_at: step.created_at,
        name: step.name.to_string(),
        duration_ms: u64::try_from(step.duration.as_millis()).unwrap_or(u64::MAX),
        builder: step.origin.as_ref().map(|origin| origin.builder.clone()),
        daemon: step
            .origin
            .as_ref()
            .and_then(|origin| origin.daemon.clone()),
    });
    let json = written(&Steps {
        media_type: MEDIA_TYPE.to_owned(),
        steps: steps.collect(),
    })?;
    Ok(Some(Document::new(json.into())))
}

/// Parses one; an error is a sentence.
pub(super) fn parse(json: &[u8]) -> Result<Vec<Step>, String> {
    let steps: Steps =
        serde_json::from_slice(json).map_err(|error| format!("malformed steps: {error}"))?;
    if steps.media_type != MEDIA_TYPE {
        return Err(format!(
            "the steps have the media type {:?}; {MEDIA_TYPE} is known",
            steps.media_type
        ));
    }
    if steps.steps.len() > MAX_STEPS {
        return Err(format!("more than {MAX_STEPS} steps"));
    }
    steps.steps.into_iter().map(step).collect()
}

fn step(written: Written) -> Result<Step, String> {
    let record: RecordDigest = written
        .record
        .parse()
        .map_err(|error| format!("the record of a step: {error}"))?;
    let daemon = written.daemon.map(short).transpose()?;
    let origin = written.builder.map(|builder| {
        Ok::<_, String>(Origin {
            builder: short(builder)?,
            daemon,
        })
    });
    Ok(Step {
        record,
        created_at: written.created_at,
        name: StepName::of(&written.name),
        duration: Duration::from_millis(written.duration_ms.min(MAX_DURATION)),
        origin: origin.transpose()?,
    })
}

/// What a catalog can keep, in milliseconds.
const MAX_DURATION: u64 = i64::MAX.unsigned_abs();

fn short(name: String) -> Result<String, String> {
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err("a step ran on what is no name of a host".to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_back_as_they_were_written() {
        let step = |origin| Step {
            record: "sha256:abc".parse().unwrap(),
            created_at: "2026-11-22T05:23:18.123456789Z".parse().unwrap(),
            name: StepName::of("[build 3/5] RUN make && echo ü"),
            duration: Duration::from_millis(1234),
            origin,
        };
        let steps = vec![
            step(None),
            step(Some(Origin {
                builder: "runner-7".to_owned(),
                daemon: Some("d1".to_owned()),
            })),
        ];
        let document = document(&steps).unwrap().unwrap();
        assert_eq!(parse(&document.bytes).unwrap(), steps);
    }

    #[test]
    fn what_is_no_list_of_steps_is_refused() {
        for json in [
            "",
            "[]",
            r#"{"mediaType":"x","steps":[]}"#,
            r#"{"mediaType":"application/vnd.layerd.steps.v1+json","steps":[{"record":"sha256:a","createdAt":"x","name":"","durationMs":1}]}"#,
            r#"{"mediaType":"application/vnd.layerd.steps.v1+json","steps":[{"record":"sha256:a","createdAt":"2026-11-22T05:23:18Z","name":"n","durationMs":1,"builder":"a\u0007b"}]}"#,
        ] {
            assert!(parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
