//! Which records are one: BuildKit's rule, taken to its fixed point.
//!
//! Two records are one where they have the same digest, the same number of
//! inputs, and for every input at least one alternative in common: the same
//! selector and the same record below (`CacheChains.Add` in
//! `cache/remotecache/v1/chains.go`). Becoming one, two records share what
//! stands on them, so that more may become one: congruence closure. The
//! smaller of two always moves to the larger, and nothing is looked at again
//! that did not change, so the work is near-linear, and the outcome is the
//! same in whatever order records arrive.

use std::collections::{HashMap, HashSet};

use super::intern::{Interner, Lists, NONE};
use crate::graph::RecordDigest;

/// A digest with its number of inputs: only records of one kind can be one.
type Kind = (u32, u32);

/// Where an alternative plugs in: kind, input, selector.
type Port = (u32, u32, u32);

/// How often alternatives are compared for one export at most: far more than
/// any real one needs, and what keeps a hostile one linear. Beyond it records
/// stay apart that are one, which costs the reader nothing but bytes.
const COMPARISONS: u64 = 20_000_000;

/// An alternative for an input, as it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alternative {
    pub(super) input: u32,
    pub(super) selector: u32,
    pub(super) parent: u32,
}

/// The records, and which of them are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    digests: Interner<RecordDigest>,
    pub(super) selectors: Interner<Box<str>>,
    kinds: Interner<Kind>,
    ports: Interner<Port>,
    nodes: Vec<Node>,
    /// A record's alternatives: port and parent. Parents may have moved.
    links: Lists<(u32, u32)>,
    /// The ports of a record with something plugged in.
    uses: Lists<u32>,
    /// What is plugged in at a record's port.
    slots: HashMap<(u32, u32), Slot>,
    members: Lists<u32>,
    /// Child, parent, port: the same as `slots`, to ask for one.
    edges: HashSet<(u32, u32, u32)>,
    roots: HashMap<u32, u32>,
    /// Found to be one, but not yet united.
    equal: Vec<(u32, u32)>,
    /// Alternatives that a record has gained: child, port, parent.
    gained: Vec<(u32, u32, u32)>,
    /// Records that moved to another since last asked: to, from.
    moved: Vec<(u32, u32)>,
    comparisons: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    kind: u32,
    /// The record that this one has moved to, or itself.
    moved_to: u32,
    /// How much moves with it.
    weight: u32,
    links: u32,
    uses: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    count: u32,
}

impl Records {
    /// How many records ever came in as new; those that moved included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The record that this one is now. Few steps: a record moves only to one
    /// that is at least as heavy.
    pub(super) fn find(&self, record: u32) -> u32 {
        let mut at = record;
        while self.nodes[at as usize].moved_to != at {
            at = self.nodes[at as usize].moved_to;
        }
        at
    }

    /// The record's digest.
    pub(super) fn digest(&self, record: u32) -> &RecordDigest {
        &self.digests[self.kinds[self.nodes[record as usize].kind].0]
    }

    /// How many inputs the record has.
    pub(super) fn inputs(&self, record: u32) -> u32 {
        self.kinds[self.nodes[record as usize].kind].1
    }

    /// The record's alternatives; the same one may come more than once.
    pub(super) fn alternatives(&self, record: u32) -> impl Iterator<Item = Alternative> {
        let links = self.links.iter(self.nodes[record as usize].links);
        links.map(|(port, parent)| {
            let (_, input, selector) = self.ports[port];
            Alternative {
                input,
                selector,
                parent: self.find(parent),
            }
        })
    }

    /// Lets an export compare as much as any.
    pub(super) fn begin(&mut self) {
        self.comparisons = COMPARISONS;
    }

