//! The door for administrators: JSON over HTTP under `/v1`, on a hub's own port.
//!
//! Each route is declared once, with what the OpenAPI document says of it
//! ([`DOCUMENT`]), so that none is missing there; other doors of the same port
//! give what they say of theirs. Whoever calls has an admin
//! token, of one project or of all; one of a project is told of another one
//! what they would be told if that did not exist.
//!
//! | file | what |
//! |---|---|
//! | `admitted` | who calls, how many at a time, what all answers have |
//! | `called` | by which names a hub is asked that asks for no token |
//! | `asked` | queries, bodies and names, each refused in the same shape |
//! | `told` | pages and errors |
//! | `limits` | what counts for a project, and where that was said |
//! | `projects`, `exports`, `usage`, `gc`, `audit`, `tokens` | the routes |

mod admitted;
mod asked;
mod audit;
mod called;
mod exports;
mod gc;
mod limits;
mod projects;
#[cfg(test)]
mod tests;
mod tokens;
mod told;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::admitted::AT_ONCE;
pub use self::audit::Audited;
pub use self::exports::{ExportDetails, LayerOf, StepOf};
pub use self::gc::{Collected, GcReport, GcRequest, GcStatus, Gone};
pub use self::limits::{ProjectLimitsInForce, SaidBy};
pub use self::projects::{Flushed, NewSettings, PlaceToFlush, ProjectDetails, Settings};
pub use self::tokens::{
    Explained, MintRequest, MintedToken, RevokeRequest, RevokedToken, TokenText, Whoami,
};
pub use self::told::{Fault, Page};
use self::usage::Sizes;
pub use self::usage::{ProjectUsage, Usage};
use crate::access::{Access, Refusals};
use crate::cache::LocalCache;
use crate::cache::collecting::Collecting;
use crate::cache::flushes::Flushes;
use crate::catalog::Catalog;
use crate::seats::Seats;

/// Where the document is.
pub const DOCUMENT: &str = "/v1/openapi.json";

/// The longest body, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Answers at a time that have an export's config, or all of something.
const LARGE_AT_ONCE: usize = 4;

/// What the door needs.
pub struct Config {
    /// Whom it is open to.
    pub access: Arc<Access>,
    /// What is administered.
    pub catalog: Arc<dyn Catalog>,
    /// What is collected when somebody says so.
    pub collecting: Collecting,
    /// What is counted of those who may not.
    pub refusals: Refusals,
    /// What is counted of flushes.
    pub flushes: Flushes,
    /// What the operator calls the hub: names of hosts.
    pub names: Vec<String>,
    /// What the document says of routes that are not of this door.
    pub others: utoipa::openapi::OpenApi,
}

/// What all routes know.
struct Office {
    access: Arc<Access>,
    catalog: Arc<dyn Catalog>,
    cache: Arc<LocalCache>,
    /// How old exports may get unused, where nothing is settled.
    max_age: Option<Duration>,
    gc: gc::Desk,
    sizes: Sizes,
    seats: Seats<String>,
    refusals: Refusals,
    flushes: Flushes,
    names: Vec<String>,
    large: Arc<Semaphore>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "layerd",
    description = "The administration of a hub. Every route but that of exchanges needs an admin token (`layerd token mint --admin`); an administrator of one project sees nothing of others. Lists come in pages: `next` in an answer is the `after` of the next page.",
    license(name = "Apache-2.0")
))]
struct Described;

/// The routes and what is said of them.
fn routes() -> OpenApiRouter<Arc<Office>> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(tokens::whoami))
        .routes(routes!(projects::list))
        .routes(routes!(projects::one))
        .routes(routes!(
            projects::settings,
            projects::settle,
            projects::unsettle
        ))
        .routes(routes!(projects::refs))
        .routes(routes!(projects::flush))
        .routes(routes!(exports::list))
        .routes(routes!(exports::one, exports::delete))
        .routes(routes!(exports::layers))
        .routes(routes!(exports::steps))
        .routes(routes!(exports::config))
        .routes(routes!(usage::now))
        .routes(routes!(usage::days))
        .routes(routes!(usage::savings))
        .routes(routes!(gc::start, gc::status))
        .routes(routes!(audit::list))
        .routes(routes!(tokens::mint))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::revoked))
        .routes(routes!(tokens::explain))
}

/// The OpenAPI document, with what it says of `others`.
pub fn document(others: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    document.merge(others);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let scheme = SecurityScheme::Http(bearer.bearer_format("JWT").build());
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", scheme);
    let needed = utoipa::openapi::SecurityRequirement::new::<_, [&str; 0], &str>("token", []);
    document.security = Some(vec![needed]);
    document
}

/// The pages of this door.
pub fn router(config: Config) -> Router {
    let office = Arc::new(Office {
        access: config.access,
        cache: Arc::clone(&config.collecting.cache),
        max_age: config.collecting.limits.max_age,
        gc: gc::Desk::new(config.collecting, Arc::clone(&config.catalog)),
        catalog: config.catalog,
        sizes: Sizes::default(),
        seats: Seats::new(AT_ONCE),
        refusals: config.refusals,
        flushes: config.flushes,
        names: config.names,
        large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
    });
    let (routes, _) = routes().split_for_parts();
    let admitted = middleware::from_fn_with_state(Arc::clone(&office), admitted::admit);
    let document = serde_json::to_string(&document(config.others)).unwrap_or_default();
    let json = [(CONTENT_TYPE, "application/json")];
    routes
        .route_layer(admitted)
        .with_state(office)
        .route(DOCUMENT, get(async move || (json, document)))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::map_response(admitted::marked))
}
