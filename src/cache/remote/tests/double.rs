//! A hub that is small: the wire in front of an embedded cache.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use futures::stream::BoxStream;
use futures::{TryStreamExt as _, stream};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Streaming};

use super::super::*;
use crate::blobs::{BlobStore as _, DiskStore};
use crate::cache::LocalCache;
use crate::cache::wire::v1::write_blob_request::Part;
use crate::cache::wire::v1::write_blob_response::{Part as Answer, Stored, Waiting};
use crate::cache::wire::{CacheServer, CacheService, PIECE, PublicationReader, status_of};
use crate::catalog::ledger::Actor;

/// What a test sees of it, and can change.
#[derive(Default)]
pub struct Seen {
    pub reads: u64,
    pub questions: u64,
    pub renewals: u64,
    pub tokens: BTreeSet<Option<String>>,
    pub suspects: Vec<Digest>,
    /// Given for every blob, where it is taken.
    pub url: Option<String>,
    /// What projects have uploaded.
    pub uploaded: HashMap<ProjectId, BTreeSet<Digest>>,
    /// What every call is answered.
    pub denies: Option<Status>,
    /// How many calls find it busy before one does not.
    pub busy: u64,
    /// How often each upload is told that it waits.
    pub waits: u64,
}

/// The double; clones are the same.
#[derive(Clone)]
pub struct Double {
    pub cache: Arc<LocalCache>,
    seen: Arc<Mutex<Seen>>,
    dir: Arc<TempDir>,
}

type Answers<T> = Response<BoxStream<'static, Result<T, Status>>>;

