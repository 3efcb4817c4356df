//! What makes a hub ready.

use crate::doors::front::Closing;
use crate::doors::operator::Check;

use super::backends::Backends;

/// What has to work for a sidecar to be served.
pub(super) fn checks(backends: &Backends, closing: &Closing) -> Vec<Check> {
    let drain = closing.drain.clone();
    let (catalog, blobs) = (backends.catalog.clone(), backends.blobs.clone());
    vec![
        Check {
            what: "hub",
            look: Box::new(move || {
                let ready = match drain.is_cancelled() {
                    true => Err("it takes no more clients".to_owned()),
                    false => Ok(()),
                };
                Box::pin(std::future::ready(ready))
            }),
        },
        Check {
            what: "catalog",
            look: Box::new(move || {
                let catalog = catalog.clone();
                Box::pin(async move { catalog.ready().await.map_err(|error| error.to_string()) })
            }),
        },
        Check {
            what: "blobs",
            look: Box::new(move || {
                let blobs = blobs.clone();
                Box::pin(async move { blobs.ready().await.map_err(|error| error.to_string()) })
            }),
        },
    ]
}
