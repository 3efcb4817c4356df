//! A client that does whatever it likes, and judges every answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use layerd::cache::wire::v1;
use layerd::digest::Digest;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use tonic::{Code, Status};

use super::world::{Exported, Fate, World};
use crate::harness::HubClient;
use crate::hub::ask::{described, held, look_up, missing, publish};
use crate::hub::blobs::{begin, open, piece};
use crate::hub::{place, read, upload};

/// Bytes of a piece of an upload that is left half-way.
const STEP: usize = 50_000;
/// Where the numbers of blobs begin that one export alone has.
const OWN: u64 = 1 << 40;

/// One client: it alone writes its ref.
pub struct Actor {
    pub world: Arc<World>,
    number: u64,
    random: StdRng,
    hubs: Vec<HubClient>,
    at: usize,
    serial: u64,
    /// How calls may fail; the next hub is asked then.
    tolerated: &'static [Code],
    /// How many did.
    pub failed: u64,
}

impl Actor {
    pub fn new(world: &Arc<World>, number: u64, seed: u64, hubs: Vec<HubClient>) -> Self {
        Self {
            world: Arc::clone(world),
            number,
            random: StdRng::seed_from_u64(seed ^ (number << 32)),
            at: number as usize % hubs.len(),
            hubs,
            serial: 0,
            tolerated: &[],
            failed: 0,
        }
    }

    /// Takes such failures for what they are.
    pub fn tolerating(mut self, codes: &'static [Code]) -> Self {
        self.tolerated = codes;
        self
    }

    fn project(&self) -> u64 {
        self.number % self.world.projects
    }

    fn place_in(&self, project: u64) -> v1::Place {
        place(
            &format!("project-{project}"),
            &format!("client-{}", self.number),
        )
    }

    fn place(&self) -> v1::Place {
        self.place_in(self.project())
    }

    fn hub(&mut self) -> &mut HubClient {
        &mut self.hubs[self.at]
    }

    /// Does one thing.
    pub async fn act(&mut self) {
        let done = match self.random.random_range(0..100) {
            0..20 => self.store_one().await,
            20..30 => self.store_in_halves().await,
            30..45 => self.find_missing().await,
            45..60 => self.export().await,
            60..64 => self.export_what_is_missing().await,
            64..78 => self.import().await,
            78..92 => self.read_one().await,
            92..95 => self.read_of_others().await,
            95..97 => self.flush().await,
            _ => self.lease().await,
        };
        let Err(status) = done else { return };
        assert!(
            self.tolerated.contains(&status.code()),
            "client {}: {status:?}",
            self.number
        );
        self.failed += 1;
        self.at = (self.at + 1) % self.hubs.len();
        // Not for a condition: so that it does not ask in a frenzy.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    fn any_blob(&mut self) -> u64 {
        self.random.random_range(0..self.world.blobs)
    }

    async fn store_one(&mut self) -> Result<(), Status> {
        let number = self.any_blob();
        self.store(number).await.map(drop)
    }

    /// Uploads a blob; it is sent where nobody of the project sent it, and not
    /// where it is there.
    async fn store(&mut self, number: u64) -> Result<(Digest, u64), Status> {
        let (project, content) = (self.project(), self.world.content(number));
        let (digest, size) = described(&content);
        let (new, known) = self.note_begun(project, digest);
        let place = self.place();
        let sent = upload(self.hub(), &place, &content).await?;
        assert!(!new || sent == size, "{sent} bytes of a new blob were sent");
        assert!(!known || sent == 0, "a blob that is there was sent");
        self.note_stored(project, digest, number);
        Ok((digest, size))
    }

    /// Whether it is the first upload of that blob, and whether it is there.
    fn note_begun(&self, project: u64, digest: Digest) -> (bool, bool) {
        let mut state = self.world.state();
        let new = state.begun.insert((project, digest));
        let stored = state.stored.get(&project);
        (
            new,
            stored.is_some_and(|stored| stored.contains_key(&digest)),
        )
    }

    fn note_stored(&self, project: u64, digest: Digest, number: u64) {
        let mut state = self.world.state();
        state
            .stored
            .entry(project)
            .or_default()
            .insert(digest, number);
    }

