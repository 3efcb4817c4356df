//! A flush, for whoever wants nothing else of a hub.

use std::sync::Arc;

use super::failure::Failure;
use super::hub::{Call, Caller, Hub};
use super::metrics::Method;
use super::{LIMIT, TokenSource};
use crate::cache::wire::v1;
use crate::cache::{CacheError, Flush};

/// Takes exports out of the log of a hub, for the bearer of `token`; gives how
/// many.
pub async fn flush(hub: Arc<Hub>, token: TokenSource, flush: &Flush) -> Result<u64, CacheError> {
    by(&Caller::new(hub, token), flush).await
}

pub(super) async fn by(caller: &Caller, flush: &Flush) -> Result<u64, CacheError> {
    let call = Call::within(Method::Flush, LIMIT);
    let request = v1::FlushRequest::from(flush);
    let flushed = caller.call(call, request, |mut client, request| async move {
        client.flush(request).await
    });
    let flushed = flushed.await;
    let flushed = flushed.map_err(|failure: Failure| failure.cache_error(None))?;
    Ok(flushed.into_inner().exports)
}
