//! The kept entries of the drawn chunk, in shared memory. If they are not too many, the block compares all of them with
//! each other to find the token. So it need not read the chunk.

use super::row_block::{is_between, THREADS};
use super::shared_list::SharedList;
use crate::kernels::gpu::block::Block;
use crate::ptx::{Int, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of threads that compare an entry with the others. Each of them adds up a part of the weights.
const PER_ENTRY: usize = 4;
/// The largest number of entries.
pub(super) const LARGEST_DRAWN: usize = THREADS / PER_ENTRY;
/// The number of entries of a warp.
const PER_WARP: usize = WARP / PER_ENTRY;

/// The kept entries of the drawn chunk, in any order. An entry has an index and a weight, which is not 0.
pub(super) struct Drawn<'k> {
    block: Block<'k>,
    pub(super) entries: SharedList<'k>,
}

impl<'k> Drawn<'k> {
    pub(super) fn new(block: Block<'k>) -> Drawn<'k> {
        Drawn { block, entries: SharedList::new(block, LARGEST_DRAWN, LARGEST_DRAWN) }
    }

    /// Finds the first index at which the running sum of the weights reaches `target`. Calls `found` with the index, in
    /// one thread. `count` is the number of entries, at most [`LARGEST_DRAWN`].
    pub(super) fn find(&self, count: Int, target: Wide, found: impl FnOnce(Int)) {
        let (k, thread) = (self.block.k, self.block.thread);
        let entry = k.shr(thread, PER_ENTRY.trailing_zeros());
        let first_of_warp = k.and(entry, k.int(-(PER_WARP as i32)));
        k.when(k.lt(first_of_warp, count), || {
            let is_entry = k.lt(entry, count);
            let part = k.and(thread, k.int(PER_ENTRY as i32 - 1));
            let [index, weight] = self.entries.load(k.select(is_entry, entry, k.int(0)));
            let sum = k.wide_variable(k.wide(0));
            k.for_range(part, count, PER_ENTRY, |other| {
                let [other, weight] = self.entries.load(other);
                let weight = k.select(k.le(other, index), weight, k.int(0));
                k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(weight)));
            });
            let upto = k.wide_group_sum(k.get_wide(sum), PER_ENTRY);
            let before = k.wide_difference(upto, k.widen(weight));
            let is_token = is_between(k, [before, upto], target);
            let is_one = k.both(is_entry, k.eq(part, k.int(0)));
            k.when(k.both(is_one, is_token), || found(index));
        });
    }
}
