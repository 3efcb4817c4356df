//! The operations of one build, as its frontends gave them.
//!
//! A gateway `Solve` is answered with the whole graph of what will be built,
//! before any of it runs. It is kept for as long as the build does, so that it
//! can be cut to what succeeded. Sizes are a stranger's: an operation is kept
//! once, a build may keep so much, and all builds together so much.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::proto::pb;
use super::super::splice::Malformed;
use crate::digest::Digest;

/// What one build may keep, in bytes; BuildKit's own limit of a message.
const MAX_BUILD: usize = 16 << 20;
/// What all builds together may keep, in bytes.
const MAX_TOTAL: usize = 64 << 20;
/// What an operation costs beside its bytes.
const OVERHEAD: usize = 128;

/// One output of one operation.
pub type Edge = (Digest, i64);

/// One operation.
pub struct Operation {
    /// As it was encoded: its digest names it.
    pub bytes: Bytes,
    /// Whether its result is exported, where the frontend has an opinion.
    pub export_cache: Option<bool>,
}

/// The operations of every definition that a build has, shared ones once.
#[derive(Default)]
pub struct Definitions {
    /// By digest.
    pub operations: HashMap<Digest, Operation>,
    /// What the definitions are for.
    pub results: BTreeSet<Edge>,
    share: Share,
    /// One was larger than what may be kept.
    pub too_large: bool,
}

impl Definitions {
    /// Keeps a `pb.Definition`, with room from `room`.
    pub fn add(&mut self, definition: &[u8], room: &Room) -> Result<(), Malformed> {
        let definition = pb::Definition::decode(definition).map_err(|_| Malformed)?;
        // The last operation does nothing but name the result.
        let Some((last, operations)) = definition.def.split_last() else {
            return Ok(());
        };
        for bytes in operations {
            let digest = Digest::of(bytes);
            if self.operations.contains_key(&digest) {
                continue;
            }
            if !self.share.grow(bytes.len() + OVERHEAD, room) {
                self.give_up();
                return Ok(());
            }
            let metadata = definition.metadata.get(&digest.to_string());
            let export_cache = metadata
                .and_then(|metadata| metadata.export_cache)
                .map(|export| export.value);
            let operation = Operation {
                // Not a part of the message, which goes.
                bytes: Bytes::copy_from_slice(bytes),
                export_cache,
            };
            self.operations.insert(digest, operation);
        }
        let result = inputs(last)?.into_iter().next();
        self.results.extend(result);
        Ok(())
    }

    /// Keeps nothing from now on.
    pub fn give_up(&mut self) {
        self.operations.clear();
        self.share = Share::default();
        self.share.full = true;
        self.too_large = true;
    }
}

/// The edges that an operation takes in, in their order.
pub fn inputs(operation: &[u8]) -> Result<Vec<Edge>, Malformed> {
    /// `pb.Op` without what it does.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Op {
        #[prost(message, repeated, tag = "1")]
        inputs: Vec<pb::Input>,
    }
    let operation = Op::decode(operation).map_err(|_| Malformed)?;
    let edges = operation.inputs.into_iter().map(|input| {
        let digest = input.digest.parse().map_err(|_| Malformed)?;
        Ok((digest, input.index))
    });
    edges.collect()
}

/// The room that all builds share.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TOTAL)))
    }
}

/// What somebody holds of the room; given back on drop.
#[derive(Default)]
pub struct Share {
    held: Option<OwnedSemaphorePermit>,
    full: bool,
}

impl Share {
    /// Takes `bytes` more, if they are there.
    pub fn grow(&mut self, bytes: usize, room: &Room) -> bool {
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes)
            .ok()
            .filter(|_| !self.full && held.saturating_add(bytes) <= MAX_BUILD)
            .and_then(|bytes| room.0.clone().try_acquire_many_owned(bytes).ok());
        let Some(more) = more else {
            return false;
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operation of `size` bytes, and more.
    fn large(name: u8, size: usize) -> pb::Definition {
        let mut bytes = pb::Op::default().encode_to_vec();
        super::super::super::splice::put_field(&mut bytes, 999, &vec![name; size]);
        let end = pb::Op {
            inputs: vec![pb::Input {
                digest: Digest::of(&bytes).to_string(),
                index: 0,
            }],
            op: None,
        };
        pb::Definition {
            def: vec![bytes.into(), end.encode_to_vec().into()],
            ..pb::Definition::default()
        }
    }

    #[test]
    fn an_operation_of_many_definitions_is_kept_once() {
        let room = Room::default();
        let mut kept = Definitions::default();
        let definition = large(1, 1 << 20).encode_to_vec();
        for _ in 0..100 {
            kept.add(&definition, &room).unwrap();
        }
        assert_eq!((kept.operations.len(), kept.results.len()), (1, 1));
        assert!(!kept.too_large);
        drop(kept);
        assert_eq!(room.0.available_permits(), MAX_TOTAL);
    }

    #[test]
    fn a_build_and_all_builds_keep_so_much_and_no_more() {
        let room = Room::default();
        let mut greedy = Definitions::default();
        for name in 0..100 {
            greedy
                .add(&large(name, 1 << 20).encode_to_vec(), &room)
                .unwrap();
        }
        assert!(greedy.too_large && greedy.operations.is_empty());
        assert_eq!(room.0.available_permits(), MAX_TOTAL);
        let full = (0..20).map(|name| {
            let mut kept = Definitions::default();
            let definition = large(name, MAX_BUILD / 2).encode_to_vec();
            kept.add(&definition, &room).unwrap();
            kept
        });
        let full: Vec<Definitions> = full.collect();
        let refused = full.iter().filter(|kept| kept.too_large).count();
        assert!(refused > 0 && refused < full.len(), "{refused}");
        drop(full);
        assert_eq!(room.0.available_permits(), MAX_TOTAL);
    }

    #[test]
    fn garbage_is_refused_and_nothing_is_nothing() {
        let (room, mut kept) = (Room::default(), Definitions::default());
        assert!(kept.add(b"\xff\xff\xff", &room).is_err());
        kept.add(b"", &room).unwrap();
        assert!(kept.operations.is_empty() && kept.results.is_empty());
    }
}
