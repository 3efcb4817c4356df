//! Sorting what is served: ancestors first, without loops, and the same from
//! whatever order the exports came in.
//!
//! Records that became one can be their own ancestors: a step that is run
//! again on what it gave, where two exports know the state in between by
//! different names. BuildKit takes no loop, so links are dropped, but only
//! such as run inside a loop, and never a record: those of a loop come in the
//! order in which they can be reached from outside, and links back along that
//! order go.

use sha2::Digest as _;

use super::Union;
use super::identity::Alternative;
use super::intern::NONE;
use super::layers::{ContentKey, content_key};
use super::snapshot::Snapshot;

/// The records in the order in which they are written.
pub(super) struct Arranged {
    /// Their numbers in the snapshot.
    pub(super) records: Vec<u32>,
    /// Of each, the links that are left; `parent` is a position in `records`.
    pub(super) links: Vec<Vec<Alternative>>,
    /// Links dropped to break loops.
    pub(super) loops: u64,
}

/// Sorts those that `kept` has. Each of them must be reachable: for every
/// input, an alternative that is kept and reachable.
pub(super) fn arrange(union: &Union, snapshot: &Snapshot, kept: &[bool]) -> Arranged {
    let mut arranging = Arranging {
        union,
        snapshot,
        kept,
        keys: vec![None; snapshot.len()],
        positions: vec![(NONE, 0); snapshot.len()],
    };
    let groups = groups(snapshot, kept);
    for group in &groups {
        arranging.place(group);
    }
    arranging.finish(groups)
}

struct Arranging<'a> {
    union: &'a Union,
    snapshot: &'a Snapshot,
    kept: &'a [bool],
    /// What a record is, as far as it has been reached.
    keys: Vec<Option<ContentKey>>,
    /// Group, and place in it.
    positions: Vec<(u32, u32)>,
}

