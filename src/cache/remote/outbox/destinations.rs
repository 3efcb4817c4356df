//! To which hub a waiting export goes, and by whose token.
//!
//! An export is for the hub that its build meant, and is brought to no other.
//! The sidecar's own token goes to its own hub alone; builds that bring a token
//! don't wait here, so every other hub is given none.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::elsewhere::Allowed;
use super::super::hub::{Caller, Hub};
use super::super::metrics::Metrics;
use super::super::{HubAddress, TokenSource};
use crate::tls::Connector;

/// The hubs that exports may be brought to.
pub struct Destinations {
    own: Option<Caller>,
    allowed: Vec<Allowed>,
    tls: Option<Connector>,
    metrics: Metrics,
    known: Mutex<HashMap<HubAddress, Caller>>,
}

/// One of them.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) caller: Caller,
    /// Whether it is the hub of this host.
    pub(super) is_own: bool,
}

impl Destinations {
    /// None yet; hubs are spoken to over `tls` where their address asks for it.
    pub fn new(tls: Option<Connector>, metrics: Metrics) -> Self {
        Self {
            own: None,
            allowed: Vec::new(),
            tls,
            metrics,
            known: Mutex::default(),
        }
    }

    /// The same, and the hub of this host, by its token.
    pub fn own(self, hub: Arc<Hub>, token: TokenSource) -> Self {
        Self {
            own: Some(Caller::new(hub, token)),
            ..self
        }
    }

    /// The same, and hubs that builds may name.
    pub fn allowing(self, allowed: Vec<Allowed>) -> Self {
        Self { allowed, ..self }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The one at these addresses, of which there are none in what earlier
    /// versions wrote: they knew one hub alone.
    pub(super) fn find(&self, addresses: &BTreeSet<HubAddress>) -> Option<Destination> {
        if let Some(own) = &self.own
            && (addresses.is_empty() || self.is_own(addresses))
        {
            return Some(Destination {
                caller: own.clone(),
                is_own: true,
            });
        }
        let allows = |address: &HubAddress| self.allowed.iter().any(|some| some.allows(address));
        let address = addresses.iter().find(|address| allows(address))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = known.entry(address.clone()).or_insert_with(|| {
            let hub = Hub::new([address.clone()], self.tls.clone(), self.metrics.clone());
            Caller::new(Arc::new(hub), TokenSource::none())
        });
        Some(Destination {
            caller: caller.clone(),
            is_own: false,
        })
    }

    /// Where an export of this caller goes.
    pub(super) fn of(&self, caller: &Caller, addresses: &BTreeSet<HubAddress>) -> Destination {
        Destination {
            caller: caller.clone(),
            is_own: self.is_own(addresses),
        }
    }

    fn is_own(&self, addresses: &BTreeSet<HubAddress>) -> bool {
        let own = self.own.as_ref();
        own.is_some_and(|own| own.hub().addresses().any(|own| addresses.contains(own)))
    }
}
