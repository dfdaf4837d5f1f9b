//! The histogram of a list. It divides the entries into bins by their distance from the maximum. One loop over the list
//! counts the entries of each bin, and adds up their weights. A search by the number of entries and a search by their
//! weights use the results of this loop.

use super::list::{Entry, List};
use super::row_block::{is_between, sum_of, THREADS};
use crate::kernels::gpu::block::{Block, SumsOfWords};
use crate::ptx::{Float, Int, Mask, Ptx, Shared, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::weights::{ROUNDING, ZERO_Q};

/// The number of bins.
const BINS: usize = 1 << 11;
/// The number of bins of each thread. A thread loads them with one instruction.
const BINS_PER_THREAD: usize = BINS / THREADS;
/// The number of words of each array: one word for each bin, and one word for each lane of a warp. A thread that has no
/// entry adds to the word of its lane. So the loop needs no branch.
pub(super) const WORDS: usize = BINS + WARP;
/// The largest number of entries of a list. In a longer list, the bins usually have too many entries for a comparison
/// of all pairs.
pub(super) const LARGEST_COUNTED: usize = 1 << 13;

// The sums of a bin are in two words. The low 20 bits of the first word are the sum of the low parts of the weights,
// and its high bits are the number of entries. The second word is the sum of the high parts of the weights. If a bin
// has fewer than 2¹² entries, its sums are right. If a bin has at least 2¹² entries, the total of the numbers of
// entries of all bins is wrong: the number of entries of this bin loses a multiple of 2¹², and the carry of the low
// parts adds at most 1 to this number.
const COUNT_SHIFT: u32 = 20;
const LOW_BITS: u32 = 8;
const _: () = assert!(((1 << (32 - COUNT_SHIFT)) - 1) * ((1 << LOW_BITS) - 1) < 1 << COUNT_SHIFT);
const _: () = assert!(LARGEST_COUNTED * ((1 << LOW_BITS) - 1) < 2 << COUNT_SHIFT);
/// The number of low bits of a weight in a running sum of low parts. The sums of both parts over a block fit 32 bits.
const RUNNING_LOW_BITS: u32 = 22;
const _: () = assert!(THREADS << RUNNING_LOW_BITS <= 1 << 31);

/// The bins of a row.
pub(super) struct Histogram<'k> {
    block: Block<'k>,
    /// The two words of each bin: see [`COUNT_SHIFT`].
    words: [Shared; 2],
    max: Float,
    scale: Float,
    /// The number of bins per unit of the distance.
    bins_per_unit: Float,
}

impl<'k> Histogram<'k> {
    /// Sets the bins to 0. The bins use the first [`WORDS`] words of each of the two arrays. [`Histogram::fill`] may be
    /// called after the next barrier.
    pub(super) fn clear(block: Block<'k>, words: [Shared; 2]) {
        let (k, thread) = (block.k, block.thread);
        for array in words {
            k.store_shared_words(array, k.mul(thread, BINS_PER_THREAD), [k.int(0); BINS_PER_THREAD]);
            k.when(k.lt(thread, k.int(WARP as i32)), || {
                k.store_shared(array, k.add(thread, k.int(BINS as i32)), k.int(0));
            });
        }
    }

