//! One import, as the bucket that buildkitd reads.
//!
//! The look-up happens when BuildKit asks for the config, beside the build that
//! has long begun, and is answered as empty when it takes too long: BuildKit
//! itself would wait for ever.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use jiff::Timestamp;
use tracing::Instrument as _;

use super::super::build::Audience;
use super::super::grpc::Body;
use super::super::metrics::{Carrier, ImportOutcome};
use super::super::plan::{nothing_for, shown};
use super::super::served::{cut, describe, flushed, missing};
use super::answer;
use super::blob::{self, GivenUp};
use crate::cache::{
    Cache, CacheError, Documents, Flushed, Form, Import, Lease, Limits, LookedUp, Want,
};
use crate::digest::Digest;
use crate::telemetry::metrics::CounterBy;

/// How long a look-up may take before the cache counts as empty.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);

/// Different answers that one import keeps readable: builds that never cease
/// to overlap begin another one then.
const MAX_NAMED: usize = 64;

/// How an import is served.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long a look-up may take, where that is less than it may take anyway.
    pub timeout: Option<Duration>,
    /// How long a read that fails is tried again.
    pub patience: Duration,
    /// Records of ordinary weight, at most.
    pub max_records: u64,
}

/// What one import serves, for as long as a build could ask.
pub struct PullImport {
    wants: Vec<Want>,
    terms: Terms,
    cache: Arc<dyn Cache>,
    imports: CounterBy<(Carrier, ImportOutcome)>,
    audience: Audience,
    /// Everything that a config has named so far.
    named: Mutex<Vec<Named>>,
    given_up: GivenUp,
}

/// The layers of a config, with their bytes, and what keeps them readable.
struct Named {
    layers: Arc<BTreeMap<Digest, u64>>,
    _lease: Lease,
}

impl PullImport {
    /// Serves what `wants` see of `cache`.
    pub fn new(
        wants: Vec<Want>,
        terms: Terms,
        cache: Arc<dyn Cache>,
        imports: CounterBy<(Carrier, ImportOutcome)>,
    ) -> Self {
        Self {
            wants,
            terms,
            cache,
            imports,
            audience: Audience::default(),
            named: Mutex::default(),
            given_up: GivenUp::default(),
        }
    }

    /// Whether it should take no more builds.
    pub fn is_worn(&self) -> bool {
        lock(&self.named).len() >= MAX_NAMED
    }

    /// Who is told how this import does.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The config, or an empty cache and the reason for it in the progress.
    pub async fn config(&self) -> Response<Body> {
        let answering = self.answer().instrument(self.audience.span());
        let (answer, outcome) = answering.await;
        // Once for each build: BuildKit's client may ask again.
        self.audience.each(|build| {
            if build.has_imported() {
                self.imports.count((Carrier::Pull, outcome));
            }
        });
        answer
    }

    async fn answer(&self) -> (Response<Body>, ImportOutcome) {
        let limit = self
            .terms
            .timeout
            .unwrap_or(LOOK_UP_LIMIT)
            .min(LOOK_UP_LIMIT);
        match tokio::time::timeout(limit, self.look_up()).await {
            Ok(Ok(Ok(config))) => (
                answer::whole(config, "application/json"),
                ImportOutcome::Served,
            ),
            Ok(Ok(Err(flushed))) => {
                let nothing = nothing_for(&self.wants, flushed.as_ref(), Timestamp::now());
                self.audience.each(|build| build.tell(nothing.clone()));
                (answer::no_such_key(), ImportOutcome::Empty)
            }
            Ok(Err(error)) => {
                self.audience
                    .each(|build| build.warn(format!("cache not imported: {error}")));
                (answer::no_such_key(), ImportOutcome::Failed)
            }
            Err(_) => {
                let seconds = shown(limit);
                self.audience.each(|build| {
                    build.warn(format!(
                        "cache not imported: the look-up took longer than {seconds} s"
                    ))
                });
                (answer::no_such_key(), ImportOutcome::Failed)
            }
        }
    }

    /// The config, or why there is none.
    async fn look_up(&self) -> Result<Result<Bytes, Option<Flushed>>, CacheError> {
        let limits = Limits {
            records: self.terms.max_records,
            form: Form::Whole,
        };
        let import = match self.cache.look_up(&self.wants, &limits).await? {
            LookedUp::Import(import) => import,
            LookedUp::Nothing(flushed) => return Ok(Err(flushed)),
        };
        let Documents::Whole(config) = &import.documents else {
            return Ok(Err(None));
        };
        self.name(&import);
        let described = describe(&import, Timestamp::now());
        self.audience.each(|build| {
            build.account.serve(config, &self.cache);
            build.tell(format!("imported cache of {described}"));
        });
        if let Some(missing) = missing(&import) {
            self.audience.each(|build| build.warn(missing.clone()));
        }
        if let Some(flushed) = flushed(&import, Timestamp::now()) {
            self.audience.each(|build| build.tell(flushed.clone()));
        }
        if let Some(cut) = cut(&import) {
            self.audience.each(|build| build.tell(cut.clone()));
        }
        Ok(Ok(config.clone()))
    }

    /// Its layers can be asked for from now on. Where they were named before,
    /// the newer lease is enough: they were all there when it was taken.
    fn name(&self, import: &Import) {
        let mut named = lock(&self.named);
        named.retain(|named| !Arc::ptr_eq(&named.layers, &import.layers));
        named.push(Named {
            layers: Arc::clone(&import.layers),
            _lease: import.lease.clone(),
        });
    }

    /// A layer, or the part of it that `range` asks for; `broken` is set where
    /// its body breaks off.
    pub async fn blob(
        &self,
        digest: &Digest,
        range: Option<&HeaderValue>,
        broken: Arc<AtomicBool>,
    ) -> Response<Body> {
        let size = lock(&self.named)
            .iter()
            .find_map(|named| named.layers.get(digest).copied());
        let Some(size) = size else {
            return answer::no_such_key();
        };
        let audience = self.audience.clone();
        let told = move |text: String| audience.each(|build| build.warn(text.clone()));
        blob::answer(
            self.cache.clone(),
            *digest,
            size,
            range,
            broken,
            blob::Terms {
                patience: self.terms.patience,
                given_up: self.given_up.clone(),
            },
            Box::new(told),
        )
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
