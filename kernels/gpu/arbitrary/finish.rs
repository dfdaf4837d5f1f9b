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
use crate::ptx::{Address, Int, Mask, Ptx, Shared, Variable, Wide, WideVariable};
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
    let kernel = Finish::arguments(k, spec, plan, seeded);
    let state = k.variable(kernel.decided.load(kernel.row, Decided::State as usize));
    k.when(k.lt(k.int(DONE), k.get(state)), || {
        let shared = k.shared(SHARED);
        let needs_weights = k.eq(k.get(state), k.int(WEIGH));
        // In the other states, the first block of the row does all the work.
        let is_last = k.variable(k.select(k.eq(kernel.part, k.int(0)), k.int(1), k.int(0)));
        k.when(needs_weights, || {
            kernel.weigh_part(shared);
            k.set(is_last, ends_last(k, kernel.counter(Counter::Ended), parts(plan)));
        });
        k.when(k.eq(k.get(is_last), k.int(1)), || kernel.finish_row(state, needs_weights, shared));
    });
}

/// The arguments of the kernel, and the part of a row that the block processes.
struct Finish<'k> {
    k: &'k Ptx,
    spec: &'k Spec,
    plan: &'k Plan,
    row: Int,
    part: Int,
    logits: Wide,
    parameters: Wide,
    decided: Records<'k>,
    slices: Records<'k>,
    /// The sums of the scan. `None` if the plan has no groups.
    sums_of_scan: Option<Records<'k>>,
    step: Option<Wide>,
    /// The words of [`Weighed`](super::records::Weighed) for each chunk.
    sums: Records<'k>,
    lists: Wide,
    counters: Records<'k>,
    results: Results<'k>,
}

impl<'k> Finish<'k> {
    /// Declares the arguments: see [`write`].
    fn arguments(k: &'k Ptx, spec: &'k Spec, plan: &'k Plan, seeded: bool) -> Finish<'k> {
        let [logits, parameters] = [(); 2].map(|()| k.argument());
        // A block is one part of one row. The first blocks are the first parts of all rows, the next blocks are the
        // second parts, and so on. So most rows should end at about the same time, and few blocks should still read
        // logits while others select entries.
        let (part, row) = k.divide(k.block(), spec.batch);
        let (decided, slices) = (Records::argument(k, DECIDED), Records::argument(k, SCANNED));
        let [_, _, _, _] = [(); 4].map(|()| k.argument());
        Finish {
            k,
            spec,
            plan,
            row,
            part,
            logits,
            parameters,
            decided,
            slices,
            sums_of_scan: plan.group.as_ref().map(|_| Records::argument(k, SUM)),
            step: seeded.then(|| k.argument()),
            sums: Records::argument(k, WEIGHED),
            lists: k.argument(),
            counters: Records::argument(k, COUNTERS),
            results: Results::arguments(k, spec, row),
        }
    }

    /// Loads the words of [`Decided`].
    fn load_decided(&self) -> Vec<Int> {
        (0..DECIDED).map(|word| self.decided.load(self.row, word)).collect()
    }

    fn counter(&self, counter: Counter) -> Address {
        self.counters.word(self.row, counter as usize)
    }

    /// The second pass over the logits of the block's part of the row.
    fn weigh_part(&self, shared: Shared) {
        let (k, division) = (self.k, &self.plan.division);
        let chunk = chunk_of_warp(k, self.part, WARPS);
        k.when(k.lt(chunk, k.int(division.chunks() as i32)), || {
            let arrays = [self.logits, self.parameters];
            let slice = SliceBlock::of_chunk(k, self.spec, division, arrays, (self.row, chunk));
            let (records, len) = (self.plan.records(), self.counter(Counter::Len));
            let arrays = Arrays { records, slices: &self.slices, sums: &self.sums, lists: self.lists, len };
            weigh(&slice, &self.load_decided(), &arrays, shared);
        });
    }

    /// Selects the entries of the row, draws the token, and stores the results. `state` contains the state of the row,
    /// and `needs_weights` says whether it was [`WEIGH`] at the start of the kernel.
    fn finish_row(&self, state: Variable, needs_weights: Mask, shared: Shared) {
        let (k, division) = (self.k, &self.plan.division);
        // The block loads these values again. If it kept them, the second pass would need too many registers.
        let parameters = &Parameters::load(k, self.parameters, self.row);
        let decided = self.load_decided();
        let count = k.load_stored_if(needs_weights, self.counter(Counter::Len), 0, 1, k.int(0))[0];
        let words = parameters.share_random_words(self.step);
        let row_of_logits = parameters.row_of_logits(self.spec);
        let block = &RowBlock::new(k, self.row, self.spec, division, self.logits, row_of_logits);
        let bins = Bins::of(block, shared);
        let is_drawn = is_drawn(k, parameters, decided[Decided::MaxKey as usize]);
        let selected = Selected::all(k, parameters);
        let group = self.plan.group.as_ref();
        let block_of_scan = group.map(|group| block.divided(&group.division));
        let row = UndecidedRow {
            kernel: self,
            block,
            block_of_scan,
            parameters,
            decided,
            words,
            is_drawn,
            selected,
        };
        k.when(needs_weights, || row.select_by_interval(state, count, &bins));
        k.when(k.eq(k.get(state), k.int(FAILED)), || row.select_from_whole_row(&bins));
        let is_summed = k.eq(k.get(state), k.int(SUMMED));
        row.load_sums_of_scan(is_summed);
        row.report(is_summed);
    }
}

/// The selected entries of a row, in variables.
struct Selected {
    /// The threshold and the last tie of top-k.
    top_k: [Variable; 2],
    /// The least weight that top-p and min-p keep.
    least: Variable,
    /// The sum of the kept weights of the chunk of this thread.
    sum: WideVariable,
}

impl Selected {
    /// Returns the entries that min-p keeps, without their sums.
    fn all(k: &Ptx, parameters: &Parameters<'_>) -> Selected {
        let top_k = NO_TOP_K.map(|value| k.variable(k.int(value)));
        let least = k.variable(parameters.get(Column::MinWeight));
        Selected { top_k, least, sum: k.wide_variable(k.wide(0)) }
    }
}

/// A row whose results `decide` did not store.
struct UndecidedRow<'a, 'k> {
    kernel: &'a Finish<'k>,
    block: &'a RowBlock<'k>,
    /// The block with the division of the row that the scan of a plain draw uses. `None` if the plan has no groups.
    block_of_scan: Option<RowBlock<'k>>,
    parameters: &'a Parameters<'k>,
    /// The words of [`Decided`].
    decided: Vec<Int>,
    /// The array of random words.
    words: Shared,
    is_drawn: Mask,
    selected: Selected,
}

impl UndecidedRow<'_, '_> {
    fn word(&self, word: Decided) -> Int {
        self.decided[word as usize]
    }