    /// `max_key` and `bound` are the order keys of the maximum and of the bound. `scale` contains the bits of the scale
    /// of the row. `words` are the arrays that [`Histogram::clear`] cleared.
    pub(super) fn new(
        block: Block<'k>,
        words: [Shared; 2],
        [max_key, bound]: [Int; 2],
        scale: Int,
    ) -> Histogram<'k> {
        let k = block.k;
        let [max, scale] = [order_key(k, max_key), scale].map(|bits| k.from_bits(bits));
        let mut histogram = Histogram { block, words, max, scale, bins_per_unit: k.float(0.0) };
        // If the bound is −inf, the bins cover the distances at which a weight is not 0.
        let is_finite = k.lt(k.int(NEG_INF_KEY), bound);
        let farthest = k.fselect(is_finite, histogram.distance(bound), k.float(ZERO_Q as f32));
        let farthest = k.at_most(farthest, 2_f32.powi(100));
        // This difference contains the bits of a float that is 1 to 1.125 times the reciprocal of `farthest`.
        let inverse = k.from_bits(k.sub(k.int(254 << 23), k.to_bits(farthest)));
        let bins_per_unit = k.fmul(inverse, k.float(BINS as f32 / 1.13));
        histogram.bins_per_unit = k.at_most(bins_per_unit, 2_f32.powi(100));
        histogram
    }

    /// The distance of an entry from the maximum, rounded like the distance `q` of its weight, but not limited. So two
    /// entries with the same weight above 0 have the same distance.
    fn distance(&self, key: Int) -> Float {
        let k = self.block.k;
        let distance = k.fmul(k.fsub(self.max, k.from_bits(order_key(k, key))), self.scale);
        k.fsub(k.fadd(distance, k.float(ROUNDING)), k.float(ROUNDING))
    }

    /// The number of the bin of an entry. A smaller key never has a smaller bin number, because the rounding of each
    /// operation keeps the order. Entries with the same weight above 0 are in the same bin.
    pub(super) fn bin(&self, key: Int) -> Int {
        let k = self.block.k;
        let bin = k.fmul(self.distance(key), self.bins_per_unit);
        // The product of 0 and infinity is NaN. For NaN, this minimum is the number of the last bin.
        k.trunc(k.at_most(bin, (BINS - 1) as f32))
    }

    /// Adds the entries of a list to the bins. `of` returns the weight and the bin of an entry. The list has at most
    /// [`LARGEST_COUNTED`] entries.
    pub(super) fn fill(&self, list: &List<'k>, of: impl Fn(Entry) -> [Int; 2]) -> Sums<'k> {
        let (k, block) = (self.block.k, self.block);
        let unused = k.add(k.lane(), k.int(BINS as i32));
        list.for_each_place(of, |exists, [weight, bin]| {
            let bin = k.select(exists, bin, unused);
            let low = k.and(weight, k.int((1 << LOW_BITS) - 1));
            k.add_shared(self.words[0], bin, k.or(low, k.int(1 << COUNT_SHIFT)));
            k.add_shared(self.words[1], bin, k.shr(weight, LOW_BITS));
        });
        k.barrier();
        let mine = k.mul(block.thread, BINS_PER_THREAD);
        let [first, second] = self.words.map(|array| k.load_shared_words::<BINS_PER_THREAD>(array, mine));
        let bins = ThreadBins { k, words: [first, second] };
        let weight = bins.weight();
        let low = k.low(k.wand(weight, k.wide((1 << RUNNING_LOW_BITS) - 1)));
        let high = k.low(k.wshr(weight, k.wide(u64::from(RUNNING_LOW_BITS))));
        let SumsOfWords { before, of_warps, .. } = block.sums_of_words(&[bins.count(), low, high]);
        let totals = of_warps.iter().map(|&words| block.sum_of_warps(words)).collect();
        Sums { block, bins, before, totals }
    }
}

/// The bins of a thread. The methods compute the number of entries and the sum of the weights of a bin from its two
/// words. The callers call them where they need the results, so that the results occupy few registers.
struct ThreadBins<'k> {
    k: &'k Ptx,
    /// The first and the second words of the bins.
    words: [[Int; BINS_PER_THREAD]; 2],
}

impl ThreadBins<'_> {
    /// The numbers of entries.
    fn counts(&self) -> [Int; BINS_PER_THREAD] {
        self.words[0].map(|word| self.k.shr_by(word, self.k.int(COUNT_SHIFT as i32)))
    }

    /// The sums of the weights.
    fn weights(&self) -> [Wide; BINS_PER_THREAD] {
        let k = self.k;
        let low = |bin: usize| k.and(self.words[0][bin], k.int((1 << COUNT_SHIFT) - 1));
        let high = |bin: usize| k.wshl(k.widen(self.words[1][bin]), LOW_BITS);
        std::array::from_fn(|bin| k.wadd(k.widen(low(bin)), high(bin)))
    }

    /// The number of entries in all bins of the thread.
    fn count(&self) -> Int {
        self.counts().into_iter().reduce(|a, b| self.k.add(a, b)).expect("a thread has bins")
    }

    /// The sum of the weights in all bins of the thread.
    fn weight(&self) -> Wide {
        sum_of(self.k, &self.weights())
    }
}

/// The running sums of the bins.
pub(super) struct Sums<'k> {
    block: Block<'k>,
    bins: ThreadBins<'k>,
    /// The number of entries before the bins of this thread, and the sums of the low and the high parts of their
    /// weights.
    before: Vec<Int>,
    /// The number of entries in all bins, and the sums of the low and the high parts of their weights.
    totals: Vec<Int>,
}

