//! What has to go so that one more export fits into the quota of its project.

use jiff::Timestamp;

use super::{Entry, Limits, Log, Planning, Reason, Victim};
use crate::catalog::{ExportId, KeptExport, Kind};
use crate::digest::Digest;
use crate::place::Place;

/// It does not fit, whatever goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes of what would be left, with the new export.
    pub needed: u64,
}

/// The exports of the project that go, those of its own ref before others and
/// the oldest first, so that one at `place` that names `incoming` leaves the
/// project with at most `quota` bytes; `all` has the exports of that project. The newest export of another place on a default branch never
/// goes for it: of `limits` nothing else counts.
pub fn make_room(
    mut all: Log,
    (place, incoming): (&Place, &[(Digest, u64)]),
    quota: u64,
    limits: &Limits,
    now: Timestamp,
) -> Result<Vec<Victim>, NoRoom> {
    let next = all.exports.iter().map(|entry| entry.id.0).max();
    let new = ExportId(next.unwrap_or_default().saturating_add(1));
    all.add(&KeptExport {
        id: new,
        place: place.clone(),
        kind: Kind::Cache,
        time: now,
        used: None,
        blobs: incoming.to_vec(),
    });
    let project = all.ledger.project(&place.project);
    let mut planning = Planning::new(all, limits, now);
    while planning.ledger.bytes_of(project) > quota {
        let left = &planning.left[project];
        let goes = |entry: &Entry| entry.id != new && !planning.is_last_of_default(entry);
        let own = |entry: &Entry| goes(entry) && entry.place.git_ref == place.git_ref;
        let oldest = left.iter().rposition(own);
        let Some(oldest) = oldest.or_else(|| left.iter().rposition(goes)) else {
            return Err(NoRoom {
                needed: planning.ledger.bytes_of(project),
            });
        };
        let entry = planning.left[project].remove(oldest);
        planning.take(entry, Reason::Quota);
    }
    Ok(planning.victims)
}
