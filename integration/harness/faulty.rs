//! A runner whose sidecar stands in this process, on a cache that can be made
//! to fail.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use layerd::blobs::{BlobError, BlobStream, Ingest};
use layerd::cache::backends::Backends;
use layerd::cache::{
    Cache, CacheError, Flush, Lease, Limits, LocalCache, LookedUp, Publication, Published, Saving,
    Want,
};
use layerd::catalog::ledger::Origin;
use layerd::config::Endpoint;
use layerd::digest::{Digest, RecordDigest};
use layerd::doors::buildkit::{self, Closing, Defaults, ImportCarrier, Listener, PullListener};
use layerd::place::{Place, ProjectId};
use layerd::step::Step;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Buildkitd, Lab};

/// How long the error of a failed build is held back.
const FAILED_EXPORT: Duration = Duration::from_secs(5);

/// What goes wrong from now on.
#[derive(Clone, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Look-ups never answer.
    LookUpHangs,
    /// Nothing answers that is asked for an export before there is anything to
    /// export.
    PlansHang,
    /// Every read of a layer is cut off by an error, that of its beginning after
    /// one byte, this often in all; then reads work.
    ReadsBreak(usize),
    /// Nothing answers that is asked for savings.
    SavingsHang,
    /// Reads give one small piece at a time.
    ReadsCrawl,
    /// Exports are never published.
    PublishHangs,
    /// Reads give nothing until this says so.
    ReadsWait(watch::Receiver<bool>),
}

/// A cache in a data directory, with faults.
struct FaultyCache {
    inner: LocalCache,
    fault: Arc<Mutex<Fault>>,
    broken: AtomicUsize,
    waiting: Arc<AtomicUsize>,
    looked_up: Arc<AtomicUsize>,
}

impl FaultyCache {
    async fn plan(&self) {
        if matches!(self.fault(), Fault::PlansHang) {
            std::future::pending::<()>().await;
        }
    }

