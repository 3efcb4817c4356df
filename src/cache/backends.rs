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

pub use super::remote::Allowed;
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
    /// Where exports of builds that bring no token wait for their hub, if they do.
    pub outbox: Option<Outbox>,
}

impl HubSettings {
    fn cache(&self, hub: &Arc<Hub>, token: TokenSource, outbox: Option<Outbox>) -> Backend {
        let near = self.near.clone();
        let cache = RemoteCache::new(Arc::clone(hub), token, near, self.patience);
        let cache = match outbox {
            Some(outbox) => cache.exporting_by(outbox),
            None => cache,
        };
        Backend::new(Arc::new(Metered::new(Arc::new(cache), self.blobs.clone())))
    }
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

    /// A hub, with the token of this host for builds that bring none.
    pub fn hub(hub: Arc<Hub>, token: TokenSource, settings: HubSettings) -> Self {
        let own = settings.cache(&hub, token, settings.outbox.clone());
        Self {
            configured: Configured::Hub(hub, own),
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
        self.allowed.iter().any(|allowed| allowed.allows(address))
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
        let backend = match token {
            None => settings.cache(hub, TokenSource::none(), settings.outbox.clone()),
            // A token is not for the disk: its builds wait for the hub.
            Some(token) => settings.cache(hub, TokenSource::given(token.clone()), None),
        };
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
