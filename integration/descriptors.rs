//! Our declarations of foreign messages against the real ones: those that a
//! running buildkitd describes itself, by gRPC server reflection.

use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::Lab;

/// The packages of `proto/` that are not our own.
const FOREIGN: [&str; 2] = ["moby.buildkit", "containerd.services"];

/// `proto/`, compiled as `build.rs` compiles it.
fn declared() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut files = Vec::new();
    let mut folders = vec![root.into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let set = protox::compile(files, [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(set).unwrap()
}

fn is_foreign(name: &str) -> bool {
    FOREIGN.iter().any(|package| name.starts_with(package))
}

async fn connect(address: &str) -> Channel {
    let path = address.trim_start_matches("unix://").to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://buildkitd")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// What the daemon says of these symbols.
async fn described(address: &str, symbols: Vec<String>) -> DescriptorPool {
    let mut client =
        ServerReflectionClient::new(connect(address).await).max_decoding_message_size(16 << 20);
    let count = symbols.len();
    let requests = symbols.into_iter().map(|symbol| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol)),
    });
    let mut answers = client
        .server_reflection_info(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut pool = DescriptorPool::new();
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    let mut answered = 0;
    while let Some(answer) = answers.next().await {
        answered += 1;
        match answer.unwrap().message_response.unwrap() {
            MessageResponse::FileDescriptorResponse(response) => {
                for bytes in response.file_descriptor_proto {
                    let file: FileDescriptorProto =
                        prost_reflect::prost::Message::decode(bytes.as_slice()).unwrap();
                    if !files.iter().any(|known| known.name == file.name) {
                        files.push(file);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, count);
    pool.add_file_descriptor_protos(files).unwrap();
    pool
}

/// A type as both sides name it.
fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

fn shape(field: &FieldDescriptor) -> (String, u32, String, Cardinality, bool) {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            unreachable!("a map is made of entries")
        };
        format!(
            "map<{}, {}>",
            type_name(&entry.map_entry_key_field().kind()),
            type_name(&entry.map_entry_value_field().kind())
        )
    } else {
        type_name(&field.kind())
    };
    (
        field.name().to_owned(),
        field.number(),
        kind,
        field.cardinality(),
        field.is_list(),
    )
}

fn compare_message(ours: &MessageDescriptor, theirs: &DescriptorPool) {
    let name = ours.full_name();
    let real = theirs
        .get_message_by_name(name)
        .unwrap_or_else(|| panic!("buildkitd knows no {name}"));
    for field in ours.fields() {
        let real = real
            .get_field(field.number())
            .unwrap_or_else(|| panic!("{name} has no field {}", field.number()));
        assert_eq!(shape(&field), shape(&real), "{}", field.full_name());
    }
}

fn compare_service(ours: &ServiceDescriptor, theirs: &DescriptorPool) {
    let name = ours.full_name();
    let real = theirs
        .get_service_by_name(name)
        .unwrap_or_else(|| panic!("buildkitd knows no {name}"));
    for method in ours.methods() {
        let real = real.methods().find(|real| real.name() == method.name());
        let real = real.unwrap_or_else(|| panic!("no {}", method.full_name()));
        assert_eq!(method.input().full_name(), real.input().full_name());
        assert_eq!(method.output().full_name(), real.output().full_name());
        assert_eq!(method.is_client_streaming(), real.is_client_streaming());
        assert_eq!(method.is_server_streaming(), real.is_server_streaming());
    }
}

#[tokio::test]
async fn our_messages_are_those_of_buildkit() {
    let lab = Lab::new();
    let runner = lab.runner("one", &lab.path("data")).await;
    let ours = declared();
    let messages: Vec<_> = ours
        .all_messages()
        .filter(|message| is_foreign(message.full_name()) && !message.is_map_entry())
        .collect();
    let services: Vec<_> = ours
        .services()
        .filter(|service| is_foreign(service.full_name()))
        .collect();
    assert!(messages.len() > 30 && !services.is_empty());
    let names = messages
        .iter()
        .map(|message| message.full_name().to_owned());
    let names: Vec<_> = names
        .chain(services.iter().map(|s| s.full_name().to_owned()))
        .collect();
    // The second way asks through the sidecar: reflection, too, is forwarded.
    for address in [&runner.buildkitd.address, runner.address()] {
        let theirs = described(address, names.clone()).await;
        for message in &messages {
            compare_message(message, &theirs);
        }
        for service in &services {
            compare_service(service, &theirs);
        }
    }
}
