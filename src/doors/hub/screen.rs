//! What every call passes before a byte of its message is read.
//!
//! Whoever has no token can't have a hub keep anything: the answer comes before
//! the message. What never reaches a method, because there is no such method or
//! the message can't be read, is counted and logged here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{self, BoxFuture, FutureExt as _};
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;

use super::Door;
use super::call::Call;
use super::metrics::Method;
use crate::cache::guard::Guard;

/// The calls of one connection.
pub struct Screen {
    door: Arc<Door>,
    routes: TowerToHyperService<Routes>,
}

/// A call that has begun, until its method takes it.
#[derive(Clone)]
struct Begun(Arc<Mutex<Option<(Call, Guard)>>>);

impl Begun {
    fn take(&self) -> Option<(Call, Guard)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The call that a request is for, and what its client may do.
pub fn taken(extensions: &Extensions) -> Result<(Call, Guard), Status> {
    let begun = extensions.get::<Begun>().and_then(Begun::take);
    begun.ok_or_else(|| Status::internal("the call has not begun"))
}

impl Screen {
    /// For one client.
    pub fn new(door: Arc<Door>, routes: Routes) -> Self {
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
        let begun = match Call::begin(&self.door, method, request.headers()) {
            Ok(begun) => Begun(Arc::new(Mutex::new(Some(begun)))),
            Err(status) => return future::ready(Ok(status.into_http())).boxed(),
        };
        request.extensions_mut().insert(begun.clone());
        let answering = self.routes.call(request);
        async move {
            let response = answering.await?;
            if let Some((mut call, _)) = begun.take() {
                let status = Status::from_header_map(response.headers());
                call.ended(status.unwrap_or_else(|| Status::unimplemented("no such method")));
            }
            Ok(response)
        }
        .boxed()
    }
}
