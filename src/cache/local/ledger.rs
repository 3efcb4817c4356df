//! What is noted beside the log: who has done what, and that something was
//! flushed.

use jiff::Timestamp;

use super::open::Opened;
use super::{LocalCache, policy};
use crate::cache::{CacheError, Flushed, Want};
use crate::catalog::ledger::{self, FlushNote, NewAudit};
use crate::place::ProjectId;

/// Places of which is asked whether they were flushed.
const PLACES: usize = 16;

impl LocalCache {
    /// Whether there is, or was, such a project.
    pub(in crate::cache) async fn knows(&self, project: &ProjectId) -> Result<bool, CacheError> {
        let opened = self.opener.opened().await?;
        Ok(ledger::is_known(&*opened.catalog, project).await?)
    }

    /// [Tells](ledger::tell) what was done.
    pub async fn note(&self, entry: &NewAudit) {
        let noting = async {
            let opened = self.opener.opened_for_writing().await?;
            Ok::<_, CacheError>(opened.catalog.note(entry).await?)
        };
        ledger::tell(entry, noting).await;
    }
}

/// The latest flush of what the wants would else see that is to be told, as
/// `tells` says of one and the time. They learn no more than that.
pub(super) async fn flushed(
    opened: &Opened,
    wants: &[Want],
    tells: impl Fn(&FlushNote, Timestamp) -> bool,
) -> Option<Flushed> {
    let now = Timestamp::now();
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
            .find(|note| tells(note, now) && policy::sees_flush(want, note));
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