impl Double {
    /// Starts one on a free port.
    pub async fn start() -> (Self, SocketAddr) {
        let dir = TempDir::new().unwrap();
        let double = Self {
            cache: Arc::new(LocalCache::new(dir.path())),
            seen: Arc::default(),
            dir: Arc::new(dir),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = CacheServer::new(double.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd);
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        (double, address)
    }

    /// Has it without a blob that it had, and nobody having uploaded anything.
    pub async fn lose(&self, digest: &Digest) {
        let blobs = DiskStore::at(self.dir.path());
        blobs.remove(digest).await.unwrap();
        self.seen().uploaded.clear();
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn note<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        let mut seen = self.seen();
        seen.tokens.insert(token);
        if let Some(busy) = seen.busy.checked_sub(1) {
            seen.busy = busy;
            return Err(wire::busy("too many calls at once: try again".to_owned()));
        }
        match &seen.denies {
            Some(status) => Err(status.clone()),
            None => Ok(()),
        }
    }

    fn possess(&self, project: ProjectId, digest: Digest) {
        let mut seen = self.seen();
        seen.uploaded.entry(project).or_default().insert(digest);
    }

    async fn held(&self, place: &Place, digest: &Digest) -> Option<u64> {
        if let Some(size) = self.cache.holds(place, digest).await.unwrap() {
            return Some(size);
        }
        let uploaded = self.seen().uploaded.get(&place.project).cloned();
        if !uploaded.unwrap_or_default().contains(digest) {
            return None;
        }
        let bytes = self.cache.read(digest, 0, u64::MAX).await.ok()?;
        let bytes: Vec<bytes::Bytes> = bytes.try_collect().await.ok()?;
        Some(bytes.iter().map(|bytes| bytes.len() as u64).sum())
    }

    async fn take(
        &self,
        mut pieces: Streaming<v1::WriteBlobRequest>,
        answers: &mpsc::Sender<Result<v1::WriteBlobResponse, Status>>,
    ) -> Result<(), Status> {
        let say = async |part| {
            let answer = v1::WriteBlobResponse { part: Some(part) };
            let _ = answers.send(Ok(answer)).await;
        };
        let Some(Part::Open(open)) = pieces.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("no opening"));
        };
        let place = Place {
            project: open.project.parse().unwrap(),
            ..Place::default()
        };
        if let Ok(digest) = wire::digest(&open.digest)
            && let Some(size) = self.held(&place, &digest).await
        {
            say(Answer::Stored(Stored { size })).await;
            return Ok(());
        }
        let waits = self.seen().waits;
        for _ in 0..waits {
            say(Answer::Waiting(Waiting {})).await;
        }
        let ingest = self.cache.ingest(&place, &open.name, None).await;
        let mut ingest = ingest.map_err(|error| status_of(&error))?;
        let offset = ingest.offset();
        say(Answer::Offset(offset)).await;
        while let Some(message) = pieces.message().await? {
            match message.part {
                Some(Part::Piece(piece)) => {
                    for _ in 0..waits {
                        say(Answer::Waiting(Waiting {})).await;
                    }
                    assert_eq!(crc_fast::crc32_iscsi(&piece.bytes), piece.crc32c);
                    ingest.write(piece.bytes).await.unwrap();
                }
                Some(Part::Commit(commit)) => {
                    let digest = wire::digest(&commit.digest).unwrap();
                    let committed = ingest.commit(Some(commit.size), Some(digest)).await;
                    let (digest, size) = committed.map_err(|error| status_of(&error.into()))?;
                    self.possess(place.project, digest);
                    say(Answer::Stored(Stored { size })).await;
                    return Ok(());
                }
                _ => return Err(Status::invalid_argument("a strange part")),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl CacheService for Double {
    type LookUpStream = BoxStream<'static, Result<v1::LookUpResponse, Status>>;
    type ReadBlobStream = BoxStream<'static, Result<v1::ReadBlobResponse, Status>>;
    type WriteBlobStream = BoxStream<'static, Result<v1::WriteBlobResponse, Status>>;
    type PublishStream = BoxStream<'static, Result<v1::PublishResponse, Status>>;
    type StepsStream = BoxStream<'static, Result<v1::StepsResponse, Status>>;

    async fn look_up(
        &self,
        request: Request<v1::LookUpRequest>,
    ) -> Result<Answers<v1::LookUpResponse>, Status> {
        self.note(&request)?;
        let (wants, limits) = wire::question(request.into_inner()).unwrap();
        let import = self.cache.look_up(&wants, &limits).await;
        let import = import.map_err(|error| status_of(&error))?;
        let parts = match import {
            LookedUp::Import(import) => wire::import_parts(Some(&import), 7),
            LookedUp::Nothing(flushed) => wire::nothing(flushed.as_ref()),
        };
        Ok(Response::new(
            stream::iter(parts.into_iter().map(Ok)).boxed(),
        ))
    }

    async fn find_missing(
        &self,
        request: Request<v1::FindMissingRequest>,
    ) -> Result<Response<v1::FindMissingResponse>, Status> {
        self.note(&request)?;
        self.seen().questions += 1;
        let request = request.into_inner();
        let place = Place {
            project: request.project.parse().unwrap(),
            ..Place::default()
        };
        let mut sizes = Vec::new();
        for digest in wire::digests(&request.digests).unwrap() {
            let size = self.held(&place, &digest).await;
            sizes.push(size.map_or(0, |size| size + 1));
        }
        Ok(Response::new(v1::FindMissingResponse { sizes }))
    }

    async fn read_blob(
        &self,
        request: Request<v1::ReadBlobRequest>,
    ) -> Result<Answers<v1::ReadBlobResponse>, Status> {
        self.note(&request)?;
        let request = request.into_inner();
        assert!(!request.projects.is_empty());
        let url = {
            let mut seen = self.seen();
            seen.reads += 1;
            seen.url.clone().filter(|_| request.takes_url)
        };
        if let Some(url) = url {
            let located = v1::ReadBlobResponse {
                url,
                ..Default::default()
            };
            return Ok(Response::new(stream::iter([Ok(located)]).boxed()));
        }
        let digest = wire::digest(&request.digest).unwrap();
        let length = match request.length {
            0 => u64::MAX,
            length => length,
        };
        let bytes = self.cache.read(&digest, request.offset, length).await;
        let bytes = bytes.map_err(|error| status_of(&error))?;
        let pieces = bytes
            .map_err(|error| status_of(&error.into()))
            .map_ok(|bytes| {
                let pieces = bytes.chunks(PIECE).map(|piece| {
                    Ok(v1::ReadBlobResponse {
                        crc32c: crc_fast::crc32_iscsi(piece),
                        bytes: bytes.slice_ref(piece),
                        url: String::new(),
                    })
                });
                stream::iter(pieces.collect::<Vec<_>>())
            })
            .try_flatten();
        Ok(Response::new(pieces.boxed()))
    }

    async fn write_blob(
        &self,
        request: Request<Streaming<v1::WriteBlobRequest>>,
    ) -> Result<Answers<v1::WriteBlobResponse>, Status> {
        self.note(&request)?;
        let (say, answers) = mpsc::channel(4);
        let double = self.clone();
        tokio::spawn(async move {
            if let Err(status) = double.take(request.into_inner(), &say).await {
                let _ = say.send(Err(status)).await;
            }
        });
        let answers = stream::unfold(answers, |mut answers| async move {
            Some((answers.recv().await?, answers))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Answers<v1::PublishResponse>, Status> {
        self.note(&request)?;
        let mut parts = request.into_inner();
        let mut reader = PublicationReader::begin(parts.message().await?).unwrap();
        while let Some(message) = parts.message().await? {
            reader.take(message).unwrap();
        }
        let mut export = reader.finish().unwrap();
        let uploaded = self.seen().uploaded.get(&export.place.project).cloned();
        export.uploaded = uploaded.unwrap_or_default();
        let mut answers: Vec<_> = Vec::new();
        match self.cache.publish(export).await {
            Ok(published) => answers.extend(wire::published_parts(&published).into_iter().map(Ok)),
            Err(error) => {
                if let CacheError::Missing(missing) = &error {
                    answers.extend(wire::missing_parts(missing).map(Ok));
                }
                answers.push(Err(status_of(&error)));
            }
        }
        Ok(Response::new(stream::iter(answers).boxed()))
    }

    async fn writable(
        &self,
        request: Request<v1::WritableRequest>,
    ) -> Result<Response<v1::WritableResponse>, Status> {
        self.note(&request)?;
        Ok(Response::new(v1::WritableResponse {}))
    }

    async fn steps(
        &self,
        request: Request<v1::StepsRequest>,
    ) -> Result<Answers<v1::StepsResponse>, Status> {
        self.note(&request)?;
        let request = request.into_inner();
        let results = wire::results(request.results).unwrap();
        let project = request.project.parse().unwrap();
        let steps = self.cache.steps(&project, &results).await.unwrap();
        let parts = wire::steps_parts(&steps).map(|steps| {
            let steps = Some(steps);
            Ok(v1::StepsResponse { steps })
        });
        Ok(Response::new(
            stream::iter(parts.collect::<Vec<_>>()).boxed(),
        ))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        self.note(&request)?;
        let saving = Saving::try_from(request.into_inner()).unwrap();
        self.cache.report(&saving).await.unwrap();
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn take_lease(
        &self,
        request: Request<v1::TakeLeaseRequest>,
    ) -> Result<Response<v1::TakeLeaseResponse>, Status> {
        self.note(&request)?;
        Ok(Response::new(v1::TakeLeaseResponse { lease: 8 }))
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        self.note(&request)?;
        self.seen().renewals += 1;
        Ok(Response::new(v1::RenewLeaseResponse { renewed: true }))
    }

    async fn suspect(
        &self,
        request: Request<v1::SuspectRequest>,
    ) -> Result<Response<v1::SuspectResponse>, Status> {
        self.note(&request)?;
        let digest = wire::digest(&request.into_inner().digest).unwrap();
        self.seen().suspects.push(digest);
        Ok(Response::new(v1::SuspectResponse { withdrawn: false }))
    }

    async fn flush(
        &self,
        request: Request<v1::FlushRequest>,
    ) -> Result<Response<v1::FlushResponse>, Status> {
        self.note(&request)?;
        let flush = Flush::try_from(request.into_inner()).unwrap();
        let exports = self
            .cache
            .flush(&flush, &Origin::here(Actor::Anybody))
            .await
            .unwrap();
        Ok(Response::new(v1::FlushResponse { exports }))
    }
}
