//! Which buildkitd this is: the id of its worker, which stays as long as its
//! state does and is another one for a daemon that begins anew (BuildKit:
//! `worker/base`, `ID`).

use std::time::Duration;

use http::{Request, Version, header};
use prost::Message as _;
use tokio::sync::Mutex;

use super::grpc::{MessageBudget, Messages, unary};
use super::proto::control::ListWorkersResponse;
use super::upstream::Link;

/// How long the daemon may take to say: it looks for emulators meanwhile.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of an id; real ones have 25.
const MAX_ID: usize = 100;

/// The daemon behind a door.
#[derive(Debug, Default)]
pub struct Daemon {
    /// Its id, and the outages until then. Held while somebody asks.
    known: Mutex<Option<(u64, String)>>,
}

impl Daemon {
    /// Its id, asked for once and again after an outage; none where it doesn't
    /// say.
    pub async fn id(&self, link: &Link, budget: &MessageBudget) -> Option<String> {
        let mut known = self.known.lock().await;
        let outages = link.outages();
        if let Some((_, id)) = known.as_ref().filter(|(at, _)| *at == outages) {
            return Some(id.clone());
        }
        let asked = tokio::time::timeout(LIMIT, ask(link, budget)).await;
        let id = asked.ok().flatten()?;
        *known = Some((link.outages(), id.clone()));
        Some(id)
    }
}

async fn ask(link: &Link, budget: &MessageBudget) -> Option<String> {
    let request = Request::post("http://buildkitd/moby.buildkit.v1.Control/ListWorkers")
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(unary(b""))
        .ok()?;
    let response = link.send(request).await.ok()?;
    let mut messages = Messages::new(response.into_body(), budget.clone());
    let message = messages.next().await.ok()??;
    let workers = ListWorkersResponse::decode(message.bytes.clone()).ok()?;
    let ids = workers.record.into_iter().map(|worker| worker.id);
    ids.filter(|id| !id.is_empty() && id.len() <= MAX_ID).min()
}
