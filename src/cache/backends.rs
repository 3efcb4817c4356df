//! Which cache an entry of a build means: the store of this host, its hub, or
//! another hub that it is allowed to name.
//!
//! Builds that name the same hub by the same token share one cache; any other
//! two share nothing. The token of this host goes to its own hub alone.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::remote::{self, Hub, HubAddress, Near, Outbox, RemoteCache, TokenSource};
use super::{Cache, Metered, Metrics};
use crate::access::Secret;
use crate::tls::Connector;

/// Caches of hubs that are kept for the next build.
const KEPT: usize = 64;

/// What an entry says of where its cache is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Nothing.
    #[default]
    Unsaid,
    /// The store of this host.
    Local,
    /// A hub.
    Hub(HubAddress),
    /// What is no address of a hub: without its secrets, and why.
    Other(String, String),
}

/// Why an entry has no cache: a sentence for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoBackend(String);

/// A cache, and what tells it from others.
#[derive(Clone)]
pub struct Backend {
    cache: Arc<dyn Cache>,
    number: u64,
}

impl Backend {
    fn new(cache: Arc<dyn Cache>) -> Self {
        static BACKENDS: AtomicU64 = AtomicU64::new(0);
        Self {
            cache,
            number: BACKENDS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<dyn Cache> {
        &self.cache
    }
}

impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Backend {}

impl Hash for Backend {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.number).finish()
    }
}

/// Which hubs a build may name besides the configured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Any.
    Any,
    /// This one.
    Origin(HubAddress),
}

impl std::str::FromStr for Allowed {
    type Err = remote::InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => Ok(Self::Any),
            origin => origin.parse().map(Self::Origin),
        }
    }
}

/// What caches of hubs are made with.
#[derive(Clone)]
pub struct HubSettings {
    /// The disk in front of them.
    pub near: Near,
    /// How long an upload that fails is tried again.
    pub patience: Duration,
    /// What is spoken to allowed hubs, besides plain HTTP.
    pub tls: Option<Connector>,
    /// What is counted of calls.
    pub calls: remote::Metrics,
    /// What is counted of blobs.
    pub blobs: Metrics,
}

/// The caches that builds of this host can have.
pub struct Backends {
    configured: Configured,
    settings: Option<HubSettings>,
    allowed: Vec<Allowed>,
    kept: Mutex<VecDeque<Kept>>,
}

enum Configured {
    Embedded(Backend),
    Hub(Arc<Hub>, Backend),
}

/// The cache of a hub for the bearer of a token.
struct Kept {
    hub: Arc<Hub>,
    token: Option<Secret>,
    backend: Backend,
}

impl Backends {
    /// The store of this host.
    pub fn embedded(cache: Arc<dyn Cache>) -> Self {
        Self {
            configured: Configured::Embedded(Backend::new(cache)),
            settings: None,
            allowed: Vec::new(),
            kept: Mutex::default(),
        }
    }

    /// A hub, with the token of this host for builds that bring none; their
    /// exports go by `outbox`, if there is one.
    pub fn hub(
        hub: Arc<Hub>,
        token: TokenSource,
        outbox: Option<Outbox>,
        settings: HubSettings,
    ) -> Self {
        let near = settings.near.clone();
        let cache = RemoteCache::new(Arc::clone(&hub), token, near, settings.patience);
        let cache = match outbox {
            Some(outbox) => cache.exporting_by(outbox),
            None => cache,
        };
        let cache = Metered::new(Arc::new(cache), settings.blobs.clone());
        Self {
            configured: Configured::Hub(hub, Backend::new(Arc::new(cache))),
            settings: Some(settings),
            allowed: Vec::new(),
            kept: Mutex::default(),
        }
    }

    /// Builds may name these hubs, too; reached by `settings` where there is no
    /// hub that has its own.
    pub fn allowing(self, allowed: Vec<Allowed>, settings: Option<HubSettings>) -> Self {
        Self {
            allowed,
            settings: self.settings.or(settings),
            ..self
        }
    }

    /// The cache at `address` for the bearer of `token`.
    pub fn resolve(&self, address: &Address, token: Option<&Secret>) -> Result<Backend, NoBackend> {
        let no = |text: String| Err(NoBackend(text));
        match (address, &self.configured) {
            (Address::Unsaid | Address::Local, Configured::Embedded(backend)) => {
                Ok(backend.clone())
            }
            (Address::Unsaid, Configured::Hub(hub, own)) => self.at(hub, Some(own), token),
            (Address::Local, Configured::Hub(hub, _)) => no(format!(
                "url=local is a store of this host's own, and this sidecar has a hub instead ({}): leave url out",
                shown(hub)
            )),
            (Address::Hub(address), Configured::Hub(hub, own))
                if hub.addresses().any(|known| known == address) =>
            {
                self.at(hub, Some(own), token)
            }
            (Address::Hub(address), _) if self.allows(address) => self.elsewhere(address, token),
            (Address::Hub(address), _) => no(format!(
                "url={address} is no hub of this sidecar: start it with --hub {address}, or let builds name that one with --allow-hub {address}"
            )),
            (Address::Other(shown, why), _) => no(format!("url={shown} is no hub: {why}")),
        }
    }

    fn allows(&self, address: &HubAddress) -> bool {
        self.allowed.iter().any(|allowed| match allowed {
            Allowed::Any => true,
            Allowed::Origin(origin) => origin == address,
        })
    }

    fn elsewhere(
        &self,
        address: &HubAddress,
        token: Option<&Secret>,
    ) -> Result<Backend, NoBackend> {
        let known = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let mut hubs = kept.iter().map(|kept| &kept.hub);
            hubs.find(|hub| hub.addresses().eq([address])).cloned()
        };
        let Some(settings) = &self.settings else {
            return Err(NoBackend(format!(
                "url={address} can't be reached from here"
            )));
        };
        let hub = known.unwrap_or_else(|| {
            let (tls, calls) = (settings.tls.clone(), settings.calls.clone());
            Arc::new(Hub::new([address.clone()], tls, calls))
        });
        self.at(&hub, None, token)
    }

    /// `own` is for those who bring no token.
    fn at(
        &self,
        hub: &Arc<Hub>,
        own: Option<&Backend>,
        token: Option<&Secret>,
    ) -> Result<Backend, NoBackend> {
        if let (Some(own), None) = (own, token) {
            return Ok(own.clone());
        }
        let Some(settings) = &self.settings else {
            return Err(NoBackend("there is no hub".to_owned()));
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |kept: &Kept| Arc::ptr_eq(&kept.hub, hub) && kept.token.as_ref() == token;
        if let Some(at) = kept.iter().position(same)
            && let Some(found) = kept.remove(at)
        {
            let backend = found.backend.clone();
            kept.push_front(found);
            return Ok(backend);
        }
        let source = token
            .cloned()
            .map_or_else(TokenSource::none, TokenSource::given);
        let near = settings.near.clone();
        let cache = RemoteCache::new(Arc::clone(hub), source, near, settings.patience);
        let cache = Metered::new(Arc::new(cache), settings.blobs.clone());
        let backend = Backend::new(Arc::new(cache));
        kept.truncate(KEPT - 1);
        kept.push_front(Kept {
            hub: Arc::clone(hub),
            token: token.cloned(),
            backend: backend.clone(),
        });
        Ok(backend)
    }
}

fn shown(hub: &Hub) -> String {
    let addresses: Vec<String> = hub.addresses().map(ToString::to_string).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests;