    /// The records that moved to another since last asked: to, from.
    pub(super) fn take_moved(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.moved)
    }

    /// Takes a record in; it may turn out to be a known one. Each of its
    /// `inputs` must occur among the alternatives, which must be sorted.
    pub(super) fn insert(
        &mut self,
        digest: RecordDigest,
        inputs: u32,
        alternatives: &[Alternative],
    ) -> u32 {
        let digest = self.digests.number(digest);
        let kind = self.kinds.number((digest, inputs));
        if inputs == 0 {
            let next = self.nodes.len() as u32;
            let root = *self.roots.entry(kind).or_insert(next);
            if root == next {
                self.create(kind);
            }
            return root;
        }
        let links: Vec<(u32, u32)> = (alternatives.iter())
            .map(
                |&Alternative {
                     input,
                     selector,
                     parent,
                 }| {
                    (
                        self.ports.number((kind, input, selector)),
                        self.find(parent),
                    )
                },
            )
            .collect();
        let same = self.matching(&links, None);
        let known = same.first().copied();
        let record = known.unwrap_or_else(|| self.create(kind));
        self.equal
            .extend(same.iter().skip(1).map(|&other| (record, other)));
        for (port, parent) in links {
            self.plug(record, port, parent, known.is_some());
        }
        self.close();
        self.find(record)
    }

    /// Gives a record one more alternative.
    pub(super) fn extend(&mut self, record: u32, alternative: Alternative) {
        let record = self.find(record);
        let Alternative {
            input,
            selector,
            parent,
        } = alternative;
        let kind = self.nodes[record as usize].kind;
        let port = self.ports.number((kind, input, selector));
        self.plug(record, port, self.find(parent), true);
        self.close();
    }

    fn create(&mut self, kind: u32) -> u32 {
        let record = self.nodes.len() as u32;
        self.nodes.push(Node {
            kind,
            moved_to: record,
            weight: 1,
            links: NONE,
            uses: NONE,
        });
        record
    }

    fn link(&mut self, record: u32, port: u32, parent: u32) {
        let node = &mut self.nodes[record as usize];
        node.weight += 1;
        self.links.push(&mut node.links, (port, parent));
    }

    /// Adds an alternative, and notes it where the record was known before.
    fn plug(&mut self, record: u32, port: u32, parent: u32, known: bool) {
        if !self.edges.insert((record, parent, port)) {
            return;
        }
        self.link(record, port, parent);
        let added = self.add_member(parent, port, record);
        if known && added > 1 {
            self.gained.push((record, port, parent));
        }
    }

    /// Lists a child at a port; returns how many are there now.
    fn add_member(&mut self, parent: u32, port: u32, child: u32) -> u32 {
        let slot = self.slots.entry((parent, port)).or_insert_with(|| {
            let node = &mut self.nodes[parent as usize];
            node.weight += 1;
            self.uses.push(&mut node.uses, port);
            Slot {
                head: NONE,
                count: 0,
            }
        });
        self.members.push(&mut slot.head, child);
        slot.count += 1;
        slot.count
    }

    /// The records at a port, each once. What moved away is forgotten, so
    /// that it is passed over just once.
    fn members(&mut self, parent: u32, port: u32) -> Vec<u32> {
        let Some(&slot) = self.slots.get(&(parent, port)) else {
            return Vec::new();
        };
        let mut found: Vec<u32> = (self.members.iter(slot.head))
            .map(|member| self.find(member))
            .collect();
        found.sort_unstable();
        found.dedup();
        if found.len() < slot.count as usize {
            self.members.rewrite(slot.head, &found);
            let count = found.len() as u32;
            self.slots.insert((parent, port), Slot { count, ..slot });
        }
        found
    }

    /// The records that have one of these links for every input. Only those
    /// are looked at that share the input which the fewest share. With `new`,
    /// a link that only just came, that input counts with this link alone.
    fn matching(&mut self, links: &[(u32, u32)], new: Option<(u32, u32)>) -> Vec<u32> {
        let input = |records: &Self, link: &(u32, u32)| records.ports[link.0].1;
        let mut inputs: Vec<(u64, &[(u32, u32)])> = links
            .chunk_by(|a, b| input(self, a) == input(self, b))
            .map(|group| {
                let fresh = new
                    .as_ref()
                    .filter(|new| input(self, new) == input(self, &group[0]));
                let group = fresh.map_or(group, std::slice::from_ref);
                let counts = group.iter().map(|&(port, parent)| {
                    self.slots.get(&(parent, port)).map_or(0, |slot| slot.count)
                });
                (counts.map(u64::from).sum(), group)
            })
            .collect();
        inputs.sort_by_key(|(count, _)| *count);
        let Some(((count, fewest), others)) = inputs.split_first() else {
            return Vec::new();
        };
        if *count == 0 || !self.may_compare(*count) {
            return Vec::new();
        }
        let mut found: Vec<u32> = Vec::new();
        for &(port, parent) in *fewest {
            found.extend(self.members(parent, port));
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|&candidate| {
            others.iter().all(|(_, group)| {
                self.may_compare(group.len() as u64)
                    && group
                        .iter()
                        .any(|&(port, parent)| self.edges.contains(&(candidate, parent, port)))
            })
        });
        found
    }

    fn may_compare(&mut self, count: u64) -> bool {
        let enough = self.comparisons >= count;
        self.comparisons = self.comparisons.saturating_sub(count);
        enough
    }

    /// Unites until nothing more is one.
    fn close(&mut self) {
        loop {
            if let Some((a, b)) = self.equal.pop() {
                self.unite(a, b);
            } else if let Some((record, port, parent)) = self.gained.pop() {
                self.compare(self.find(record), port, self.find(parent));
            } else {
                return;
            }
        }
    }

    /// Finds the records that are one with this, now that it has that link.
    fn compare(&mut self, record: u32, port: u32, parent: u32) {
        let at_port = self.members(parent, port);
        if at_port.iter().all(|member| *member == record) {
            return;
        }
        let same = if self.inputs(record) == 1 {
            at_port
        } else {
            let links = self.links.iter(self.nodes[record as usize].links);
            let mut links: Vec<(u32, u32)> = links
                .map(|(port, parent)| (port, self.find(parent)))
                .collect();
            links.sort_unstable_by_key(|&(port, parent)| (self.ports[port].1, port, parent));
            links.dedup();
            if !self.may_compare(links.len() as u64) {
                return;
            }
            self.matching(&links, Some((port, parent)))
        };
        let others = same.into_iter().filter(|other| *other != record);
        self.equal.extend(others.map(|other| (record, other)));
    }

    /// Makes two records one: the lighter moves to the heavier.
    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        let (mut to, mut from) = (a, b);
        if self.nodes[a as usize].weight < self.nodes[b as usize].weight {
            (to, from) = (b, a);
        }
        let node = self.nodes[from as usize];
        let links: Vec<(u32, u32)> = (self.links.iter(node.links))
            .map(|(port, parent)| (port, self.find(parent)))
            .collect();
        let ports: Vec<u32> = self.uses.iter(node.uses).collect();
        let plugged: Vec<Vec<u32>> = ports.iter().map(|&port| self.members(from, port)).collect();
        self.nodes[from as usize].moved_to = to;
        self.nodes[to as usize].weight += node.weight;
        self.moved.push((to, from));
        for (port, parent) in links {
            let now = self.find(parent);
            if self.edges.remove(&(from, parent, port)) && self.edges.insert((to, now, port)) {
                self.link(to, port, now);
                self.gained.push((to, port, now));
            }
        }
        for (port, children) in ports.into_iter().zip(plugged) {
            let shared = self.slots.contains_key(&(to, port));
            self.slots.remove(&(from, port));
            for child in children {
                let now = self.find(child);
                self.edges.remove(&(child, from, port));
                self.edges.insert((now, to, port));
                self.add_member(to, port, now);
                if shared {
                    self.gained.push((now, port, to));
                }
            }
        }
    }
}
