//! A row in the kernel [`decide`](super::decide): what earlier kernels stored about it, the arrays in shared memory,
//! and what this kernel has found out about it.

use super::counted::Counted;
use super::draw::Outcome;
use super::drawn::Drawn;
use super::list::List;
use super::maximum;
use super::plan::Plan;
use super::records::{has_flag, Records, Sampled, DONE, HAS_BINS, SAMPLED, SCANNED};
use super::rest::{self, Rest};
use super::row_block::RowBlock;
use super::sample::capacity;
use super::search::Bins;
use super::state::State;
use super::ties::Ties;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::Results;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx, Shared, Variable, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;

/// A row and its block.
pub(super) struct Row<'a, 'k> {
    pub(super) k: &'k Ptx,
    pub(super) block: &'a RowBlock<'k>,
    pub(super) spec: &'a Spec,
    pub(super) parameters: &'a Parameters<'k>,
    /// The words of [`Scanned`](super::records::Scanned).
    pub(super) scanned: [Int; 3],
    pub(super) is_drawn: Mask,
    pub(super) with_top_k: Mask,
    pub(super) stored: &'a Stored<'k>,
    pub(super) arrays: &'a SharedArrays<'a, 'k>,
    pub(super) results: &'a Results<'k>,
    pub(super) found: Found,
}

impl Row<'_, '_> {
    pub(super) fn max_key(&self) -> Int {
        self.scanned[0]
    }

    /// The number of entries that top-k keeps.
    pub(super) fn top_k(&self) -> Int {
        self.parameters.get(Column::K)
    }

    /// The threshold and the last tie of top-k that have been found.
    pub(super) fn found_top_k(&self) -> [Int; 2] {
        [self.found.threshold, self.found.last_tie].map(|variable| self.k.get(variable))
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome { scanned: self.scanned, top_k: self.found_top_k(), least: self.k.get(self.found.least) }
    }
}

/// What the kernel has found out about a row, in variables that it sets step by step.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// See [`Decided::State`](super::records::Decided::State).
    pub(super) state: Variable,
    /// The threshold and the last tie of top-k.
    pub(super) threshold: Variable,
    pub(super) last_tie: Variable,
    /// The least weight that top-p and min-p keep.
    pub(super) least: Variable,
    /// The weights that enclose the threshold of top-p: see [`Decided::Low`](super::records::Decided::Low).
    pub(super) low: Variable,
    pub(super) high: Variable,
    /// The remainder of the draw.
    pub(super) remainder: WideVariable,
}

impl Found {
    /// Returns the initial values. They are those of a row without top-k and top-p.
    pub(super) fn new(k: &Ptx, parameters: &Parameters<'_>) -> Found {
        let variable = |value| k.variable(k.int(value));
        Found {
            state: variable(DONE),
            threshold: variable(NEG_INF_KEY),
            last_tie: variable(i32::MAX),
            least: k.variable(parameters.get(Column::MinWeight)),
            low: variable(1),
            high: variable(1),
            remainder: k.wide_variable(k.wide(0)),
        }
    }
}

/// The arrays in which earlier kernels stored what they found about the rows.
pub(super) struct Inputs<'k> {
    sampled: Records<'k>,
    slices: Records<'k>,
    /// The number of entries at the bound in each chunk.
    ties: Records<'k>,
    lists: Wide,
    state: State<'k>,
}

/// What earlier kernels stored about a row, in registers.
pub(super) struct Stored<'k> {
    k: &'k Ptx,
    /// The word [`Sampled::Flags`].
    flags: Int,
    /// The order key of the bound.
    pub(super) bound: Int,
    /// The records of the slices, for [`maximum::combine`].
    pub(super) of_slices: Vec<Vec<Int>>,
    /// The number of slices whose weights the scan has summed. `None` if the plan has no groups.
    pub(super) summed: Option<Int>,
    /// The number of entries at the bound in the chunk of this thread.
    pub(super) ties_of_chunk: Int,
    /// The keys and the indices of the entries above the bound. Their number can exceed the capacity.
    pub(super) list: List<'k>,
    /// The numbers of entries in the bins of the scan.
    pub(super) counts_of_rest: [Int; rest::BINS_PER_THREAD],
}

impl<'k> Inputs<'k> {
    /// Declares the arrays as the next arguments of the kernel.
    pub(super) fn arguments(k: &'k Ptx, row: Int) -> Inputs<'k> {
        let (sampled, slices) = (Records::argument(k, SAMPLED), Records::argument(k, SCANNED));
        let ties = Records::argument(k, 1);
        let lists = k.argument();
        Inputs { sampled, slices, ties, lists, state: State::argument(k, row) }
    }

    /// Loads the values of the row of the block. Only the loads of the list and of the bins depend on loaded values. So
    /// they are the last loads.
    pub(super) fn load(&self, block: &RowBlock<'k>, spec: &Spec, plan: &Plan) -> Stored<'k> {
        let (k, row) = (block.k, block.row);
        let word = |word: Sampled| self.sampled.load(row, word as usize);
        let (flags, bound, count) = (word(Sampled::Flags), word(Sampled::Bound), k.load(self.state.len(), 0));
        let of_slices = maximum::load(k, &self.slices, row, plan.records());
        let summed = plan.group.as_ref().map(|_| k.load(self.state.summed(), 0));
        let ties_of_chunk = block.load_of_chunk(&self.ties)[0];
        let list = List::load(block.block, self.lists, capacity(spec), row, count);
        let counts_of_rest = Rest::counts(block, &self.state, has_flag(k, flags, HAS_BINS));
        Stored { k, flags, bound, of_slices, summed, ties_of_chunk, list, counts_of_rest }
    }
}

impl Stored<'_> {
    /// Whether a flag of [`Sampled::Flags`] applies to the row.
    pub(super) fn has(&self, flag: i32) -> Mask {
        has_flag(self.k, self.flags, flag)
    }
}

/// The arrays in shared memory for the searches in the list of a row and for the draw.
pub(super) struct SharedArrays<'a, 'k> {
    pub(super) bins: &'a Bins<'a, 'k>,
    pub(super) counted: Counted<'k>,
    /// The search for the last entry of the list that top-k keeps.
    pub(super) tie_search: Ties<'a, 'k>,
    /// The kept entries of the drawn chunk.
    pub(super) drawn: Drawn<'k>,
    /// The array of random words.
    pub(super) words: Shared,
}

impl<'a, 'k> SharedArrays<'a, 'k> {
    /// Clears the arrays and the sums of the chunks, and shares the random words. After the next barrier, the threads
    /// can add entries. `step` is the argument of [`Parameters::share_random_words`].
    pub(super) fn cleared(
        bins: &'a Bins<'a, 'k>,
        spec: &Spec,
        parameters: &Parameters<'_>,
        step: Option<Wide>,
    ) -> SharedArrays<'a, 'k> {
        let block = bins.block;
        let (counted, tie_search) = (Counted::new(bins), Ties::new(bins, spec.vocab));
        let drawn = Drawn::new(block.block);
        drawn.entries.clear();
        block.clear_parts();
        SharedArrays { bins, counted, tie_search, drawn, words: parameters.share_random_words(step) }
    }
}
