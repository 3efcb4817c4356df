//! One `Content/Write`: containerd's state machine, message by message.
//!
//! The first message opens the ref; STAT tells how far it is, WRITE appends at
//! that offset, COMMIT verifies and ends it. Any message that names the
//! expected digest is answered with AlreadyExists where that blob is there:
//! BuildKit asks nothing else first, and then sends nothing.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Status, Streaming};

use super::super::proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use super::export::ExportStore;
use super::statuses::Locked;
use super::{Store, parse_digest, timestamp};
use crate::blobs::Ingest;
use crate::digest::Digest;

/// Answers a stream of requests, one by one; dropping the answer drops the
/// upload, which can be resumed.
pub fn write(
    store: Arc<Store>,
    requests: Streaming<WriteContentRequest>,
) -> BoxStream<'static, Result<WriteContentResponse, Status>> {
    let writing = Writing {
        store,
        requests,
        open: None,
        over: false,
    };
    stream::try_unfold(writing, Writing::next).boxed()
}

struct Writing {
    store: Arc<Store>,
    requests: Streaming<WriteContentRequest>,
    open: Option<Open>,
    over: bool,
}

/// An opened upload.
struct Open {
    locked: Locked,
    ingest: Box<dyn Ingest>,
    total: i64,
    expected: Option<Digest>,
}

impl Writing {
    async fn next(mut self) -> Result<Option<(WriteContentResponse, Self)>, Status> {
        if self.over {
            return Ok(None);
        }
        let Some(request) = self.requests.message().await? else {
            return if self.open.is_some() {
                Ok(None)
            } else {
                Err(Status::invalid_argument("no message"))
            };
        };
        let store = self.store.clone();
        let export = store.export()?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(export, &request).await?,
        };
        if open.take_in(export, &request).await? {
            return Err(open.not_needed(export, &request).await);
        }
        let mut response = WriteContentResponse {
            action: request.action,
            ..WriteContentResponse::default()
        };
        match request.action() {
            WriteAction::Stat => open.stat(&mut response),
            WriteAction::Write => open.append(export, request, &mut response).await?,
            WriteAction::Commit => {
                open.append(export, request, &mut response).await?;
                open.commit(export, &mut response).await?;
                self.over = true;
                return Ok(Some((response, self)));
            }
        }
        self.open = Some(open);
        Ok(Some((response, self)))
    }
}

impl Open {
    async fn new(export: &ExportStore, request: &WriteContentRequest) -> Result<Self, Status> {
        let locked = export.statuses().lock(&request.r#ref)?;
        // Before an upload is opened, so that nothing is made for a blob that
        // is there; the check for every message would come too late.
        if already_there(export, request).await? {
            locked.end();
            return Err(already_exists(&request.expected));
        }
        let expected = match request.expected.as_str() {
            "" => None,
            expected => Some(parse_digest(expected)?),
        };
        let ingest = export.ingest(&request.r#ref, expected).await?;
        Ok(Self {
            locked,
            ingest,
            total: 0,
            expected: None,
        })
    }

    /// Takes in what a message says about the whole; `true`: it is there by
    /// now, written by somebody else.
    async fn take_in(
        &mut self,
        export: &ExportStore,
        request: &WriteContentRequest,
    ) -> Result<bool, Status> {
        if request.total < 0 {
            return Err(Status::invalid_argument("a negative total"));
        }
        if request.total > 0 {
            self.total = request.total;
        }
        self.locked
            .note(&*self.ingest, self.total, &request.expected);
        if request.expected.is_empty() {
            return Ok(false);
        }
        // The first message was checked when it opened this.
        let first = self
            .expected
            .replace(parse_digest(&request.expected)?)
            .is_none();
        Ok(!first && already_there(export, request).await?)
    }

    async fn not_needed(self, export: &ExportStore, request: &WriteContentRequest) -> Status {
        self.locked.end();
        match self.ingest.abort().await {
            Ok(()) => already_exists(&request.expected),
            Err(error) => export.failed(&error.into()),
        }
    }

    fn stat(&self, response: &mut WriteContentResponse) {
        response.offset = self.offset();
        response.total = self.total;
        response.digest = self.ingest.digest().to_string();
        response.started_at = timestamp(self.ingest.started_at());
        response.updated_at = timestamp(self.ingest.updated_at());
    }

    async fn append(
        &mut self,
        export: &ExportStore,
        request: WriteContentRequest,
        response: &mut WriteContentResponse,
    ) -> Result<(), Status> {
        let at = self.offset();
        if request.offset != at && request.offset != 0 {
            let offset = request.offset;
            return Err(Status::out_of_range(format!(
                "write @{offset} must occur at current offset {at}"
            )));
        }
        if request.offset == 0 && at > 0 {
            self.ingest
                .restart()
                .await
                .map_err(|error| export.failed(&error.into()))?;
        }
        let end = self
            .ingest
            .offset()
            .saturating_add(request.data.len() as u64);
        if self.total > 0 && end > self.total.unsigned_abs() {
            let total = self.total;
            return Err(Status::failed_precondition(format!(
                "write up to {end} goes beyond the total of {total} bytes"
            )));
        }
        if !request.data.is_empty() {
            self.ingest
                .write(request.data)
                .await
                .map_err(|error| export.failed(&error.into()))?;
            self.locked
                .note(&*self.ingest, self.total, &request.expected);
        }
        response.offset = self.offset();
        response.total = self.total;
        Ok(())
    }

    async fn commit(
        self,
        export: &ExportStore,
        response: &mut WriteContentResponse,
    ) -> Result<(), Status> {
        let size = (self.total > 0).then(|| self.total.unsigned_abs());
        let digest = export
            .commit(self.locked.name(), self.ingest, size, self.expected)
            .await;
        self.locked.end();
        response.digest = digest?.to_string();
        Ok(())
    }

    fn offset(&self) -> i64 {
        i64::try_from(self.ingest.offset()).unwrap_or(i64::MAX)
    }
}

async fn already_there(
    export: &ExportStore,
    request: &WriteContentRequest,
) -> Result<bool, Status> {
    if request.expected.is_empty() {
        return Ok(false);
    }
    export.has(&parse_digest(&request.expected)?).await
}

fn already_exists(expected: &str) -> Status {
    Status::already_exists(format!("blob with expected digest {expected} exists"))
}
