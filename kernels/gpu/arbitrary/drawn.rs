//! The kept entries of the drawn chunk, in shared memory. If they are not too many, the block compares all of them with
//! each other to find the token. So it need not read the chunk.

use super::row_block::THREADS;
use crate::kernels::gpu::block::Block;
use crate::ptx::{Int, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};

/// The number of threads that compare an entry with the others. Each of them adds up a part of the weights.
const PER_ENTRY: usize = 4;
/// The largest number of entries.
pub(super) const LARGEST_DRAWN: usize = THREADS / PER_ENTRY;
/// The number of entries of a warp.
const PER_WARP: usize = WARP / PER_ENTRY;

/// The kept entries of the drawn chunk, in any order.
pub(super) struct Drawn<'k> {
    block: Block<'k>,
    /// Two words for each entry: its index and its weight.
    entries: Shared,
    /// The number of entries that were added. If it exceeds [`LARGEST_DRAWN`], `entries` contains only some of them.
    len: Shared,
}

impl<'k> Drawn<'k> {
    pub(super) fn new(block: Block<'k>) -> Drawn<'k> {
        let k = block.k;
        Drawn { block, entries: k.shared(2 * LARGEST_DRAWN), len: k.shared(1) }
    }

    /// Removes all entries. [`Drawn::add`] may be called after the next barrier.
    pub(super) fn clear(&self) {
        let k = self.block.k;
        k.when(self.block.is_first(), || k.store_shared_at(self.len, 0, k.int(0)));
    }

    /// Adds an entry in this thread. Its weight is not 0.
    pub(super) fn add(&self, index: Int, weight: Int) {
        let k = self.block.k;
        let at = k.fetch_add_shared(self.len, 0, k.int(1));
        k.when(k.lt(at, k.int(LARGEST_DRAWN as i32)), || {
            k.store_shared_words(self.entries, k.shl(at, 1), [index, weight]);
        });
    }

    /// The number of entries that were added, which can exceed [`LARGEST_DRAWN`]. All threads call this after the last
    /// call of [`Drawn::add`].
    pub(super) fn count(&self) -> Int {
        let k = self.block.k;
        k.barrier();
        k.load_shared_at(self.len, 0)
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
            let [index, weight] = self.load(k.select(is_entry, entry, k.int(0)));
            let sum = k.wide_variable(k.wide(0));
            k.for_range(part, count, PER_ENTRY, |other| {
                let [other, weight] = self.load(other);
                let weight = k.select(k.le(other, index), weight, k.int(0));
                k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(weight)));
            });
            let of_partner =
                |sum, mask| k.join(k.from_partner(k.low(sum), mask), k.from_partner(k.high(sum), mask));
            let partners = (0..PER_ENTRY.trailing_zeros()).map(|bit| 1 << bit);
            let upto = partners.fold(k.get_wide(sum), |sum, mask| k.wadd(sum, of_partner(sum, mask)));
            let before = k.wide_difference(upto, k.widen(weight));
            let is_token = k.both(k.wlt(before, target), k.not(k.wlt(upto, target)));
            let is_one = k.both(is_entry, k.eq(part, k.int(0)));
            k.when(k.both(is_one, is_token), || found(index));
        });
    }

    /// The index and the weight of an entry.
    fn load(&self, entry: Int) -> [Int; 2] {
        self.block.k.load_shared_words(self.entries, self.block.k.shl(entry, 1))
    }
}
