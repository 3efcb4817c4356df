//! What a hub keeps for this process: leases, renewed while anybody holds them.
//!
//! A hub may give many look-ups one lease; it then has one heartbeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::hub::{Call, Caller};
use super::metrics::Method;
use crate::cache::wire::v1;

/// How often a lease is renewed; without that a hub keeps it for three minutes.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long asking for one, or renewing it, may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The leases of one caller.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<i64, Weak<Heartbeat>>>);

/// A lease until the last holder drops it; then it ends by itself.
pub(super) struct Heartbeat {
    beating: AbortOnDropHandle<()>,
}

impl Leases {
    /// Keeps that lease, which the hub has given just now.
    pub(super) fn keep(&self, caller: &Caller, lease: i64) -> Arc<Heartbeat> {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leases.get(&lease).and_then(Weak::upgrade)
            && !known.beating.is_finished()
        {
            return known;
        }
        leases.retain(|_, heartbeat| heartbeat.strong_count() > 0);
        let beating = tokio::spawn(beat(caller.clone(), lease));
        let heartbeat = Arc::new(Heartbeat {
            beating: AbortOnDropHandle::new(beating),
        });
        leases.insert(lease, Arc::downgrade(&heartbeat));
        heartbeat
    }

    /// Asks for one on what the hub has now; none where it gives none.
    pub(super) async fn take(&self, caller: &Caller) -> Option<Arc<Heartbeat>> {
        let request = v1::TakeLeaseRequest {};
        let call = Call::within(Method::TakeLease, LIMIT);
        let taken = caller
            .call(call, request, |mut client, request| async move {
                client.take_lease(request).await
            })
            .await;
        match taken {
            Ok(taken) => match taken.into_inner().lease {
                0 => None,
                lease => Some(self.keep(caller, lease)),
            },
            Err(failure) => {
                tracing::debug!(?failure, "no lease could be taken");
                None
            }
        }
    }
}

async fn beat(caller: Caller, lease: i64) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let request = v1::RenewLeaseRequest { lease };
        let call = Call::within(Method::RenewLease, LIMIT);
        let renewed = caller
            .call(call, request, |mut client, request| async move {
                client.renew_lease(request).await
            })
            .await;
        match renewed {
            Ok(renewed) if renewed.get_ref().renewed => {}
            Ok(_) => {
                tracing::warn!("a lease has ended before its holders");
                return;
            }
            Err(failure) => tracing::debug!(?failure, "a lease could not be renewed"),
        }
    }
}
