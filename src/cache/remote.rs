//! The cache of a hub, through the disk of this host.
//!
//! The same trait as the embedded store, so that doors can't tell them apart.
//! What this host has is read from its disk; the rest is fetched once, kept, and
//! streamed while it arrives. What a build writes goes to the disk and to the
//! hub at once. A hub that fails costs hits, and at most seconds; what an import
//! has named is read with patience, over every address.
//!
//! | question | file |
//! |---|---|
//! | which address is asked? | `hub`, `breaker`, `connection`, `failure` |
//! | which other hubs may a build name? | `elsewhere` |
//! | by whose token? | `token` |
//! | where does a blob come from? | `near`, `routes`, `download` |
//! | how does an upload survive? | `ingest`, `upload`, `pauses` |
//! | who asks the hub what it holds? | `holding`, `told` |
//! | who keeps an import readable? | `leases` |
//! | how does an export wait for the hub? | `outbox` |

mod address;
mod breaker;
mod connection;
mod download;
mod elsewhere;
mod exchange;
mod failure;
mod flush;
mod holding;
mod hub;
mod identity;
mod ingest;
mod leases;
mod metrics;
mod near;
mod outbox;
mod pauses;
mod publish;
mod renewing;
mod routes;
mod token;
mod told;
mod upload;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use tonic::Status;

pub use self::address::{HubAddress, InvalidHubAddress};
pub use self::elsewhere::Allowed;
pub use self::exchange::Given;
use self::failure::Failure;
pub use self::flush::flush;
use self::holding::Holding;
pub use self::hub::Hub;
use self::hub::{Call, Caller};
pub use self::identity::Identity;
use self::ingest::RemoteIngest;
use self::leases::{Heartbeat, Leases};
use self::metrics::Method;
pub use self::metrics::Metrics;
pub use self::near::Near;
pub use self::outbox::{Destinations, Outbox};
use self::pauses::Pauses;
use self::routes::Route;
pub use self::token::TokenSource;
use self::told::Told;
use self::upload::Subject;
use super::local::Verified;
use super::wire::{self, ImportReader, v1};
use super::{
    Cache, CacheError, Flush, Flushed, Import, Lease, Limits, LookedUp, MAX_STEPS, Publication,
    Published, Saving, Want,
};
use crate::blobs::{BlobError, BlobStream, Ingest};
use crate::catalog::ledger::Origin;
use crate::digest::{Digest, Hasher, RecordDigest};
use crate::place::{Place, ProjectId};
use crate::step::Step;

/// How long a look-up may take: a little less than a build waits.
const LOOK_UP: Duration = Duration::from_millis(4800);
/// How long the hub may take to say whether it takes an export.
const WRITABLE: Duration = Duration::from_millis(1800);
/// How long a hub may be away before no build asks that a second time.
const AWAY: Duration = Duration::from_secs(5);
/// How long a hub that is there may take nothing of a build's export before that
/// is given up.
const STUCK: Duration = Duration::from_secs(20);
/// How long small questions may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Projects that are remembered to have been asked about.
const MAX_PROJECTS: usize = 64;

/// The cache of a hub, for the bearer of one token.
pub struct RemoteCache {
    caller: Caller,
    near: Near,
    patience: Duration,
    leases: Leases,
    holding: Holding,
    verified: Verified,
    outbox: Option<Outbox>,
    told: Told,
    projects: Mutex<VecDeque<ProjectId>>,
}

/// What keeps an import readable.
struct Kept {
    _route: Arc<Route>,
    _heartbeat: Option<Arc<Heartbeat>>,
}

impl RemoteCache {
    /// The cache of `hub` for the bearer of `token`, behind `near`; an export
    /// that fails is tried again for `patience`, and no longer than a build ought
    /// to wait for that.
    pub fn new(hub: Arc<Hub>, token: TokenSource, near: Near, patience: Duration) -> Self {
        Self {
            caller: Caller::new(hub, token),
            near,
            patience: patience.min(STUCK),
            leases: Leases::default(),
            holding: Holding::default(),
            verified: Verified::default(),
            outbox: None,
            told: Told::default(),
            projects: Mutex::default(),
        }
    }

    /// The same, but exports wait in `outbox` for the hub, and builds don't.
    pub fn exporting_by(self, outbox: Outbox) -> Self {
        Self {
            outbox: Some(outbox),
            ..self
        }
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        self.caller.hub()
    }

