//! The search for the last of the equal entries that top-k keeps.

use super::few::{Few, LARGEST_FEW};
use super::histogram;
use super::list::{Entry, List};
use super::row_block::THREADS;
use super::search::{self, Bins};
use crate::ptx::{Int, Shared};
use crate::semantics::arith::{Arith, WideArith};

/// The number of the word of the array of high parts in which the bins of [`Ties`] begin.
const FIRST: usize = search::BINS - THREADS;

/// The bins of a search among the entries of a list whose keys are equal to a threshold. The index of an entry
/// determines its bin. Each thread has one bin.
pub(super) struct Ties<'a, 'k> {
    bins: &'a Bins<'a, 'k>,
    /// The binary logarithm of the number of indices in a bin.
    shift: u32,
    /// The number of the bin that contains the wanted entry, and the number of entries before this bin.
    found: Shared,
    /// The entries of this bin.
    few: Few<'k>,
}

impl<'a, 'k> Ties<'a, 'k> {
    /// Prepares the search in rows of `vocab` logits. [`Ties::find`] may be called after the next barrier. Until then,
    /// the last high parts of `bins` must not be used.
    pub(super) fn new(bins: &'a Bins<'a, 'k>, vocab: usize) -> Ties<'a, 'k> {
        let (block, k) = (bins.block, bins.block.k);
        let shift = vocab.div_ceil(THREADS).next_power_of_two().trailing_zeros();
        let ties = Ties { bins, shift, found: k.shared(2), few: Few::new(block.block) };
        ties.few.clear();
        k.store_shared(ties.counts(), block.block.thread, k.int(0));
        ties
    }

    /// The number of entries in each bin. A histogram does not use this part of the array.
    fn counts(&self) -> Shared {
        const { assert!(FIRST + THREADS <= search::BINS && FIRST >= histogram::WORDS) };
        self.bins.block.k.shifted(self.bins.parts[1], -(FIRST as i32))
    }

    /// Considers only the entries of the list whose key is `threshold`, in the order of their indices. Returns the
    /// index of entry number `wanted`; the first one has number 1. `wanted` is at most the number of these entries.
    /// `largest` is the largest index of a row.
    pub(super) fn find(&self, list: &List<'k>, threshold: Int, wanted: Int, largest: Int) -> Int {
        let (k, block) = (self.bins.block.k, self.bins.block.block);
        let is_tie = |entry: Entry| k.eq(entry.words[0], threshold);
        list.for_few(is_tie, |entry| {
            k.add_shared(self.counts(), k.shr(entry.words[1], self.shift), k.int(1));
        });
        k.barrier();
        let count = k.load_shared(self.counts(), block.thread);
        let before = block.sum_before(count);
        let upto = k.add(before, count);
        k.when(k.both(k.lt(before, wanted), k.le(wanted, upto)), || {
            k.store_shared_words(self.found, k.int(0), [block.thread, before]);
        });
        k.barrier();
        let [bin, before] = k.load_shared_words_at(self.found, 0);
        // This condition has no operation in common with the loop above. Otherwise, the results of the common operation
        // would occupy registers.
        let start = k.shl(bin, self.shift);
        let is_in_bin = |entry: Entry| {
            k.both(is_tie(entry), k.unsigned_lt(k.sub(entry.words[1], start), k.int(1 << self.shift)))
        };
        list.for_few(is_in_bin, |entry| self.few.entries.add([entry.words[1], k.int(1)]));
        let count = self.few.entries.count();
        let index = k.variable(k.int(0));
        k.when_else(
            k.le(count, k.int(LARGEST_FEW as i32)),
            || {
                let [position, _, _] = self.few.locate(count, k.widen(k.sub(wanted, before)));
                k.set(index, k.low(position));
            },
            || {
                // An entry that is not a tie gets a position after all indices.
                let from =
                    |first, entry: Entry| k.select(is_tie(entry), k.sub(entry.words[1], first), k.int(-1));
                k.set(index, self.bins.by_count(&list.in_memory(), from, (largest, 0), wanted).0);
            },
        );
        k.get(index)
    }
}
