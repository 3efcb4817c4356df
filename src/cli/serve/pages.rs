//! What a hub answers beside the calls of gRPC: the pages of its doors, under
//! one document.

use std::sync::Arc;

use axum::Router;
use utoipa::openapi::OpenApi;

use crate::access::identity::Exchange;
use crate::doors::{admin, token};

/// What the document says of doors beside the administration.
pub(super) fn described() -> OpenApi {
    token::described()
}

/// All pages.
pub(super) fn pages(administration: admin::Config, exchange: Option<Arc<Exchange>>) -> Router {
    let exchange = exchange.map(token::router).unwrap_or_default();
    admin::router(administration).merge(exchange)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;
    use crate::access::Access;
    use crate::access::identity::{Config, Metrics};
    use crate::blobs::DiskStore;
    use crate::cache::LocalCache;
    use crate::cache::collecting::Collecting;
    use crate::cache::retention::Limits;
    use crate::catalog::{Catalog, SqliteCatalog};

    /// All pages of a hub that has every door.
    async fn all(dir: &std::path::Path) -> Router {
        let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir).await.unwrap());
        let blobs = Arc::new(DiskStore::at(dir));
        let cache = Arc::new(LocalCache::over(Arc::clone(&catalog), blobs));
        let access = Arc::new(Access::Open);
        let exchange = Exchange::open(
            &Config::parse("").unwrap(),
            Arc::clone(&access),
            Arc::clone(&catalog),
            Metrics::default(),
        );
        let administration = admin::Config {
            access,
            catalog,
            collecting: Collecting {
                cache,
                limits: Limits::default(),
            },
            refusals: Default::default(),
            flushes: Default::default(),
            names: Vec::new(),
            others: described(),
        };
        pages(administration, Some(Arc::new(exchange.unwrap())))
    }

    /// The paths that a router knows, as it shows them to who debugs it: it has
    /// no other way to tell.
    fn routed(router: &Router) -> BTreeSet<String> {
        let shown = format!("{router:?}");
        let texts = shown.split('"').skip(1).step_by(2);
        texts
            .filter(|text| text.starts_with('/'))
            .map(str::to_owned)
            .collect()
    }

    #[tokio::test]
    async fn the_document_and_the_routers_know_the_same_routes() {
        let dir = tempfile::tempdir().unwrap();
        let router = all(dir.path()).await;
        let document = serde_json::to_value(admin::document(described())).unwrap();
        let documented = document["paths"].as_object().unwrap();
        let mut known: BTreeSet<String> = documented.keys().cloned().collect();
        assert!(known.contains("/v1/token") && known.len() > 15, "{known:?}");
        known.insert(admin::DOCUMENT.to_owned());
        let mut routed = routed(&router);
        // What is answered where nothing is.
        routed.retain(|path| path != "/" && !path.contains("__private__"));
        assert_eq!(routed, known);
        for (path, item) in documented {
            let item = item.as_object().unwrap();
            for method in ["get", "put", "post", "delete", "patch", "options"] {
                let request = Request::builder()
                    .method(method.to_uppercase().as_str())
                    .uri(path.replace(['{', '}'], ""));
                let request = request.body(Body::empty()).unwrap();
                let answer = router.clone().oneshot(request).await.unwrap();
                let is_answered = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
                assert_eq!(is_answered, item.contains_key(method), "{method} {path}");
            }
        }
    }
}