    fn saw(&self, project: &ProjectId) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if !projects.contains(project) {
            projects.truncate(MAX_PROJECTS - 1);
            projects.push_front(project.clone());
        }
    }

    fn seen(&self) -> Vec<ProjectId> {
        let projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        projects.iter().cloned().collect()
    }

    /// The size of a blob that the project holds at the hub: as an import of this
    /// caller says, or the hub itself.
    async fn held(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, Failure> {
        match holding::known(&self.routes(digest), &place.project, digest) {
            Some(size) => Ok(Some(size)),
            None => self.holding.ask(&self.caller, place, digest).await,
        }
    }

    /// Those of the routes to a blob that were opened here.
    fn routes(&self, digest: &Digest) -> Vec<Arc<Route>> {
        let mut routes = self.near.routes.to(digest);
        routes.retain(|route| route.caller.is(&self.caller));
        routes
    }

    /// How a blob is read that is not here: as an import of this caller named
    /// it, or else out of any project that it has asked about.
    async fn ways(&self, digest: &Digest) -> Result<Vec<Arc<Route>>, CacheError> {
        let routes = self.routes(digest);
        if !routes.is_empty() || self.near.tier.has(digest).await {
            return Ok(routes);
        }
        for project in self.seen() {
            let place = Place {
                project: project.clone(),
                ..Place::default()
            };
            let asked = self.holding.ask(&self.caller, &place, digest).await;
            let size = asked.map_err(|failure| failure.cache_error(Some(*digest)))?;
            if let Some(size) = size {
                return Ok(vec![self.near.routes.add(Route {
                    caller: self.caller.clone(),
                    projects: vec![project],
                    blobs: Arc::new(BTreeMap::from([(*digest, size)])),
                })]);
            }
        }
        Err(BlobError::NotFound(*digest).into())
    }
}

/// An answer of one message.
macro_rules! ask {
    ($self:ident, $limit:expr, $method:ident, $call:ident, $request:expr) => {
        $self
            .caller
            .call(
                Call::within(Method::$method, $limit),
                $request,
                |mut client, request| async move { client.$call(request).await },
            )
            .await
            .map(tonic::Response::into_inner)
            .map_err(|failure: Failure| failure.cache_error(None))
    };
}

#[async_trait]
impl Cache for RemoteCache {
    async fn look_up(&self, wants: &[Want], limits: &Limits) -> Result<LookedUp, CacheError> {
        let Some(first) = wants.first() else {
            return Ok(LookedUp::Nothing(None));
        };
        let projects: BTreeSet<&ProjectId> = wants.iter().map(|want| &want.place.project).collect();
        projects.iter().for_each(|project| self.saw(project));
        let request = wire::look_up_request(wants, limits);
        let call = Call::within(Method::LookUp, LOOK_UP);
        let found = self
            .caller
            .call(call, request, |client, request| {
                let place = first.place.clone();
                read_import(client, request, place)
            })
            .await
            .map_err(|failure| failure.cache_error(None))?;
        let (mut import, lease) = match found {
            Ok(found) => found,
            Err(flushed) => return Ok(LookedUp::Nothing(flushed)),
        };
        let route = self.near.routes.add(Route {
            caller: self.caller.clone(),
            projects: projects.into_iter().cloned().collect(),
            blobs: Arc::clone(&import.layers),
        });
        import.lease = Lease::of(Some(Arc::new(Kept {
            _route: route,
            _heartbeat: lease.map(|lease| self.leases.keep(&self.caller, lease)),
        })));
        Ok(LookedUp::Import(Box::new(import)))
    }

    async fn lease(&self) -> Lease {
        Lease::of(self.leases.take(&self.caller).await)
    }

