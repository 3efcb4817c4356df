//! Who calls, and how many at a time.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;

use super::Office;
use super::called;
use super::told::Failure;
use crate::access::{Denied, Grant, Reason, Refusals, bearer};
use crate::catalog::ledger::Origin;
use crate::place::ProjectId;
use crate::telemetry;

/// Requests with one token that are answered at a time.
pub(super) const AT_ONCE: usize = 16;

/// An administrator who asks for something.
#[derive(Clone)]
pub(super) struct Admin {
    grant: Arc<Grant>,
    refusals: Refusals,
    peer: Option<SocketAddr>,
    request: String,
}

impl Admin {
    /// The only project that they administer; none if all.
    pub(super) fn only(&self) -> Option<&ProjectId> {
        self.grant.project()
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Refuses another project in the words for one that does not exist.
    pub(super) fn check(&self, project: &ProjectId) -> Result<(), Failure> {
        match self.only() {
            Some(own) if own != project => {
                self.refusals.count(Reason::Project);
                Err(no_project(project))
            }
            _ => {
                tracing::Span::current().record("project", project.as_str());
                Ok(())
            }
        }
    }

    /// Refuses who administers one project alone.
    pub(super) fn check_all(&self) -> Result<(), Failure> {
        match self.only() {
            None => Ok(()),
            Some(own) => {
                self.refusals.count(Reason::Project);
                Err(Failure::forbidden(format!(
                    "this concerns all projects, and the token administers {own} alone"
                )))
            }
        }
    }

    /// The project to ask the catalog about: what was asked for, or else the
    /// only one. An error is what no project is: nothing is there.
    pub(super) fn narrowed(&self, asked: Option<ProjectId>) -> Result<Option<ProjectId>, Unseen> {
        match (self.only(), asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if *own == asked => Ok(Some(asked)),
            _ => {
                self.refusals.count(Reason::Project);
                Err(Unseen)
            }
        }
    }

    /// As the audit log knows them.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            actor: self.grant.actor(),
            peer: self.peer,
            request: Some(self.request.clone()),
        }
    }
}

/// Nothing of what was asked for is seen.
pub(super) struct Unseen;

/// That there is no such project, or none that is seen.
pub(super) fn no_project(project: &ProjectId) -> Failure {
    Failure::missing(format!("there is no project {project}"))
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let admitted = parts.extensions.get::<Self>().cloned();
        admitted.ok_or_else(|| Denied::NoToken.into())
    }
}

/// Lets administrators in.
pub(super) async fn admit(
    State(office): State<Arc<Office>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer: Option<SocketAddr> = request.extensions().get().copied();
    let grant = match admitted(&office, request.headers()).await {
        Ok(grant) => grant,
        Err(failure) => return failure.into_response(),
    };
    if office.access.is_open() {
        if peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback()) {
            let text = "this hub asks for no token, and is administered from its own host alone";
            return Failure::forbidden(text).into_response();
        }
        let checked = called::check(&office.names, request.uri(), request.headers());
        if let Err(failure) = checked {
            return failure.into_response();
        }
    }
    let Some(seat) = office.seats.take(grant.id().to_owned()) else {
        return Failure::busy().into_response();
    };
    let admin = Admin {
        grant,
        refusals: office.refusals.clone(),
        peer,
        request: telemetry::request_id(request.headers()),
    };
    request.extensions_mut().insert(admin);
    let mut response = next.run(request).await;
    // Taken until the last byte is sent.
    let kept: Arc<dyn Any + Send + Sync> = match response.extensions_mut().remove() {
        Some::<Arc<dyn Any + Send + Sync>>(kept) => Arc::new((kept, seat)),
        None => Arc::new(seat),
    };
    response.extensions_mut().insert(kept);
    response
}

async fn admitted(office: &Office, headers: &HeaderMap) -> Result<Arc<Grant>, Failure> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let token = match (given.next(), given.next()) {
        (None, _) => None,
        (Some(one), None) => Some(bearer(one).ok_or(Denied::Malformed("its header"))?),
        (Some(_), Some(_)) => return Err(Failure::request("one token is enough")),
    };
    let grant = office.access.administrator(token).await;
    let grant = office.refusals.counted(grant)?;
    if !grant.is_admin() {
        office.refusals.count(Reason::Kind);
        return Err(Failure::forbidden(
            "this token is for builds: an admin token is needed here, by `layerd token mint --admin`",
        ));
    }
    Ok(grant)
}

/// What every answer has.
pub(super) async fn marked(mut response: Response) -> Response {
    let is_unauthenticated = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
