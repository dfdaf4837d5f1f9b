//! The exact selection over a whole row by one block. It needs no list, so it works for every row, but it reads the
//! logits several times.

use super::row_block::{RowBlock, THREADS};
use super::sample::needs_top_k;
use super::search::BINS;
use super::weights::{has_top_p, top_p_target, weight_at, Weights};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Shared, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::{kept_weight, least_weight};

/// The number of bits of each digit of an order key. Top-k selects digit by digit.
const DIGITS: [u32; 3] = [11, 11, 10];
/// A distance `q` has two digits. This is the number of bins of the first digit.
const FIRST_BINS: usize = 2048;
/// The number of bits of the second digit of a distance `q`.
const SECOND_BITS: u32 = 12;
const _: () = assert!((crate::semantics::weights::ZERO_Q as usize) < FIRST_BINS << SECOND_BITS);
/// A weight is added in parts of this number of bits, because the sum of the weights of a row exceeds 32 bits.
const PART_BITS: u32 = 10;
const PARTS: usize = 3;

/// The exact selection of a row.
pub(super) struct WholeRow<'a, 'k> {
    pub(super) block: &'a RowBlock<'k>,
    pub(super) parameters: &'a Parameters<'k>,
    pub(super) spec: &'a Spec,
    pub(super) max_key: Int,
    /// Arrays of [`BINS`] words.
    pub(super) bins: [Shared; 2],
}

const _: () = assert!(PARTS * FIRST_BINS <= 2 * BINS && 1 << SECOND_BITS == BINS);

impl WholeRow<'_, '_> {
    /// Finds the threshold and the last tie of top-k. If `is_drawn`, also finds the least weight to keep, and the sum
    /// of the kept weights of the chunk of this thread.
    pub(super) fn select(&self, is_drawn: Mask, top_k: [Variable; 2], least: Variable, sum: WideVariable) {
        let k = self.block.k;
        k.when(needs_top_k(k, self.spec, self.parameters), || self.select_top_k(top_k));
        k.when(is_drawn, || {
            let top_k = top_k.map(|variable| k.get(variable));
            let weights = Weights::new(k, self.parameters, self.max_key, top_k);
            k.when(has_top_p(k, self.parameters, self.max_key), || {
                let threshold = self.top_p_threshold(&weights);
                k.set(least, least_weight(k, threshold, self.parameters.get(Column::MinWeight)));
            });
            let least = k.get(least);
            k.set_wide(sum, self.sum_chunks(|key, index| kept_weight(k, weights.of(key, index), least)));
        });
    }

    /// Sets all bins to 0.
    fn clear(&self) {
        let k = self.block.k;
        k.barrier();
        k.for_range(self.block.block.thread, k.int(BINS as i32), THREADS, |bin| {
            self.bins.iter().for_each(|&array| k.store_shared(array, bin, k.int(0)));
        });
        k.barrier();
    }

    /// The array of a part of the sums, and the place in it of a bin.
    fn part(&self, part: usize, bin: Int) -> (Shared, Int) {
        let first = part % 2 * FIRST_BINS;
        (self.bins[part / 2], self.block.k.add(bin, self.block.k.int(first as i32)))
    }

    /// The values of consecutive bins, `count` in each thread.
    fn values(&self, count: usize, value: impl Fn(Int) -> Wide) -> Vec<Wide> {
        let k = self.block.k;
        let first = k.mul(self.block.block.thread, count);
        (0..count).map(|number| value(k.add(first, k.int(number as i32)))).collect()
    }

    /// Returns the sum of a measure over the entries of the chunk of this thread.
    fn sum_chunks(&self, measure: impl Fn(Int, Int) -> Int) -> Wide {
        let k = self.block.k;
        k.barrier();
        let sum = k.wide_variable(k.wide(0));
        let add = |key, index| k.set_wide(sum, k.wadd(k.get_wide(sum), k.widen(measure(key, index))));
        self.block.for_each_logit(add, |chunk| {
            self.block.store_for_chunk(chunk, k.wide_warp_sum(k.get_wide(sum)));
            k.set_wide(sum, k.wide(0));
        });
        self.block.stored_for_chunk()
    }

