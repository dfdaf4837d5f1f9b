//! The entries of one bin of a histogram, in shared memory. If the bin has few entries, each warp compares all of these
//! entries with each other. So all threads get the results without a barrier.

use crate::kernels::gpu::block::Block;
use crate::kernels::gpu::places::Places;
use crate::ptx::{Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::survives_top_k;

/// The number of places for entries. Each lane of a warp has one.
const PLACES: usize = WARP;
/// The largest number of entries that the arrays contain.
pub(super) const LARGEST_IN_BIN: usize = PLACES - 1;
/// The number of entries that a loop reads in each round.
const STEP: usize = 4;

/// The entries of a bin, in any order. Each word of an entry has its own array.
struct Entries<'k, const N: usize> {
    block: Block<'k>,
    arrays: [Shared; N],
    /// The places of the entries in the arrays. At most [`LARGEST_IN_BIN`] entries get a place.
    places: Places<'k>,
}

impl<'k, const N: usize> Entries<'k, N> {
    fn new(block: Block<'k>) -> Entries<'k, N> {
        let arrays = [(); N].map(|()| block.k.shared(PLACES));
        Entries { block, arrays, places: Places::new(block, LARGEST_IN_BIN) }
    }

    /// Removes all entries. `words` are the words of a place without an entry. Entries may be added after the next
    /// barrier.
    fn clear(&self, words: [Int; N]) {
        let (k, thread) = (self.block.k, self.block.thread);
        k.when(k.lt(thread, k.int(PLACES as i32)), || {
            self.arrays.iter().zip(words).for_each(|(&array, word)| k.store_shared(array, thread, word));
        });
        self.places.clear();
    }

    fn add(&self, words: [Int; N]) {
        let k = self.block.k;
        self.places.add(|at| {
            self.arrays.iter().zip(words).for_each(|(&array, word)| k.store_shared(array, at, word));
        });
    }

    /// The words of the entry of this lane.
    fn of_lane(&self) -> [Int; N] {
        let k = self.block.k;
        self.arrays.map(|array| k.load_shared(array, k.lane()))
    }

    /// Calls `body` with the words of each of the first `count` entries, and of up to three places without an entry.
    fn for_each(&self, count: Int, arrays: &[Shared], body: impl Fn(Vec<Int>)) {
        let k = self.block.k;
        k.for_range(k.int(0), count, STEP, |first| {
            let words: Vec<[Int; STEP]> =
                arrays.iter().map(|&array| k.load_shared_words(array, first)).collect();
            (0..STEP).for_each(|number| body(words.iter().map(|words| words[number]).collect()));
        });
    }
}

/// The number of lanes of a warp whose mask is true.
fn count_of_lanes(k: &Ptx, mask: Mask) -> Int {
    k.warp_sum(k.count_true([mask].into_iter()))
}

/// The entries of the bin that contains the last entry that top-k keeps. An entry has a key, an index and a weight.
pub(super) struct EntriesByKey<'k>(Entries<'k, 3>);

/// The last entry that top-k keeps, and the kept entries of its bin.
pub(super) struct LastOfTopK {
    pub(super) threshold: Int,
    /// The index of the last kept entry with the key `threshold`; `i32::MAX` if all entries with this key are kept.
    pub(super) last_tie: Int,
    /// The number of the kept entries of the bin, and the sum of their weights.
    pub(super) count: Int,
    pub(super) weight: Wide,
}

