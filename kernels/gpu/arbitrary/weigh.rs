//! The second pass over the logits, for rows whose results depend on the sum of all weights. The pass computes the sums
//! of the weights of each chunk. It also collects the weights in the interval that contains the threshold of top-p.

use super::list::{Collector, Reserved, ThreadPlaces};
use super::records::{Decided, Records, Scanned};
use super::slice_block::SliceBlock;
use super::weights::{add_all, Weights};
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};

/// The largest number of weights that are collected in a row.
const LARGEST_LIST: usize = 1 << 12;

/// The capacity of the list of a row.
pub(super) fn capacity(spec: &Spec) -> usize {
    LARGEST_LIST.min(spec.vocab)
}

/// The arrays that the second pass uses for a row.
pub(super) struct Arrays<'a, 'k> {
    /// The number of records of the slices of a row, and these records.
    pub(super) records: usize,
    pub(super) slices: &'a Records<'k>,
    /// The words of [`Weighed`](super::records::Weighed) for each chunk.
    pub(super) sums: &'a Records<'k>,
    /// The collected weights and their indices.
    pub(super) lists: Wide,
    /// The address of the length of the list of the row.
    pub(super) len: Address,
}

/// The sums of the weights that this thread has read, in variables.
struct Sums<'k> {
    k: &'k Ptx,
    total: WideVariable,
    /// The sum of the weights that are at least [`Decided::High`].
    above: WideVariable,
    /// The sum of the collected weights.
    collected: WideVariable,
    /// The least and the largest collected weight.
    least: Variable,
    largest: Variable,
}

impl<'k> Sums<'k> {
    fn new(k: &'k Ptx) -> Sums<'k> {
        let [total, above, collected] = [0; 3].map(|value| k.wide_variable(k.wide(value)));
        let [least, largest] = [i32::MAX, 0].map(|value| k.variable(k.int(value)));
        Sums { k, total, above, collected, least, largest }
    }

    /// Adds the weights that are at least `high`.
    fn add_above(&self, high: Int, weights: &[Int]) {
        let k = self.k;
        let large = k.variable(k.int(0));
        weights.iter().for_each(|&weight| k.add_if(k.le(high, weight), large, weight));
        add_all(k, self.above, [k.get(large)].into_iter());
    }

    /// Adds a collected weight.
    fn add_collected(&self, weight: Int) {
        let k = self.k;
        add_all(k, self.collected, [weight].into_iter());
        k.set(self.least, k.min(k.get(self.least), weight));
        k.set(self.largest, k.max(k.get(self.largest), weight));
    }

    /// Returns the words of [`Weighed`](super::records::Weighed) for the warp.
    fn of_warp(&self) -> Vec<Int> {
        let k = self.k;
        let sums = [self.total, self.above, self.collected].map(|sum| k.wide_warp_sum(k.get_wide(sum)));
        let mut words: Vec<Int> = sums.into_iter().flat_map(|sum| [k.low(sum), k.high(sum)]).collect();
        words.extend([k.warp_min(k.get(self.least)), k.warp_max(k.get(self.largest))]);
        words
    }
}

/// The interval of the weights that are collected.
struct CollectedInterval<'k> {
    k: &'k Ptx,
    low: Int,
    high: Int,
    /// The number of weights in the interval.
    width: Int,
    /// The largest weight in the interval.
    last: Int,
}

impl<'k> CollectedInterval<'k> {
    fn new(k: &'k Ptx, low: Int, high: Int) -> CollectedInterval<'k> {
        let (width, last) = (k.max(k.sub(high, low), k.int(0)), k.sub(high, k.int(1)));
        CollectedInterval { k, low, high, width, last }
    }

    /// Adds the weights that are in the interval to the list. `index` returns the index in the row of the weight at a
    /// place.
    fn collect<L, S, E>(&self, list: &Collector<'_, L, S, E>, weights: &[Int], index: impl Fn(usize) -> Int)
    where
        L: Fn() -> Address,
        S: Fn([Int; 2]) -> Mask,
        E: Fn([Int; 2]) -> [Int; 2],
    {
        let &CollectedInterval { k, low, width, last, .. } = self;
        // These are three forms of the same condition. If the forms were equal, the assembler would keep the results of
        // eight comparisons. This takes more instructions than new comparisons.
        let is_collected = |weight| k.unsigned_lt(k.sub(weight, low), width);
        let is_any_collected = |any, &weight: &Int| k.unsigned_lt_or(k.sub(weight, low), width, any);
        let is_collected_if_full = |weight| k.unsigned_lt(k.sub(last, weight), width);
        let any = weights.iter().fold(k.never(), is_any_collected);
        k.when(k.warp_any(any), || {
            let entry = |place: usize| [weights[place], index(place)];
            let before = list.state();
            for (place, &weight) in weights.iter().enumerate() {
                list.add_if(is_collected(weight), entry(place));
            }
            k.when(list.is_full(), || {
                list.restore(before);
                for (place, &weight) in weights.iter().enumerate() {
                    k.when(is_collected_if_full(weight), || list.add(entry(place)));
                }
            });
            list.make_room();
        });
    }
}

/// Weighs the chunk of this warp. `decided` contains the words of [`Decided`] for the row. The threads collect weights
/// in the array `places` in shared memory.
pub(super) fn weigh(slice: &SliceBlock<'_>, decided: &[Int], arrays: &Arrays<'_, '_>, places: Shared) {
    let k = slice.block.k;
    let word = |word: Decided| decided[word as usize];
    let weights = Weights::without_top_k(k, &slice.parameters, word(Decided::MaxKey));
    let sums = Sums::new(k);
    let list = Collector::new(
        k,
        ThreadPlaces::of(k, places),
        (arrays.lists, capacity(slice.spec)),
        slice.row,
        || arrays.len,
        |[weight, _]| {
            sums.add_collected(weight);
            k.always()
        },
        |words| words,
    );
    let reserved = Reserved::new(k);
    let accepts_raw = weights.accepts_raw();
    // The collected weights are larger than 0 and less than `high`. So if `high` is at most 1, no weight is collected,
    // and `above` is equal to `total`. In a plain draw, `high` is at most 1.
    let is_divided = k.lt(k.int(1), word(Decided::High));
    let interval = CollectedInterval::new(k, word(Decided::Low), word(Decided::High));
    // If the maximum of a slice has the weight 0, all weights of the slice are 0. In a plain draw, the records can
    // belong to another division of the row into slices: see `held.rs`. So a plain draw uses the maximum of the row.
    let record = k.element(slice.row, arrays.records, slice.slice);
    let max = arrays.slices.load(record, Scanned::MaxKey as usize);
    let max = k.select(is_divided, max, word(Decided::MaxKey));
    k.when(k.lt(k.int(0), weights.of(max, k.int(0))), || {
        slice.for_each_tile(|logits| {
            weights.of_tile(&logits, accepts_raw, |numbers, weights| {
                add_all(k, sums.total, weights.iter().copied());
                k.when(is_divided, || {
                    sums.add_above(interval.high, weights);
                    interval.collect(&list, weights, |place| logits.index(numbers[place]));
                });
            });
        });
    });
    k.when(k.not(is_divided), || k.set_wide(sums.above, k.get_wide(sums.total)));
    k.when(is_divided, || list.reserve(&reserved));
    let words = sums.of_warp();
    arrays.sums.store_if(k.eq(k.lane(), k.int(0)), slice.chunk_number(), &words);
    k.when(is_divided, || list.flush(&reserved));
}
