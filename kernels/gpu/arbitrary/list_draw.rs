//! The draw of the token in a row with a list. All kept entries of the row are in the list or at the bound.

use super::counted::Counted;
use super::decide_row::Row;
use super::draw::{self, Outcome};
use super::drawn::LARGEST_DRAWN;
use super::list::Entry;
use super::row_block::THREADS;
use super::sample::LARGEST_LIST;
use crate::ptx::{Int, Mask, Ptx, Shared, Variable, Wide, WideVariable, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::weights::MAX_WEIGHT;

/// The number of bits of a sum of weights of a list.
const LIST_SUM_BITS: u32 = 48;
const _: () = assert!(LARGEST_LIST * MAX_WEIGHT as usize <= 1 << LIST_SUM_BITS);

/// The entries at the bound that top-k keeps.
#[derive(Clone, Copy)]
pub(super) struct TiesAtBound {
    /// The weight of each of these entries; 0 if top-p or min-p removes them.
    pub(super) weight: Int,
    /// The number of these entries in the row.
    pub(super) count: Int,
    /// The number of these entries in the chunk of this thread.
    pub(super) in_chunk: Int,
}

/// The entries of the list that top-k, top-p and min-p keep.
pub(super) struct KeptInList<'k> {
    k: &'k Ptx,
    /// 1 if `count` and `sum` are known.
    is_known: Variable,
    /// The number of kept entries. It can include entries of weight 0.
    pub(super) count: Variable,
    /// The sum of their weights.
    pub(super) sum: WideVariable,
}

impl<'k> KeptInList<'k> {
    /// Returns the entries that top-k keeps.
    pub(super) fn of_top_k(k: &'k Ptx, counted: &Counted<'k>) -> KeptInList<'k> {
        KeptInList {
            k,
            is_known: k.variable(k.int(0)),
            count: k.variable(counted.count()),
            sum: k.wide_variable(counted.total()),
        }
    }

    pub(super) fn set_known(&self, mask: Mask) {
        self.k.set(self.is_known, self.k.select(mask, self.k.int(1), self.k.int(0)));
    }
}

/// The draw of a row.
pub(super) struct ListDraw<'r, 'a, 'k> {
    row: &'r Row<'a, 'k>,
    /// Returns the weight of an entry of the list; 0 if top-k does not keep it.
    weight: &'r dyn Fn(Entry) -> Int,
    outcome: Outcome,
    kept: &'r KeptInList<'k>,
    ties: TiesAtBound,
}