    fn fault(&self) -> Fault {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn hold(&self) {
        if matches!(self.fault(), Fault::SavingsHang) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Cache for FaultyCache {
    async fn look_up(&self, wants: &[Want], limits: &Limits) -> Result<LookedUp, CacheError> {
        if matches!(self.fault(), Fault::LookUpHangs) {
            std::future::pending::<()>().await;
        }
        let import = self.inner.look_up(wants, limits).await;
        self.looked_up.fetch_add(1, Ordering::SeqCst);
        import
    }

    async fn lease(&self) -> Lease {
        self.plan().await;
        self.inner.lease().await
    }

    async fn writable(&self, place: &Place) -> Result<(), CacheError> {
        self.plan().await;
        self.inner.writable(place).await
    }

    async fn holds(&self, place: &Place, digest: &Digest) -> Result<Option<u64>, CacheError> {
        self.inner.holds(place, digest).await
    }

    async fn ingest(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
    ) -> Result<Box<dyn Ingest>, CacheError> {
        self.inner.ingest(place, name, expected).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<BlobStream, CacheError> {
        let whole = self.inner.read(digest, offset, length).await?;
        match self.fault() {
            Fault::None
            | Fault::LookUpHangs
            | Fault::PlansHang
            | Fault::PublishHangs
            | Fault::SavingsHang => Ok(whole),
            Fault::ReadsBreak(times) if self.broken.fetch_add(1, Ordering::SeqCst) < times => {
                let error = BlobError::Io {
                    context: "reading a layer".to_owned(),
                    source: std::io::Error::other("a fault that was asked for"),
                };
                let first = u64::from(offset == 0);
                let begun = self.inner.read(digest, offset, first).await?;
                Ok(begun.chain(stream::iter([Err(error)])).boxed())
            }
            Fault::ReadsBreak(_) => Ok(whole),
            Fault::ReadsCrawl => Ok(crawling(whole)),
            Fault::ReadsWait(mut go) => {
                drop(whole);
                self.waiting.fetch_add(1, Ordering::SeqCst);
                // A sender that is gone lets everything through.
                let _ = go.wait_for(|go| *go).await;
                self.inner.read(digest, offset, length).await
            }
        }
    }

    async fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        self.inner.verify(digest).await
    }

    async fn withdraw(&self, digest: &Digest, why: &CacheError) -> Result<(), CacheError> {
        self.inner.withdraw(digest, why).await
    }

    async fn publish(&self, export: Publication) -> Result<Published, CacheError> {
        if matches!(self.fault(), Fault::PublishHangs) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.inner.publish(export).await
    }

    async fn steps(
        &self,
        project: &ProjectId,
        results: &[(RecordDigest, Timestamp)],
    ) -> Result<Vec<Step>, CacheError> {
        self.hold().await;
        self.inner.steps(project, results).await
    }

    async fn report(&self, saving: &Saving) -> Result<(), CacheError> {
        self.hold().await;
        self.inner.report(saving).await
    }

    async fn flush(&self, flush: &Flush, origin: &Origin) -> Result<u64, CacheError> {
        self.inner.flush(flush, origin).await
    }
}

/// The same bytes, a few at a time, with a pause between them.
fn crawling(whole: BlobStream) -> BlobStream {
    const PIECE: usize = 16 << 10;
    let pieces = whole.flat_map(|chunk| match chunk {
        Ok(chunk) => {
            let pieces: Vec<_> = (0..chunk.len())
                .step_by(PIECE)
                .map(|at| Ok(chunk.slice(at..chunk.len().min(at + PIECE))))
                .collect();
            stream::iter(pieces).boxed()
        }
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    pieces
        .then(async |piece| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            piece
        })
        .boxed()
}

/// A buildkitd, and a door in this process before it.
pub struct FaultyRunner {
    /// Where its clients go.
    pub address: String,
    fault: Arc<Mutex<Fault>>,
    waiting: Arc<AtomicUsize>,
    looked_up: Arc<AtomicUsize>,
    metrics: Registry,
    closing: Closing,
    _serving: AbortOnDropHandle<()>,
    buildkitd: Buildkitd,
}

impl FaultyRunner {
    /// Starts both; imports travel by pull, and a read that fails is tried
    /// again for `patience`.
    pub async fn start(lab: &Lab, name: &str, data: &Path, patience: Duration) -> Self {
        let buildkitd = lab.buildkitd(name).start().await;
        let (fault, waiting, looked_up) = Default::default();
        let cache = FaultyCache {
            inner: LocalCache::new(data),
            fault: Arc::clone(&fault),
            broken: AtomicUsize::new(0),
            waiting: Arc::clone(&waiting),
            looked_up: Arc::clone(&looked_up),
        };
        let address = format!("unix://{}", lab.folder(name).join("door.sock").display());
        let listen: Endpoint = address.parse().expect("an endpoint");
        let listener = Listener::bind(&listen, None).await.expect("a free path");
        let pull = PullListener::bind("127.0.0.1:0", None).await;
        let pull = pull.expect("a free port");
        let mut metrics = Registry::default();
        let upstream: Endpoint = buildkitd.address.parse().expect("an endpoint");
        let config = buildkit::Config {
            upstream: buildkit::Upstream::new(upstream, None),
            caches: Arc::new(Backends::embedded(Arc::new(cache))),
            defaults: Defaults {
                project: "default".parse().expect("a project"),
                git_ref: "main".parse().expect("a ref"),
                fallbacks: Vec::new(),
            },
            builder: name.to_owned(),
            carrier: ImportCarrier::Pull,
            pull: Some(pull),
            max_graph_records: 10_000,
            blob_patience: patience,
            failed_export_timeout: FAILED_EXPORT,
            metrics: buildkit::Metrics::register(&mut metrics),
        };
        let closing = Closing::default();
        let serving = buildkit::serve(config, vec![listener], closing.clone());
        Self {
            address,
            fault,
            waiting,
            looked_up,
            metrics,
            closing,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
            buildkitd,
        }
    }

    /// From now on, this goes wrong.
    pub fn fail(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The address of the buildkitd behind it.
    pub fn daemon(&self) -> &str {
        &self.buildkitd.address
    }

    /// SIGKILL to the buildkitd behind it.
    pub async fn kill_buildkitd(&mut self) {
        self.buildkitd.kill().await;
    }

    /// Takes no more clients, and lets what runs end.
    pub fn drain(&self) {
        self.closing.drain.cancel();
    }

    /// Whether one build has ended so.
    pub fn has_solved(&self, outcome: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.metrics).expect("metrics are text");
        let counted = format!("layerd_solves_total{{outcome=\"{outcome}\"}} 1");
        text.lines().any(|line| line == counted)
    }

    /// How many look-ups were answered.
    pub fn looked_up(&self) -> usize {
        self.looked_up.load(Ordering::SeqCst)
    }

    /// How many reads have come to a gate, or exports to their end.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}