    async fn store_in_halves(&mut self) -> Result<(), Status> {
        let number = self.any_blob();
        let content = self.world.content(number);
        let digest = Digest::of(&content);
        let half = self.random.random_range(0..=content.len());
        self.note_begun(self.project(), digest);
        let place = self.place();
        let mut left = begin(self.hub(), open(&place, &digest)).await?;
        if let Some(offset) = left.offset().await? {
            for at in (offset as usize..half).step_by(STEP) {
                let bytes = content.slice(at..half.min(at + STEP));
                if left.pieces.send(piece(bytes)).await.is_err() {
                    break;
                }
            }
        }
        drop(left);
        self.store(number).await.map(drop)
    }

    async fn find_missing(&mut self) -> Result<(), Status> {
        let project = self.project();
        let asked: Vec<(Digest, u64)> = (0..20)
            .map(|_| {
                let number = self.any_blob();
                described(&self.world.content(number))
            })
            .collect();
        let digests: Vec<Digest> = asked.iter().map(|(digest, _)| *digest).collect();
        let before = self.world.state().stored.get(&project).cloned();
        let before = before.unwrap_or_default();
        let place = self.place();
        let sizes = held(self.hub(), &place, &digests).await?;
        let state = self.world.state();
        for ((digest, size), told) in asked.into_iter().zip(sizes) {
            let begun = state.begun.contains(&(project, digest));
            assert!(told.is_none_or(|told| told == size && begun), "{digest}");
            assert!(
                told.is_some() || !before.contains_key(&digest),
                "lost {digest}"
            );
        }
        Ok(())
    }

    /// Two blobs that no other export has, around some that are stored.
    async fn layers(&mut self) -> Result<(Vec<(Digest, u64)>, Vec<Digest>), Status> {
        let mut layers = Vec::new();
        for _ in 0..2 {
            self.serial += 1;
            let number = OWN | (self.number << 20) | self.serial;
            layers.push(self.store(number).await?);
        }
        let own = layers.iter().map(|(digest, _)| *digest).collect();
        let stored = self.world.state().stored.get(&self.project()).cloned();
        let mut stored = stored.unwrap_or_default();
        stored.retain(|_, number| *number < OWN);
        let count = self.random.random_range(0..5);
        for (digest, number) in stored.into_iter().sample(&mut self.random, count) {
            if layers.iter().all(|(known, _)| *known != digest) {
                let size = self.world.content(number).len() as u64;
                layers.insert(1, (digest, size));
            }
        }
        Ok((layers, own))
    }

    fn note_asked(&self, layers: &[(Digest, u64)], own: Vec<Digest>) -> usize {
        let mut state = self.world.state();
        state.exports.push(Exported {
            owner: self.number,
            project: self.project(),
            layers: layers.iter().map(|(digest, _)| *digest).collect(),
            own,
            id: 0,
            fate: Fate::Asked,
        });
        state.exports.len() - 1
    }

    async fn export(&mut self) -> Result<(), Status> {
        let (layers, own) = self.layers().await?;
        let export = self.note_asked(&layers, own);
        let mark = format!("{}/{}", self.number, self.serial);
        let place = self.place();
        let published = publish(self.hub(), &place, &layers, &mark).await?;
        assert_eq!(published.layers, layers.len());
        let export = &mut self.world.state().exports[export];
        export.id = published.id.unwrap().0;
        export.fate = Fate::Published;
        Ok(())
    }

    async fn export_what_is_missing(&mut self) -> Result<(), Status> {
        let (mut layers, own) = self.layers().await?;
        let project = self.project();
        let absent = Digest::of(format!("{}/{}", self.number, self.serial).as_bytes());
        layers.push((absent, 10));
        let export = self.note_asked(&layers, own);
        let place = self.place();
        let refused = publish(self.hub(), &place, &layers, "missing").await;
        let refused = refused.expect_err("a blob is missing");
        if refused.code() != Code::FailedPrecondition {
            return Err(refused);
        }
        assert_eq!(missing(&refused), [absent], "of project {project}");
        self.world.state().exports[export].fate = Fate::Gone;
        Ok(())
    }

