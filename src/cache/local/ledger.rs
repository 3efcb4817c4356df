//! What is noted beside the log: who has done what, and that something was
//! flushed.

use std::time::Duration;

use super::open::Opened;
use super::{LocalCache, policy};
use crate::cache::{CacheError, Flushed, Want};
use crate::catalog::ledger::NewAudit;

/// How long noting what was done may hold up whoever did it.
const NOTING: Duration = Duration::from_secs(2);
/// Places of which is asked whether they were flushed.
const PLACES: usize = 16;

impl LocalCache {
    /// Notes what was done. That it was done counts for more: what can't be
    /// noted is logged.
    pub async fn note(&self, entry: &NewAudit) {
        let noting = async {
            let opened = self.opener.opened_for_writing().await?;
            Ok::<_, CacheError>(opened.catalog.note(entry).await?)
        };
        let why = match tokio::time::timeout(NOTING, noting).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the catalog took longer than {NOTING:?}"),
        };
        tracing::error!(?entry, why, "what was done is not in the audit log");
    }
}

/// The latest flush of what the wants would else see. Only a build that finds
/// nothing asks, and it is told no more than that.
pub(super) async fn flushed(opened: &Opened, wants: &[Want]) -> Option<Flushed> {
    let mut latest: Option<Flushed> = None;
    for want in wants.iter().take(PLACES) {
        let notes = match opened.catalog.flushes(&want.place).await {
            Ok(notes) => notes,
            Err(error) => {
                tracing::debug!(%error, "whether there was a flush is not known");
                return latest;
            }
        };
        let seen = notes
            .into_iter()
            .find(|note| policy::sees_flush(want, note));
        let later = seen.filter(|note| latest.as_ref().is_none_or(|latest| latest.at < note.at));
        if let Some(note) = later {
            latest = Some(Flushed {
                at: note.at,
                by: note.by,
            });
        }
    }
    latest
}
