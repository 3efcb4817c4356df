//! What is told to the bearer of a token does not grow with what others do:
//! exports are numbered in one row over all projects, so their numbers are told
//! only where nobody is a stranger.

use layerd::cache::wire::v1;
use layerd::cache::wire::v1::look_up_response::Part;
use layerd::cache::wire::{self};
use layerd::cache::{Form, Limits};
use tonic::Status;

use super::access::{Gate, claims, with};
use super::ask::{described, export, noise, publication};
use super::{place, upload};
use crate::harness::{HubClient, Lab};

const MAIN: &str = "refs/heads/main";

/// An answer to its end: what its headers are called, its messages, and how it
/// ended.
async fn told<T: std::fmt::Debug>(
    answer: Result<tonic::Response<tonic::Streaming<T>>, Status>,
    mut plain: impl FnMut(&mut T),
) -> Vec<String> {
    let mut answers = match answer {
        Ok(answer) => answer,
        Err(status) => return vec![format!("{:?} {}", status.code(), status.message())],
    };
    let mut told: Vec<String> = (answers.metadata().keys())
        .map(|header| format!("{header:?}"))
        .collect();
    loop {
        match answers.get_mut().message().await {
            Ok(Some(mut message)) => {
                plain(&mut message);
                told.push(format!("{message:?}"));
            }
            Ok(None) => return told,
            Err(status) => {
                told.push(format!("{:?} {}", status.code(), status.message()));
                return told;
            }
        }
    }
}

async fn publish(client: &mut HubClient, round: u64) -> Vec<String> {
    let blob = noise(80 + round, 10_000);
    let at = place("p", MAIN);
    upload(client, &at, &blob).await.unwrap();
    let export = publication(&at, &[described(&blob)], &format!("round {round}"));
    told(client.publish(tokio_stream::iter(export)).await, |_| {}).await
}

async fn look_up(client: &mut HubClient) -> Vec<String> {
    let limits = Limits {
        records: 1000,
        form: Form::Whole,
    };
    let mut request = wire::look_up_request(&[], &limits);
    request.wants.push(v1::Want {
        place: Some(place("p", MAIN)),
        ..v1::Want::default()
    });
    let plain = |response: &mut v1::LookUpResponse| {
        if let Some(Part::Found(found)) = &mut response.part {
            assert!(found.lease > 1 << 20, "leases are random");
            (found.lease, found.exported_at_ns) = (0, 0);
        }
    };
    told(client.look_up(request).await, plain).await
}

#[tokio::test]
async fn a_token_is_told_nothing_that_counts_what_others_do() {
    let (busy, quiet) = (Gate::new().await, Gate::new().await);
    let theirs = with(claims(&["**"], &["**"]), "project", "q");
    let mut others = busy.client(&theirs).await;
    let mut of_busy = busy.client(&claims(&[MAIN], &[MAIN])).await;
    let mut of_quiet = quiet.client(&claims(&[MAIN], &[MAIN])).await;
    for round in 0..3 {
        for more in 0..=round {
            let seed = 90 + 10 * round + more;
            export(
                &mut others,
                &place("q", MAIN),
                &[noise(seed, 100)],
                "theirs",
            )
            .await;
        }
        let published = publish(&mut of_busy, round).await;
        assert_eq!(published, publish(&mut of_quiet, round).await);
        assert!(published.iter().any(|told| told.contains("export: 0")));
        let found = look_up(&mut of_busy).await;
        assert_eq!(found, look_up(&mut of_quiet).await);
        assert!(found.iter().any(|told| told.contains("export: 0")));
    }
    // Nor by an error: nothing of it can be read any more.
    for gate in [&busy, &quiet] {
        std::fs::remove_dir_all(gate.hub.data_dir().join("blobs/sha256")).unwrap();
    }
    let lost = look_up(&mut of_busy).await;
    assert_eq!(lost, look_up(&mut of_quiet).await);
    assert!(lost[0].starts_with("DataLoss"), "{lost:?}");
}

#[tokio::test]
async fn exports_have_numbers_where_nobody_is_a_stranger() {
    let lab = Lab::new();
    let hub = lab.hub("one").start().await;
    let mut client = hub.client(None).await;
    for round in 0..2 {
        let published = publish(&mut client, round).await;
        let number = format!("export: {}", round + 1);
        assert!(
            published.iter().any(|told| told.contains(&number)),
            "{published:?}"
        );
        let found = look_up(&mut client).await;
        assert!(found.iter().any(|told| told.contains(&number)), "{found:?}");
    }
}