    async fn import(&mut self) -> Result<(), Status> {
        let narrowed = self.random.random_bool(0.5);
        let project = self.project();
        let before = self.world.state().clone();
        let place = self.place();
        let found = look_up(self.hub(), &place, narrowed).await?;
        let owner = narrowed.then_some(self.number);
        self.world.judge(&before, project, owner, found.as_ref());
        let Some(import) = found else { return Ok(()) };
        let all: Vec<_> = import.layers.iter().collect();
        if let Some((digest, size)) = all.choose(&mut self.random) {
            let offset = self.random.random_range(0..**size);
            let (digest, size, project) = (**digest, **size, format!("project-{project}"));
            let bytes = read(self.hub(), &project, &digest, offset).await?;
            assert_eq!(bytes.len() as u64, size - offset, "{digest}");
        }
        Ok(())
    }

    async fn read_one(&mut self) -> Result<(), Status> {
        let project = self.project();
        let stored = self.world.state().stored.get(&project).cloned();
        let stored = stored.unwrap_or_default();
        let Some((digest, number)) = stored.into_iter().choose(&mut self.random) else {
            return Ok(());
        };
        let content = self.world.content(number);
        let offset = self.random.random_range(0..content.len());
        let bytes = read(
            self.hub(),
            &format!("project-{project}"),
            &digest,
            offset as u64,
        )
        .await?;
        assert!(bytes == content.slice(offset..), "other bytes of {digest}");
        Ok(())
    }

    async fn read_of_others(&mut self) -> Result<(), Status> {
        let number = self.any_blob();
        let digest = Digest::of(&self.world.content(number));
        let project = self.project();
        let read = read(self.hub(), &format!("project-{project}"), &digest, 0).await;
        let begun = self.world.state().begun.contains(&(project, digest));
        match read {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status),
            Ok(_) => {
                assert!(begun, "{digest} of another project was read");
                Ok(())
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Status> {
        let number = self.number;
        self.each_fate(|fate| match fate {
            Fate::Published => Fate::Leaving,
            fate => fate,
        });
        let place = self.place();
        let request = v1::FlushRequest {
            project: place.project,
            git_ref: Some(place.git_ref),
            scope: None,
        };
        let flushed = match self.hub().flush(request).await {
            // Of its project nothing was exported yet.
            Err(status) if status.code() == Code::InvalidArgument => 0,
            flushed => flushed?.into_inner().exports,
        };
        let mut left = 0;
        self.each_fate(|fate| match fate {
            Fate::Leaving => {
                left += 1;
                Fate::Gone
            }
            fate => fate,
        });
        if self.failed == 0 {
            assert_eq!(flushed, left, "of client {number}");
        }
        Ok(())
    }

    /// Changes what may be seen of this client's exports.
    fn each_fate(&self, mut change: impl FnMut(Fate) -> Fate) {
        let mut state = self.world.state();
        let ours = state.exports.iter_mut();
        for export in ours.filter(|export| export.owner == self.number) {
            export.fate = change(export.fate);
        }
    }

    async fn lease(&mut self) -> Result<(), Status> {
        let lease = self.hub().take_lease(v1::TakeLeaseRequest {}).await?;
        let lease = lease.into_inner().lease;
        if lease != 0 {
            let renewed = self.hub().renew_lease(v1::RenewLeaseRequest { lease });
            assert!(renewed.await?.into_inner().renewed, "lease {lease}");
        }
        Ok(())
    }

    /// All that was promised to this client's ref and project is there.
    pub async fn find_all(&mut self) {
        let project = self.project();
        let place = self.place();
        let before = self.world.state().clone();
        let found = look_up(self.hub(), &place, true).await.unwrap();
        self.world
            .judge(&before, project, Some(self.number), found.as_ref());
        let stored = before.stored.get(&project).cloned().unwrap_or_default();
        let (clients, share_of) = (8, self.number / 8 % 8);
        let share = stored.into_iter().enumerate();
        let ours = share.filter(|(at, _)| *at as u64 % clients == share_of);
        for (_, (digest, number)) in ours {
            let content: Bytes = self.world.content(number);
            let bytes = read(self.hub(), &place.project, &digest, 0).await.unwrap();
            assert!(bytes == content, "other bytes of {digest}");
        }
    }
}
