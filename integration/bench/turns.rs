//! Taking turns.

use crate::Scale;

/// Every kind once a round, and each round begins with another one, so that
/// none always follows the same neighbour from a busy disk.
pub fn turns<T: Copy>(what: &str, scale: Scale, kinds: &[T]) -> Vec<T> {
    let mut order = Vec::new();
    for round in 0..scale.rounds {
        let at = round % kinds.len();
        order.extend_from_slice(&kinds[at..]);
        order.extend_from_slice(&kinds[..at]);
    }
    eprintln!(
        "bench: {what}: {} times {} kinds",
        scale.rounds,
        kinds.len()
    );
    order
}