impl<'k> Sums<'k> {
    /// Whether the sums are right. `count` is the number of entries of the list.
    pub(super) fn is_right(&self, count: Int) -> Mask {
        self.block.k.eq(self.totals[0], count)
    }

    /// The sum of all weights.
    pub(super) fn total(&self) -> Wide {
        join(self.block.k, [self.totals[1], self.totals[2]])
    }

    /// Finds the first bin at which the running number of entries reaches `wanted`, which is at least 1 and at most the
    /// number of all entries. All threads can get the place after the next barrier.
    pub(super) fn find_count(&self, place: &BinPlace<'k>, wanted: Int) {
        let (k, before) = (self.block.k, self.before[0]);
        let upto = k.add(before, self.bins.count());
        k.when(k.both(k.lt(before, wanted), k.le(wanted, upto)), || {
            let (rest, counts) = (k.sub(wanted, before), self.bins.counts());
            let mut upto = k.int(0);
            let is_before = std::array::from_fn(|bin| {
                upto = k.add(upto, counts[bin]);
                k.lt(upto, rest)
            });
            self.store(place, is_before);
        });
    }

    /// Like [`Sums::find_count`], for the running sum of the weights.
    pub(super) fn find_weight(&self, place: &BinPlace<'k>, target: Wide) {
        let (k, before) = (self.block.k, self.weight_before());
        let upto = k.wadd(before, self.bins.weight());
        k.when(is_between(k, [before, upto], target), || {
            let (rest, weights) = (k.wide_difference(target, before), self.bins.weights());
            let mut upto = k.wide(0);
            let is_before = std::array::from_fn(|bin| {
                upto = k.wadd(upto, weights[bin]);
                k.wlt(upto, rest)
            });
            self.store(place, is_before);
        });
    }

    fn weight_before(&self) -> Wide {
        join(self.block.k, [self.before[1], self.before[2]])
    }

    /// Stores the first bin of this thread whose element of `is_before` is false.
    fn store(&self, place: &BinPlace<'k>, is_before: [Mask; BINS_PER_THREAD]) {
        let (k, counts, weights) = (self.block.k, self.bins.counts(), self.bins.weights());
        let (mut number, mut count_before) = (k.mul(self.block.thread, BINS_PER_THREAD), self.before[0]);
        let mut weight_before = self.weight_before();
        let (mut count, mut weight) = (counts[0], weights[0]);
        for bin in 1..BINS_PER_THREAD {
            let mask = is_before[bin - 1];
            number = k.add(number, k.select(mask, k.int(1), k.int(0)));
            count_before = k.add(count_before, k.select(mask, counts[bin - 1], k.int(0)));
            weight_before = k.wadd(weight_before, k.wselect(mask, weights[bin - 1], k.wide(0)));
            count = k.select(mask, counts[bin], count);
            weight = k.wselect(mask, weights[bin], weight);
        }
        let words = [number, count_before, count, k.int(0)];
        k.store_shared_words(place.words, k.int(0), words);
        let words = [weight_before, weight].map(|wide| [k.low(wide), k.high(wide)]);
        k.store_shared_words(place.words, k.int(4), [words[0][0], words[0][1], words[1][0], words[1][1]]);
    }
}

/// The sum of the weights from the sums of their parts.
fn join(k: &Ptx, [low, high]: [Int; 2]) -> Wide {
    k.wadd(k.widen(low), k.wshl(k.widen(high), RUNNING_LOW_BITS))
}

/// The bin that a search found, in shared memory.
pub(super) struct BinPlace<'k> {
    k: &'k Ptx,
    words: Shared,
}

/// A bin, and the sums of the bins before it.
pub(super) struct FoundBin {
    pub(super) number: Int,
    pub(super) count_before: Int,
    pub(super) weight_before: Wide,
    /// The number of entries in the bin, and the sum of their weights.
    pub(super) count: Int,
    pub(super) weight: Wide,
}

impl<'k> BinPlace<'k> {
    pub(super) fn new(k: &'k Ptx) -> BinPlace<'k> {
        BinPlace { k, words: k.shared(8) }
    }

    /// Returns the bin in all threads. Contains a barrier.
    pub(super) fn get(&self) -> FoundBin {
        let k = self.k;
        k.barrier();
        let [number, count_before, count, _] = k.load_shared_words_at(self.words, 0);
        let words: [Int; 4] = k.load_shared_words_at(self.words, 4);
        let (weight_before, weight) = (k.join(words[0], words[1]), k.join(words[2], words[3]));
        FoundBin { number, count_before, weight_before, count, weight }
    }
}
