//! Arrays with a few words per row or slice. A kernel passes values to later kernels in them.

use crate::ptx::{Int, Mask, Ptx, Wide};
use crate::semantics::arith::WideArith;

/// An array of records of `len` words.
#[derive(Clone, Copy)]
pub(super) struct Records<'k> {
    pub(super) k: &'k Ptx,
    pub(super) array: Wide,
    pub(super) len: usize,
}

impl<'k> Records<'k> {
    /// Declares the array as the next argument of the kernel.
    pub(super) fn argument(k: &'k Ptx, len: usize) -> Records<'k> {
        Records { k, array: k.argument(), len }
    }

    /// Loads a word of a record.
    pub(super) fn load(&self, record: Int, word: usize) -> Int {
        assert!(word < self.len);
        self.k.load(self.k.address(self.array, record, self.len * 4), word * 4)
    }

    /// Loads two words as the halves of a 64-bit integer, the low half first.
    pub(super) fn load_wide(&self, record: Int, word: usize) -> Wide {
        self.k.join(self.load(record, word), self.load(record, word + 1))
    }

    /// Stores a record in the threads for which `mask` is true.
    pub(super) fn store_if(&self, mask: Mask, record: Int, words: &[Int]) {
        assert_eq!(words.len(), self.len);
        let k = self.k;
        k.when(mask, || k.store(k.address(self.array, record, self.len * 4), 0, words));
    }

    /// Stores a record of one 64-bit integer.
    pub(super) fn store_wide(&self, record: Int, value: Wide) {
        let k = self.k;
        k.store(k.address(self.array, record, self.len * 4), 0, &[k.low(value), k.high(value)]);
    }
}

/// The words of a row after the scan.
#[derive(Clone, Copy)]
pub(super) enum Scanned {
    /// The order key of the maximum.
    MaxKey,
    /// The lowest index of the maximum.
    Greedy,
    /// The status bits, except the bit of a row without a candidate.
    Status,
}

/// The length of a record of [`Scanned`] words. The last word is not used. A slice has the same record.
pub(super) const SCANNED: usize = 4;

/// The words of a row during the search for the threshold of top-k.
#[derive(Clone, Copy)]
pub(super) enum Search {
    /// The leading bits of the threshold.
    Digits,
    /// The number of entries to keep among those whose keys have these leading bits.
    Missing,
}

/// The length of a record of [`Search`] words.
pub(super) const SEARCH: usize = 2;

/// The words of a row after top-k.
#[derive(Clone, Copy)]
pub(super) enum Selected {
    Threshold,
    LastTie,
}

/// The length of a record of [`Selected`] words.
pub(super) const SELECTED: usize = 2;

/// The words of a row after the first pass of top-p.
#[derive(Clone, Copy)]
pub(super) enum Narrowed {
    /// The least distance in the bin that contains the least weight to keep; −1 if the bin contains only one weight.
    First,
    /// The least weight to keep, if the bin contains only one weight.
    Least,
    /// The number of distances in the bin.
    Distances,
    /// Not used.
    _Unused,
    /// The sum of the weights of the bin that top-p must reach, in 64 bits; 0 if min-p decides.
    Target,
}

/// The length of a record of [`Narrowed`] words: two stores of four words.
pub(super) const NARROWED: usize = 8;

/// The length of a record of one 64-bit integer.
pub(super) const WIDE: usize = 2;