    async fn writable(&self, place: &Place) -> Result<(), CacheError> {
        let request = v1::WritableRequest {
            place: Some(place.into()),
        };
        let mut pauses = Pauses::begin();
        loop {
            let asked = ask!(self, WRITABLE, Writable, writable, request.clone()).map(drop);
            match (&self.outbox, asked) {
                // It waits for the hub.
                (Some(outbox), Err(CacheError::Unavailable(_))) => return outbox.writable().await,
                // One that restarts is back soon; one that has been away for
                // longer than that is not waited for by every build.
                (None, Err(CacheError::Unavailable(why)))
                    if self
                        .hub()
                        .silent_for()
                        .is_some_and(|silent| silent < self.patience.min(AWAY)) =>
                {
                    tracing::debug!(why, "the hub is asked again whether it takes an export");
                    tokio::time::sleep(pauses.next()).await;
                }
                (_, asked) => return asked,
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        self.hub().trouble()
    }

    async fn holds(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, CacheError> {
        self.saw(&place.project);
        let held = self.held(place, digest).await;
        if self.outbox.is_some() && matches!(held, Ok(Some(_))) {
            self.told.remember(&place.project, digest);
        }
        match (&self.outbox, held) {
            (Some(outbox), Ok(None) | Err(Failure::Unreachable(_))) => {
                Ok(outbox.holds(&self.caller, &place.project, digest))
            }
            // Then it is uploaded, with more patience; or is found to be there.
            (None, Err(Failure::Unreachable(_))) => Ok(None),
            (_, held) => held.map_err(|failure| failure.cache_error(None)),
        }
    }

    async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        self.saw(&place.project);
        // Neither an origin nor a project holds a NUL: names of two never meet.
        let hub = self.hub().addresses().next().map(ToString::to_string);
        let near = format!("{}\0{}\0{name}", hub.unwrap_or_default(), place.project);
        if let Some(outbox) = &self.outbox {
            return Ok(outbox.ingest(&near, expected).await?);
        }
        let subject = Subject {
            place: place.clone(),
            name: name.to_owned(),
            digest: expected,
        };
        let (caller, tier) = (self.caller.clone(), self.near.clone());
        let ingest = RemoteIngest::open(caller, tier, &near, subject, self.patience).await;
        Ok(Box::new(ingest))
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        let ways = self.ways(digest).await?;
        let bytes = self.near.tier.read(digest, offset, length).await?;
        let routes = Arc::clone(&self.near.routes);
        let bytes = bytes.map(move |chunk| {
            // They are open for as long as it is read.
            let _ = &ways;
            if let Err(BlobError::WrongDigest { .. }) = &chunk {
                routes.distrust_buckets();
            }
            chunk
        });
        Ok(bytes.boxed())
    }

    async fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        if self.verified.is_believed(digest, Instant::now()) {
            return Ok(());
        }
        // What comes from the hub is verified as it comes; what was here may
        // have rotted, and comes anew then.
        for fresh in [false, true] {
            let mut bytes = self.read(digest, 0, u64::MAX).await?;
            let mut hasher = Hasher::default();
            while let Some(chunk) = bytes.next().await {
                hasher.update(&chunk?);
            }
            let (expected, actual) = (*digest, hasher.finish());
            if actual == expected {
                self.verified.remember(expected, Instant::now());
                return Ok(());
            }
            tracing::warn!(blob = %expected, %actual, "a blob on this host has rotted");
            drop(bytes);
            self.near.tier.remove(digest).await?;
            if fresh {
                return Err(BlobError::WrongDigest { expected, actual }.into());
            }
        }
        Ok(())
    }

    async fn withdraw(&self, digest: &Digest, why: &CacheError) -> Result<(), CacheError> {
        if why.is_final() {
            let forgotten = self.near.tier.remove(digest).await;
            if let Err(error) = forgotten {
                tracing::warn!(blob = %digest, %error, "a wrong blob stays on this host");
            }
        }
        let projects: BTreeSet<String> = self
            .routes(digest)
            .iter()
            .flat_map(|route| route.projects.iter().map(ToString::to_string))
            .collect();
        let request = v1::SuspectRequest {
            projects: projects.into_iter().collect(),
            digest: wire::joined([digest]),
        };
        ask!(self, LIMIT, Suspect, suspect, request).map(drop)
    }

    async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        if let Some(outbox) = &self.outbox {
            let project = export.place.project.clone();
            let was_held = |digest: &Digest| self.told.holds(&project, digest);
            return outbox.put(&self.caller, export, was_held).await;
        }
        match publish::publish(&self.caller, &export, self.patience).await {
            Err(CacheError::Missing(missing)) => {
                self.supply(&export, &missing).await?;
                publish::publish(&self.caller, &export, self.patience).await
            }
            published => published,
        }
    }

    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        let mut steps = Vec::new();
        for results in results.chunks(MAX_STEPS) {
            let request = wire::steps_request(project, results);
            let call = Call::within(Method::Steps, LIMIT);
            let known = self.caller.call(call, request, read_steps).await;
            steps.extend(known.map_err(|failure| failure.cache_error(None))?);
        }
        Ok(steps)
    }

    async fn report(&self, saving: &Saving) -> Result<(), CacheError> {
        ask!(self, LIMIT, Report, report, v1::ReportRequest::from(saving)).map(drop)
    }

    /// Who says so is whoever the token is for.
    async fn flush(&self, flush: &Flush, _: &Origin) -> Result<u64, CacheError> {
        flush::by(&self.caller, flush).await
    }
}

/// Something, with the number of its lease; or nothing, perhaps since it was
/// flushed.
type Found = Result<(Import, Option<i64>), Option<Flushed>>;

/// Reads an answer to its end.
async fn read_import(
    mut client: hub::Client,
    request: tonic::Request<v1::LookUpRequest>,
    place: Place,
) -> Result<Found, Status> {
    let mut parts = client.look_up(request).await?.into_inner();
    let mut reader = ImportReader::default();
    while let Some(part) = parts.message().await? {
        reader.take(part).map_err(strange)?;
    }
    let flushed = reader.flushed().map_err(strange)?;
    Ok(reader.finish(place).map_err(strange)?.ok_or(flushed))
}

/// The same for steps.
async fn read_steps(
    mut client: hub::Client,
    request: tonic::Request<v1::StepsRequest>,
) -> Result<Vec<Step>, Status> {
    let mut parts = client.steps(request).await?.into_inner();
    let mut steps = Vec::new();
    while let Some(part) = parts.message().await? {
        let more = wire::steps(part.steps.unwrap_or_default().steps).map_err(strange)?;
        if steps.len() + more.len() > MAX_STEPS {
            return Err(Status::unavailable("a strange answer: too many steps"));
        }
        steps.extend(more);
    }
    Ok(steps)
}

fn strange(why: wire::Malformed) -> Status {
    Status::unavailable(format!("a strange answer: {why}"))
}

#[cfg(test)]
mod tests;
