//! The maximum of the logits of a warp, its lowest index, and the status bits.

use super::records::{Records, Scanned, SCANNED};
use crate::kernels::gpu::block::{load_records, maximum_of_slices, status_of_slices};
use crate::kernels::gpu::logits::{key_of, SliceLogits};
use crate::ptx::{Float, Int, Ptx, Variable};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, MAX_FINITE_BITS};
use crate::semantics::rules::row_status;

/// The maximum of the tiles that a warp has read, its index, and whether a logit of this thread is NaN.
pub(super) struct Maximum<'k> {
    k: &'k Ptx,
    max: Variable,
    index: Variable,
    had_nan: Variable,
}

impl<'k> Maximum<'k> {
    pub(super) fn new(k: &'k Ptx) -> Maximum<'k> {
        let [max, index, had_nan] =
            [f32::NEG_INFINITY.to_bits() as i32, 0, 0].map(|value| k.variable(k.int(value)));
        Maximum { k, max, index, had_nan }
    }

    /// Adds a tile. Returns the largest of the logits of this thread.
    pub(super) fn add(&self, logits: &SliceLogits<'_>) -> Float {
        let &Maximum { k, max, index, had_nan } = self;
        k.set(had_nan, k.select(logits.had_nan(), k.int(1), k.get(had_nan)));
        let of_tile = logits.max();
        k.when(k.warp_any(k.greater(of_tile, k.from_bits(k.get(max)))), || {
            // All threads of the warp share one maximum. So few tiles have a larger value.
            let key = k.warp_max(order_key(k, k.to_bits(of_tile)));
            let of_warp = k.from_bits(order_key(k, key));
            k.set(max, k.to_bits(of_warp));
            k.set(index, k.int(i32::MAX));
            k.when(k.at_least(of_tile, of_warp), || k.set(index, logits.first_at_least(of_warp)));
        });
        of_tile
    }

    /// Returns the words of [`Scanned`] for the tiles of the warp. `for_each_tile` calls its argument with these tiles
    /// again.
    pub(super) fn words(&self, for_each_tile: impl FnOnce(&dyn Fn(&SliceLogits<'_>))) -> [Int; 3] {
        let &Maximum { k, max, index, had_nan } = self;
        let value = k.from_bits(k.get(max));
        let key = key_of(k, value);
        // Cleaning changes values to these two keys, so the comparison of floats may have found another index.
        let is_changed = k.either(k.eq(key, k.int(0)), k.eq(key, k.int(MAX_FINITE_BITS)));
        k.when(is_changed, || {
            k.set(index, k.int(i32::MAX));
            for_each_tile(&|logits| {
                for number in 0..logits.values.len() {
                    let is_max = k.eq(logits.key(number), key);
                    let first = k.min(k.get(index), logits.index(number));
                    k.set(index, k.select(is_max, first, k.get(index)));
                }
            });
        });
        let first = k.warp_min(k.get(index));
        let had_nan = k.warp_any(k.eq(k.get(had_nan), k.int(1)));
        let had_inf = k.at_least(value, k.float(f32::INFINITY));
        [key, first, row_status(k, k.never(), had_nan, had_inf)]
    }
}

/// Loads the records of the slices of a row, for [`combine`].
pub(super) fn load(k: &Ptx, slices: &Records<'_>, row: Int, count: usize) -> Vec<Vec<Int>> {
    load_records::<SCANNED>(k, slices.array, row, count)
}

/// Combines the records of the slices of a row: the words of [`Scanned`].
pub(super) fn combine(k: &Ptx, words: &[Vec<Int>]) -> [Int; 3] {
    let of_slices = |word: Scanned| words.iter().map(move |words| words[word as usize]);
    let [max_key, first] = maximum_of_slices(k, of_slices(Scanned::MaxKey), of_slices(Scanned::Greedy));
    [max_key, first, status_of_slices(k, of_slices(Scanned::Status))]
}
