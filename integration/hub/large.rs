//! Exports that no single message could hold.

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use layerd::cache::wire::v1;
use layerd::cache::wire::v1::publish_request::Part;
use layerd::digest::Digest;
use tonic::Code;

use super::ask::{described, look_up, missing, publication, send};
use super::{place, upload};
use crate::harness::Lab;
use crate::harness::chain::MADE;

const LAYERS: usize = 10_000;

/// The export with a step for each of its records.
fn with_steps(mut messages: Vec<v1::PublishRequest>, mark: &str) -> Vec<v1::PublishRequest> {
    let made: Timestamp = MADE.parse().unwrap();
    let steps = (0..LAYERS).map(|at| v1::Step {
        record: Digest::of(format!("{mark}/{at}").as_bytes()).to_string(),
        created_at_ns: i64::try_from(made.as_nanosecond()).unwrap(),
        name: format!("[{at}/{LAYERS}] RUN {}", "make and make ".repeat(30)),
        duration_ms: at as u64,
        origin: None,
    });
    let steps: Vec<v1::Step> = steps.collect();
    if let Some(Part::Export(export)) = &mut messages[0].part {
        export.steps = steps.len() as u64;
    }
    messages.extend(steps.chunks(1000).map(|steps| v1::PublishRequest {
        part: Some(Part::Steps(v1::Steps {
            steps: steps.to_vec(),
        })),
    }));
    messages
}

#[tokio::test]
async fn an_export_of_ten_thousand_layers_and_steps_is_published_and_told() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let mut client = hub.client(None).await;
    let main = place("p", "main");
    let contents: Vec<Bytes> = (0..LAYERS).map(|at| format!("layer {at}").into()).collect();
    let layers: Vec<_> = contents.iter().map(described).collect();
    let messages = with_steps(publication(&main, &layers, "x"), "x");

    let refused = send(&mut client, messages.clone()).await.unwrap_err();
    let mut named: Vec<Digest> = layers.iter().map(|(digest, _)| *digest).collect();
    named.sort_unstable();
    assert_eq!(missing(&refused), named);

    let uploads = futures::stream::iter(&contents).map(|content| {
        let (mut client, main) = (client.clone(), main.clone());
        async move { upload(&mut client, &main, content).await.map(drop) }
    });
    let uploads = uploads.buffer_unordered(32);
    uploads
        .for_each(|uploaded| async { uploaded.unwrap() })
        .await;

    let published = send(&mut client, messages.clone()).await.unwrap();
    assert_eq!((published.layers, published.records), (LAYERS, LAYERS));
    assert_eq!(published.steps.len(), LAYERS);
    let import = look_up(&mut client, &main, false).await.unwrap().unwrap();
    // A chain that deep weighs more than an import may; it is said what is cut.
    assert!(import.layers.len() > LAYERS / 2 && import.left_out.cut > 0);

    let results = published
        .steps
        .iter()
        .map(|step| v1::steps_request::Result {
            record: step.record.as_str().to_owned(),
            created_at_ns: i64::try_from(step.created_at.as_nanosecond()).unwrap(),
        });
    let mut request = v1::StepsRequest {
        project: "p".to_owned(),
        results: results.collect(),
    };
    let mut parts = client.steps(request.clone()).await.unwrap().into_inner();
    let mut steps = 0;
    while let Some(part) = parts.message().await.unwrap() {
        steps += part.steps.unwrap().steps.len();
    }
    assert_eq!(steps, LAYERS);
    request.results.push(request.results[0].clone());
    let status = client.steps(request).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    // Longer or shorter than announced, or broken off anywhere.
    type Change = fn(&mut v1::publish_request::Export);
    let changes: [Change; 6] = [
        |head| head.manifest_bytes -= 1,
        |head| head.manifest_bytes += 1,
        |head| head.manifest_bytes = 60 << 20,
        |head| head.config_bytes = 64 << 20,
        |head| head.steps -= 1,
        |head| head.steps += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut messages = messages.clone();
        if let Some(Part::Export(head)) = &mut messages[0].part {
            change(head);
        }
        let status = send(&mut client, messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{at}: {status:?}");
    }
    for cut in [1, 2, messages.len() / 2, messages.len() - 1] {
        let status = send(&mut client, messages[..cut].to_vec())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{cut}: {status:?}");
    }
    let again = send(&mut client, messages).await.unwrap();
    assert_eq!(again.id.unwrap().0, published.id.unwrap().0 + 1);
}
