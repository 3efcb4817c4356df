//! The messages of a build that is asked for by hand, with no client.

use std::collections::HashMap;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// `moby.buildkit.v1.SolveRequest`, as far as the tests fill it in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveRequest {
    /// The build's id.
    #[prost(string, tag = "1")]
    pub reference: String,
    /// What to build, where there is no frontend.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Definition>,
    /// The id of the session.
    #[prost(string, tag = "5")]
    pub session: String,
    /// The frontend.
    #[prost(string, tag = "6")]
    pub frontend: String,
    /// Its attributes.
    #[prost(map = "string, string", tag = "7")]
    pub frontend_attributes: HashMap<String, String>,
    /// The cache options.
    #[prost(message, optional, tag = "8")]
    pub cache: Option<CacheOptions>,
    /// What the frontend reads in place of the client's folders.
    #[prost(map = "string, message", tag = "10")]
    pub frontend_inputs: HashMap<String, Definition>,
}

/// `moby.buildkit.v1.CacheOptions`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheOptions {
    /// Where to write to.
    #[prost(message, repeated, tag = "4")]
    pub exports: Vec<CacheEntry>,
    /// Where to read from.
    #[prost(message, repeated, tag = "5")]
    pub imports: Vec<CacheEntry>,
}

/// `moby.buildkit.v1.CacheOptionsEntry`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheEntry {
    /// `type=`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// All other attributes.
    #[prost(map = "string, string", tag = "2")]
    pub attributes: HashMap<String, String>,
}

impl CacheEntry {
    /// `type=gha-compatible` with nothing else.
    pub fn ours() -> Self {
        Self {
            kind: "gha-compatible".to_owned(),
            attributes: HashMap::new(),
        }
    }
}

/// `pb.Definition`: a graph of operations.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    /// Each operation, encoded; the last names the result.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub operations: Vec<Vec<u8>>,
    /// What is known of each, by its digest.
    #[prost(map = "string, message", tag = "2")]
    pub metadata: HashMap<String, Metadata>,
}

/// `pb.OpMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// `llb.customname` is what progress shows.
    #[prost(map = "string, string", tag = "2")]
    pub description: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    #[prost(message, optional, tag = "4")]
    file: Option<FileOperation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Input {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileOperation {
    #[prost(message, repeated, tag = "2")]
    actions: Vec<FileAction>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileAction {
    #[prost(int64, tag = "1")]
    input: i64,
    #[prost(int64, tag = "2")]
    secondary_input: i64,
    #[prost(int64, tag = "3")]
    output: i64,
    #[prost(message, optional, tag = "5")]
    mkfile: Option<MakeFile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MakeFile {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(int32, tag = "2")]
    mode: i32,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
    #[prost(int64, tag = "5")]
    timestamp: i64,
}

/// Files made one after the other, on an empty file system: as many steps.
pub fn files(contents: &[(&str, &str)]) -> Definition {
    let mut definition = Definition::default();
    let mut parent: Option<String> = None;
    for (number, (path, content)) in contents.iter().enumerate() {
        let mkfile = MakeFile {
            path: (*path).to_owned(),
            mode: 0o644,
            data: content.as_bytes().to_vec(),
            timestamp: -1,
        };
        let has_parent = if parent.is_some() { 0 } else { -1 };
        let action = FileAction {
            input: has_parent,
            secondary_input: -1,
            output: 0,
            mkfile: Some(mkfile),
        };
        let inputs = parent
            .take()
            .map(|digest| Input { digest, index: 0 })
            .into_iter()
            .collect();
        let operation = Operation {
            inputs,
            file: Some(FileOperation {
                actions: vec![action],
            }),
        };
        let bytes = operation.encode_to_vec();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let name = format!("[files {}/{}] {path}", number + 1, contents.len());
        let description = HashMap::from([("llb.customname".to_owned(), name)]);
        definition
            .metadata
            .insert(digest.clone(), Metadata { description });
        definition.operations.push(bytes);
        parent = Some(digest);
    }
    let inputs = parent
        .map(|digest| Input { digest, index: 0 })
        .into_iter()
        .collect();
    definition
        .operations
        .push(Operation { inputs, file: None }.encode_to_vec());
    definition
}
