//! What every call passes before a byte of its message is read.
//!
//! Whoever has no token can't have a hub keep anything: the answer comes before
//! the message. What never reaches a method, because there is no such method or
//! the message can't be read, is counted and logged here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::Door;
use super::call::{Call, Kept, unread};
use super::metrics::Method;
use crate::cache::guard::Guard;

/// How long a message may be on its way where there is one.
const MESSAGE: Duration = Duration::from_secs(10);
/// How long a call may wait for its turn to bring one.
const TURN: Duration = Duration::from_secs(10);
/// What says how messages are written, and how long such a value is at most.
const NEEDED: [&str; 4] = [
    "content-type",
    "te",
    "grpc-encoding",
    "grpc-accept-encoding",
];
const MAX_VALUE: usize = 256;

/// Takes requests; clones are the same.
#[derive(Clone)]
pub struct Screen {
    door: Arc<Door>,
    routes: TowerToHyperService<Routes>,
}

/// A call that has begun, until its method takes it.
#[derive(Clone)]
struct Begun(Arc<Waiting>);

struct Waiting {
    call: Mutex<Option<(Call, Guard)>>,
    taken: Notify,
}

impl Begun {
    fn new(call: (Call, Guard)) -> Self {
        Self(Arc::new(Waiting {
            call: Mutex::new(Some(call)),
            taken: Notify::new(),
        }))
    }

    fn take(&self) -> Option<(Call, Guard)> {
        let mut call = self.0.call.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.taken.notify_one();
        call.take()
    }

    /// Resolves once its method has its message.
    async fn taken(&self) {
        self.0.taken.notified().await;
    }
}

/// The call that a request is for, and what its client may do.
pub fn taken(extensions: &Extensions) -> Result<(Call, Guard), Status> {
    let begun = extensions.get::<Begun>().and_then(Begun::take);
    begun.ok_or_else(|| Status::internal("the call has not begun"))
}

impl Screen {
    /// For calls of `routes`.
    pub(super) fn new(door: Arc<Door>, routes: Routes) -> Self {
        Self {
            door,
            routes: TowerToHyperService::new(routes),
        }
    }
}

impl Service<Request<Incoming>> for Screen {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let method = Method::at(request.uri().path());
        let peer = request.extensions().get::<SocketAddr>().copied();
        let door = Arc::clone(&self.door);
        let routes = self.routes.clone();
        async move {
            let begun = Call::begin(&door, method, request.headers(), peer).await;
            let (client, begun, open) = match begun {
                Ok((call, guard, open)) => (call.client().clone(), Begun::new((call, guard)), open),
                Err(status) => return Ok(status.into_http()),
            };
            *request.headers_mut() = needed(request.headers());
            request.extensions_mut().insert(begun.clone());
            let room = door.messages.clone();
            let answering = async {
                // As long as the message is on its way.
                let room = match room.take_within(TURN, &client, 1, "calls").await {
                    Ok(room) => room,
                    Err(refused) => return Ok(Status::from(refused).into_http()),
                };
                let mut answering = std::pin::pin!(routes.call(request));
                tokio::select! {
                    answer = answering.as_mut() => return answer,
                    () = begun.taken() => {}
                    () = tokio::time::sleep(MESSAGE) => {}
                }
                drop(room);
                match begun.take() {
                    None => answering.await,
                    Some((mut call, _)) => {
                        let late = "the message did not come to its end";
                        let late = call.ended(Status::deadline_exceeded(late));
                        Ok(late.into_http())
                    }
                }
            };
            let mut response: Response<Body> = answering.await?;
            if let Some((mut call, _)) = begun.take() {
                let status = Status::from_header_map(response.headers());
                let status = status.unwrap_or_else(|| Status::unimplemented(""));
                let status = match (status.code(), status.message()) {
                    (Code::Unimplemented, "") => Status::unimplemented("no such method"),
                    _ => status,
                };
                return Ok(call.ended(unread(status)).into_http());
            }
            let kept = response.extensions_mut().remove::<Kept>();
            response
                .extensions_mut()
                .insert(Arc::new((kept, open)) as Kept);
            Ok(response)
        }
        .boxed()
    }
}

/// The headers that a call needs once it has begun: it may last, and so would
/// all that a client puts there.
fn needed(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(NEEDED.len());
    for name in NEEDED {
        if let Some(value) = headers.get(name)
            && value.len() <= MAX_VALUE
        {
            // It would be a part of all that came with it.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                kept.insert(name, value);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_headers_of_a_call_only_those_of_its_messages_stay() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-encoding", HeaderValue::from_static("zstd"));
        let stay = headers.clone();
        let long = HeaderValue::try_from("x".repeat(MAX_VALUE + 1)).unwrap();
        headers.insert("authorization", long.clone());
        headers.insert("grpc-accept-encoding", long);
        headers.insert("x-any", HeaderValue::from_static("any"));
        assert_eq!(needed(&headers), stay);
    }
}