    /// Finds the key of the k-th entry digit by digit, and then the last tie.
    fn select_top_k(&self, [threshold, last_tie]: [Variable; 2]) {
        let k = self.block.k;
        let (mut missing, mut digits, mut after) = (self.parameters.get(Column::K), k.int(0), 32);
        for bits in DIGITS {
            let before = after;
            after -= bits;
            self.clear();
            let count = |key: Int, _| {
                // Larger keys have smaller digits. The keys beyond the end of the row are after all others.
                let reversed = k.xor(key, k.int(i32::MAX));
                let bin = k.and(k.shr_by(reversed, k.int(after as i32)), k.int((1 << bits) - 1));
                if before == 32 {
                    return k.add_shared(self.bins[0], bin, k.int(1));
                }
                k.when(k.eq(k.shr_by(reversed, k.int(before as i32)), digits), || {
                    k.add_shared(self.bins[0], bin, k.int(1));
                });
            };
            self.block.for_each_logit(count, |_| ());
            k.barrier();
            let values = self.values((1 << bits) / THREADS, |bin| k.widen(k.load_shared(self.bins[0], bin)));
            let (digit, above, _) = self.block.locate_in_all(&values, k.widen(missing), 0);
            digits = k.or(k.shl(digits, bits), digit);
            missing = k.sub(missing, k.low(above));
        }
        let key = k.xor(digits, k.int(i32::MAX));
        k.set(threshold, key);
        k.set(last_tie, k.int(i32::MAX));
        if self.spec.stable {
            let tie = |other, _| k.select(k.eq(other, key), k.int(1), k.int(0));
            let ties = self.sum_chunks(tie);
            let missing = k.widen(missing);
            k.when(k.wlt(missing, self.block.block.wide_sum(ties)), || {
                let (chunk, before) = self.block.locate_chunk(ties, missing);
                let rest = k.wide_difference(missing, before);
                k.set(last_tie, self.block.index_in_chunk(chunk, rest, tie));
            });
        }
    }

    /// Finds the threshold of top-p by the two digits of the distance.
    fn top_p_threshold(&self, weights: &Weights<'_>) -> Int {
        let k = self.block.k;
        self.clear();
        let add = |key: Int, index: Int| {
            let weight = weights.of(key, index);
            k.when(k.lt(k.int(0), weight), || {
                let bin = k.shr(weights.q(key), SECOND_BITS);
                for part in 0..PARTS {
                    let value = k.shr(weight, part as u32 * PART_BITS);
                    let value = k.and(value, k.int((1 << PART_BITS) - 1));
                    let (array, place) = self.part(part, bin);
                    k.add_shared(array, place, value);
                }
            });
        };
        self.block.for_each_logit(add, |_| ());
        k.barrier();
        let sums = self.values(FIRST_BINS / THREADS, |bin| {
            let part = |part: usize| {
                let (array, place) = self.part(part, bin);
                k.wshl(k.widen(k.load_shared(array, place)), part as u32 * PART_BITS)
            };
            (0..PARTS).map(part).reduce(|a, b| k.wadd(a, b)).expect("there are parts")
        });
        let mine = sums.iter().copied().reduce(|a, b| k.wadd(a, b)).expect("there are bins");
        let total = self.block.block.wide_sum(mine);
        let target = top_p_target(k, self.parameters, total);
        let (bin, before, _) = self.block.locate_in_all(&sums, target, 0);

        self.clear();
        let first = k.shl(bin, SECOND_BITS);
        let count = |key: Int, index: Int| {
            let distance = k.sub(weights.q(key), first);
            let is_in_bin = k.eq(k.shr(distance, SECOND_BITS), k.int(0));
            k.when(k.both(is_in_bin, k.lt(k.int(0), weights.of(key, index))), || {
                k.add_shared(self.bins[0], distance, k.int(1));
            });
        };
        self.block.for_each_logit(count, |_| ());
        k.barrier();
        let sums = self.values((1 << SECOND_BITS) / THREADS, |distance| {
            let count = k.load_shared(self.bins[0], distance);
            k.wmul(k.widen(count), k.widen(weight_at(k, k.add(first, distance))))
        });
        let (distance, _, _) = self.block.locate_in_all(&sums, k.wide_difference(target, before), 0);
        weight_at(k, k.add(first, distance))
    }
}
