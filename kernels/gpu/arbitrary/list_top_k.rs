//! The selection of top-k in a row with a list. If the list has fewer entries than top-k keeps, top-k also keeps
//! entries at the bound. These entries are not in the list.

use super::counted::TopK;
use super::decide_row::{Found, Row};
use super::list::Entry;
use super::positions::Positions;
use crate::ptx::{Int, Mask, Ptx, Variable};
use crate::semantics::arith::{Arith, WideArith};

/// The selection of top-k in a row.
pub(super) struct ListTopK<'r, 'a, 'k> {
    row: &'r Row<'a, 'k>,
    positions: &'r Positions<'k>,
    /// Returns the weight that an entry of the list has without top-k, and the bin of the entry.
    weight_and_bin: &'r dyn Fn(Entry) -> [Int; 2],
    /// The number of entries at the bound in the row.
    ties_at_bound: Int,
}

/// The entries at the bound that top-k keeps, in variables.
pub(super) struct KeptTies {
    count: Variable,
    /// The number of the chunk of the last of these entries. Top-k keeps all entries at the bound in earlier chunks,
    /// and none in later chunks.
    last_chunk: Variable,
    /// The number of these entries in chunk `last_chunk`.
    in_last_chunk: Variable,
}

impl KeptTies {
    /// Returns all entries at the bound. `count` is their number.
    pub(super) fn all(k: &Ptx, count: Int) -> KeptTies {
        let count = k.variable(count);
        let (last_chunk, in_last_chunk) = (k.variable(k.int(i32::MAX)), k.variable(k.int(0)));
        KeptTies { count, last_chunk, in_last_chunk }
    }

    /// The number of kept entries at the bound in the row.
    pub(super) fn count(&self, k: &Ptx) -> Int {
        k.get(self.count)
    }

    /// The number of kept entries at the bound in the chunk of this thread.
    pub(super) fn in_chunk(&self, row: &Row<'_, '_>) -> Int {
        let (k, chunk) = (row.k, row.block.block.thread);
        let ties = k.select(k.lt(chunk, k.get(self.last_chunk)), row.stored.ties_of_chunk, k.int(0));
        k.select(k.eq(chunk, k.get(self.last_chunk)), k.get(self.in_last_chunk), ties)
    }
}

impl<'r, 'a, 'k> ListTopK<'r, 'a, 'k> {
    /// `weight_and_bin` returns the weight that an entry of the list has without top-k, and the bin of the entry.
    /// `ties_at_bound` is the number of entries at the bound in the row.
    pub(super) fn new(
        row: &'r Row<'a, 'k>,
        positions: &'r Positions<'k>,
        weight_and_bin: &'r dyn Fn(Entry) -> [Int; 2],
        ties_at_bound: Int,
    ) -> ListTopK<'r, 'a, 'k> {
        ListTopK { row, positions, weight_and_bin, ties_at_bound }
    }

    /// Finds the threshold, the last tie, and the kept entries at the bound. `is_last_in_list` says whether the last
    /// entry that top-k keeps is in the list.
    pub(super) fn select(&self, is_last_in_list: Mask, kept: &KeptTies) {
        let k = self.row.k;
        k.when_else(
            is_last_in_list,
            || {
                self.select_in_list();
                k.set(kept.count, k.int(0));
                k.set(kept.last_chunk, k.int(-1));
            },
            || k.when(self.row.with_top_k, || self.select_at_bound(kept)),
        );
    }

    /// Finds the threshold and the last tie, which are in the list.
    fn select_in_list(&self) {
        let (k, row) = (self.row.k, self.row);
        let Found { threshold, last_tie, .. } = row.found;
        let (list, counted) = (&row.stored.list, &row.arrays.counted);
        // If top-k keeps only some of the entries that are equal to the threshold, and the last kept entry is not
        // known, this variable is the number of these entries that top-k keeps. Otherwise, it is 0.
        let tie = k.variable(k.int(0));
        k.when(counted.is_valid(), || {
            let found = TopK { threshold, last_tie, missing: tie };
            counted.find_top_k(list, self.weight_and_bin, row.top_k(), row.spec.stable, found);
        });
        k.when(k.not(counted.is_valid()), || self.search_in_steps(tie));
        if row.spec.stable {
            let wanted = k.get(tie);
            k.when(k.lt(k.int(0), wanted), || {
                let (threshold, largest) = (k.get(threshold), k.int(row.spec.vocab as i32 - 1));
                k.set(last_tie, row.arrays.tie_search.find(&list.in_memory(), threshold, wanted, largest));
            });
        }
    }

    /// Finds the threshold in the list by steps. If top-k keeps only some of the entries that are equal to the
    /// threshold, sets `tie` to the number of these entries that top-k keeps.
    fn search_in_steps(&self, tie: Variable) {
        let (k, row) = (self.row.k, self.row);
        let bound = row.stored.bound;
        let from = |first, entry: Entry| self.positions.from(first, entry.words[0]);
        let range = (self.positions.of(bound), self.positions.unused());
        let list = row.stored.list.in_memory();
        let (position, missing, has_more) = row.arrays.bins.by_count(&list, from, range, row.top_k());
        // The entries at the bound are not in the list. So the least key in the list is at least the bound plus 1.
        let threshold = k.max(self.positions.key_at(position), k.add(bound, k.int(1)));
        k.set(row.found.threshold, threshold);
        k.when(has_more, || k.set(tie, missing));
    }

    /// Finds the threshold and the last tie if the list has fewer entries than top-k keeps.
    fn select_at_bound(&self, kept: &KeptTies) {
        let (k, row) = (self.row.k, self.row);
        k.set(row.found.threshold, row.stored.bound);
        if row.spec.stable {
            let missing = k.sub(row.top_k(), row.stored.list.count());
            k.when(k.lt(missing, self.ties_at_bound), || self.select_tie(missing, kept));
        }
    }

    /// Finds tie number `missing` among the entries at the bound.
    fn select_tie(&self, missing: Int, kept: &KeptTies) {
        let (k, row) = (self.row.k, self.row);
        let of_chunk = k.widen(row.stored.ties_of_chunk);
        let (chunk, before) = row.block.locate_chunk(of_chunk, k.widen(missing));
        let rest = k.sub(missing, k.low(before));
        let tie = |key, _| k.select(k.eq(key, row.stored.bound), k.int(1), k.int(0));
        k.set(row.found.last_tie, row.block.index_in_chunk(chunk, k.widen(rest), tie));
        k.set(kept.count, missing);
        k.set(kept.last_chunk, chunk);
        k.set(kept.in_last_chunk, rest);
    }
}
