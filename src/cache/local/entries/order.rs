//! The order of what an upload is made of.

use crate::catalog::entries::Block;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Disorder {
    /// Blocks came, and no list of them.
    #[error("no list says which blocks it is made of")]
    Unlisted,
    /// A part is missing.
    #[error("bytes {0} to {1} were not uploaded")]
    Gap(u64, u64),
    /// Two chunks have the same part.
    #[error("bytes {0} to {1} were uploaded twice")]
    Twice(u64, u64),
    /// Chunks and blocks are no whole.
    #[error("some of it says where it begins, and some does not")]
    Mixed,
}

/// The blocks that something is made of. Chunks that say where they begin must
/// follow each other without a gap; of others, a list has said which they are.
pub(super) fn in_order(mut blocks: Vec<Block>) -> Result<Vec<Block>, Disorder> {
    if blocks.iter().all(|block| block.start.is_none()) {
        let unlisted = blocks.len();
        blocks.retain(|block| block.position.is_some());
        if blocks.is_empty() && unlisted > 0 {
            return Err(Disorder::Unlisted);
        }
        blocks.sort_by_key(|block| block.position);
        return Ok(blocks);
    }
    blocks.retain(|block| block.size > 0 || block.start.is_none());
    blocks.sort_by_key(|block| block.start);
    let mut end = 0;
    for block in &blocks {
        match block.start {
            Some(start) if start == end => end += block.size,
            Some(start) if start > end => return Err(Disorder::Gap(end, start)),
            Some(start) => return Err(Disorder::Twice(start, end)),
            None => return Err(Disorder::Mixed),
        }
    }
    Ok(blocks)
}
