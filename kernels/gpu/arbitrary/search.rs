//! Searches among the entries of a list, which are in the registers of a block: the first position at which a running sum
//! reaches a number. A position is an unsigned integer. The searches count by the leading bits of the positions first.

use super::row_block::{RowBlock, THREADS};
use crate::ptx::{Int, Mask, Shared, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// The number of bits of a position that one step of a search finds.
const BITS: u32 = 12;
pub(super) const BINS: usize = 1 << BITS;
/// A weight is added in two parts, because a sum of weights exceeds 32 bits. The low part has this number of bits.
const LOW_BITS: u32 = 14;
const _: () = assert!(super::sample::LARGEST_LIST << LOW_BITS <= i32::MAX as usize);
/// The bins of a thread.
const BINS_PER_THREAD: usize = BINS / THREADS;

/// The bins of the searches, in shared memory.
pub(super) struct Bins<'a, 'k> {
    block: &'a RowBlock<'k>,
    /// The low and the high parts of the sums.
    pub(super) parts: [Shared; 2],
}

impl<'a, 'k> Bins<'a, 'k> {
    pub(super) fn new(block: &'a RowBlock<'k>) -> Bins<'a, 'k> {
        Bins { block, parts: [(); 2].map(|()| block.k.shared(BINS)) }
    }

    /// Finds the first position at which the number of entries up to it reaches `wanted`, or a later position, if there
    /// are no entries between the two. `largest` is the largest position of an entry. Returns the position, and whether
    /// the number of entries up to it is larger than `wanted`. See [`Step`] for `count` and `distance`.
    pub(super) fn by_count(
        &self,
        count: usize,
        distance: impl Fn(usize, Int) -> Int,
        largest: Int,
        wanted: Int,
    ) -> (Int, Mask) {
        let k = self.block.k;
        let ties = k.variable(k.int(0));
        let step = Step {
            count,
            distance,
            arrays: &self.parts[..1],
            add: |_, bin| k.add_shared(self.parts[0], bin, k.int(1)),
            value: |bin| k.widen(k.load_shared(self.parts[0], bin)),
            is_last: |missing, of_bin| {
                let has_more = k.wlt(missing, of_bin);
                k.set(ties, k.select(has_more, k.int(1), k.int(0)));
                k.not(has_more)
            },
        };
        let (position, _) = self.search(largest, k.widen(wanted), step);
        (position, k.eq(k.get(ties), k.int(1)))
    }

    /// Finds the first position at which the sum of the weights up to it reaches `target`. Returns the position, and the
    /// sum of the weights before it.
    pub(super) fn by_weight(
        &self,
        count: usize,
        distance: impl Fn(usize, Int) -> Int,
        largest: Int,
        weight: impl Fn(usize) -> Int,
        target: Wide,
    ) -> (Int, Wide) {
        let k = self.block.k;
        let step = Step {
            count,
            distance,
            arrays: &self.parts,
            add: |number, bin| {
                let weight = weight(number);
                k.when(k.lt(k.int(0), weight), || {
                    k.add_shared(self.parts[0], bin, k.and(weight, k.int((1 << LOW_BITS) - 1)));
                    k.add_shared(self.parts[1], bin, k.shr(weight, LOW_BITS));
                });
            },
            value: |bin| {
                let [low, high] = self.parts.map(|array| k.widen(k.load_shared(array, bin)));
                k.wadd(low, k.wshl(high, LOW_BITS))
            },
            is_last: |_, _| k.never(),
        };
        self.search(largest, target, step)
    }

    fn search<D, A, V, L>(
        &self,
        largest: Int,
        target: Wide,
        Step { count, distance, arrays, add, value, is_last }: Step<'_, D, A, V, L>,
    ) -> (Int, Wide)
    where
        D: Fn(usize, Int) -> Int,
        A: Fn(usize, Int),
        V: Fn(Int) -> Wide,
        L: FnOnce(Wide, Wide) -> Mask,
    {
        let (k, block) = (self.block.k, self.block);
        let thread = block.block.thread;
        let (first, before) = (k.variable(k.int(0)), k.wide_variable(k.wide(0)));
        let shift = k.variable(k.max(k.sub(k.int(32 - BITS as i32), k.leading_zeros(largest)), k.int(0)));
        let is_open = k.variable(k.int(1));
        k.repeat_while(
            || k.eq(k.get(is_open), k.int(1)),
            || {
                let (start, by) = (k.get(first), k.get(shift));
                k.barrier();
                for array in arrays {
                    for number in 0..BINS_PER_THREAD / 4 {
                        let place = k.shl(k.add(thread, k.int((number * THREADS) as i32)), 2);
                        k.store_shared_words(*array, place, [k.int(0); 4]);
                    }
                }
                k.barrier();
                for number in 0..count {
                    let bin = k.shr_by(distance(number, start), by);
                    k.when(k.unsigned_lt(bin, k.int(BINS as i32)), || add(number, bin));
                }
                k.barrier();
                let mine = k.mul(thread, BINS_PER_THREAD);
                let values: Vec<Wide> = (0..BINS_PER_THREAD).map(|bin| value(k.add(mine, k.int(bin as i32)))).collect();
                let rest = k.wide_difference(target, k.get_wide(before));
                let (bin, before_bin, of_bin) = block.locate_in_all(&values, rest, 0);
                k.set_wide(before, k.wadd(k.get_wide(before), before_bin));
                let last = k.either(is_last(k.wide_difference(rest, before_bin), of_bin), k.eq(by, k.int(0)));
                // If the search ends before the last bits, the position is the last one of the bin.
                let next = k.add(start, k.shl_by(bin, by));
                let end = k.add(next, k.sub(k.shl_by(k.int(1), by), k.int(1)));
                k.set(first, k.select(last, end, next));
                k.set(is_open, k.select(last, k.int(0), k.int(1)));
                k.set(shift, k.max(k.sub(by, k.int(BITS as i32)), k.int(0)));
            },
        );
        (k.get(first), k.get_wide(before))
    }
}

/// What the steps of a search do.
struct Step<'s, D, A, V, L> {
    /// The number of entries of this thread.
    count: usize,
    /// The position of entry `number` of this thread minus a position. The difference is computed in each step, so the
    /// positions need no registers.
    distance: D,
    /// The arrays of bins.
    arrays: &'s [Shared],
    /// Adds entry `number` of this thread to a bin.
    add: A,
    /// The value of a bin.
    value: V,
    /// Whether the search may end with all entries of a bin, from the sum that is missing before the bin and the value
    /// of the bin.
    is_last: L,
}
