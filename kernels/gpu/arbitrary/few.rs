//! A few entries of a row in shared memory. A block compares all of them with each other, so it needs no bins.

use super::shared_list::SharedList;
use crate::kernels::gpu::block::Block;
use crate::ptx::{Int, Wide};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::sizes::SUMMABLE;

/// The largest number of entries. The sum of their weights fits in 32 bits.
pub(super) const LARGEST_FEW: usize = SUMMABLE;
/// The number of entries that a loop reads in each round.
const STEP: usize = 4;
/// The number of places for entries.
const PLACES: usize = LARGEST_FEW.next_multiple_of(STEP);

/// A few entries, in any order. An entry has a position and a weight, which is not 0.
pub(super) struct Few<'k> {
    block: Block<'k>,
    /// The entries. A place without an entry has the weight 0.
    pub(super) entries: SharedList<'k>,
}

impl<'k> Few<'k> {
    pub(super) fn new(block: Block<'k>) -> Few<'k> {
        Few { block, entries: SharedList::new(block, PLACES, LARGEST_FEW) }
    }

    /// Removes all entries. Entries may be added after the next barrier.
    pub(super) fn clear(&self) {
        let (k, thread) = (self.block.k, self.block.thread);
        k.when(k.lt(thread, k.int(PLACES as i32)), || {
            let none = [i32::MAX, 0].map(|word| k.int(word));
            k.store_shared_words(self.entries.words, k.shl(thread, 1), none);
        });
        self.entries.clear();
    }

    /// Finds the first position at which the running sum of the weights reaches `target`. `count` is the number of
    /// entries, at most [`LARGEST_FEW`]. Returns the position, the sum of the weights before it, and the sum of the
    /// weights at it. Every warp computes all three results, so no barrier is needed.
    pub(super) fn locate(&self, count: Int, target: Wide) -> [Wide; 3] {
        let k = self.block.k;
        let is_entry = k.lt(k.lane(), count);
        let mine = k.min(k.lane(), k.sub(count, k.int(1)));
        let [position, weight] = self.entries.load(mine);
        let upto = k.variable(k.int(0));
        k.for_range(k.int(0), count, STEP, |first| {
            let pair = |number: usize| {
                let place = k.shl(k.add(first, k.int(number as i32)), 1);
                let [a, b, c, d] = k.load_shared_words(self.entries.words, place);
                [[a, b], [c, d]]
            };
            let of_pairs = (0..STEP).step_by(2).flat_map(pair);
            let weights = of_pairs.map(|[other, weight]| k.select(k.le(other, position), weight, k.int(0)));
            let sum = weights.reduce(|a, b| k.add(a, b)).expect("a step has places");
            k.set(upto, k.add(k.get(upto), sum));
        });
        let is_reached = k.not(k.wlt(k.widen(k.get(upto)), target));
        let found = k.warp_min(k.select(is_reached, position, k.int(i32::MAX)));
        let sum_if = |mask| {
            let mine = k.select(k.both(is_entry, mask), weight, k.int(0));
            k.widen(k.warp_sum(mine))
        };
        [k.widen(found), sum_if(k.lt(position, found)), sum_if(k.eq(position, found))]
    }
}
