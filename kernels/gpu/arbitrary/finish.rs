//! The last kernel. It stores the results of the rows for which `decide` did not store them. If a row needs the sum of
//! all weights, several blocks weigh its logits together. The block that ends last then selects the entries of the row.

use super::division::chunk_of_warp;
use super::draw::{self, Outcome};
use super::interval::Interval;
use super::list::List;
use super::plan::Plan;
use super::records::{
    Counter, Decided, Records, COUNTERS, DECIDED, DONE, FAILED, SCANNED, SUM, SUMMED, WEIGH, WEIGHED,
};
use super::row_block::{RowBlock, RunningSums, THREADS, WARPS};
use super::search::{self, Bins};
use super::slice_block::SliceBlock;
use super::weigh::{capacity, weigh, Arrays};
use super::weights::{is_drawn, NO_TOP_K};
use super::whole_row::WholeRow;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Address, Int, Ptx};
use crate::semantics::arith::{Arith, WideArith};

/// The number of blocks of this kernel that a multiprocessor can run at the same time.
pub(super) const RESIDENT_BLOCKS: usize = 2;

/// The length of the array in shared memory that contains first the places of the weights that the threads collect, and
/// then the bins of the searches. A thread has ten places of two words. With eleven places, all arrays of the kernel
/// would need more than 48 KB.
const SHARED: usize = 20 * THREADS;
const _: () = assert!(SHARED >= 2 * search::BINS);

/// The number of blocks of a row. Each warp weighs one chunk.
pub(super) fn parts(plan: &Plan) -> usize {
    plan.division.chunks().div_ceil(WARPS)
}

/// Writes the kernel, with [`parts`] blocks per row. Its arguments are the logits, the parameters, the decided records,
/// the slices, the initial counters, the results of `decide`, the sums of the scan if the plan has groups, the step if
/// `seeded`, the words of the chunks, the lists (weight and index), the counters, and the arrays of [`Results`]. The
/// counters use the memory of the initial counters. The arrays of [`Results`] use the memory of the results of
/// `decide`.
pub(super) fn write(k: &Ptx, spec: &Spec, plan: &Plan, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    // The first parts of all rows have the first blocks, then the second parts, and so on. So most rows should end at
    // about the same time, and few blocks should still read logits while others select entries.
    let (part, row) = k.divide(k.block(), spec.batch);
    let (decided, slices) = (Records::argument(k, DECIDED), Records::argument(k, SCANNED));
    let [_, _, _, _] = [(); 4].map(|()| k.argument());
    let summed = plan.group.as_ref().map(|group| (group, Records::argument(k, SUM)));
    let step = seeded.then(|| k.argument());
    let sums = Records::argument(k, WEIGHED);
    let lists = k.argument();
    let counters = Records::argument(k, COUNTERS);
    let results = Results::arguments(k, spec, row);
    let load_decided = || (0..DECIDED).map(|word| decided.load(row, word)).collect::<Vec<Int>>();
    let counter = |counter: Counter| counters.word(row, counter as usize);
    let state = k.variable(decided.load(row, Decided::State as usize));
    k.when(k.lt(k.int(DONE), k.get(state)), || {
        let shared = k.shared(SHARED);
        let needs_weights = k.eq(k.get(state), k.int(WEIGH));
        // In the other states, the first block of the row does all the work.
        let is_last = k.variable(k.select(k.eq(part, k.int(0)), k.int(1), k.int(0)));
        k.when(needs_weights, || {
            let division = &plan.division;
            let chunk = chunk_of_warp(k, part, WARPS);
            k.when(k.lt(chunk, k.int(division.chunks() as i32)), || {
                let slice = SliceBlock::of_chunk(k, spec, division, [logits, parameters], (row, chunk));
                let (records, len) = (plan.records(), counter(Counter::Len));
                let arrays = Arrays { records, slices: &slices, sums: &sums, lists, len };
                weigh(&slice, &load_decided(), &arrays, shared);
            });
            k.set(is_last, ends_last(k, counter(Counter::Ended), parts(plan)));
        });
        k.when(k.eq(k.get(is_last), k.int(1)), || {
            // The block loads these values again. If it kept them, the second pass would need too many registers.
            let (parameters, decided) = (Parameters::load(k, parameters, row), load_decided());
            let word = |word: Decided| decided[word as usize];
            let count = k.load_stored_if(needs_weights, counter(Counter::Len), 0, 1, k.int(0))[0];
            let words = parameters.share_random_words(step);
            let block = RowBlock::new(k, row, spec, &plan.division, logits, parameters.row_of_logits(spec));
            let bins = Bins::of(&block, shared);
            let max_key = word(Decided::MaxKey);
            let is_drawn = is_drawn(k, &parameters, max_key);
            let top_k = NO_TOP_K.map(|value| k.variable(k.int(value)));
            let least = k.variable(parameters.get(Column::MinWeight));
            let sum = k.wide_variable(k.wide(0));
            k.when(needs_weights, || {
                let interval = Interval {
                    block: &block,
                    parameters: &parameters,
                    max_key,
                    low: word(Decided::Low),
                    high: word(Decided::High),
                    list: List::stored(block.block, lists, capacity(spec), row, count),
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
                    let read =
                        |block| draw::read_chunk(block, &parameters, &results, &outcome, (chunk, target));
                    match &summed {
                        Some((held, _)) if held.chunk_len() != block.chunk_len() => {
                            k.when_else(is_summed, || read(held), || read(&block));
                        }
                        _ => read(&block),
                    }
                })
            });
        });
    });
}

/// Returns 1 in the last block of the row that calls this function, and 0 in the others. The last block may then load
/// what the other blocks stored before their calls. `ended` is the address of the number of blocks that have called
/// this function. `parts` is the number of blocks of the row. Contains barriers.
fn ends_last(k: &Ptx, ended: Address, parts: usize) -> Int {
    let before = k.shared(1);
    k.barrier();
    k.when(k.eq(k.thread(), k.int(0)), || {
        k.fence();
        k.store_shared_at(before, 0, k.fetch_add_global(ended, k.int(1)));
        k.fence();
    });
    k.barrier();
    k.select(k.eq(k.load_shared_at(before, 0), k.int(parts as i32 - 1)), k.int(1), k.int(0))
}
