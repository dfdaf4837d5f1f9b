//! The selection in a row whose weights the second pass has summed and collected.

use super::list::{Entry, List};
use super::records::{Records, Weighed, FAILED, WEIGH};
use super::row_block::RowBlock;
use super::search::Bins;
use super::weights::{has_top_p, top_p_target};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::ptx::{Int, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::least_weight;

/// The weights that the second pass collected: those that are at least `low` and less than `high`.
pub(super) struct Interval<'a, 'k> {
    pub(super) block: &'a RowBlock<'k>,
    pub(super) parameters: &'a Parameters<'k>,
    pub(super) max_key: Int,
    pub(super) low: Int,
    pub(super) high: Int,
    /// The weights in the interval and their indices. The number of entries can exceed the capacity.
    pub(super) list: List<'k>,
    pub(super) bins: &'a Bins<'a, 'k>,
}

impl Interval<'_, '_> {
    /// Finds the least weight to keep, and the sum of the kept weights of the chunk of this thread. If the interval
    /// does not contain the threshold of top-p, or contains too many weights, sets the state to [`FAILED`].
    pub(super) fn select(&self, sums: &Records<'_>, state: Variable, least: Variable, sum: WideVariable) {
        let (k, block) = (self.block.k, &self.block.block);
        let fail = || k.set(state, k.int(FAILED));
        let of_chunk = self.block.load_stored_of_chunk(sums);
        // An interval that is not empty needs the sums below, so a barrier follows.
        self.block.clear_parts();
        let [smallest, largest] = [Weighed::Least, Weighed::Largest].map(|word| of_chunk[word as usize]);
        let of_chunk = |word: Weighed| k.join(of_chunk[word as usize], of_chunk[word as usize + 1]);
        let above_of_chunk = of_chunk(Weighed::Above);
        // If the interval is empty, its ends are the threshold of min-p.
        let is_empty = k.le(self.high, self.low);
        // The only collected weight; 0 if there are several.
        let single = k.variable(k.int(0));
        k.when(has_top_p(k, self.parameters, self.max_key), || {
            let sums = [of_chunk(Weighed::Total), above_of_chunk, of_chunk(Weighed::Collected)];
            // A thread without a chunk has the words 0. Collected weights are not 0. The complement reverses the order.
            let smallest = k.select(k.lt(k.int(0), largest), smallest, k.int(i32::MAX));
            let ([total, above, collected], [smallest, largest]) =
                block.together(sums, [k.xor(smallest, k.int(-1)), largest]);
            let range = [k.xor(smallest, k.int(-1)), largest];
            let target = top_p_target(k, self.parameters, total);
            k.when_else(k.not(k.wlt(above, target)), fail, || {
                k.when(k.not(is_empty), || {
                    let rest = k.wide_difference(target, above);
                    let is_in_interval = k.not(k.wlt(collected, rest));
                    k.when_else(is_in_interval, || self.find(range, rest, [state, least, single]), fail);
                });
            });
        });
        k.when(k.eq(k.get(state), k.int(WEIGH)), || {
            let (least, single) = (k.get(least), k.get(single));
            k.set_wide(sum, above_of_chunk);
            k.when(k.not(is_empty), || {
                k.when_else(
                    k.lt(k.int(0), single),
                    || {
                        let collected = of_chunk(Weighed::Collected);
                        let kept = k.wselect(k.le(least, single), collected, k.wide(0));
                        k.set_wide(sum, k.wadd(above_of_chunk, kept));
                    },
                    || {
                        let prepare = |entry: Entry| {
                            let [weight, index] = entry.words;
                            (self.block.chunk_of(index), weight)
                        };
                        self.list.for_each(prepare, |(chunk, weight)| {
                            k.when(k.le(least, weight), || self.block.add_to_chunk(chunk, weight));
                        });
                        k.set_wide(sum, k.wadd(above_of_chunk, self.block.sum_of_parts()));
                    },
                );
            });
        });
    }

    /// Finds the collected weight at which the sum of the collected weights reaches `target`. If there are too many
    /// weights, and they are not all equal, sets the state to [`FAILED`]. `smallest` and `largest` are the least and
    /// the largest collected weight.
    fn find(&self, [smallest, largest]: [Int; 2], target: Wide, [state, least, single]: [Variable; 3]) {
        let k = self.block.k;
        let min_weight = self.parameters.get(Column::MinWeight);
        k.when_else(
            k.eq(smallest, largest),
            || {
                k.set(single, largest);
                k.set(least, least_weight(k, largest, min_weight));
            },
            || {
                k.when_else(
                    self.list.is_too_long(),
                    || k.set(state, k.int(FAILED)),
                    || {
                        let weight = |entry: Entry| entry.words[0];
                        let distance = |first, entry| k.sub(k.sub(largest, first), weight(entry));
                        let range = k.sub(largest, smallest);
                        let search = self.bins.by_weight(&self.list, (range, 0), distance, weight);
                        let position = k.low(search.find(target)[0]);
                        k.set(least, least_weight(k, k.sub(largest, position), min_weight));
                    },
                );
            },
        );
    }
}
