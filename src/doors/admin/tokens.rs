//! Tokens: whose this is, new ones, and those that count no more.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Office;
use super::admitted::{Admin, no_project};
use super::asked::{Ask, Json, Nothing};
use super::told::{Failure, Fault, Page, limit};
use crate::access::token::{is_id, read_unverified};
use crate::access::{Grant, NewAdminToken, NewToken, RefPattern};
use crate::catalog::ledger::{
    Action, Details, MAX_PAGE, NewAudit, NewRevocation, Revision, Revocation,
};
use crate::place::ProjectId;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// Whom the token was made for; empty where the hub asks for none.
    pub subject: String,
    /// Its id.
    pub id: String,
    /// The only project that it administers; all unless given.
    pub project: Option<ProjectId>,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The version of the hub.
    pub version: String,
}

/// A token to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// The project; an admin token without one is for all.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Refs, or patterns of refs, that may be read.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub read: Vec<RefPattern>,
    /// Refs, or patterns of refs, that may be written.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub write: Vec<RefPattern>,
    /// Whether it is for the administration; it reads and writes nothing then.
    #[serde(default)]
    pub admin: bool,
    /// How long it is good for, in seconds; 7,776,000 at most.
    pub ttl_seconds: u64,
    /// Who it is for.
    pub subject: String,
}

/// A new token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MintedToken {
    /// The token.
    pub token: String,
    /// Its id.
    pub id: String,
    /// The name of the key that signed it.
    pub kid: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// A token to be revoked: it, or its id.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The token.
    #[serde(default)]
    pub token: Option<String>,
    /// Its id; for administrators of all projects.
    #[serde(default)]
    pub id: Option<String>,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: String,
}

/// A token that counts no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevokedToken {
    /// Its id.
    pub id: String,
    /// Whom it was made for, where the token was given.
    pub subject: Option<String>,
    /// When it would have ended, where the token was given.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

/// A token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenText {
    /// It.
    pub token: String,
}

/// What a token may.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// The project; none of an admin token for all.
    pub project: Option<ProjectId>,
    /// What may be read.
    #[schema(value_type = Vec<String>)]
    pub read: Vec<RefPattern>,
    /// What may be written.
    #[schema(value_type = Vec<String>)]
    pub write: Vec<RefPattern>,
    /// Whether it is for the administration.
    pub admin: bool,
    /// Whom it was made for.
    pub subject: String,
    /// Its id.
    pub id: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub issued: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// The name of the key that it says it was signed with.
    pub kid: Option<String>,
    /// Why this hub does not take it, if it does not.
    pub refused: Option<String>,
    /// The same as a short name, such as `expired` or `revoked`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether this hub asks for no token, and so looks at none.
    #[serde(default)]
    pub open: bool,
}

/// A page of revoked tokens.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfRevoked {
    /// Those behind this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<i64>,
    /// At most so many; 100 unless given, 1000 at most.
    limit: Option<u32>,
}

/// Who asks, as the hub knows them.
#[utoipa::path(get, path = "/v1/whoami", tag = "tokens", operation_id = "whoami",
    responses((status = OK, body = Whoami), (status = "default", body = Fault)))]