impl<'r, 'a, 'k> ListDraw<'r, 'a, 'k> {
    /// `weight` returns the weight of an entry of the list; 0 if top-k does not keep it.
    pub(super) fn new(
        row: &'r Row<'a, 'k>,
        weight: &'r dyn Fn(Entry) -> Int,
        kept: &'r KeptInList<'k>,
        ties: TiesAtBound,
    ) -> ListDraw<'r, 'a, 'k> {
        ListDraw { row, weight, outcome: row.outcome(), kept, ties }
    }

    /// Draws and stores the token, and stores the remainder of the draw in a variable.
    pub(super) fn draw(&self) {
        let (k, row, ties) = (self.row.k, self.row, self.ties);
        k.when(k.eq(k.get(self.kept.is_known), k.int(0)), || self.sum_kept());
        let total = k.wadd(k.get_wide(self.kept.sum), k.wmul(k.widen(ties.weight), k.widen(ties.count)));
        // The last warp has the fewest entries. It computes the remainder while the other warps go on.
        let is_last_warp = k.le(k.int((THREADS - WARP) as i32), row.block.block.thread);
        let remainder = draw::store_remainder(row.block, row.arrays.words, total, is_last_warp);
        // The entries at the bound are not in the list.
        let are_in_list = k.either(k.eq(ties.weight, k.int(0)), k.eq(ties.count, k.int(0)));
        let are_few = k.le(k.get(self.kept.count), k.int(LARGEST_DRAWN as i32));
        k.when_else(
            k.both(are_in_list, are_few),
            || self.find_in_list(remainder),
            || self.find_by_chunk(remainder, are_in_list),
        );
        k.set_wide(row.found.remainder, k.load_shared_wide(remainder, k.int(0)));
    }

    /// Whether top-p and min-p keep an entry of this weight.
    fn is_kept(&self, weight: Int) -> Mask {
        let k = self.row.k;
        k.both(k.lt(k.int(0), weight), k.le(self.outcome.least, weight))
    }

    /// Counts the kept entries of the list, and sums their weights.
    fn sum_kept(&self) {
        let (k, kept) = (self.row.k, self.kept);
        // The high bits of the sum are the number of entries.
        let value = |entry: Entry| {
            let weight = (self.weight)(entry);
            let one = k.wide(1 << LIST_SUM_BITS);
            k.wselect(self.is_kept(weight), k.wadd(k.widen(weight), one), k.wide(0))
        };
        let sum = self.row.stored.list.in_memory().sum(value);
        k.set_wide(kept.sum, k.wand(sum, k.wide((1 << LIST_SUM_BITS) - 1)));
        k.set(kept.count, k.low(k.wshr(sum, k.wide(u64::from(LIST_SUM_BITS)))));
    }

    /// Adds an entry to those that the block compares with each other.
    fn add(&self, entry: Entry) {
        self.row.arrays.drawn.entries.add([entry.words[1], (self.weight)(entry)]);
    }

    /// Finds the token among the `count` entries that were added: the first index at which the running sum of the
    /// weights reaches `target`.
    fn find_among_added(&self, count: Int, target: Wide) {
        self.row.arrays.drawn.find(count, target, |index| self.row.results.token(index));
    }

    /// Finds the token by comparing all kept entries with each other. The list contains all of them, and they are few.
    fn find_in_list(&self, remainder: Shared) {
        let (k, row) = (self.row.k, self.row);
        row.stored.list.for_few(|entry| self.is_kept((self.weight)(entry)), |entry| self.add(entry));
        let count = row.arrays.drawn.entries.count();
        let target = k.wadd(k.load_shared_wide(remainder, k.int(0)), k.wide(1));
        self.find_among_added(count, target);
    }

    /// Draws a chunk from the sums of the kept weights of the chunks, and then finds the token in this chunk.
    /// `are_in_list` says whether the list contains all kept entries.
    fn find_by_chunk(&self, remainder: Shared, are_in_list: Mask) {
        let (k, block) = (self.row.k, self.row.block);
        let prepare = |entry: Entry| (block.chunk_of(entry.words[1]), (self.weight)(entry));
        self.row.stored.list.for_each(prepare, |(chunk, weight)| {
            k.when(self.is_kept(weight), || block.add_to_chunk(chunk, weight));
        });
        let of_ties = k.wmul(k.widen(self.ties.weight), k.widen(self.ties.in_chunk));
        let sum = k.wadd(block.sum_of_parts(), of_ties);
        let remainder = |_: &_| k.load_shared_wide(remainder, k.int(0));
        draw::draw(block, sum, remainder, |chunk, target| self.find_in_chunk(chunk, target, are_in_list));
    }

    /// If the list contains all kept entries (`are_in_list`) and few of them are in the chunk, finds the token among
    /// them. Otherwise, reads the logits of the chunk. `chunk` and `target` are those of [`draw::read_chunk`].
    fn find_in_chunk(&self, chunk: Int, target: Wide, are_in_list: Mask) {
        let (k, row) = (self.row.k, self.row);
        let count = k.variable(k.int(i32::MAX));
        k.when(are_in_list, || {
            // Few entries are in the chunk. Only for these entries, the block computes the weight.
            let is_in_chunk = |entry: Entry| row.block.is_in_chunk(chunk, entry.words[1]);
            row.stored.list.for_few(is_in_chunk, |entry| {
                k.when(self.is_kept((self.weight)(entry)), || self.add(entry));
            });
            k.set(count, row.arrays.drawn.entries.count());
        });
        let count = k.get(count);
        k.when_else(
            k.le(count, k.int(LARGEST_DRAWN as i32)),
            || self.find_among_added(count, target),
            || draw::read_chunk(row.block, row.parameters, row.results, &self.outcome, (chunk, target)),
        );
    }
}