impl Arranging<'_> {
    /// Gives the records of one group their keys and places. All groups that
    /// they stand on have theirs.
    fn place(&mut self, group: &[u32]) {
        let number = group.first().copied().unwrap_or(NONE);
        for &record in group {
            self.positions[record as usize] = (number, NONE);
        }
        let mut children: Vec<(u32, u32)> = Vec::new();
        if group.len() > 1 {
            for &record in group {
                let inside = self.snapshot.links(record).iter();
                let inside = inside.filter(|link| self.positions[link.parent as usize].0 == number);
                children.extend(inside.map(|link| (link.parent, record)));
            }
            children.sort_unstable();
        }
        let mut reached: Vec<u32> = group.to_vec();
        let mut next = 0;
        while !reached.is_empty() {
            let mut round: Vec<(ContentKey, u32)> = (reached.iter())
                .filter_map(|&record| Some((self.key(record)?, record)))
                .collect();
            round.sort_unstable();
            round.dedup();
            reached.clear();
            for &(key, record) in &round {
                self.keys[record as usize] = Some(key);
                self.positions[record as usize].1 = next;
                next += 1;
            }
            for &(_, record) in &round {
                let from = children.partition_point(|(parent, _)| *parent < record);
                let own = children[from..]
                    .iter()
                    .take_while(|(parent, _)| *parent == record);
                reached.extend(own.map(|(_, child)| *child));
            }
            reached.retain(|&record| self.keys[record as usize].is_none());
            reached.sort_unstable();
            reached.dedup();
        }
    }

    /// What a record is: its digest and those alternatives that have been
    /// reached. None while an input has none. No two records have one key,
    /// since they would be one record.
    fn key(&self, record: u32) -> Option<ContentKey> {
        let mut hash = sha2::Sha256::new();
        let id = self.snapshot.ids[record as usize];
        hash.update(self.union.records.digest(id).as_str());
        let links = self.snapshot.links(record);
        for input in links.chunk_by(|a, b| a.input == b.input) {
            hash.update([0, 0]);
            let mut alternatives: Vec<(&str, &ContentKey)> = (input.iter())
                .filter_map(|link| {
                    let selector = &self.union.records.selectors[link.selector];
                    Some((&**selector, self.keys[link.parent as usize].as_ref()?))
                })
                .collect();
            if alternatives.is_empty() {
                return None;
            }
            alternatives.sort_unstable();
            for (selector, key) in alternatives {
                hash.update([1]);
                hash.update((selector.len() as u64).to_be_bytes());
                hash.update(selector);
                hash.update(key);
            }
        }
        Some(content_key(hash))
    }

    /// Whether a link keeps to the order.
    fn forward(&self, link: &Alternative, record: u32) -> bool {
        let (from, to) = (
            self.positions[link.parent as usize],
            self.positions[record as usize],
        );
        from.0 != to.0 || from.1 < to.1
    }

    fn finish(self, groups: Vec<Vec<u32>>) -> Arranged {
        // Groups come with those that they stand on first, so that levels
        // can be given in one pass.
        let mut levels: Vec<u32> = vec![0; self.snapshot.len()];
        let mut loops = 0;
        let mut order = Vec::new();
        for mut group in groups {
            group.retain(|record| self.keys[*record as usize].is_some());
            group.sort_unstable_by_key(|record| self.positions[*record as usize].1);
            for record in group {
                for link in self.snapshot.links(record) {
                    if !self.kept[link.parent as usize] {
                        continue;
                    }
                    if self.forward(link, record) {
                        let above = levels[link.parent as usize] + 1;
                        levels[record as usize] = levels[record as usize].max(above);
                    } else {
                        loops += 1;
                    }
                }
                order.push(record);
            }
        }
        order.sort_by_key(|&record| (levels[record as usize], self.keys[record as usize]));
        let mut numbers = vec![NONE; self.snapshot.len()];
        for (number, &record) in order.iter().enumerate() {
            numbers[record as usize] = number as u32;
        }
        let links = order.iter().map(|&record| {
            let all = self.snapshot.links(record).iter();
            let mut left: Vec<Alternative> = all
                .filter(|link| numbers[link.parent as usize] != NONE && self.forward(link, record))
                .map(|link| Alternative {
                    parent: numbers[link.parent as usize],
                    ..*link
                })
                .collect();
            let selector = |link: &Alternative| &*self.union.records.selectors[link.selector];
            left.sort_by(|a, b| {
                (a.input, a.parent, selector(a)).cmp(&(b.input, b.parent, selector(b)))
            });
            left
        });
        Arranged {
            links: links.collect(),
            records: order,
            loops,
        }
    }
}

/// The strongly connected groups of the kept records, those that others stand
/// on first (Tarjan's algorithm, without recursion). A group of more than one
/// record is a loop.
fn groups(snapshot: &Snapshot, kept: &[bool]) -> Vec<Vec<u32>> {
    let count = snapshot.len();
    let (mut index, mut low) = (vec![NONE; count], vec![0u32; count]);
    let mut on_stack = vec![false; count];
    let (mut stack, mut groups) = (Vec::new(), Vec::new());
    let mut path: Vec<(u32, usize)> = Vec::new();
    let mut next = 0;
    for root in 0..count as u32 {
        if !kept[root as usize] || index[root as usize] != NONE {
            continue;
        }
        path.push((root, 0));
        while let Some((record, done)) = path.last_mut() {
            let (record, at) = (*record, *record as usize);
            if *done == 0 && index[at] == NONE {
                (index[at], low[at]) = (next, next);
                next += 1;
                stack.push(record);
                on_stack[at] = true;
            }
            if let Some(link) = snapshot.links(record).get(*done) {
                *done += 1;
                let parent = link.parent as usize;
                if !kept[parent] {
                    continue;
                }
                if index[parent] == NONE {
                    path.push((link.parent, 0));
                } else if on_stack[parent] {
                    low[at] = low[at].min(index[parent]);
                }
                continue;
            }
            path.pop();
            if let Some(&(below, _)) = path.last() {
                let low_here = low[at];
                low[below as usize] = low[below as usize].min(low_here);
            }
            if low[at] == index[at] {
                let mut group = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member as usize] = false;
                    group.push(member);
                    if member == record {
                        break;
                    }
                }
                groups.push(group);
            }
        }
    }
    groups
}
