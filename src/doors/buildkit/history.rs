//! `Control/ListenBuildHistory`: the history shows what the user wrote.
//!
//! buildkitd records the attributes of every import as it got them. Ours carry
//! what the user wrote, without secrets, and that is put back here, so that it
//! works for every client at any time later. Only imports that were left out
//! leave nothing to put back; [`LeftOut`] keeps those of the latest builds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tonic::Status;

use super::Door;
use super::forward::untouched;
use super::grpc::{self, Body, Messages, is_trailers_only};
use super::rewrite::{self, Entry};
use super::upstream::Link;

/// Builds whose left-out imports are kept.
const MAX_BUILDS: usize = 1000;
/// The longest attributes that are kept of one build, in bytes: a line that a
/// person wrote is far shorter.
const MAX_WRITTEN: usize = 4096;
/// Events under way to the client.
const UNDER_WAY: usize = 4;

/// The imports of builds that had none served, the latest last.
#[derive(Default)]
pub struct LeftOut(Mutex<VecDeque<(String, Vec<Entry>)>>);

impl LeftOut {
    /// Keeps the imports of a build, without their secrets.
    pub fn remember(&self, build: &str, imports: &[Entry]) {
        let imports: Vec<Entry> = imports.iter().map(Entry::without_secrets).collect();
        let written = imports.iter().map(Entry::length).sum::<usize>() + build.len();
        if written > MAX_WRITTEN {
            return;
        }
        let mut builds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if builds.len() == MAX_BUILDS {
            builds.pop_front();
        }
        builds.push_back((build.to_owned(), imports));
    }

    fn of(&self, build: &str) -> Vec<Entry> {
        let builds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        builds
            .iter()
            .find(|(id, _)| id == build)
            .map(|(_, imports)| imports.clone())
            .unwrap_or_default()
    }
}

/// Answers `Control/ListenBuildHistory`.
pub async fn listen(
    door: &Arc<Door>,
    link: &Link,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let response = link.send(request.map(untouched)).await?;
    if is_trailers_only(response.headers()) {
        return Ok(response.map(untouched));
    }
    let (head, upstream) = response.into_parts();
    let (to_client, body) = grpc::channel(UNDER_WAY);
    let mut messages = Messages::new(upstream, door.budget.clone());
    let door = door.clone();
    door.tasks.clone().spawn(async move {
        loop {
            let event = tokio::select! {
                event = messages.next() => event,
                () = to_client.closed() => return,
            };
            let sent = match event {
                Ok(Some(event)) => {
                    // An event that can't be read can't be cleared of what is
                    // not to be shown.
                    let Ok(shown) =
                        rewrite::history_event(&event.bytes, |build| door.left_out.of(build))
                    else {
                        continue;
                    };
                    to_client.send(Ok(Frame::data(grpc::frame(&shown)))).await
                }
                Ok(None) => {
                    if let Some(trailers) = messages.trailers() {
                        // A client that is gone needs no ending.
                        let _ = to_client.send(Ok(Frame::trailers(trailers))).await;
                    }
                    return;
                }
                Err(status) => to_client.send(Err(status.into())).await,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(Response::from_parts(head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry {
            kind: "gha-compatible".to_owned(),
            attributes: [(key.to_owned(), value.to_owned())].into(),
        }
    }

    #[test]
    fn what_is_kept_holds_no_secret_and_is_bounded() {
        let left_out = LeftOut::default();
        left_out.remember("secret", &[entry("token", "s3cret"), entry("scope", "a")]);
        assert!(left_out.of("secret")[0].attributes.is_empty());
        assert_eq!(left_out.of("secret")[1], entry("scope", "a"));
        left_out.remember("huge", &[entry("scope", &"x".repeat(MAX_WRITTEN + 1))]);
        assert!(left_out.of("huge").is_empty());
        for build in 0..MAX_BUILDS {
            left_out.remember(&build.to_string(), &[entry("scope", "b")]);
        }
        assert!(left_out.of("secret").is_empty(), "the oldest goes first");
        assert_eq!(left_out.of("0").len(), 1);
    }
}
