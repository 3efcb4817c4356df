//! What a project holds at the hub, asked for many blobs at a time.
//!
//! BuildKit asks for blob after blob, many exports at once. Those that come
//! within a moment, or while a question is under way, go as one. What an import
//! that is served now has named is known without asking.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::failure::Failure;
use super::hub::{Call, Caller};
use super::metrics::Method;
use super::routes::Route;
use crate::cache::CacheError;
use crate::cache::wire::{MAX_DIGESTS, joined, v1};
use crate::digest::Digest;
use crate::place::{GitRef, Place, ProjectId};

/// How long the first of many waits for the others.
const GATHER: Duration = Duration::from_millis(1);
/// How long the hub may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Whom an answer is for.
type Asker = oneshot::Sender<Result<Option<u64>, Failure>>;
/// Who may name blobs: answers differ by it.
type Writer = (ProjectId, GitRef);
/// What is not asked yet; a writer is among them while it is being answered.
type Waiting = HashMap<Writer, BTreeMap<Digest, Vec<Asker>>>;

/// The questions of one caller.
#[derive(Default)]
pub(super) struct Holding {
    waiting: Arc<Mutex<Waiting>>,
    /// Dropped with this, and the askers with them.
    tasks: Mutex<JoinSet<()>>,
}

impl Holding {
    /// The size of a blob in bytes, where an export to `place` may name it
    /// without uploading it.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        place: &Place,
        digest: &Digest,
    ) -> Result<Option<u64>, Failure> {
        let (tell, told) = oneshot::channel();
        let writer = (place.project.clone(), place.git_ref.clone());
        {
            let mut waiting = lock(&self.waiting);
            let under_way = waiting.contains_key(&writer);
            let askers = waiting.entry(writer.clone()).or_default();
            askers.entry(*digest).or_default().push(tell);
            if !under_way {
                let mut tasks = lock(&self.tasks);
                while tasks.try_join_next().is_some() {}
                tasks.spawn(answer(Arc::clone(&self.waiting), caller.clone(), writer));
            }
        }
        let cut_off = || Failure::Unreachable("asking the hub was cut off".to_owned());
        told.await.unwrap_or_else(|_| Err(cut_off()))
    }
}

/// Answers all who ask for `writer`, until nobody does.
async fn answer(waiting: Arc<Mutex<Waiting>>, caller: Caller, writer: Writer) {
    tokio::time::sleep(GATHER).await;
    loop {
        let batch = {
            let mut waiting = lock(&waiting);
            let Some(askers) = waiting.get_mut(&writer).filter(|askers| !askers.is_empty()) else {
                waiting.remove(&writer);
                return;
            };
            match askers.keys().nth(MAX_DIGESTS).copied() {
                None => std::mem::take(askers),
                Some(beyond) => {
                    let rest = askers.split_off(&beyond);
                    std::mem::replace(askers, rest)
                }
            }
        };
        let digests: Vec<Digest> = batch.keys().copied().collect();
        let sizes = sizes(&caller, &writer, &digests).await;
        for (at, askers) in batch.into_values().enumerate() {
            let answer = match &sizes {
                Ok(sizes) => Ok(sizes.get(at).copied().flatten()),
                Err(failure) => Err(failure.clone()),
            };
            for asker in askers {
                // One that asks no more needs no answer.
                let _ = asker.send(answer.clone());
            }
        }
    }
}

/// The sizes of blobs that exports of `writer` may name, in the order of
/// `digests`, of which there are at most [`MAX_DIGESTS`].
pub(super) async fn sizes(
    caller: &Caller,
    (project, git_ref): &Writer,
    digests: &[Digest],
) -> Result<Vec<Option<u64>>, Failure> {
    let request = v1::FindMissingRequest {
        project: project.to_string(),
        git_ref: git_ref.to_string(),
        digests: joined(digests),
    };
    let call = Call::within(Method::FindMissing, LIMIT);
    let found = caller
        .call(call, request, |mut client, request| async move {
            client.find_missing(request).await
        })
        .await?;
    let sizes = found.into_inner().sizes;
    if sizes.len() != digests.len() {
        return Err(Failure::Unreachable(
            "the hub answered for other blobs than it was asked for".to_owned(),
        ));
    }
    Ok(sizes.into_iter().map(|size| size.checked_sub(1)).collect())
}

/// The size of a blob that one of the `routes` of this caller names, for this
/// project alone.
pub(super) fn known(routes: &[Arc<Route>], project: &ProjectId, digest: &Digest) -> Option<u64> {
    let of_project = routes
        .iter()
        .find(|route| route.projects == [project.clone()]);
    of_project?.blobs.get(digest).copied()
}

/// All of them, however many.
pub(super) async fn missing(
    caller: &Caller,
    place: &Place,
    blobs: &BTreeMap<Digest, u64>,
) -> Result<Vec<Digest>, CacheError> {
    let writer = (place.project.clone(), place.git_ref.clone());
    let all: Vec<(Digest, u64)> = blobs
        .iter()
        .map(|(digest, size)| (*digest, *size))
        .collect();
    let mut missing = Vec::new();
    for some in all.chunks(MAX_DIGESTS) {
        let digests: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
        let sizes = sizes(caller, &writer, &digests).await;
        let sizes = sizes.map_err(|failure| failure.cache_error(None))?;
        let found = some.iter().zip(sizes);
        let gone = found.filter(|((_, size), found)| *found != Some(*size));
        missing.extend(gone.map(|((digest, _), _)| *digest));
    }
    Ok(missing)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
