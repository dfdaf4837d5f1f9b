//! Searches among the entries of a list. A search finds the first position at which a running sum reaches a number. A
//! position is an unsigned integer. Each search first counts by the leading bits of the positions.

use super::list::List;
use super::row_block::{RowBlock, THREADS};
use super::weights::{add_in_parts, sum_of_parts, LARGEST_SUM};
use crate::ptx::{Int, Mask, Shared, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// The number of bits of a position that one step of a search finds.
const BITS: u32 = 12;
pub(super) const BINS: usize = 1 << BITS;
const _: () = assert!(super::sample::LARGEST_LIST <= LARGEST_SUM);
/// The bins of a thread.
const BINS_PER_THREAD: usize = BINS / THREADS;
/// The number of bins that a thread loads or stores with one instruction.
const VECTOR: usize = 4;

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

    /// Finds the first position for which the number of entries at or before it reaches `wanted`. The result can also
    /// be a later position if no entry is between the two positions. Returns the position, and whether the number of
    /// entries at or before it is larger than `wanted`.
    ///
    /// No entry may have a position after `largest`. The result is at most `largest`. `distance` returns the position
    /// of an entry minus its first argument.
    pub(super) fn by_count(
        &self,
        list: &List<'_>,
        distance: impl FnOnce(Int, [Int; 2]) -> Int,
        largest: Int,
        wanted: Int,
    ) -> (Int, Mask) {
        let k = self.block.k;
        let ties = k.variable(k.int(0));
        let add = |first: Int, bin_of: &dyn Fn(Int) -> Int| {
            list.for_each(|entry| {
                let bin = bin_of(distance(first, entry));
                k.when(k.unsigned_lt(bin, k.int(BINS as i32)), || {
                    k.add_shared(self.parts[0], bin, k.int(1));
                });
            });
        };
        let (position, _) = self.search(largest, k.widen(wanted), 1, add, |missing, of_bin| {
            let has_more = k.wlt(missing, of_bin);
            k.set(ties, k.select(has_more, k.int(1), k.int(0)));
            k.not(has_more)
        });
        // The last position of a bin can be after `largest`.
        let position = k.select(k.unsigned_lt(largest, position), largest, position);
        (position, k.eq(k.get(ties), k.int(1)))
    }

    /// Finds the first position at which the sum of the weights up to it reaches `target`. `distance_and_weight` returns
    /// the position of an entry minus its first argument, and the weight. Returns the position, and the sum of the
    /// weights before it.
    pub(super) fn by_weight(
        &self,
        list: &List<'_>,
        distance_and_weight: impl FnOnce(Int, [Int; 2]) -> (Int, Int),
        largest: Int,
        target: Wide,
    ) -> (Int, Wide) {
        let k = self.block.k;
        let add = |first: Int, bin_of: &dyn Fn(Int) -> Int| {
            list.for_each(|entry| {
                let (distance, weight) = distance_and_weight(first, entry);
                let bin = bin_of(distance);
                let is_in_bins = k.unsigned_lt(bin, k.int(BINS as i32));
                k.when(k.both(is_in_bins, k.lt(k.int(0), weight)), || {
                    add_in_parts(k, self.parts, bin, weight);
                });
            });
        };
        self.search(largest, target, 2, add, |_, _| k.never())
    }

    /// The common search. `add` adds the entries to the bins: its arguments are the position of the first bin, and a
    /// function from the distance from this position to the bin. `is_last` returns whether the search may end with all
    /// entries of a bin, from the sum that is missing before the bin and the value of the bin.
    fn search(
        &self,
        largest: Int,
        target: Wide,
        arrays: usize,
        add: impl FnOnce(Int, &dyn Fn(Int) -> Int),
        is_last: impl FnOnce(Wide, Wide) -> Mask,
    ) -> (Int, Wide) {
        let (k, block) = (self.block.k, self.block);
        let mine = k.mul(block.block.thread, BINS_PER_THREAD);
        let (first, before) = (k.variable(k.int(0)), k.wide_variable(k.wide(0)));
        let shift = k.variable(k.max(k.sub(k.int(32 - BITS as i32), k.leading_zeros(largest)), k.int(0)));
        let is_open = k.variable(k.int(1));
        k.repeat_while(
            || k.eq(k.get(is_open), k.int(1)),
            || {
                let (start, by) = (k.get(first), k.get(shift));
                k.barrier();
                for array in &self.parts[..arrays] {
                    for vector in (0..BINS_PER_THREAD).step_by(VECTOR) {
                        k.store_shared_words(*array, k.add(mine, k.int(vector as i32)), [k.int(0); VECTOR]);
                    }
                }
                k.barrier();
                add(start, &|distance| k.shr_by(distance, by));
                k.barrier();
                let [low, high] = [0, 1].map(|part| {
                    let vector = |first: usize| match part < arrays {
                        true => k.load_shared_words(self.parts[part], k.add(mine, k.int(first as i32))),
                        false => [k.int(0); VECTOR],
                    };
                    (0..BINS_PER_THREAD).step_by(VECTOR).flat_map(vector).collect::<Vec<Int>>()
                });
                let value = |(low, high)| sum_of_parts(k, k.widen(low), k.widen(high));
                let values: Vec<Wide> = low.into_iter().zip(high).map(value).collect();
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
