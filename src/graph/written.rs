//! A cache config as it is written.

use jiff::Timestamp;
use serde::Serialize;

use super::RecordDigest;
use crate::digest::Digest;

#[derive(Serialize)]
pub(super) struct Config<'a> {
    pub(super) layers: Vec<Layer<'a>>,
    pub(super) records: Vec<Record<'a>>,
}

#[derive(Serialize)]
pub(super) struct Layer<'a> {
    pub(super) blob: Digest,
    /// -1 for none: absent would mean layer 0.
    pub(super) parent: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<Annotations<'a>>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Annotations<'a> {
    pub(super) media_type: &'a str,
    #[serde(rename = "diffID")]
    pub(super) diff_id: Digest,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub(super) digest: &'a RecordDigest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<Outcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) chains: Vec<Chain>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<Vec<Link<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pub(super) layer: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chain {
    pub(super) layers: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct Link<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) selector: &'a str,
    pub(super) link: usize,
}