impl<'k> EntriesByKey<'k> {
    pub(super) fn new(block: Block<'k>) -> EntriesByKey<'k> {
        EntriesByKey(Entries::new(block))
    }

    /// Removes all entries. Entries may be added after the next barrier.
    pub(super) fn clear(&self) {
        let k = self.0.block.k;
        self.0.clear([i32::MIN, 0, 0].map(|word| k.int(word)));
    }

    pub(super) fn add(&self, words: [Int; 3]) {
        self.0.add(words);
    }

    /// The key and the weight of one of the entries. All threads call this after a barrier.
    pub(super) fn any(&self) -> [Int; 2] {
        [0, 2].map(|word| self.0.block.k.load_shared_at(self.0.arrays[word], 0))
    }

    /// Finds entry number `wanted` in the order (key descending, index ascending). The first entry has number 1.
    /// `count` is the number of entries, at most [`LARGEST_IN_BIN`]. If `stable` is false, all entries with the same
    /// key as this entry are kept. All threads call this after a barrier.
    pub(super) fn locate(&self, count: Int, wanted: Int, stable: bool) -> LastOfTopK {
        let k = self.0.block.k;
        let is_entry = k.lt(k.lane(), count);
        let [key, index, weight] = self.0.of_lane();
        let upto = k.variable(k.int(0));
        self.0.for_each(count, &self.0.arrays[..2], |other| {
            let is_tie = k.both(k.eq(key, other[0]), k.le(other[1], index));
            k.add_if(k.either(k.lt(key, other[0]), is_tie), upto, k.int(1));
        });
        let is_last = k.both(is_entry, k.eq(k.get(upto), wanted));
        let threshold = k.warp_max(k.select(is_last, key, k.int(i32::MIN)));
        let last = k.warp_max(k.select(is_last, index, k.int(-1)));
        let reaching = count_of_lanes(k, k.both(is_entry, k.le(threshold, key)));
        let (last_tie, kept) = if stable {
            (k.select(k.lt(wanted, reaching), last, k.int(i32::MAX)), wanted)
        } else {
            (k.int(i32::MAX), reaching)
        };
        let is_kept = k.both(is_entry, survives_top_k(k, key, index, threshold, last_tie));
        let weight = k.warp_sum_of_words(k.select(is_kept, weight, k.int(0)));
        LastOfTopK { threshold, last_tie, count: kept, weight }
    }
}

/// The weights of the entries of the bin that contains the threshold of top-p. The weight of an entry that top-k does
/// not keep is 0.
pub(super) struct WeightsOfBin<'k>(Entries<'k, 1>);

/// The threshold of top-p, and the entries of its bin that reach it.
pub(super) struct ThresholdOfTopP {
    pub(super) threshold: Int,
    /// The sum of the weights in the bin that are larger than the threshold.
    pub(super) above: Wide,
    /// The number of weights in the bin that are at least the threshold, and their sum.
    pub(super) count: Int,
    pub(super) weight: Wide,
}

impl<'k> WeightsOfBin<'k> {
    pub(super) fn new(block: Block<'k>) -> WeightsOfBin<'k> {
        WeightsOfBin(Entries::new(block))
    }

    /// Removes all weights. Weights may be added after the next barrier.
    pub(super) fn clear(&self) {
        self.0.clear([self.0.block.k.int(0)]);
    }

    pub(super) fn add(&self, weight: Int) {
        self.0.add([weight]);
    }

    /// The largest of the weights in the array. All threads call this after a barrier.
    pub(super) fn largest(&self) -> Int {
        self.0.block.k.warp_max(self.0.of_lane()[0])
    }

    /// Finds the largest weight for which the sum of the weights that are at least this weight reaches `target`, which
    /// is not 0. `count` is the number of weights, at most [`LARGEST_IN_BIN`]. All threads call this after a barrier.
    pub(super) fn locate(&self, count: Int, target: Wide) -> ThresholdOfTopP {
        let k = self.0.block.k;
        let [weight] = self.0.of_lane();
        let upto = k.wide_variable(k.wide(0));
        self.0.for_each(count, &self.0.arrays, |other| {
            let reaching = k.select(k.le(weight, other[0]), other[0], k.int(0));
            k.set_wide(upto, k.wadd(k.get_wide(upto), k.widen(reaching)));
        });
        let is_reached = k.not(k.wlt(k.get_wide(upto), target));
        let threshold = k.warp_max(k.select(is_reached, weight, k.int(0)));
        let sum_if = |mask| k.warp_sum_of_words(k.select(mask, weight, k.int(0)));
        let reaches = k.le(threshold, weight);
        ThresholdOfTopP {
            threshold,
            above: sum_if(k.lt(threshold, weight)),
            count: count_of_lanes(k, reaches),
            weight: sum_if(reaches),
        }
    }
}
