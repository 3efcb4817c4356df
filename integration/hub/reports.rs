//! What builds were saved, as clients tell it: of a build and of today, and
//! nobody's numbers keep others from being added.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use layerd::cache::wire::v1;
use tonic::Code;

use super::access::{Gate, claims, with};
use crate::harness::{HubClient, Metrics};

fn today() -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    (Timestamp::now().to_zoned(TimeZone::UTC).date() - epoch).get_days()
}

/// Of one build.
fn report() -> v1::ReportRequest {
    v1::ReportRequest {
        project: "p".to_owned(),
        git_ref: "refs/heads/main".to_owned(),
        day: today(),
        builds: 1,
        steps: 16,
        cached: 14,
        saved_ms: 212_345,
        estimated_ms: 45,
    }
}

async fn told(client: &mut HubClient, report: v1::ReportRequest) -> Code {
    match client.report(report).await {
        Ok(_) => Code::Ok,
        Err(status) => {
            assert!(!status.message().contains('/'), "{status:?}");
            status.code()
        }
    }
}

#[tokio::test]
async fn who_only_reads_spoils_no_sum_and_the_hub_is_not_blamed() {
    let gate = Gate::new().await;
    let mut reader = gate.client(&claims(&["**"], &[])).await;
    let honest = with(claims(&["**"], &["main"]), "sub", "honest");
    let mut honest = gate.client(&honest).await;
    for most in [i64::MAX as u64, u64::MAX] {
        let all = v1::ReportRequest {
            builds: most,
            steps: most,
            cached: most,
            saved_ms: most,
            estimated_ms: most,
            ..report()
        };
        for hostile in [
            all,
            v1::ReportRequest {
                builds: most,
                ..report()
            },
            v1::ReportRequest {
                saved_ms: most,
                ..report()
            },
        ] {
            assert_eq!(told(&mut reader, hostile).await, Code::InvalidArgument);
        }
    }
    for day in [0, today() - 3, today() + 3, 2_900_000, i32::MIN, i32::MAX] {
        let hostile = v1::ReportRequest { day, ..report() };
        assert_eq!(told(&mut reader, hostile).await, Code::InvalidArgument);
    }
    for _ in 0..2 {
        assert_eq!(told(&mut honest, report()).await, Code::Ok);
        assert_eq!(told(&mut reader, report()).await, Code::Ok);
    }
    let metrics = Metrics::at(gate.hub.metrics_address()).await;
    let failed = "layerd_hub_calls_total{method=\"report\",outcome=\"failed\"}";
    assert_eq!(metrics.value(failed), 0.0);
    let log = gate.hub.log();
    assert!(!log.contains("a call failed"), "{log}");
}