pub(super) async fn whoami(
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
) -> Result<Answer<Whoami>, Failure> {
    let grant = admin.grant();
    Ok(Answer(Whoami {
        subject: grant.subject().to_owned(),
        id: grant.id().to_owned(),
        project: grant.project().cloned(),
        expires: grant.expires(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// Signs a token with the hub's newest private key. No admin token that is made
/// here ends later than the one that it is made with.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", operation_id = "mint_token",
    request_body = MintRequest,
    responses((status = CREATED, body = MintedToken), (status = "default", body = Fault)))]
pub(super) async fn mint(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
    Json(request): Json<MintRequest>,
) -> Result<(StatusCode, Answer<MintedToken>), Failure> {
    match &request.project {
        Some(project) => admin.check(project)?,
        None if request.admin => admin.check_all()?,
        None => return Err(Failure::request("project is missing")),
    }
    let now = Timestamp::now();
    let lifetime = Duration::from_secs(request.ttl_seconds);
    let minted = if request.admin {
        if !(request.read.is_empty() && request.write.is_empty()) {
            return Err(Failure::request("an admin token reads and writes nothing"));
        }
        let ends = now.checked_add(lifetime).ok();
        let own = admin.grant().expires();
        if own.is_some_and(|own| ends.is_none_or(|ends| ends > own)) {
            return Err(Failure::forbidden(
                "an admin token that is made with another can't end later than that",
            ));
        }
        let new = NewAdminToken {
            subject: request.subject.clone(),
            project: request.project.clone(),
            lifetime,
        };
        office.access.mint_admin(&new, now)?
    } else {
        let new = NewToken {
            subject: request.subject.clone(),
            project: request.project.clone().unwrap_or_default(),
            read: request.read,
            write: request.write,
            lifetime,
        };
        office.access.mint(&new, now)?
    };
    // Noted first: no token gets out of which nobody knows.
    let entry = NewAudit {
        project: request.project,
        details: Details::default()
            .with("token", minted.id.as_str())
            .with("subject", request.subject)
            .with("admin", request.admin)
            .with("expires", minted.expires.to_string()),
        ..NewAudit::new(&admin.origin(), Action::Mint)
    };
    office.catalog.note(&entry).await?;
    let minted = MintedToken {
        token: minted.token.expose().to_owned(),
        id: minted.id,
        kid: minted.kid,
        expires: minted.expires,
    };
    Ok((StatusCode::CREATED, Answer(minted)))
}

/// Has all hubs refuse a token from now on.
#[utoipa::path(post, path = "/v1/tokens/revoke", tag = "tokens", operation_id = "revoke_token",
    request_body = RevokeRequest,
    responses((status = OK, body = RevokedToken), (status = "default", body = Fault)))]
pub(super) async fn revoke(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
    Json(request): Json<RevokeRequest>,
) -> Result<Answer<RevokedToken>, Failure> {
    let revoked = match (&request.token, &request.id) {
        (Some(token), None) => {
            let said = read_unverified(token).map_err(|why| Failure::request(why.to_string()))?;
            check_seen(&admin, &said.grant)?;
            // What another key signed is no token here: who could say whose it is?
            if admin.only().is_some() {
                office.access.genuine(token)?;
            }
            RevokedToken {
                id: said.grant.id().to_owned(),
                subject: Some(said.grant.subject().to_owned()),
                expires: said.grant.expires(),
            }
        }
        (None, Some(id)) => {
            if admin.only().is_some() {
                return Err(Failure::forbidden(
                    "whose token that is can't be told by its id: give the token itself",
                ));
            }
            if !is_id(id) {
                return Err(Failure::request(
                    "that is no id of a token, which has 32 hexadecimal digits",
                ));
            }
            RevokedToken {
                id: id.clone(),
                subject: None,
                expires: None,
            }
        }
        _ => return Err(Failure::request("either token or id is needed")),
    };
    let revocation = NewRevocation {
        id: revoked.id.clone(),
        expires: revoked.expires,
        why: request.reason,
        origin: admin.origin(),
    };
    office.catalog.revoke(&revocation).await?;
    Ok(Answer(revoked))
}

/// Of a token for another project, or for all, whoever administers one is told
/// as little as of that project.
fn check_seen(admin: &Admin, grant: &Grant) -> Result<(), Failure> {
    match (admin.only(), grant.project()) {
        (None, _) => Ok(()),
        (Some(own), Some(project)) if own == project => Ok(()),
        (Some(_), Some(project)) => Err(no_project(project)),
        (Some(_), None) => admin.check_all(),
    }
}

/// Revoked tokens that still have to be known, the oldest first. For
/// administrators of all projects.
#[utoipa::path(get, path = "/v1/tokens/revoked", tag = "tokens", operation_id = "list_revoked",
    params(OfRevoked),
    responses((status = OK, body = Page<Revocation>), (status = "default", body = Fault)))]
pub(super) async fn revoked(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(asked): Ask<OfRevoked>,
) -> Result<Answer<Page<Revocation>>, Failure> {
    admin.check_all()?;
    let limit = limit(asked.limit)?.min(MAX_PAGE);
    let after = asked.after.map_or_else(Revision::default, Revision);
    let mut page = office.catalog.revocations(after).await?;
    page.truncate(limit as usize);
    let next = |revocation: &Revocation| revocation.revision.0.to_string();
    Ok(Answer(Page::of(page, limit, next)))
}

/// What a token may, and whether this hub takes it.
#[utoipa::path(post, path = "/v1/tokens/explain", tag = "tokens", operation_id = "explain_token",
    request_body = TokenText,
    responses((status = OK, body = Explained), (status = "default", body = Fault)))]
pub(super) async fn explain(
    State(office): State<Arc<Office>>,
    admin: Admin,
    Ask(Nothing {}): Ask<Nothing>,
    Json(TokenText { token }): Json<TokenText>,
) -> Result<Answer<Explained>, Failure> {
    let said = read_unverified(&token).map_err(|why| Failure::request(why.to_string()))?;
    check_seen(&admin, &said.grant)?;
    let refused = office.access.administrator(Some(&token)).await.err();
    let grant = said.grant;
    Ok(Answer(Explained {
        project: grant.project().cloned(),
        read: grant.read().to_vec(),
        write: grant.write().to_vec(),
        admin: grant.is_admin(),
        subject: grant.subject().to_owned(),
        id: grant.id().to_owned(),
        issued: said.issued,
        expires: grant.expires(),
        kid: said.kid,
        refused: refused.as_ref().map(ToString::to_string),
        reason: refused.map(|refused| refused.reason().to_owned()),
        open: office.access.is_open(),
    }))
}
