//! Taking turns.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::Scale;

/// Every kind once a round, in an order of its own each round, so that none
/// always finds the machine as the same neighbour left it. The orders are those
/// of every run.
pub fn turns<T: Copy>(scale: Scale, kinds: &[T]) -> Vec<T> {
    let mut random = StdRng::seed_from_u64(1);
    let mut order = Vec::new();
    for _ in 0..scale.rounds {
        let mut round = kinds.to_vec();
        round.shuffle(&mut random);
        order.extend(round);
    }
    order
}
