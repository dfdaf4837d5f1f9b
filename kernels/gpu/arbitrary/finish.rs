//! The last kernel. It stores the results of the rows for which `decide` did not store them.

use super::draw::{self, Outcome};
use super::list::{Entry, List};
use super::plan::Plan;
use super::records::{Decided, Records, Weighed, DECIDED, DONE, FAILED, SUM, SUMMED, WEIGH, WEIGHED};
use super::row_block::{RowBlock, RunningSums};
use super::search::Bins;
use super::weigh::capacity;
use super::weights::{has_top_p, is_drawn, NO_TOP_K};
use super::whole_row::WholeRow;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Ptx, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::rules::least_weight;
use crate::semantics::top_p::target;

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, the decided records, the
/// sums of the chunks, the lists and their lengths, the results of `decide`, the sums of the scan if the plan has
/// groups, the step if `seeded`, and the arrays of [`Results`]. The arrays of [`Results`] use the memory of the results
/// of `decide`.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let row = k.block();
    let (decided, sums) = (Records::argument(k, DECIDED), Records::argument(k, WEIGHED));
    let [lists, lens] = [(); 2].map(|()| k.argument());
    let [_, _, _] = [(); 3].map(|()| k.argument());
    let summed = plan.group.as_ref().map(|group| (group, Records::argument(k, SUM)));
    let step = seeded.then(|| k.argument());
    let results = Results::arguments(k, spec, row);
    // All these loads are before the first use of a loaded value, so that the block waits for memory only once.
    let parameters = Parameters::load(k, parameters, row);
    let decided: Vec<Int> = (0..DECIDED).map(|word| decided.load(row, word)).collect();
    let word = |word: Decided| decided[word as usize];
    let count = k.load(k.address(lens, row, 4), 0);
    let state = k.variable(word(Decided::State));
    k.when(k.lt(k.int(DONE), k.get(state)), || {
        let words = parameters.share_random_words(step);
        let block = RowBlock::new(k, spec, &plan.division, logits, parameters.row_of_logits(spec));
        let bins = Bins::new(&block);
        let max_key = word(Decided::MaxKey);
        let is_drawn = is_drawn(k, &parameters, max_key);
        let top_k = NO_TOP_K.map(|value| k.variable(k.int(value)));
        let least = k.variable(parameters.get(Column::MinWeight));
        let sum = k.wide_variable(k.wide(0));
        k.when(k.eq(k.get(state), k.int(WEIGH)), || {
            let interval = Interval {
                block: &block,
                parameters: &parameters,
                max_key,
                low: word(Decided::Low),
                high: word(Decided::High),
                list: List::load(block.block, lists, capacity(spec), row, count),
                bins: &bins,
            };
            interval.select(&sums, state, least, sum);
        });
        k.when(k.eq(k.get(state), k.int(FAILED)), || {
            let bins = bins.parts;
            let whole = WholeRow { block: &block, parameters: &parameters, spec, max_key, bins };
            whole.select(is_drawn, top_k, least, sum);
        });
        let is_summed = k.eq(k.get(state), k.int(SUMMED));
        let summed = summed.as_ref().map(|(group, sums)| (block.divided(&group.division), sums));
        if let Some((block, sums)) = &summed {
            k.when(is_summed, || {
                let words = block.load_of_chunk(sums);
                k.set_wide(sum, k.join(words[0], words[1]));
            });
        }
        let top_k = top_k.map(|variable| k.get(variable));
        let scanned = [Decided::MaxKey, Decided::Greedy, Decided::Status].map(word);
        let outcome = Outcome { scanned, top_k, least: k.get(least) };
        draw::report(&block, words, &results, &outcome, is_drawn, || {
            let remainder = |sums: &RunningSums<'_>| draw::remainder_of_draw(&block, words, sums.total());
            draw::draw(&block, k.get_wide(sum), remainder, |chunk, target| {
                let read = |block| draw::read_chunk(block, &parameters, &results, &outcome, (chunk, target));
                match &summed {
                    Some((held, _)) if held.chunk_len() != block.chunk_len() => {
                        k.when_else(is_summed, || read(held), || read(&block));
                    }
                    _ => read(&block),
                }
            })
        });
    });
}

/// The weights that the second pass collected: those that are at least `low` and less than `high`.
struct Interval<'a, 'k> {
    block: &'a RowBlock<'k>,
    parameters: &'a Parameters<'k>,
    max_key: Int,
    low: Int,
    high: Int,
    /// The weights in the interval and their indices. The number of entries can exceed the capacity.
    list: List<'k>,
    bins: &'a Bins<'a, 'k>,
}

impl Interval<'_, '_> {
    /// Finds the least weight to keep, and the sum of the kept weights of the chunk of this thread. If the interval
    /// does not contain the threshold of top-p, or contains too many weights, sets the state to [`FAILED`].
    fn select(&self, sums: &Records<'_>, state: Variable, least: Variable, sum: WideVariable) {
        let (k, block) = (self.block.k, &self.block.block);
        let fail = || k.set(state, k.int(FAILED));
        let of_chunk = self.block.load_of_chunk(sums);
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
            let (mantissa, shift) =
                (self.parameters.get(Column::TopPMantissa), self.parameters.get(Column::TopPShift));
            let sums = [of_chunk(Weighed::Total), above_of_chunk, of_chunk(Weighed::Collected)];
            // A thread without a chunk has the words 0. Collected weights are not 0. The complement reverses the order.
            let smallest = k.select(k.lt(k.int(0), largest), smallest, k.int(i32::MAX));
            let ([total, above, collected], [smallest, largest]) =
                block.together(sums, [k.xor(smallest, k.int(-1)), largest]);
            let range = [k.xor(smallest, k.int(-1)), largest];
            let target = target(k, total, mantissa, shift);
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
