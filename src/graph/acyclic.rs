//! Finding a cycle, in linear time and without recursion: a chain of 100,000
//! records is valid input.

/// The edges of a graph, each node's in one run.
#[derive(Debug)]
pub(super) struct Edges {
    /// Node `n` has `targets[starts[n]..starts[n + 1]]`.
    starts: Vec<usize>,
    targets: Vec<usize>,
}

impl Edges {
    /// The edges of each node, in the order of the nodes. A target must be the
    /// index of a node.
    pub(super) fn new<I: IntoIterator<Item = usize>>(nodes: impl Iterator<Item = I>) -> Self {
        let (mut starts, mut targets) = (vec![0], Vec::new());
        for node in nodes {
            targets.extend(node);
            starts.push(targets.len());
        }
        Self { starts, targets }
    }

    fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// A node that can be reached from itself, if there is one.
    pub(super) fn cycle(&self) -> Option<usize> {
        let mut seen = vec![Seen::Never; self.nodes()];
        // The nodes of the current path, and how many edges of each are done.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for root in 0..self.nodes() {
            if seen[root] == Seen::Never {
                seen[root] = Seen::OnPath;
                path.push((root, self.starts[root]));
            }
            while let Some((node, edge)) = path.last_mut() {
                if *edge == self.starts[*node + 1] {
                    seen[*node] = Seen::Done;
                    path.pop();
                    continue;
                }
                let target = self.targets[*edge];
                *edge += 1;
                match seen[target] {
                    Seen::Done => {}
                    Seen::OnPath => return Some(target),
                    Seen::Never => {
                        seen[target] = Seen::OnPath;
                        path.push((target, self.starts[target]));
                    }
                }
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Never,
    OnPath,
    Done,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cycle(nodes: &[Vec<usize>]) -> Option<usize> {
        Edges::new(nodes.iter().map(|node| node.iter().copied())).cycle()
    }

    #[test]
    fn a_diamond_is_no_cycle_and_a_self_loop_is_one() {
        assert_eq!(cycle(&[]), None);
        assert_eq!(cycle(&[vec![1, 2], vec![3], vec![3], vec![]]), None);
        assert_eq!(cycle(&[vec![], vec![1]]), Some(1));
    }

    proptest! {
        #[test]
        fn edges_that_only_point_back_never_make_a_cycle(edges in prop::collection::vec((0usize..50, 0usize..50), 0..200)) {
            let mut nodes = vec![Vec::new(); 50];
            for (a, b) in edges {
                if a != b {
                    nodes[a.max(b)].push(a.min(b));
                }
            }
            prop_assert_eq!(cycle(&nodes), None);
        }

        #[test]
        fn a_cycle_that_is_found_is_one(edges in prop::collection::vec((0usize..20, 0usize..20), 0..60)) {
            let mut nodes = vec![Vec::new(); 20];
            for (from, to) in edges {
                nodes[from].push(to);
            }
            if let Some(start) = cycle(&nodes) {
                let mut reached = [false; 20];
                let mut next = nodes[start].clone();
                while let Some(node) = next.pop() {
                    if !std::mem::replace(&mut reached[node], true) {
                        next.extend(&nodes[node]);
                    }
                }
                prop_assert!(reached[start]);
            }
        }
    }
}
