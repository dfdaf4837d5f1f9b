//! Arrays with a few words per row, slice or chunk. A kernel passes values in them to later kernels. The last kernel
//! also passes values between its blocks.

use crate::ptx::{Address, Int, Mask, Ptx, Wide};
use crate::semantics::arith::Arith;

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
        self.k.load(self.address(record), word * 4)
    }

    /// Like [`Records::load`], in the threads for which `mask` is true. In the other threads, the word is 0.
    pub(super) fn load_if(&self, mask: Mask, record: Int, word: usize) -> Int {
        assert!(word < self.len);
        self.k.load_words_if(mask, self.address(record), word * 4, 1, self.k.int(0))[0]
    }

    /// The address of a word of a record.
    pub(super) fn word(&self, record: Int, word: usize) -> Address {
        assert!(word < self.len);
        let k = self.k;
        k.address(self.array, k.element(record, self.len, k.int(word as i32)), 4)
    }

    /// The address of a record.
    pub(super) fn address(&self, record: Int) -> Address {
        self.k.address(self.array, record, self.len * 4)
    }

    /// Stores a record, one, two or four words at a time, in the threads for which `mask` is true.
    pub(super) fn store_if(&self, mask: Mask, record: Int, words: &[Int]) {
        assert_eq!(words.len(), self.len);
        let k = self.k;
        k.when(mask, || {
            let address = self.address(record);
            for (number, words) in words.chunks(4).enumerate() {
                k.store(address, number * 16, words);
            }
        });
    }
}

/// The words of a row that the first kernel stores.
#[derive(Clone, Copy)]
pub(super) enum Sampled {
    /// The bits of a float that exactly the entries above the bound reach; NaN if the row has no list.
    Above,
    /// The bits of a float that exactly the entries at or above the bound reach; NaN if the row has no list. An entry
    /// that is a NaN is an exception: it counts as −inf, but it never reaches the float.
    AtLeast,
    /// The order key of the bound.
    Bound,
    /// The sum of the flags that apply to the row. The flags are [`HAS_LIST`], [`HAS_BINS`], [`ALL_REACH`] and
    /// [`IS_PLAIN`].
    Flags,
}

/// The length of a record of [`Sampled`] words.
pub(super) const SAMPLED: usize = 4;
/// The scan collects the entries of the row above the bound.
pub(super) const HAS_LIST: i32 = 1;
/// The scan counts the entries of the row below the bound in bins.
pub(super) const HAS_BINS: i32 = 2;
/// The bound is −inf.
pub(super) const ALL_REACH: i32 = 4;
/// The row is a plain draw: it is not greedy, and has no top-k, top-p and min-p.
pub(super) const IS_PLAIN: i32 = 8;

/// Whether a flag applies to a row. `flags` is the word [`Sampled::Flags`].
pub(super) fn has_flag(k: &Ptx, flags: Int, flag: i32) -> Mask {
    k.lt(k.int(0), k.and(flags, k.int(flag)))
}

/// The words of a slice that the scan stores.
#[derive(Clone, Copy)]
pub(super) enum Scanned {
    /// The order key of the maximum.
    MaxKey,
    /// The lowest index of the maximum.
    Greedy,
    /// The status bits, except the bit of a row without a candidate.
    Status,
}

/// The length of a record of [`Scanned`] words. The last word is not used.
pub(super) const SCANNED: usize = 4;
/// The value of each word of a record of a slice until the scan stores the record. No order key has this value.
pub(super) const NO_RECORD: i32 = i32::MIN;

/// The words of a row that the kernel after the scan stores.
#[derive(Clone, Copy)]
pub(super) enum Decided {
    MaxKey,
    Greedy,
    Status,
    /// One of [`DONE`], [`WEIGH`], [`FAILED`] and [`SUMMED`].
    State,
    /// The weights that are at least `Low` and less than `High` are collected.
    Low,
    High,
}

/// The length of a record of [`Decided`] words. The last two words are not used.
pub(super) const DECIDED: usize = 8;
/// The results of the row have been stored.
pub(super) const DONE: i32 = 0;
/// The row needs the sum of all weights. No other comparison of the last kernel uses this number, so a test can find
/// the comparisons with this state.
pub(super) const WEIGH: i32 = 7;
/// The list of the row is too short or too long, or the row has top-k but no list.
pub(super) const FAILED: i32 = 2;
/// The row is a plain draw, and the scan has summed the weights of its chunks.
pub(super) const SUMMED: i32 = 3;

/// The counters of the last kernel for each row.
#[derive(Clone, Copy)]
pub(super) enum Counter {
    /// The length of the list of collected weights.
    Len,
    /// The number of blocks that have weighed their part of the row.
    Ended,
}

/// The number of counters of a row.
pub(super) const COUNTERS: usize = 2;

/// The number of words of a chunk of a plain draw. These words are the sum of all weights of the chunk.
pub(super) const SUM: usize = 2;

/// The words of a chunk that the second pass stores. Each sum has two words.
#[derive(Clone, Copy)]
pub(super) enum Weighed {
    /// The sum of all weights.
    Total = 0,
    /// The sum of the weights that are at least [`Decided::High`].
    Above = 2,
    /// The sum of the collected weights.
    Collected = 4,
    /// The least and the largest collected weight.
    Least = 6,
    Largest = 7,
}

/// The length of a record of [`Weighed`] words.
pub(super) const WEIGHED: usize = 8;