    /// Selects the entries from the weights that the second pass collected. `count` is the number of these weights.
    fn select_by_interval(&self, state: Variable, count: Int, bins: &Bins<'_, '_>) {
        let (kernel, block) = (self.kernel, self.block);
        let interval = Interval {
            block,
            parameters: self.parameters,
            max_key: self.word(Decided::MaxKey),
            low: self.word(Decided::Low),
            high: self.word(Decided::High),
            list: List::stored(block.block, kernel.lists, capacity(kernel.spec), kernel.row, count),
            bins,
        };
        interval.select(&kernel.sums, state, self.selected.least, self.selected.sum);
    }

    /// Selects the entries from the logits of the row.
    fn select_from_whole_row(&self, bins: &Bins<'_, '_>) {
        let whole = WholeRow {
            block: self.block,
            parameters: self.parameters,
            spec: self.kernel.spec,
            max_key: self.word(Decided::MaxKey),
            bins: bins.parts,
        };
        let Selected { top_k, least, sum } = self.selected;
        whole.select(self.is_drawn, top_k, least, sum);
    }

    /// If the mask is true, loads the sum of the weights of the chunk of this thread that the scan has stored. The
    /// chunks are those of [`UndecidedRow::block_of_scan`].
    fn load_sums_of_scan(&self, is_summed: Mask) {
        let k = self.kernel.k;
        if let (Some(block), Some(sums)) = (&self.block_of_scan, &self.kernel.sums_of_scan) {
            k.when(is_summed, || {
                let words = block.load_of_chunk(sums);
                k.set_wide(self.selected.sum, k.join(words[0], words[1]));
            });
        }
    }

    /// Draws the token, and stores the results. `is_summed` says whether the sums of the chunks are those of the scan.
    fn report(&self, is_summed: Mask) {
        let (k, block, results) = (self.kernel.k, self.block, &self.kernel.results);
        let top_k = self.selected.top_k.map(|variable| k.get(variable));
        let scanned = [Decided::MaxKey, Decided::Greedy, Decided::Status].map(|word| self.word(word));
        let outcome = Outcome { scanned, top_k, least: k.get(self.selected.least) };
        draw::report(block, self.words, results, &outcome, self.is_drawn, || {
            let remainder = |sums: &RunningSums<'_>| draw::remainder_of_draw(block, self.words, sums.total());
            draw::draw(block, k.get_wide(self.selected.sum), remainder, |chunk, target| {
                let read =
                    |block| draw::read_chunk(block, self.parameters, results, &outcome, (chunk, target));
                match &self.block_of_scan {
                    Some(of_scan) if of_scan.chunk_len() != block.chunk_len() => {
                        k.when_else(is_summed, || read(of_scan), || read(block));
                    }
                    _ => read(block),
                }
            })
        });
    }
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
