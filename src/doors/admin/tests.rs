//! The routes, asked without a network.

mod hostile;
mod lists;
mod projects;
mod rights;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::access::{Algorithm, KeyPair, Keys, NewAdminToken, NewToken, Revoked};
use crate::blobs::DiskStore;
use crate::cache::quotas::Quotas;
use crate::cache::retention::{Limits, ProjectLimits};
use crate::catalog::entries::{AppendedEntry, NewUpload};
use crate::catalog::{ExportId, NewExport, SqliteCatalog};
use crate::doors;
use crate::entry::EntryName;
use crate::place::Place;

/// Bytes that the command line lets the project `said` have.
const SAID: u64 = 1 << 40;

/// A hub's door on a store of its own.
struct Lab {
    _dir: tempfile::TempDir,
    catalog: Arc<dyn Catalog>,
    access: Arc<Access>,
    router: Router,
}

/// What came back.
struct Told {
    status: StatusCode,
    headers: http::HeaderMap,
    json: Value,
}

impl Told {
    fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }
}

impl Lab {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let pair = KeyPair::generate(Algorithm::Ed25519).unwrap();
        std::fs::write(&path, pair.private).unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
        let access = access(Keys::open(&path).unwrap(), &catalog);
        Self::of(dir, catalog, access).await
    }

    /// Of a hub that asks for no token.
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog: Arc<dyn Catalog> = Arc::new(SqliteCatalog::open(dir.path()).await.unwrap());
        Self::of(dir, catalog, Access::Open).await
    }

    async fn of(dir: tempfile::TempDir, catalog: Arc<dyn Catalog>, access: Access) -> Self {
        let access = Arc::new(access);
        let blobs = Arc::new(DiskStore::at(dir.path()));
        let limits = ProjectLimits {
            max_bytes: Some(SAID),
            max_age: None,
        };
        let said = BTreeMap::from([("said".parse().unwrap(), limits)]);
        let cache = LocalCache::over(Arc::clone(&catalog), blobs);
        let cache = cache.keeping(Quotas(said), Limits::default().keep, Default::default());
        let cache = Arc::new(cache);
        let router = router(Config {
            access: Arc::clone(&access),
            catalog: Arc::clone(&catalog),
            collecting: Collecting {
                cache,
                limits: Limits::default(),
            },
            refusals: Default::default(),
            flushes: Default::default(),
            names: Vec::new(),
            others: Default::default(),
        });
        Self {
            _dir: dir,
            catalog,
            access,
            router: doors::front::furnished(router, doors::front::Metrics::default()),
        }
    }

    /// An admin token of a project, or of all.
    fn admin(&self, project: Option<&str>) -> String {
        let new = NewAdminToken {
            subject: "ops".to_owned(),
            project: project.map(|project| project.parse().unwrap()),
            lifetime: Duration::from_secs(3600),
        };
        let minted = self.access.mint_admin(&new, Timestamp::now()).unwrap();
        minted.token.expose().to_owned()
    }

    fn build(&self, project: &str) -> String {
        let new = NewToken {
            subject: "ci".to_owned(),
            project: project.parse().unwrap(),
            read: vec!["**".parse().unwrap()],
            write: vec!["**".parse().unwrap()],
            lifetime: Duration::from_secs(3600),
        };
        let minted = self.access.mint(&new, Timestamp::now()).unwrap();
        minted.token.expose().to_owned()
    }

    async fn asked(&self, request: Request<Body>) -> Told {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap();
        Told {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Told {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
        };
        self.asked(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str, token: &str) -> Told {
        self.ask("GET", path, Some(token), None).await
    }

    async fn export(&self, project: &str, git_ref: &str) -> ExportId {
        let export = new_export(project, git_ref);
        self.catalog.append(export).await.unwrap()
    }

    async fn entry(&self, project: &str, git_ref: &str, name: &EntryName) -> ExportId {
        let upload = NewUpload {
            project: project.parse().unwrap(),
            git_ref: git_ref.parse().unwrap(),
            name: name.clone(),
            alone: true,
        };
        let upload = self
            .catalog
            .reserve(&upload)
            .await
            .unwrap()
            .upload()
            .unwrap();
        let export = new_export(project, git_ref);
        match self.catalog.append_entry(upload, export, 0).await.unwrap() {
            AppendedEntry::Done(id) => id,
            other => panic!("{other:?}"),
        }
    }
}

/// An export that has nothing.
fn new_export(project: &str, git_ref: &str) -> NewExport {
    NewExport {
        place: Place {
            project: project.parse().unwrap(),
            git_ref: git_ref.parse().unwrap(),
            scope: Default::default(),
        },
        time: Timestamp::now(),
        builder: "host".to_owned(),
        records: 0,
        config: Bytes::from_static(b"{\"records\":[]}"),
        layers: Vec::new(),
        steps: Vec::new(),
        began: None,
    }
}

/// What a hub with these keys asks for.
fn access(keys: Keys, catalog: &Arc<dyn Catalog>) -> Access {
    Access::Token(keys, Revoked::new(Arc::clone(catalog)))
}

/// Every documented method and path, with something in place of names.
fn documented(project: &str, id: &str) -> Vec<(String, String)> {
    let document = serde_json::to_value(document(Default::default())).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = paths.iter().flat_map(|(path, item)| {
        let path = path.replace("{project}", project).replace("{id}", id);
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    methods.collect()
}
