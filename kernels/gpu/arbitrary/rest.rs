//! Limits of the weights of the entries below the bound of a row.

use super::row_block::{sum_of, Place, RowBlock, THREADS};
use super::scan::{BIN_BITS, FIRST_ZERO};
use super::state::{State, BINS};
use super::weights::weight_at;
use crate::ptx::{Int, Mask, Ptx, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::weights::{MAX_WEIGHT, ZERO_Q};

/// A limit on a rounding error. The distance of an entry from the maximum is approximately the distance of the bound
/// from the maximum plus the distance of the entry from the bound. Each of the three distances is below 2²³ and has an
/// error of at most 1.5. The difference and the product each contribute 0.5 to this error, because their relative
/// errors are at most 2⁻²⁴. The rounding to an integer also contributes 0.5. So the error of the sum is at most 4.5. A
/// distance that is limited to 29.5 octaves can have a larger error, but the weight at this distance is 0 in any case.
/// The kernel knows only the bin of the distance of the entry from the bound: see [`Rest::limits`].
const LARGEST_ERROR: i32 = 16;
// The scan also counts entries that are not below the bound in the bin `FIRST_ZERO`. So the weight of this bin must be
// 0. Then the number of its entries does not change a sum.
const _: () = assert!((FIRST_ZERO << BIN_BITS) - (1 << (BIN_BITS - 1)) - LARGEST_ERROR >= ZERO_Q);

/// The number of bins of each thread.
pub(super) const BINS_PER_THREAD: usize = BINS / THREADS;

/// Limits of the weights of the entries below the bound, from the bins. A bin contains entries in a known interval of
/// distances.
pub(super) struct Rest<'k> {
    k: &'k Ptx,
    thread: Int,
    /// The numbers of entries in the bins of this thread.
    counts: [Int; BINS_PER_THREAD],
    /// The least and the largest possible sum of all weights.
    pub(super) least: WideVariable,
    pub(super) most: WideVariable,
    /// The running sums over the bins. Element 0 adds up the least possible sum of each bin, and element 1 adds up the
    /// largest possible sum. Each element has two values: the running sum before the first bin of this thread, and the
    /// running sum up to its last bin.
    running: [[WideVariable; 2]; 2],
    /// The places that [`Rest::interval`] finds, one for each of the two running sums.
    places: [Place<'k>; 2],
    /// The largest possible weight of an entry; 0 if there is no entry.
    pub(super) highest: Variable,
    /// The distance of the bound from the maximum.
    distance: Int,
}

impl<'k> Rest<'k> {
    /// Loads the numbers of entries in the bins of this thread. They are 0 unless `has_bins` is true.
    pub(super) fn counts(block: &RowBlock<'k>, state: &State<'k>, has_bins: Mask) -> [Int; BINS_PER_THREAD] {
        state.load_bins_if(has_bins, block.k.mul(block.block.thread, BINS_PER_THREAD))
    }

    /// `counts` is the result of [`Rest::counts`]. `distance` is the distance of the bound from the maximum. The sums
    /// are 0 unless `has_bins` is true.
    pub(super) fn new(
        row_block: &RowBlock<'k>,
        counts: [Int; BINS_PER_THREAD],
        distance: Int,
        has_bins: Mask,
    ) -> Rest<'k> {
        let (k, block) = (row_block.k, &row_block.block);
        let (zero, thread) = (|| k.wide_variable(k.wide(0)), block.thread);
        let (least, most, highest) = (zero(), zero(), k.variable(k.int(0)));
        let running = [[zero(), zero()], [zero(), zero()]];
        let places = [Place::new(*block), Place::new(*block)];
        let rest = Rest { k, thread, counts, least, most, running, places, highest, distance };
        k.when(has_bins, || {
            let sums = [0, 1].map(|side| sum_of(k, &rest.sums(side)));
            let of_bin = |(bin, count)| {
                let is_empty = k.eq(count, k.int(0));
                k.select(is_empty, k.int(0), rest.limits(bin)[1])
            };
            let weights = rest.bins().into_iter().map(of_bin);
            let highest = weights.reduce(|a, b| k.max(a, b)).expect("there are bins");
            // After the barrier of the running sums, the threads can find the places.
            rest.places.iter().for_each(|place| place.prepare(BINS as i32));
            let (sums, [highest]) = row_block.running_sums_of(sums, [highest]);
            for ((sums, running), total) in sums.iter().zip(&rest.running).zip([rest.least, rest.most]) {
                k.set_wide(running[0], sums.before);
                k.set_wide(running[1], sums.upto);
                k.set_wide(total, sums.total());
            }
            k.set(rest.highest, highest);
        });
        rest
    }

    /// The bins of this thread, and the numbers of their entries.
    fn bins(&self) -> Vec<(Int, Int)> {
        let k = self.k;
        let bin = |number| k.element(self.thread, BINS_PER_THREAD, k.int(number as i32));
        (0..BINS_PER_THREAD).map(bin).zip(self.counts).collect()
    }

    /// The least possible sum of the weights of each bin of this thread (`side` 0), or the largest possible sum (1).
    fn sums(&self, side: usize) -> Vec<Wide> {
        let k = self.k;
        let sum = |(bin, count)| k.wmul(k.widen(count), k.widen(self.limits(bin)[side]));
        self.bins().into_iter().map(sum).collect()
    }

    /// The least and the largest possible weight of an entry in a bin.
    fn limits(&self, bin: Int) -> [Int; 2] {
        let k = self.k;
        // The largest distance of an entry from the middle of its bin.
        const MOST: i32 = (1 << (BIN_BITS - 1)) + LARGEST_ERROR;
        let middle = k.add(self.distance, k.shl(bin, BIN_BITS));
        let farthest = k.add(middle, k.int(MOST));
        // An entry is below the bound, so its distance from the maximum is at least the distance of the bound.
        let least = k.max(k.sub(self.distance, k.int(LARGEST_ERROR)), k.int(0));
        let nearest = k.max(k.sub(middle, k.int(MOST)), least);
        [weight_at(k, farthest), weight_at(k, nearest)]
    }

    /// Returns the interval that contains the threshold of top-p: the first weight in the interval, and the first
    /// weight after it. `sum` is the sum of the weights that are not in the bins. If `sum` reaches the larger target,
    /// `threshold` is the threshold for the larger target.
    pub(super) fn interval(&self, sum: Wide, targets: [Wide; 2], threshold: Int) -> [Int; 2] {
        let k = self.k;
        // Only bounds of the sums of the bins are known. The largest sums give the earliest bin that can contain the
        // threshold. The least sums give the latest bin that can contain the threshold.
        let searches = [(1, targets[0]), (0, targets[1])];
        let is_after = searches.map(|(side, target)| {
            let is_after = k.wlt(sum, target);
            let rest = k.wselect(is_after, k.wide_difference(target, sum), k.wide(1));
            let running = self.running[side].map(|variable| k.get_wide(variable));
            self.places[side].find(running, || self.sums(side), rest);
            is_after
        });
        k.barrier();
        let [first, last] = searches.map(|(side, _)| self.places[side].get().0);
        let above = k.add(self.limits(first)[1], k.int(1));
        let high = k.select(is_after[0], above, k.int(MAX_WEIGHT + 1));
        let low = k.select(is_after[1], self.limits(last)[0], threshold);
        [k.max(low, k.int(1)), high]
    }
}
